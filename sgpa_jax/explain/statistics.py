"""Paired comparisons of the same items under two conditions: how large a difference, how sure, and of how many.

Items without a partner take no part, and `n` is always told: tables of the SGPA paper (arXiv 2603.02250) set means of
100 recordings beside means of 10. Tests are SciPy's. Their sizes are those customary for pairs: d_z (Cohen 1988,
§2.3.5) and the rank-biserial correlation of matched pairs (Kerby 2014, "The simple difference formula").
Axes: `I` items, `H` hypotheses.
"""

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import Float
from scipy import stats

from sgpa_jax.errors import UsageError
from sgpa_jax.typing import PRNGKeyArray

LEVEL = 0.95
RESAMPLES = 9999


@dataclass(frozen=True)
class PairedComparison:
    """What is known of first − second over matched items.

    Attributes:
        n: pairs.
        first_mean, second_mean, mean_difference: of the pairs.
        low, high: bootstrap interval of the mean difference, at 95 % (BCa, `bootstrap_interval`).
        t, t_p: Student's paired t with n − 1 degrees of freedom, two-sided; ±inf and 0 where all differ by the same.
        d_z: mean difference over the standard deviation of the differences (n − 1); ±inf in the same case.
        signed_rank, signed_rank_p: Wilcoxon's sum of the ranks of positive differences, two-sided; pairs without a
            difference are left out, and p is exact for few pairs.
        rank_biserial: (ranks of positive − ranks of negative differences) / all ranks, in [−1, 1].
    """

    n: int
    first_mean: float
    second_mean: float
    mean_difference: float
    low: float
    high: float
    t: float
    t_p: float
    d_z: float
    signed_rank: float
    signed_rank_p: float
    rank_biserial: float


def matched(
    first: Mapping[Any, float], second: Mapping[Any, float]
) -> tuple[tuple[Any, ...], Float[np.ndarray, "I"], Float[np.ndarray, "I"]]:
    """Return the names that both have, in the first's order, and the values of each under them, float64[I].

    Raises:
        UsageError: they have fewer than two names in common.
    """
    names = tuple(name for name in first if name in second)
    if len(names) < 2:
        raise UsageError(
            f"{len(first)} and {len(second)} items have {len(names)} in common: expected at least two pairs"
        )
    first_i, second_i = (np.array([values[name] for name in names], np.float64) for values in (first, second))
    return names, first_i, second_i


def paired_comparison(
    first_i: Float[np.ndarray, "I"],
    second_i: Float[np.ndarray, "I"],
    *,
    n_resamples: int = RESAMPLES,
    key: PRNGKeyArray,
) -> PairedComparison:
    """Compare two conditions on the same items, which stand in the same order in both.

    Items that never differ give t, d_z, rank sum and correlation of 0, and p of 1.

    Args:
        first_i, second_i: an item's value under each condition.
        n_resamples: for the bootstrap interval.
        key: a typed key (`jax.random.key`) for the same.

    Raises:
        UsageError: the items of both are not equally many, fewer than two, or not finite.
    """
    first_i, second_i = _checked(first_i, second_i)
    difference_i = first_i - second_i
    n, mean, spread = len(difference_i), difference_i.mean(), difference_i.std(ddof=1)
    # Equal differences have a standard deviation of rounding errors.
    if spread <= 1e-12 * np.abs(difference_i).max():
        spread = 0.0
    d_z = mean / spread if spread else math.copysign(math.inf, mean) if mean else 0.0
    t = d_z * np.sqrt(n)
    differing_i = difference_i[difference_i != 0]
    ranks_i = stats.rankdata(np.abs(differing_i))
    above, below = ranks_i[differing_i > 0].sum(), ranks_i[differing_i < 0].sum()
    wilcoxon: Any = stats.wilcoxon(differing_i) if differing_i.size else None
    low, high = bootstrap_interval(np.mean, difference_i, n_resamples=n_resamples, key=key)
    return PairedComparison(
        n=n,
        first_mean=float(first_i.mean()),
        second_mean=float(second_i.mean()),
        mean_difference=float(mean),
        low=low,
        high=high,
        t=float(t),
        t_p=float(2 * stats.t.sf(abs(t), n - 1)),
        d_z=float(d_z),
        signed_rank=float(above),
        signed_rank_p=float(wilcoxon.pvalue) if wilcoxon is not None else 1.0,
        rank_biserial=float((above - below) / ranks_i.sum()) if wilcoxon is not None else 0.0,
    )


