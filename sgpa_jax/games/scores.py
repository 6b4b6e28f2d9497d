"""Scores: from what a model made of the coalitions to numbers, without the model.

Each is a pure function of outputs and a `Reference` and so fits `Game(..., score=...)` and `Game.rescore`; bind what
else it takes with `functools.partial`. More is nearer to what all players bring about together. Log-probabilities and
their contrasts are those of teacher forcing: output `[c, r]` is log p(y_r | y_<r, x_c) for a given response y.
Responses are compared as in SGPA's paper and code.
Axes: `C` coalitions, `R` response tokens, `D` width, `V` vocabulary.
"""

import functools
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sgpa_jax.errors import UsageError, unknown_name
from sgpa_jax.games.game import Reference

DIVERGENCES = ("kl", "js")
_EPSILON = 1e-8
_WORD = re.compile(r"\b\w\w+\b")

Outputs = Float[np.ndarray, "C R"]


def log_prob(token_cr: Outputs, reference: Reference) -> Float[np.ndarray, "C K"]:
    """Σ_r log p(y_r | y_<r, x_c), the log-probability of the whole response, followed by its terms: K = 1 + R."""
    return np.concatenate([token_cr.sum(axis=1, keepdims=True), token_cr], axis=1)


def mean_log_prob(token_cr: Outputs, reference: Reference) -> Float[np.ndarray, "C K"]:
    """(1/R) Σ_r log p(y_r | y_<r, x_c), the mean over the response, followed by each token's own: K = 1 + R."""
    return np.concatenate([token_cr.mean(axis=1, keepdims=True), token_cr], axis=1)


def token_log_probs(token_cr: Outputs, reference: Reference) -> Outputs:
    """Log p(y_r | y_<r, x_c) of every token of the response: K = R."""
    return token_cr


def log_odds(token_cr: Outputs, reference: Reference, *, n_first: int) -> Float[np.ndarray, " C"]:
    """log p(y | x_c) - log p(z | x_c), how much rather the answer is y than z: contrasting two responses.

    The first `n_first` columns are the tokens of y, the others those of z.

    Raises:
        UsageError: one of the two has no tokens.
    """
    if not 0 < n_first < token_cr.shape[1]:
        raise UsageError(
            f"log-odds of the first {n_first} of {token_cr.shape[1]} tokens to the rest: expected at least one of each"
        )
    return token_cr[:, :n_first].sum(axis=1) - token_cr[:, n_first:].sum(axis=1)


def divergence(
    outputs_crd: Float[np.ndarray, "C R D"],
    reference: Reference,
    *,
    kind: str = "kl",
    table_vd: Float[Array, "V D"] | None = None,
    rows: int = 8,
) -> Float[np.ndarray, " C"]:
    """Minus the divergence of next-token distributions p_c from the full coalition's p_N, averaged over positions.

    `kl` is the Kullback-Leibler divergence KL(p_N || p_c) = Σ_v p_N(v) log(p_N(v) / p_c(v)); `js` is Jensen and
    Shannon's, ½ KL(p_N || m) + ½ KL(p_c || m) with m = ½ (p_N + p_c), at most log 2. Both in nats.

    Args:
        outputs_crd: logits, D = V; or with a `table_vd` the normed hidden states that it is the head of.
        reference: the full coalition's, [R, D].
        kind: `kl` or `js`.
        table_vd: the head; outputs kept as hidden states take V / D times less memory.
        rows: coalitions whose distributions are held at once.

    Raises:
        UsageError: an unknown kind.
    """
    if kind not in DIVERGENCES:
        raise unknown_name("divergence", kind, DIVERGENCES)
    return np.asarray(
        _divergence(jnp.asarray(outputs_crd), jnp.asarray(reference.full), table_vd, kind=kind, rows=rows)
    )


