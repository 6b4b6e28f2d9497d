"""How few of the players hold how much of an attribution: Gini coefficient, mass of the largest fifth, entropy.

The measures are those of the SGPA paper (arXiv 2603.02250) as its code computes them, next to the variants that its
text names. All look at the shares |φ_p| / Σ|φ| alone. Without anything to share out (all values zero) everybody has the
same share, as the paper's normalisation has it; its code gives that case a mass of 0 and an entropy of 1.

All of them depend on the number of players whatever the attribution: between partitions of different sizes they tell
how many players there are before they tell anything else. Compare such partitions with others of the same size.
Axes: `P` players, `K` outputs, each judged for itself.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from sgpa_jax.errors import UsageError, unknown_name

NORMALISERS = ("identity", "abs_sum", "power_shift", "min_max")
"""What the authors' package offers; their experiments used `min_max` throughout."""

ROUNDINGS = ("up", "down", "none")
"""How a fraction of the players becomes a number of them: the code's, the one that never has too many, neither."""

ENTROPIES = ("nats", "log", "root")
"""Entropy as it is, over ln P as the paper's code has it (1: all alike), and over √P as its text has it."""

Values = Float[np.ndarray, "P"] | Float[np.ndarray, "P K"]
PerOutput = Any
"""A number where there is one output, float64[K] where there are K."""


class Concentration(NamedTuple):
    """All measures of one attribution; each a number, or float64[K] where there are several outputs.

    Attributes:
        n_players: P.
        gini: see `gini`.
        top_fifth, top_fifth_down, top_fifth_exact: see `top_mass`, by each of `ROUNDINGS`.
        entropy, entropy_log, entropy_root: see `entropy`, by each of `ENTROPIES`.
    """

    n_players: int
    gini: Any
    top_fifth: Any
    top_fifth_down: Any
    top_fifth_exact: Any
    entropy: Any
    entropy_log: Any
    entropy_root: Any


def concentration(values: Values, normaliser: str = "identity") -> Concentration:
    """Return how concentrated an attribution is, by every measure, after normalising it.

    Every measure ignores the scale: "abs_sum" changes none of them, and "power_shift" and "min_max" change them alike,
    since both take the smallest value away.

    Raises:
        UsageError: the values are not finite float[P] or float[P, K] with a player, or the normaliser is unknown.
    """
    values = normalise(values, normaliser)
    return Concentration(
        len(values),
        gini(values),
        *(top_mass(values, rounding=rounding) for rounding in ROUNDINGS),
        *(entropy(values, per=per) for per in ENTROPIES),
    )


def normalise(values: Values, normaliser: str) -> Values:
    """Return the values in the unit of one of `NORMALISERS`, float64 of the same shape.

    - `identity`: φ.
    - `abs_sum`: φ / Σ|φ|; zeros stay.
    - `power_shift`: (φ − min φ) / Σ(φ − min φ), the power being the package's 1; equal values stay as they are.
    - `min_max`: φ scaled to [0, 1], then to the sum 1, which is the same but where all values are equal: 1 / P each.

    The last two give some player exactly nothing, and forget which values were negative.

    Raises:
        UsageError: the values are not finite float[P] or float[P, K] with a player, or the normaliser is unknown.
    """
    values = _checked(values)
    if normaliser not in NORMALISERS:
        raise unknown_name("normaliser", normaliser, NORMALISERS)
    if normaliser == "identity":
        return values
    if normaliser == "abs_sum":
        total = np.abs(values).sum(axis=0, keepdims=True)
        return np.where(total > 0, values / np.where(total > 0, total, 1), values)
    shifted = values - values.min(axis=0, keepdims=True)
    total = shifted.sum(axis=0, keepdims=True)
    otherwise = values if normaliser == "power_shift" else 1 / len(values)
    return np.where(total > 0, shifted / np.where(total > 0, total, 1), otherwise)


def gini(values: Values) -> PerOutput:
    """Return the Gini coefficient of |φ|: 0 where all are alike, 1 − 1/P where one player has all.

    Σ_i (2i − P − 1) |φ|_(i) / (P Σ|φ|) with |φ| in ascending order, as in the paper's code, which adds 1e-7 to every
    value first: of shares that moves the coefficient by less than P · 1e-7.

    Raises:
        UsageError: the values are not finite float[P] or float[P, K] with a player.
    """
    shares = np.sort(shares_of(values), axis=0)
    n_players = len(shares)
    weights_p = 2 * np.arange(1, n_players + 1) - n_players - 1
    return weights_p @ shares / n_players


def top_mass(values: Values, fraction: float = 0.2, *, rounding: str = "up") -> PerOutput:
    """Return the share of Σ|φ| that the largest `fraction` of the players hold.

    Args:
        values: φ.
        fraction: of the players, in (0, 1].
        rounding: "up", the paper's code: max(1, ⌈fraction · P⌉) players, two of six for a fifth; "down": max(1, ⌊…⌋),
            one of six; "none": the last player counts in part, so that equal players hold exactly `fraction`.

    Raises:
        UsageError: the values are not finite float[P] or float[P, K] with a player, the fraction is out of its range,
            or the rounding is unknown.
    """
    if not 0 < fraction <= 1:
        raise UsageError(f"the largest {fraction} of the players: expected a fraction above 0 and at most 1")
    if rounding not in ROUNDINGS:
        raise unknown_name("rounding", rounding, ROUNDINGS)
    shares = -np.sort(-shares_of(values), axis=0)
    # A product such as 0.28 · 25 is a little more than the whole number that is meant.
    wanted = round(fraction * len(shares), 9)
    if rounding != "none":
        wanted = max(1, math.ceil(wanted) if rounding == "up" else math.floor(wanted))
    counts_p = np.clip(wanted - np.arange(len(shares)), 0, 1)
    return counts_p @ shares


def entropy(values: Values, *, per: str = "nats") -> PerOutput:
    """Return Shannon's entropy −Σ s ln s of the shares s; high where the attribution is spread.

    Args:
        values: φ.
        per: "nats", as it is; "log", over ln P, between 0 and 1 (the paper's code); "root", over √P, which has no such
            bounds (the paper's text). A single player has an entropy of 0 in each.

    Raises:
        UsageError: the values are not finite float[P] or float[P, K] with a player, or `per` is unknown.
    """
    if per not in ENTROPIES:
        raise unknown_name("normalisation of entropy", per, ENTROPIES)
    shares = shares_of(values)
    nats = (shares * np.log(1 / np.where(shares > 0, shares, 1))).sum(axis=0)
    n_players = len(shares)
    if per == "log" and n_players > 1:
        return nats / math.log(n_players)
    return nats / math.sqrt(n_players) if per == "root" else nats


def shares_of(values: Values) -> Values:
    """Return |φ| / Σ|φ|, float64 of the same shape; 1 / P each where all values are zero.

    Raises:
        UsageError: the values are not finite float[P] or float[P, K] with a player.
    """
    sizes = np.abs(_checked(values))
    # Dividing by the largest first keeps the sum of tiny values from vanishing.
    largest = sizes.max(axis=0, keepdims=True)
    sizes = np.where(largest > 0, sizes / np.where(largest > 0, largest, 1), 1.0)
    return sizes / sizes.sum(axis=0, keepdims=True)


def _checked(values: Any) -> Values:
    values = np.asarray(values, np.float64)
    if values.ndim not in (1, 2) or len(values) == 0 or not np.isfinite(values).all():
        raise UsageError(
            f"values of shape {list(values.shape)}, not all finite or none: expected finite float[P] or float[P, K]"
        )
    return values
