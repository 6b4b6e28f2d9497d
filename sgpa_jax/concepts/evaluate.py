"""How well concepts stand for the classes of a labelled corpus: three protocols, since AR&D's own is not published.

A, by name: a concept speaks for the class that its name says and for those above it, a class is scored by the mean of
its concepts; classes without one stay in the averages, with scores of zero. B, by label: a class is scored by the one
latent that ranks it best on the development half, so that names do not matter. C, by caption: the classes that half of
a concept's captions mention, against those that half of its most representative evaluation clips have. Thresholds,
latents, scales and what is above a class come from the development half alone.
Axes: `N` clips, `M` latents, `C` concepts, `J` classes, `P` clips of a concept, `R` draws.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from sgpa_jax.concepts.bank import finite
from sgpa_jax.concepts.clips import ClipScores
from sgpa_jax.concepts.embedders import AudioEmbedder
from sgpa_jax.concepts.fsd50k import implied_classes, truth
from sgpa_jax.concepts.measures import Predictions, best_threshold, drawn_measures, interval, measured
from sgpa_jax.concepts.retrieve import top_clips
from sgpa_jax.concepts.words import matching_label, mentions
from sgpa_jax.errors import UsageError
from sgpa_jax.typing import PRNGKeyArray

NAME_SIMILARITY = 0.6
"""A name that is no class's goes to the class with the nearest text embedding, if the cosine is at least this."""

