"""When in a recording an attribution comes together: cumulative curves over time, and how far two sets are apart.

The SGPA paper (arXiv 2603.02250) draws such curves for words and for native tokens and finds them alike by eye. Here
the distance between two sets of curves is a number, with a permutation null. A large p is no proof that profiles are
alike: it tells that these recordings do not show them to differ.
Axes: `P` players, `G` points of the grid, `I` and `J` curves of two sets, `R` permutations, `E` edges (start, end).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from sgpa_jax.errors import UsageError
from sgpa_jax.explain.inequality import normalise, shares_of
from sgpa_jax.explain.statistics import generator
from sgpa_jax.typing import PRNGKeyArray

POINTS = 101
PERMUTATIONS = 9999

CurveG = Float[np.ndarray, "G"]


def cumulative_profile(
    values_p: Float[np.ndarray, "P"],
    spans_pe: Float[np.ndarray, "P 2"] | None = None,
    *,
    duration_s: float | None = None,
    n_points: int = POINTS,
) -> CurveG:
    """Return the share of Σ|φ| that lies before each of `n_points` positions from 0 to 1, float64[G].

    A player's share accrues evenly while it lasts; the curve starts at 0, ends at 1 and never falls. Without any value
    but zero all players have the same share.

    Args:
        values_p: φ in the order of time.
        spans_pe: start and end of each player in seconds, inside of the recording; positions are then parts of its
            duration, on which partitions of different kinds agree. None: player p of P lasts from p/P to (p + 1)/P.
        duration_s: of the recording; given if and only if `spans_pe` is.
        n_points: G, at least 2.

    Raises:
        UsageError: the values are not finite or there are none, the spans are not one interval a player, or only one of
            spans and duration is given.
    """
    values_p = np.asarray(values_p, np.float64)
    if values_p.ndim != 1 or n_points < 2 or (spans_pe is None) != (duration_s is None):
        raise UsageError(
            f"a profile of values {list(values_p.shape)} at {n_points} points with spans "
            f"{'absent' if spans_pe is None else 'given'} and a duration of {duration_s} s: expected one value a "
            "player, at least 2 points, and both or neither of spans and duration"
        )
    if spans_pe is None or duration_s is None:
        edges = np.arange(len(values_p) + 1) / max(len(values_p), 1)
        spans_pe = np.stack([edges[:-1], edges[1:]], axis=1)
    else:
        spans_pe = _checked_spans(spans_pe, len(values_p), duration_s) / duration_s
    grid_g = np.linspace(0, 1, n_points)
    start_p, end_p = spans_pe.T
    passed_gp = np.clip((grid_g[:, None] - start_p[None]) / (end_p - start_p)[None], 0, 1)
    return passed_gp @ shares_of(values_p)


def paper_profile(values_p: Float[np.ndarray, "P"], n_points: int) -> CurveG:
    """Return the curve that the paper's figures are averaged from, float64[G].

    The cumulative sum of the min–max normalised values, player p of P standing at p / (P − 1): it begins with the first
    player's share instead of nothing, and knows no time. `n_points` is the largest number of players in the group.

    Raises:
        UsageError: the values are not finite or there are none.
    """
    sums_p = np.cumsum(normalise(np.asarray(values_p), "min_max"))
    return np.interp(np.linspace(0, 1, n_points), np.linspace(0, 1, len(sums_p)), sums_p)


def area_between(first_g: Any, second_g: Any) -> Any:
    """Return ∫|first − second| over positions from 0 to 1, for curves on the same grid along the last axis."""
    return np.trapezoid(np.abs(first_g - second_g), dx=1 / (np.shape(first_g)[-1] - 1), axis=-1)


def ks_distance(first_g: Any, second_g: Any) -> Any:
    """Return the largest |first − second| (Kolmogorov and Smirnov), for curves on the same grid along the last axis."""
    return np.abs(first_g - second_g).max(axis=-1)


@dataclass(frozen=True)
class ProfileComparison:
    """How far the mean curves of two sets are apart, and how often chance takes them as far.

    Attributes:
        n_first, n_second: curves in each set.
        paired: whether the sets hold the same items.
        area, ks: see `area_between` and `ks_distance`.
        area_p, ks_p: share of permutations with a distance as large, the observed one counted among them.
        n_permutations: R.
    """

    n_first: int
    n_second: int
    paired: bool
    area: float
    ks: float
    area_p: float
    ks_p: float
    n_permutations: int


def compare_profiles(
    first_ig: Float[np.ndarray, "I G"],
    second_jg: Float[np.ndarray, "J G"],
    *,
    paired: bool = True,
    n_permutations: int = PERMUTATIONS,
    key: PRNGKeyArray,
) -> ProfileComparison:
    """Compare the mean curves of two sets with what remains when it is left to chance which set a curve belongs to.

    Args:
        first_ig, second_jg: curves on the same grid.
        paired: row i of both is the same item: its two curves are swapped or not. Otherwise all curves are dealt into
            two sets of the old sizes.
        n_permutations: R, at least 1; p is never less than 1 / (R + 1).
        key: a typed key (`jax.random.key`).

    Raises:
        UsageError: there are no curves or too short ones, they are not finite or of different grids, or pairs are
            incomplete.
    """
    first_ig, second_jg = np.asarray(first_ig, np.float64), np.asarray(second_jg, np.float64)
    _check_sets(first_ig, second_jg, paired)
    if n_permutations < 1:
        raise UsageError(f"{n_permutations} permutations: expected at least 1")
    rng, n_first, n_second = generator(key), len(first_ig), len(second_jg)
    # Each null difference of means is a weighted sum of the same curves: one matrix product makes them all.
    if paired:
        curves_cg = first_ig - second_jg
        observed_c = np.full(n_first, 1 / n_first)
        signs_rc = np.where(rng.random((n_permutations, n_first)) < 0.5, -1, 1)
        weights_rc = signs_rc * observed_c[None]
    else:
        curves_cg = np.concatenate([first_ig, second_jg])
        observed_c = np.repeat([1 / n_first, -1 / n_second], [n_first, n_second])
        weights_rc = rng.permuted(np.tile(observed_c, (n_permutations, 1)), axis=1)
    observed_g, null_rg = observed_c @ curves_cg, weights_rc @ curves_cg
    flat_g = np.zeros_like(observed_g)
    area, ks = area_between(observed_g, flat_g), ks_distance(observed_g, flat_g)
    return ProfileComparison(
        n_first=n_first,
        n_second=n_second,
        paired=paired,
        area=float(area),
        ks=float(ks),
        area_p=_p_value(area, area_between(null_rg, flat_g[None])),
        ks_p=_p_value(ks, ks_distance(null_rg, flat_g[None])),
        n_permutations=n_permutations,
    )


def _p_value(observed: float, null_r: Float[np.ndarray, "R"]) -> float:
    # The same sum in another order may fall short of itself by rounding.
    as_far = np.count_nonzero(null_r >= observed - 1e-12)
    return (1 + as_far) / (1 + len(null_r))


def _check_sets(first_ig: Any, second_jg: Any, paired: bool) -> None:
    shapes = first_ig.shape, second_jg.shape
    right = all(len(shape) == 2 and shape[0] > 0 and shape[1] > 1 for shape in shapes) and shapes[0][1] == shapes[1][1]
    if not right or (paired and shapes[0] != shapes[1]):
        raise UsageError(
            f"sets of curves {shapes[0]} and {shapes[1]}: expected rows of one grid, and equally many where they are "
            "pairs"
        )
    if not (np.isfinite(first_ig).all() and np.isfinite(second_jg).all()):
        raise UsageError("curves hold values that are not finite: leave such items out of both sets")


def _checked_spans(spans_pe: Any, n_players: int, duration_s: float) -> Float[np.ndarray, "P 2"]:
    spans_pe = np.asarray(spans_pe, np.float64)
    if spans_pe.shape != (n_players, 2) or not (spans_pe[:, 0] < spans_pe[:, 1]).all():
        raise UsageError(
            f"spans of shape {list(spans_pe.shape)} for {n_players} players: expected a start before an end for each"
        )
    # Alignment files round their times, hence the slack at both ends.
    clipped_pe = np.clip(spans_pe, 0, duration_s)
    if not duration_s > 0 or np.abs(clipped_pe - spans_pe).max() > 0.02 or (np.diff(clipped_pe, axis=1) <= 0).any():
        raise UsageError(f"spans reach beyond a recording of {duration_s} s: expected times inside of it")
    return clipped_pe
