"""Pairs of a coalition and its complement: how many of each size, which ones, and what a sample of them says.

Shapley and Banzhaf values depend on a game through d(S) = v(S) - v(N∖S) alone, so a pair is one observation. Sizes are
strata: size `s` goes with `P - s`, for `s` of 1 to P // 2. Inside of a size, pairs come without replacement in a keyed
order (`subsets.py`), and pair `i` depends on the key, the size and `i` alone: a larger budget only adds pairs.
Axes: `Z` sizes, `M` pairs, `C` = 2 + 2M coalitions, `P` players, `K` outputs.
"""

import heapq
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from sgpa_jax.errors import unknown_name
from sgpa_jax.estimators.base import too_small
from sgpa_jax.estimators.subsets import nth_subsets
from sgpa_jax.typing import MaskCP, PRNGKeyArray, ValueCK


class Pairs(NamedTuple):
    """A sample of pairs (S, N∖S) and what the game gave for them.

    Attributes:
        signs_mp: float[M, P], +1 where the player is in S, -1 where it is not.
        differences_mk: float[M, K], v(S) - v(N∖S).
        size_m: int32[M], |S|.
        empty_value_k, full_value_k: float[K].
    """

    signs_mp: Float[Array, "M P"]
    differences_mk: Float[Array, "M K"]
    size_m: Int[Array, " M"]
    empty_value_k: Float[Array, " K"]
    full_value_k: Float[Array, " K"]


class Sample(NamedTuple):
    """The state of a method that proposes once: its key, and the coalitions that are known; all zero before."""

    key: PRNGKeyArray
    masks_cp: MaskCP
    values_ck: ValueCK