def tfidf_cosine(
    outputs: Sequence[Any],
    reference: Reference,
    *,
    terms: Callable[[Any], Iterable[Hashable]] | None = None,
    per_phase: bool = False,
) -> Float[np.ndarray, " C"]:
    """Cosine of a response's TF-IDF vector and the full coalition's (the paper's value function).

    A term's weight in a response is its count there times log((1 + n) / (1 + df)) + 1, where df of the corpus's n
    responses hold it: scikit-learn's defaults. A response without terms is as far as can be, 0.

    Args:
        outputs: responses.
        reference: the full coalition's, and the corpus; a term that it lacks has df = 0.
        terms: the terms of a response; None: the words of a text, in lower case, of at least two letters.
        per_phase: takes the full coalition's response and these very outputs, in which it may stand again, as the
            corpus, as the authors' code does in each of its phases: then what a coalition is worth depends on which
            others are asked for beside it.
    """
    terms = words if terms is None else terms
    corpus = [reference.full, *outputs] if per_phase else reference.corpus
    weights = inverse_document_frequencies([terms(output) for output in corpus])
    rarest = np.log(1 + len(corpus)) + 1

    def vector(output: Any) -> dict[Hashable, float]:
        weighted = {term: n * weights.get(term, rarest) for term, n in Counter(terms(output)).items()}
        norm = sum(weight**2 for weight in weighted.values()) ** 0.5
        return {term: weight / norm for term, weight in weighted.items()}

    full = vector(reference.full)
    return np.array(
        [sum(weight * full.get(term, 0.0) for term, weight in vector(output).items()) for output in outputs],
        np.float32,
    )


def inverse_document_frequencies(documents: Sequence[Iterable[Hashable]]) -> Mapping[Hashable, float]:
    """Return log((1 + n) / (1 + df)) + 1 for every term that df of the n documents hold."""
    counts = Counter(term for document in documents for term in set(document))
    return {term: float(np.log((1 + len(documents)) / (1 + df)) + 1) for term, df in counts.items()}


def words(text: str) -> list[str]:
    """Words of at least two letters or digits, in lower case: the terms that scikit-learn takes by default."""
    return _WORD.findall(text.lower())


def embedding_cosine(
    outputs: Sequence[Any], reference: Reference, *, embed: Callable[[Sequence[Any]], Float[np.ndarray, "C D"]]
) -> Float[np.ndarray, " C"]:
    """Cosine of a response's embedding and the full coalition's, `embed` of each; 0 where one of them is zero."""
    full_1d, each_cd = (_unit(np.asarray(embed(some), np.float32)) for some in ([reference.full], outputs))
    return each_cd @ full_1d[0]


def _unit(rows_cd: Float[np.ndarray, "C D"]) -> Float[np.ndarray, "C D"]:
    return rows_cd / np.maximum(np.linalg.norm(rows_cd, axis=1, keepdims=True), _EPSILON)


@functools.partial(jax.jit, static_argnames=("kind", "rows"))
def _divergence(
    outputs_crd: Float[Array, "C R D"],
    full_rd: Float[Array, "R D"],
    table_vd: Float[Array, "V D"] | None,
    *,
    kind: str,
    rows: int,
) -> Float[Array, " C"]:
    def log_probs(output_rd: Float[Array, "R D"]) -> Float[Array, "R V"]:
        logits = output_rd
        if table_vd is not None:
            table = table_vd.astype(output_rd.dtype)
            logits = jnp.einsum("rd,vd->rv", output_rd, table, preferred_element_type=jnp.float32)
        return jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)

    full_rv = log_probs(full_rd)

    def one(output_rd: Float[Array, "R D"]) -> Float[Array, ""]:
        own_rv = log_probs(output_rd)
        if kind == "kl":
            return -_kl(full_rv, own_rv).mean()
        middle_rv = jnp.logaddexp(full_rv, own_rv) - jnp.log(2.0)
        return -0.5 * (_kl(full_rv, middle_rv) + _kl(own_rv, middle_rv)).mean()

    return jax.lax.map(one, outputs_crd, batch_size=rows)


def _kl(log_p_rv: Float[Array, "R V"], log_q_rv: Float[Array, "R V"]) -> Float[Array, " R"]:
    p_rv = jnp.exp(log_p_rv)
    # A token of no probability adds nothing, whatever its logarithm.
    return jnp.where(p_rv > 0, p_rv * (log_p_rv - log_q_rv), 0.0).sum(axis=-1)