def bootstrap_interval(
    statistic: Callable[..., Any],
    *samples_i: Float[np.ndarray, "I"],
    level: float = LEVEL,
    n_resamples: int = RESAMPLES,
    key: PRNGKeyArray,
) -> tuple[float, float]:
    """Return the bias-corrected and accelerated bootstrap interval of a statistic (Efron 1987).

    Args:
        statistic: of one array for each sample and an `axis` that items lie along, e.g. `ratio_of_means`.
        samples_i: an item has the same place in each, and is drawn with all its values.
        level: the share of intervals that should hold the truth.
        n_resamples: draws of I items with replacement.
        key: a typed key (`jax.random.key`).

    Raises:
        UsageError: the items of the samples are not equally many, fewer than two, or not finite.
    """
    samples_i = _checked(*samples_i)
    # Items that are all alike have no spread to correct by: told apart below, where SciPy only warns.
    with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        found = stats.bootstrap(
            samples_i,
            statistic,
            paired=True,
            vectorized=True,
            confidence_level=level,
            n_resamples=n_resamples,
            rng=generator(key),
        )
    drawn = np.asarray(found.bootstrap_distribution)
    if np.ptp(drawn) <= 1e-12 * np.abs(drawn).max():
        value = float(statistic(*samples_i, axis=-1))
        return value, value
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def ratio_of_means(first: Float[np.ndarray, "*N I"], second: Float[np.ndarray, "*N I"], axis: int = -1) -> Any:
    """Return how many times as large the first is: what all items cost together in one condition over the other."""
    return np.mean(first, axis=axis) / np.mean(second, axis=axis)


def bonferroni(p_h: Float[np.ndarray, "H"]) -> Float[np.ndarray, "H"]:
    """Return the p values times their number, at most 1: below 0.05 they are significant in their family.

    Raises:
        UsageError: they are not numbers from 0 to 1.
    """
    p_h = _checked_p(p_h)
    return np.minimum(p_h * len(p_h), 1)


def holm(p_h: Float[np.ndarray, "H"]) -> Float[np.ndarray, "H"]:
    """Return Holm's step-down p values (Holm 1979): as safe as Bonferroni's in the same family, and never larger.

    Raises:
        UsageError: they are not numbers from 0 to 1.
    """
    p_h = _checked_p(p_h)
    order = np.argsort(p_h, kind="stable")
    stepped_h = np.maximum.accumulate(p_h[order] * np.arange(len(p_h), 0, -1))
    adjusted_h = np.empty_like(p_h)
    adjusted_h[order] = np.minimum(stepped_h, 1)
    return adjusted_h


def generator(key: PRNGKeyArray) -> np.random.Generator:
    """Return NumPy's generator of a typed key: what is drawn on the host depends on the key alone."""
    return np.random.default_rng(np.asarray(jax.random.key_data(key)))


def _checked(*samples_i: Any) -> tuple[Float[np.ndarray, "I"], ...]:
    samples_i = tuple(np.asarray(sample_i, np.float64) for sample_i in samples_i)
    shapes = [sample_i.shape for sample_i in samples_i]
    if len(set(shapes)) > 1 or len(shapes[0]) != 1 or shapes[0][0] < 2:
        raise UsageError(f"samples of shapes {shapes}: expected one value for each of the same two or more items")
    if not all(np.isfinite(sample_i).all() for sample_i in samples_i):
        raise UsageError("samples hold values that are not finite: leave such items out of both conditions")
    return samples_i


def _checked_p(p_h: Any) -> Float[np.ndarray, "H"]:
    p_h = np.asarray(p_h, np.float64)
    if p_h.ndim != 1 or not ((p_h >= 0) & (p_h <= 1)).all():
        raise UsageError(f"p values {p_h.tolist()}: expected a list of numbers from 0 to 1")
    return p_h