@dataclass(frozen=True)
class PairSampler(ABC):
    """`n_pairs` pairs, or all there are, shared among the sizes in proportion to `weights_by_size`; propose once.

    `update` takes any sample of pairs in the layout of `draw_pairs` whose pairs of one size are a uniform draw.
    """

    n_players: int
    n_outputs: int = 1
    n_pairs: int = 64
    estimands: ClassVar[tuple[str, ...]] = ("shapley",)
    takes_any_sample: ClassVar[bool] = True
    n_proposals: ClassVar[int] = 1
    name: ClassVar[str]

    @classmethod
    def for_budget(cls, n_players: int, budget: int, *, n_outputs: int = 1) -> Self:
        """Return as many pairs as a budget allows, v(∅) and v(N) counted as one.

        Raises:
            BudgetError: it allows neither two pairs a player nor all.
        """
        least = 2 + 2 * min(2 * n_players, int(pair_population(n_players).sum()))
        if budget < least:
            raise too_small(budget, least, cls.name, n_players)
        return cls(n_players, n_outputs, n_pairs=(budget - 2) // 2)

    @property
    def pairs_by_size(self) -> tuple[int, ...]:
        """How many pairs of size 1 to P // 2 are proposed."""
        return allocate(self.n_players, self.n_pairs, self.weights_by_size)

    @property
    @abstractmethod
    def weights_by_size(self) -> Float[np.ndarray, " Z"]:
        """What each size's number of pairs is in proportion to."""

    def init(self, key: PRNGKeyArray) -> Sample:
        """Return the state before evaluation."""
        n_coalitions = 2 + 2 * sum(self.pairs_by_size)
        masks_cp = jnp.zeros((n_coalitions, self.n_players), bool)
        return Sample(key, masks_cp, jnp.zeros((n_coalitions, self.n_outputs)))

    def propose(self, state: Sample) -> Bool[Array, "C P"]:
        """Return ∅, N and the pairs, the same ones however often."""
        return draw_pairs(state.key, self.n_players, self.pairs_by_size)

    def update(self, state: Sample, masks_cp: MaskCP, values_ck: ValueCK) -> Sample:
        """Return the state that holds these coalitions and their values."""
        return Sample(state.key, jnp.asarray(masks_cp), jnp.asarray(values_ck))


@dataclass(frozen=True)
class ShapleyOrBanzhaf(PairSampler):
    """A sampler of pairs that finds either Shapley or Banzhaf values.

    Raises:
        UsageError: an unknown estimand.
    """

    estimand: str = "shapley"
    estimands: ClassVar[tuple[str, ...]] = ("shapley", "banzhaf")

    def __post_init__(self) -> None:
        """Refuse what is no estimand."""
        if self.estimand not in self.estimands:
            raise unknown_name("estimand", self.estimand, self.estimands)


def alike_weights(n_players: int) -> Float[np.ndarray, " Z"]:
    """Return weights by which coalitions of each size are drawn as often: leverage scores, up to a factor."""
    size_z = np.arange(1, n_players // 2 + 1)
    # Of the middle size a pair holds two.
    return np.where(2 * size_z == n_players, 0.5, 1.0)


def pair_population(n_players: int) -> Float[np.ndarray, " Z"]:
    """Return how many distinct pairs there are of size 1 to P // 2, float64 (up to about 1000 players)."""
    return np.array([float(count) for count in populations_by_size(n_players)])


def populations_by_size(n_players: int) -> list[int]:
    """Return how many distinct pairs there are of size 1 to P // 2, exactly."""
    # With as many inside as outside, a coalition and its complement are of one size: half as many pairs.
    return [math.comb(n_players, size) // (1 + (2 * size == n_players)) for size in range(1, n_players // 2 + 1)]


def allocate(n_players: int, n_pairs: int, weights_by_size: Sequence[float] | np.ndarray) -> tuple[int, ...]:
    """Return how many of `n_pairs` pairs go to each size of 1 to P // 2; no more than exist, so maybe fewer in all.

    Every size gets two first, since one with none biases and one with one tells no variance. The rest is shared in
    proportion to the weights by Sainte-Laguë's divisors, so that another pair never takes one from any size.
    """
    populations = populations_by_size(n_players)
    return share(n_pairs, populations, weights_by_size)


def share(n_draws: int, populations: Sequence[int], weights: Sequence[float] | np.ndarray) -> tuple[int, ...]:
    """Return how many draws each population gets: what `allocate` says of pairs, for any draws."""
    counts = [0] * len(populations)

    def turn(index: int) -> tuple[int, float, int]:
        """Return what sorts first for the one who gets the next draw."""
        return min(counts[index], 2), -float(weights[index]) / (2 * counts[index] + 1), index

    turns = [turn(index) for index, population in enumerate(populations) if population]
    heapq.heapify(turns)
    for _ in range(min(n_draws, sum(populations))):
        index = heapq.heappop(turns)[-1]
        counts[index] += 1
        if counts[index] < populations[index]:
            heapq.heappush(turns, turn(index))
    return tuple(counts)


def draw_pairs(key: PRNGKeyArray, n_players: int, pairs_by_size: tuple[int, ...]) -> Bool[Array, "C P"]:
    """Return ∅, N, then S and N∖S alternately, by size: bool[2 + 2M, P].

    Args:
        key: a typed key.
        n_players: P, up to a few hundred.
        pairs_by_size: static; how many pairs of size 1 to P // 2, no more than there are (`allocate`).
    """
    subsets_mp = jnp.zeros((0, n_players), bool)
    if sum(pairs_by_size):
        subsets_mp = nth_subsets(key, n_players, *places(pairs_by_size), populations_by_size(n_players))
    both_cp = jnp.stack([subsets_mp, ~subsets_mp], axis=1).reshape(-1, n_players)
    ends_cp = jnp.array([[False], [True]]) & jnp.ones((1, n_players), bool)
    return jnp.concatenate([ends_cp, both_cp])


def places(counts_by_size: Sequence[int]) -> tuple[Int[Array, " M"], Int[Array, " M"]]:
    """Return the size of each draw and its place among those of its size, by size from 1 on."""
    sizes = np.arange(1, len(counts_by_size) + 1, dtype=np.int32)
    index_m = np.concatenate([np.arange(count, dtype=np.int32) for count in (0, *counts_by_size)])
    return jnp.asarray(np.repeat(sizes, counts_by_size)), jnp.asarray(index_m)


def pairs_of(masks_cp: MaskCP, values_ck: ValueCK) -> Pairs:
    """Return what coalitions in the layout of `draw_pairs` say about d(S), in the values' dtype."""
    subsets_mp, values_ck = jnp.asarray(masks_cp)[2::2], jnp.asarray(values_ck)
    return Pairs(
        signs_mp=2 * subsets_mp.astype(values_ck.dtype) - 1,
        differences_mk=values_ck[2::2] - values_ck[3::2],
        size_m=subsets_mp.sum(axis=1, dtype=jnp.int32),
        empty_value_k=values_ck[0],
        full_value_k=values_ck[1],
    )


class Strata(NamedTuple):
    """Sizes as strata of a sample of pairs.

    Attributes:
        of_m: int32[M], index of each pair's size (0 for size 1 or P - 1); Z for a pair of ∅ and N.
        count_z: float[Z], pairs of each size in the sample.
        unseen_z: float[Z], the part of the size's pairs that are not in it: the finite-population correction.
    """

    of_m: Int[Array, " M"]
    count_z: Float[Array, " Z"]
    unseen_z: Float[Array, " Z"]


def strata_of(size_m: Int[Array, " M"], n_players: int, dtype) -> Strata:
    """Return the sizes as strata of a sample whose pairs have these sizes."""
    n_sizes = n_players // 2
    smaller_m = jnp.minimum(size_m, n_players - size_m)
    of_m = jnp.where(smaller_m > 0, smaller_m - 1, n_sizes)
    count_z = jax.ops.segment_sum(jnp.ones(len(of_m), dtype), of_m, n_sizes)
    # float32 holds no more than 1e38: beyond, all but nothing is unseen anyway.
    population_z = jnp.asarray(np.minimum(pair_population(n_players), 1e38), dtype)
    return Strata(of_m, count_z, jnp.maximum((population_z - count_z) / population_z, 0))


def stratified_variance(scores_mp: Float[Array, "M P"], strata: Strata) -> Float[Array, "Z P"]:
    """Return the variance of the sum of the scores that each size adds, drawn without replacement around its mean.

    Of a size with one pair drawn and others not, the distance from zero is taken.
    """
    n_sizes, count_z1 = len(strata.count_z), strata.count_z[:, None]
    sum_zp = jax.ops.segment_sum(scores_mp, strata.of_m, n_sizes)
    squares_zp = jax.ops.segment_sum(jnp.square(scores_mp), strata.of_m, n_sizes)
    around_zp = (squares_zp - jnp.square(sum_zp) / jnp.maximum(count_z1, 1)) * count_z1 / jnp.maximum(count_z1 - 1, 1)
    return strata.unseen_z[:, None] * jnp.maximum(jnp.where(count_z1 > 1, around_zp, squares_zp), 0)


def degrees_of_freedom(variance_z: Float[Array, " Z"], free_z: Float[Array, " Z"]) -> Float[Array, ""]:
    """Return those of a sum of variances (Satterthwaite 1946), of which each was found with `free_z` of them."""
    parts = (jnp.square(variance_z) / jnp.maximum(free_z, 1)).sum()
    return jnp.where(parts > 0, jnp.square(variance_z.sum()) / jnp.where(parts > 0, parts, 1), jnp.inf)
