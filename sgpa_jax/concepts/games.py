"""Two games of concepts: which player fires which latent, and which latent carries how much of the answer.

A `speech_game` with a `latent_readout` is worth what the latents of a sparse autoencoder do under a coalition of words,
thousands at once, read by the coalition engines in the pass that they make anyway; `concept_values` solves it exactly,
batch after batch, and never holds all coalitions times all latents. In `ablation_game` the latents are the players: an
absent one is set to zero in the residual stream, which keeps the autoencoder's error, and a coalition is worth the
log-probability of the answer. Axes: `C` coalitions, `P` players, `K` latents asked for, `M` all latents, `T` tokens,
`D` width.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import comb
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from sgpa_jax.errors import UsageError, unknown_name
from sgpa_jax.games import VALUES, Evaluations, Game, Readout
from sgpa_jax.models import NO_CLIP, AudioLM, Model, ModelInputs, causal_order
from sgpa_jax.players import all_coalitions
from sgpa_jax.sae import SAEState, encode, encode_sparse

Positions = Literal["audio", "response"]
"""Where latents are read or ablated: where audio stands, or at the positions that predict the response."""

POSITIONS = get_args(Positions)

NUMBERS_AT_ONCE = 2**24
"""Values of coalitions times latents that are alive at once."""

_MOST_PLAYERS = 20
_LEAST_AT_ONCE = 64
_ROWS_AT_ONCE = 32
_COLUMNS = 1024
"""Latents whose values are in float64 at once."""


@dataclass(frozen=True, eq=False)
class ConceptValues:
    """Exact Shapley values of latents, float64.

    Attributes:
        values_pk: what each player adds to each latent.
        empty_value_k, full_value_k: what the latents are with nobody there, and with everybody.
        evaluations: coalitions that were asked for and computed.
    """

    values_pk: Float[np.ndarray, "P K"]
    empty_value_k: Float[np.ndarray, " K"]
    full_value_k: Float[np.ndarray, " K"]
    evaluations: Evaluations

    @property
    def efficiency_gap_k(self) -> Float[np.ndarray, " K"]:
        """The values' sum less (full − empty)."""
        return self.values_pk.sum(axis=0) - (self.full_value_k - self.empty_value_k)


def latent_readout(
    sae: SAEState,
    after_layer: int,
    *,
    latents: Sequence[int] | np.ndarray | None = None,
    positions: Positions = "audio",
    reduce: Literal["mean", "sum", "max"] = "sum",
) -> Readout:
    """Return what reads latents behind a layer in a coalition engine.

    Args:
        sae: takes the residual stream's own numbers (`TrainedSAE.folded`).
        after_layer: counted from 0.
        latents: which ones; None: all.
        positions: `audio` or `response`. With the audio before the question, latents at audio positions never saw it.
        reduce: over positions, `sum`, `mean` or `max`.

    Raises:
        UsageError: latents that are not there.
    """
    n_latents = sae.config.n_latents
    chosen_k = np.arange(n_latents) if latents is None else np.asarray(latents)
    if (
        chosen_k.size == 0
        or not np.issubdtype(chosen_k.dtype, np.integer)
        or not ((chosen_k >= 0) & (chosen_k < n_latents)).all()
    ):
        raise UsageError(f"the latents asked for are none, or not all from 0 to {n_latents - 1}; give others")
    asked_k = None if latents is None else jnp.asarray(chosen_k, jnp.int32)
    return _LatentReadout(after_layer, positions, _encode_some, (sae, asked_k), reduce)


