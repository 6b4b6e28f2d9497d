"""Multi-label measures of scores and of decisions, as FSD50K is evaluated, on clips that may be drawn several times.

Averages are over classes (macro) that have a positive clip, with every class counting alike. Precision and recall are 0
for a class of which nothing is predicted; `f1` is the harmonic mean of the two averages, which is what AR&D's tables
hold, `f1_macro` the mean of the classes' own. Average precision is not interpolated, and clips of one score count
together, so that no order of the clips enters (scikit-learn's `average_precision_score`). `lwlrap` is label-weighted
label-ranking average precision; `d_prime` is √2 times the normal quantile of the mean area under the curve.
Axes: `N` clips, `J` classes, `R` draws of the clips.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import stats

from sgpa_jax.typing import PRNGKeyArray

_TINY = np.finfo(np.float64).tiny
_AT_ONCE = 50


@dataclass(frozen=True)
class Predictions:
    """Scores and decisions of clips for classes, beside the truth.

    Attributes:
        score_nj: higher is surer.
        predicted_nj: the decisions.
        true_nj: what holds.
        covered_j: classes for which there is anything that scores.
    """

    score_nj: Float[np.ndarray, "N J"]
    predicted_nj: Bool[np.ndarray, "N J"]
    true_nj: Bool[np.ndarray, "N J"]
    covered_j: Bool[np.ndarray, " J"]


def measured(predictions: Predictions) -> dict[str, float]:
    """All measures by name; not a number where no class has a positive clip."""
    weight_rn = np.ones((1, len(predictions.true_nj)))
    return {name: float(value_r[0]) for name, value_r in weighted_measures(predictions, weight_rn).items()}


def drawn_measures(
    predictions: Predictions, *, n_resamples: int = 1000, key: PRNGKeyArray
) -> dict[str, Float[np.ndarray, " R"]]:
    """The measures on as many clips, drawn with replacement, `n_resamples` times; the same clips for the same key."""
    draw = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    n_clips, parts = len(predictions.true_nj), []
    for first in range(0, n_resamples, _AT_ONCE):
        n = min(_AT_ONCE, n_resamples - first)
        weight_rn = np.stack([np.bincount(draw.integers(n_clips, size=n_clips), minlength=n_clips) for _ in range(n)])
        parts.append(weighted_measures(predictions, weight_rn.astype(np.float64)))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def weighted_measures(
    predictions: Predictions, weight_rn: Float[np.ndarray, "R N"]
) -> dict[str, Float[np.ndarray, " R"]]:
    """The measures with every clip counted as often as its weight says."""
    true_nj, predicted_nj = predictions.true_nj, predictions.predicted_nj
    both_rj, said_rj, is_rj = (
        weight_rn @ part.astype(np.float64) for part in (true_nj & predicted_nj, predicted_nj, true_nj)
    )
    there_rj = is_rj > 0
    precision_rj, recall_rj = both_rj / np.maximum(said_rj, _TINY), both_rj / np.maximum(is_rj, _TINY)
    found = [_class_measures(score_n, true_n, weight_rn) for score_n, true_n in _columns(predictions)]
    ap_rj, auc_rj = (np.stack(part, axis=1) for part in zip(*found, strict=True))
    precision_r, recall_r = _mean(precision_rj, there_rj), _mean(recall_rj, there_rj)
    both_r, said_r, is_r = both_rj.sum(axis=1), said_rj.sum(axis=1), is_rj.sum(axis=1)
    auc_r = _mean(auc_rj, there_rj & ~np.isnan(auc_rj))
    gain_n, count_n = _label_ranking(predictions)
    return {
        "precision": precision_r,
        "recall": recall_r,
        "f1": _harmonic(precision_r, recall_r),
        "f1_macro": _mean(2 * both_rj / np.maximum(said_rj + is_rj, _TINY), there_rj),
        "mAP": _mean(ap_rj, there_rj),
        "mAP_covered": _mean(ap_rj, there_rj & predictions.covered_j),
        "precision_micro": both_r / np.maximum(said_r, _TINY),
        "recall_micro": both_r / np.maximum(is_r, _TINY),
        "f1_micro": 2 * both_r / np.maximum(said_r + is_r, _TINY),
        "lwlrap": weight_rn @ gain_n / np.maximum(weight_rn @ count_n, _TINY),
        "d_prime": np.sqrt(2) * stats.norm.ppf(auc_r),
    }


def average_precision(score_n: Float[np.ndarray, " N"], true_n: Bool[np.ndarray, " N"]) -> float:
    """Of one class; not a number without a positive clip."""
    return float(_class_measures(np.asarray(score_n), np.asarray(true_n, bool), np.ones((1, len(true_n))))[0][0])


def best_threshold(score_n: Float[np.ndarray, " N"], true_n: Bool[np.ndarray, " N"]) -> float:
    """The score from which on to say yes so that F1 is largest; the highest of several, infinite without positives."""
    if not true_n.any():
        return float("inf")
    order, ends = _groups(score_n)
    hits = np.cumsum(true_n[order])[ends]
    f1 = 2 * hits / (ends + 1 + true_n.sum())
    return float(score_n[order][ends[np.argmax(f1)]])


def interval(drawn_r: Float[np.ndarray, " R"], level: float = 0.95) -> tuple[float, float]:
    """The middle share of what was drawn (percentiles)."""
    # Without interpolation: d′ may be infinite.
    low, high = np.quantile(drawn_r, [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf")
    return float(low), float(high)


def _columns(predictions: Predictions) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    return zip(predictions.score_nj.T, predictions.true_nj.T, strict=True)


def _groups(score_n: Float[np.ndarray, " N"]) -> tuple[Int[np.ndarray, " N"], Int[np.ndarray, " G"]]:
    """Clips from the highest score down, and the last place of each run of equal scores."""
    order = np.argsort(-score_n, kind="stable")
    return order, np.append(np.flatnonzero(np.diff(score_n[order])), len(order) - 1)


def _class_measures(
    score_n: Float[np.ndarray, " N"], true_n: Bool[np.ndarray, " N"], weight_rn: Float[np.ndarray, "R N"]
) -> tuple[Float[np.ndarray, " R"], Float[np.ndarray, " R"]]:
    """Average precision, and area under the ROC curve, both not a number where it lacks what it compares."""
    order, ends = _groups(score_n)
    weight_rn = weight_rn[:, order]
    hits_rg = np.cumsum(weight_rn * true_n[order], axis=1)[:, ends]
    said_rg = np.cumsum(weight_rn, axis=1)[:, ends]
    new_hits_rg = np.diff(hits_rg, axis=1, prepend=0)
    misses_rg = said_rg - hits_rg
    new_misses_rg = np.diff(misses_rg, axis=1, prepend=0)
    true_r, false_r = hits_rg[:, -1], misses_rg[:, -1]
    sum_r = (new_hits_rg * hits_rg / np.maximum(said_rg, _TINY)).sum(axis=1)
    before_r = (new_hits_rg * (false_r[:, None] - misses_rg + new_misses_rg / 2)).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return sum_r / true_r, before_r / (true_r * false_r)


def _label_ranking(predictions: Predictions) -> tuple[Float[np.ndarray, " N"], Float[np.ndarray, " N"]]:
    """Of every clip, the precision at each of its labels in its own ranking of classes, summed, and how many it has."""
    score_nj, true_nj = predictions.score_nj, predictions.true_nj
    rank_nj = stats.rankdata(-score_nj, method="max", axis=1)
    gain_n = np.zeros(len(true_nj))
    for n in np.flatnonzero(true_nj.any(axis=1)):
        rank_h = rank_nj[n, true_nj[n]]
        gain_n[n] = (stats.rankdata(rank_h, method="max") / rank_h).sum()
    return gain_n, true_nj.sum(axis=1).astype(np.float64)


def _mean(value_rj: Float[np.ndarray, "R J"], counted_rj: Bool[np.ndarray, "R J"]) -> Float[np.ndarray, " R"]:
    n_r = counted_rj.sum(axis=1)
    sum_r = np.where(counted_rj, value_rj, 0).sum(axis=1)
    return np.where(n_r > 0, sum_r / np.maximum(n_r, 1), np.nan)


def _harmonic(a_r: Float[np.ndarray, " R"], b_r: Float[np.ndarray, " R"]) -> Float[np.ndarray, " R"]:
    return 2 * a_r * b_r / np.maximum(a_r + b_r, _TINY)