_SCALE_AT = 0.999
_FEATURES_AT_ONCE = 8


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a protocol found.

    Attributes:
        protocol: which one.
        classes: of the corpus.
        figures: the measures by name (`measures.py`), of the evaluation half.
        intervals: of each, 95 %, where clips were drawn.
        predictions: what they rest on; None for protocol C, which has no scores.
        facts: further numbers, such as `mapped_frac`.
    """

    protocol: str
    classes: tuple[str, ...] = field(repr=False)
    figures: dict[str, float]
    predictions: Predictions | None = field(repr=False)
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """All but the predictions, for JSON: figures that are not finite are None."""
        names = ("protocol", "figures", "intervals", "facts")
        return finite({name: getattr(self, name) for name in names} | {"n_classes": len(self.classes)})


def protocol_a(
    names: Sequence[str | None],
    dev: ClipScores,
    evaluated: ClipScores,
    classes: Sequence[str],
    *,
    embedder: AudioEmbedder | None = None,
    similarity: float = NAME_SIMILARITY,
    scorer: str = "representativeness",
) -> Evaluation:
    """Evaluate concepts by their names.

    What is above a class is what all of its clips have on the development half (`implied_classes`). The mean of a
    class's concepts, each on its own scale, is steadier than the most of them: one that fires for something else
    besides would spoil that alone.

    Args:
        names: of the concepts, one for each column of the scores; None takes no part.
        dev, evaluated: scores of the two halves, with the clips' labels.
        classes: labels of the corpus.
        embedder: of texts, for names that are no label; None: such names are dropped.
        similarity: the least cosine of a name and the label that it is taken for.
        scorer: one of `SCORERS`.

    Raises:
        UsageError: names and columns are not equally many.
    """
    if not len(names) == len(dev.latents) == len(evaluated.latents):
        raise UsageError(f"{len(names)} names for {len(dev.latents)} concepts: give one for each")
    class_c = match_names(names, classes, embedder=embedder, similarity=similarity)
    dev_nc, eval_nc = dev.by(scorer), evaluated.by(scorer)
    scale_c = np.quantile(dev_nc.astype(np.float64), _SCALE_AT, axis=0)
    scale_c = np.where(scale_c > 0, scale_c, 1)
    speaks_cj = implied_classes(truth(dev.labels, classes))[class_c] & (class_c >= 0)[:, None]
    n_speak_j = speaks_cj.sum(axis=0)
    weight_cj = speaks_cj / scale_c[:, None] / np.maximum(n_speak_j, 1)
    scores, covered_j = [dev_nc @ weight_cj, eval_nc @ weight_cj], n_speak_j > 0
    found = evaluate_scores(scores[0], dev.labels, scores[1], evaluated.labels, classes, "A", covered_j=covered_j)
    named = [name is not None for name in names]
    found.facts.update(
        n_concepts=len(names), named_frac=float(np.mean(named)), mapped_frac=float(np.mean(class_c >= 0)),
        n_covered=int(covered_j.sum()), scorer=scorer,
    )  # fmt: skip
    return found


def protocol_b(
    dev: ClipScores, evaluated: ClipScores, classes: Sequence[str], *, scorer: str = "representativeness"
) -> Evaluation:
    """Evaluate, for every class, the latent with the best average precision on the development half."""
    dev_nm, eval_nm = dev.by(scorer), evaluated.by(scorer)
    ap_mj = average_precisions(dev_nm, truth(dev.labels, classes))
    chosen_j = ap_mj.argmax(axis=0)
    found = evaluate_scores(dev_nm[:, chosen_j], dev.labels, eval_nm[:, chosen_j], evaluated.labels, classes, "B")
    latents = [dev.latents[m] for m in chosen_j]
    found.facts.update(n_latents=len(dev.latents), latents=latents, n_chosen=len(set(latents)), scorer=scorer)
    return found


def protocol_c(
    captions: Sequence[Sequence[str]],
    evaluated: ClipScores,
    classes: Sequence[str],
    *,
    p: int = 4,
    scorer: str = "representativeness",
    key: PRNGKeyArray | None = None,
) -> Evaluation:
    """Evaluate what concepts' captions (or their names: one text each) mention against what their clips have.

    Precision, recall and F1 are over concepts: of the classes mentioned by half of a concept's texts at least, against
    those that half at least of its p most representative evaluation clips have. A concept that fires in fewer than p
    of these is left out.

    Args:
        captions: of the concepts, some for each column of the scores.
        evaluated: scores of clips that the captions are not from.
        classes: labels of the corpus.
        p: clips of a concept.
        scorer: one of `SCORERS`.
        key: decides ties; None leaves them to the clips' order.

    Raises:
        UsageError: captions and columns are not equally many, or no concept fires in p clips.
    """
    if len(captions) != len(evaluated.latents):
        raise UsageError(f"captions of {len(captions)} concepts for {len(evaluated.latents)}: give some for each")
    fires_c = evaluated.n_firing_m >= p
    if not fires_c.any():
        raise UsageError(f"no concept fires in {p} of {len(evaluated.ids)} clips; evaluate on more")
    true_nj, top_cp = truth(evaluated.labels, classes), top_clips(evaluated.by(scorer), p, key=key)
    half_cj = 2 * true_nj[top_cp].sum(axis=1) >= p
    said_cj = np.array([2 * mentions(texts, classes).sum(axis=0) >= max(len(texts), 1) for texts in captions])
    half_cj, said_cj = half_cj[fires_c], said_cj[fires_c]
    both_c, said_c, is_c = ((part).sum(axis=1) for part in (half_cj & said_cj, said_cj, half_cj))
    precision, recall = (float(np.mean(both_c / np.maximum(part_c, 1))) for part_c in (said_c, is_c))
    f1 = 2 * precision * recall / max(precision + recall, np.finfo(float).tiny)
    figures = {"precision": precision, "recall": recall, "f1": f1}
    figures["f1_macro"] = float(np.mean(2 * both_c / np.maximum(said_c + is_c, 1)))
    facts = {"n_concepts": int(fires_c.sum()), "p": p, "scorer": scorer}
    return Evaluation("C", tuple(classes), figures, None, facts=facts)


def evaluate_scores(
    dev_nj: Float[np.ndarray, "N J"],
    dev_labels: Sequence[Sequence[str]],
    eval_nj: Float[np.ndarray, "N J"],
    eval_labels: Sequence[Sequence[str]],
    classes: Sequence[str],
    protocol: str,
    *,
    covered_j: Bool[np.ndarray, " J"] | None = None,
) -> Evaluation:
    """Evaluate any scores of classes (a probe's, a zero-shot embedder's): thresholds for F1 from the development half.

    Raises:
        UsageError: scores and labels are not of equally many clips.
    """
    for score_nj, labels in ((dev_nj, dev_labels), (eval_nj, eval_labels)):
        if score_nj.shape != (len(labels), len(classes)):
            raise UsageError(
                f"scores of shape {score_nj.shape} for {len(labels)} clips and {len(classes)} classes: give one each"
            )
    covered_j = np.ones(len(classes), bool) if covered_j is None else covered_j
    dev_true_nj = truth(dev_labels, classes)
    pairs = zip(dev_nj.T, dev_true_nj.T, covered_j, strict=True)
    threshold_j = np.array(
        [best_threshold(score_n, true_n) if covered else np.inf for score_n, true_n, covered in pairs]
    )
    predictions = Predictions(eval_nj, eval_nj >= threshold_j, truth(eval_labels, classes), covered_j)
    return Evaluation(protocol, tuple(classes), measured(predictions), predictions)


def with_intervals(evaluations: Sequence[Evaluation], *, n_resamples: int = 1000, key: PRNGKeyArray) -> Evaluation:
    """One evaluation, of one or more autoencoders' on the same clips: means of the figures, and 95 % intervals.

    Clips are drawn with replacement, the same for all; of several autoencoders (other seeds), these are drawn as well.

    Raises:
        UsageError: there are none, they are of different protocols or clips, or have no scores to draw again.
    """
    predictions = [evaluation.predictions for evaluation in evaluations]
    kinds = {(evaluation.protocol, evaluation.classes) for evaluation in evaluations}
    drawable = [part for part in predictions if part is not None]
    if len(kinds) != 1 or len(drawable) != len(evaluations):
        raise UsageError("intervals are of evaluations with scores, of one protocol and corpus; give such")
    if any(not np.array_equal(part.true_nj, drawable[0].true_nj) for part in drawable):
        raise UsageError("the evaluations are of different clips; evaluate all on the same")
    clip_key, seed_key = jax.random.split(key)
    drawn = [drawn_measures(part, n_resamples=n_resamples, key=clip_key) for part in drawable]
    n = len(drawn)
    seed_rs = np.asarray(jax.random.randint(seed_key, (n_resamples, n), 0, n))
    intervals = {}
    for name in drawn[0]:
        values_sr = np.stack([part[name] for part in drawn])
        intervals[name] = interval(np.take_along_axis(values_sr.T, seed_rs, axis=1).mean(axis=1))
    figures = {name: float(np.mean([e.figures[name] for e in evaluations])) for name in evaluations[0].figures}
    facts = evaluations[0].facts if n == 1 else {"n_seeds": n, "of_each": [e.facts for e in evaluations]}
    facts = facts | {"n_resamples": n_resamples}
    first = evaluations[0]
    return Evaluation(first.protocol, first.classes, figures, first.predictions, intervals, facts)


def match_names(
    names: Sequence[str | None],
    classes: Sequence[str],
    *,
    embedder: AudioEmbedder | None = None,
    similarity: float = NAME_SIMILARITY,
) -> Int[np.ndarray, " C"]:
    """The class that each name says, or -1: in the label's words, else by the nearest text embedding."""
    found_c = np.full(len(names), -1)
    open_names = []
    for c, name in enumerate(names):
        matched = None if name is None else matching_label(name, classes)
        if matched is not None:
            found_c[c] = matched
        elif name is not None:
            open_names.append((c, name))
    if embedder is not None and open_names:
        spoken = [" ".join(label.replace("_", " ").split()) for label in classes]
        cosine_cj = embedder.embed_text([name for _, name in open_names]) @ embedder.embed_text(spoken).T
        for (c, _), cosine_j in zip(open_names, cosine_cj, strict=True):
            if cosine_j.max() >= similarity:
                found_c[c] = cosine_j.argmax()
    return found_c