def concept_values(game: Game) -> ConceptValues:
    """Return exact Shapley values of a game of very many outputs, from all 2^P coalitions.

    A Shapley value is a weighted sum of the values of coalitions, so that a batch of these is added and forgotten: what
    the game evaluated before is dropped too.

    Raises:
        UsageError: more players than 2^P coalitions can be evaluated of.
    """
    n_players, before = game.n_players, game.evaluations
    if n_players > _MOST_PLAYERS:
        raise UsageError(
            f"{n_players} players have 2^{n_players} coalitions: expected at most {_MOST_PLAYERS} players; estimate "
            "the game instead"
        )
    masks_cp, weight_pc = all_coalitions(n_players), shapley_weights(n_players)
    # Neighbours agree on the first players, which is what the trie engine's batches share.
    order_c = np.lexsort(masks_cp.T[::-1])
    at_once = max(_LEAST_AT_ONCE, NUMBERS_AT_ONCE // game.n_outputs)
    values_pk, ends = np.zeros((n_players, game.n_outputs)), []
    for first in range(0, len(order_c), at_once):
        batch_c = order_c[first : first + at_once]
        values_ck = game.values(masks_cp[batch_c])
        game.forget()
        for k in range(0, game.n_outputs, _COLUMNS):
            values_pk[:, k : k + _COLUMNS] += weight_pc[:, batch_c] @ values_ck[:, k : k + _COLUMNS].astype(np.float64)
        ends += [values_ck[i].astype(np.float64) for i, c in enumerate(batch_c) if c in (0, len(order_c) - 1)]
    return ConceptValues(values_pk, *ends, evaluations=game.evaluations - before)


def shapley_weights(n_players: int) -> Float[np.ndarray, "P C"]:
    """Return by what the value of every coalition, in the order of `all_coalitions`, enters each player's value."""
    masks_cp = all_coalitions(n_players)
    size_c = masks_cp.sum(axis=1)
    # What joins a coalition of s others weighs 1 / (P · C(P − 1, s)).
    joins_s = np.array([1 / (n_players * comb(n_players - 1, s)) for s in range(n_players)])
    with_c, without_c = joins_s[np.maximum(size_c - 1, 0)], joins_s[np.minimum(size_c, n_players - 1)]
    return np.where(masks_cp.T, with_c[None], -without_c[None])


def ablation_game(
    model: Model,
    inputs: ModelInputs,
    sae: SAEState,
    after_layer: int,
    latents: Sequence[int] | np.ndarray,
    *,
    positions: Positions = "audio",
    value: str = "logprob",
    progress: Callable[[int, int], None] | None = None,
) -> Game:
    """Build the game whose players are latents and whose values are the answer's log-probability, and its tokens'.

    With all of them there it is what the model says of its answer untouched; an absent latent is taken out of the
    residual stream, x + decode(z') − decode(z) with z' = 0 there.

    Args:
        model: the audio language model.
        inputs: prompt, one clip and response.
        sae: takes the residual stream's own numbers (`TrainedSAE.folded`).
        after_layer: counted from 0.
        latents: the players.
        positions: where they are ablated: `audio`, or `response`, the positions that predict it.
        value: `logprob` or `mean_logprob`.
        progress: called with (coalitions evaluated, coalitions to evaluate) after every batch.

    Raises:
        UsageError: an unknown name, no response, no latents, one twice or one that is not there, or a layer that is
            not there or whose audio positions nobody looks at any more.
    """
    latents_p = np.asarray(latents)
    n_latents, n_layers = sae.config.n_latents, model.config.decoder.n_layers
    if value not in VALUES:
        raise unknown_name("value", value, VALUES)
    if positions not in POSITIONS:
        raise unknown_name("positions", positions, POSITIONS)
    if (
        latents_p.size == 0
        or len(set(latents_p.tolist())) < len(latents_p)
        or not ((latents_p >= 0) & (latents_p < n_latents)).all()
    ):
        raise UsageError(f"the latents to ablate are none, not all different, or not all from 0 to {n_latents - 1}")
    if not 0 <= after_layer < n_layers - (positions == "audio"):
        raise UsageError(
            f"after_layer is {after_layer} of {n_layers}: expected one with layers behind it, which look at what is "
            "ablated at audio positions"
        )
    n_tokens, start = len(inputs.ids_t), inputs.response_start
    if n_tokens == start:
        raise UsageError("the conversation has no response, whose log-probability is to be carried; give one")
    there_t = inputs.clip_t != NO_CLIP if positions == "audio" else np.arange(n_tokens) >= start - 1
    x_td = model.residuals(inputs, [after_layer])[0]
    rows_pd = sae.w_dec_md[jnp.asarray(latents_p, jnp.int32)]
    z_tp = _ablated_latents(sae, x_td, jnp.asarray(latents_p, jnp.int32), jnp.asarray(there_t))
    ids_r = jnp.asarray(inputs.ids_t[start:], jnp.int32)

    def evaluate(masks_cp: Bool[np.ndarray, "C P"]) -> Float[np.ndarray, "C R"]:
        token_cr = np.asarray(
            _answer_log_probs(
                model.graphdef, model.state, x_td, z_tp, rows_pd, jnp.asarray(masks_cp), ids_r, after_layer
            )
        )
        total_c = token_cr.sum(axis=1) if value == "logprob" else token_cr.mean(axis=1)
        return np.concatenate([total_c[:, None], token_cr], axis=1)

    names = ("response", *model.response(inputs.ids_t[start:].tolist()).pieces)
    return Game(evaluate, len(latents_p), jit=False, microbatch=_ROWS_AT_ONCE, outputs=names, progress=progress)


def strongest_latents(
    model: Model, inputs: ModelInputs, sae: SAEState, after_layer: int, n: int, *, positions: Positions = "audio"
) -> Int[np.ndarray, " N"]:
    """Return the latents that hold most of the residual stream: by Σ z · ‖decoder row‖ over positions, those that fire.

    Raises:
        UsageError: there is no such layer.
    """
    start, n_tokens = inputs.response_start, len(inputs.ids_t)
    there_t = inputs.clip_t != NO_CLIP if positions == "audio" else np.arange(n_tokens) >= start - 1
    x_td = model.residuals(inputs, [after_layer])[0]
    share_m = np.asarray(_shares(sae, x_td, jnp.asarray(there_t)))
    order = np.argsort(-share_m, kind="stable")[:n]
    return order[share_m[order] > 0]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _LatentReadout(Readout):
    """A readout whose `params` are the autoencoder and which of its latents (None: all).

    Where a TopK autoencoder is added up over one set of positions on a CPU, the k latents that fire at each are added
    where they belong, and nothing but the pre-activations is ever T × M. Elsewhere this was not measured, and all
    latents are multiplied.
    """

    def __call__(self, hidden_btd: Float[Array, "B T D"], there_blt: Bool[Array, "B L T"]) -> Float[Array, "B L K"]:
        """Read all positions once, and reduce them for each of L sets of them."""
        dense = super().__call__
        if self.params[0].config.kind != "topk" or self.reduce == "max" or there_blt.shape[1] > 1:
            return dense(hidden_btd, there_blt)
        return jax.lax.platform_dependent(hidden_btd, there_blt, cpu=self._scattered, default=dense)

    def _scattered(self, hidden_btd: Float[Array, "B T D"], there_b1t: Bool[Array, "B 1 T"]) -> Float[Array, "B 1 K"]:
        (sae, latents_k), n_rows = self.params, len(hidden_btd)
        z_nk, index_nk = encode_sparse(sae, hidden_btd.reshape(-1, hidden_btd.shape[2]))
        z_nk = jnp.where(there_b1t.reshape(-1, 1), z_nk, 0.0)
        row_n1 = jnp.repeat(jnp.arange(n_rows), hidden_btd.shape[1])[:, None]
        sums_bm = jnp.zeros((n_rows, sae.config.n_latents)).at[row_n1, index_nk].add(z_nk)
        if self.reduce == "mean":
            sums_bm /= jnp.maximum(there_b1t.sum(axis=2), 1).astype(jnp.float32)
        return (sums_bm if latents_k is None else sums_bm[:, latents_k])[:, None]


def _encode_some(params: tuple[SAEState, Array | None], hidden: Array) -> Array:
    """Chosen latents; where a threshold of its own decides about each, the others are not computed."""
    sae, latents_k = params
    if latents_k is None:
        return encode(sae, hidden)
    if sae.config.kind == "topk":
        return encode(sae, hidden)[..., latents_k]
    rows = {name: getattr(sae, name)[latents_k] for name in ("w_enc_md", "b_enc_m", "threshold_m")}
    return encode(replace(sae, **rows), hidden)


@jax.jit
def _ablated_latents(
    sae: SAEState, x_td: Array, latents_p: Int[Array, " P"], there_t: Bool[Array, " T"]
) -> Float[Array, "T P"]:
    return jnp.where(there_t[:, None], encode(sae, x_td)[:, latents_p], 0.0)


@jax.jit
def _shares(sae: SAEState, x_td: Array, there_t: Bool[Array, " T"]) -> Float[Array, " M"]:
    z_m = jnp.where(there_t[:, None], encode(sae, x_td), 0.0).sum(axis=0)
    return z_m * jnp.linalg.norm(sae.w_dec_md, axis=1)


@functools.partial(jax.jit, static_argnums=(0, 7))
def _answer_log_probs(
    graphdef: nnx.GraphDef,
    state: nnx.State,
    x_td: Float[Array, "T D"],
    z_tp: Float[Array, "T P"],
    rows_pd: Float[Array, "P D"],
    masks_cp: Bool[Array, "C P"],
    ids_r: Int[Array, " R"],
    after_layer: int,
) -> Float[Array, "C R"]:
    """Log-probabilities of the response, the last R tokens of a row; the layers up to the edited one ran once."""
    model: AudioLM = nnx.merge(graphdef, state)
    absent_cp = (~masks_cp).astype(jnp.float32)
    gone_ctd = jnp.einsum("cp,tp,pd->ctd", absent_cp, z_tp, rows_pd)
    x_ctd = (x_td.astype(jnp.float32)[None] - gone_ctd).astype(x_td.dtype)
    order = causal_order(jnp.ones(x_ctd.shape[:2], bool))
    for layer in list(model.decoder.layers)[after_layer + 1 :]:
        x_ctd, _ = layer(x_ctd, order)
    n_targets = len(ids_r)
    logits_crv = model.decoder.logits(model.decoder.norm(x_ctd[:, -n_targets - 1 : -1]))
    log_probs_crv = jax.nn.log_softmax(logits_crv.astype(jnp.float32))
    targets_cr1 = jnp.broadcast_to(ids_r[None, :, None], (*log_probs_crv.shape[:2], 1))
    return jnp.take_along_axis(log_probs_crv, targets_cr1, axis=2)[:, :, 0]