def average_precisions(
    score_nm: Float[np.ndarray, "N M"], true_nj: Bool[np.ndarray, "N J"]
) -> Float[np.ndarray, "M J"]:
    """Average precision of every latent for every class, float32; zero for a class without a positive clip."""
    return np.asarray(_average_precisions(jnp.asarray(score_nm, jnp.float32).T, jnp.asarray(true_nj, jnp.float32)))


@jax.jit
def _average_precisions(score_mn: Float[Array, "M N"], true_nj: Float[Array, "N J"]) -> Float[Array, "M J"]:
    n_clips = len(true_nj)
    n_true_j = jnp.maximum(true_nj.sum(axis=0), 1.0)

    def one(score_n: Array) -> Array:
        order_n = jnp.argsort(-score_n)
        score_n, hit_nj = score_n[order_n], true_nj[order_n]
        # A clip counts with all of its score: at the last place of its run of equals.
        place_n = jnp.arange(n_clips)
        is_last_n = jnp.append(score_n[1:] != score_n[:-1], True)
        last_n = jax.lax.cummin(jnp.where(is_last_n, place_n, n_clips), reverse=True)
        precision_nj = jnp.cumsum(hit_nj, axis=0)[last_n] / (last_n + 1).astype(jnp.float32)[:, None]
        return (hit_nj * precision_nj).sum(axis=0) / n_true_j

    return jax.lax.map(one, score_mn, batch_size=min(_FEATURES_AT_ONCE, len(score_mn)))
