"""Complementary contributions with Neyman's allocation, in two proposals (Zhang et al. 2023, §4; the paper's method).

The first proposal spends half of the pairs as if d(S) spread equally at all sizes, and tells how much it does; the
second goes where another pair lowers the variance most. Few pairs tell little of a spread, so what was seen of a size
is blended with the equal spread. Both are counted, no pair is drawn twice, and both are averaged in the cells of
`complementary.py`. That the second proposal depends on the first leaves a bias, which blending keeps small.
Axes: `Z` sizes, `M` pairs, `R` = 2M rows, `C` coalitions of a proposal, `P` players, `K` outputs.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from sgpa_jax.estimators.base import Attribution, too_small
from sgpa_jax.estimators.complementary import cell_means, complementary_attribution, even_spread_weights
from sgpa_jax.estimators.sampling import Sample, allocate, draw_pairs, pairs_of, populations_by_size, strata_of
from sgpa_jax.estimators.subsets import nth_subsets
from sgpa_jax.typing import MaskCP, PRNGKeyArray, ValueCK

_PRIOR = 20.0
"""Pairs of a size that the assumption of equal spreads stands for, beside those seen of it."""


class NeymanState(NamedTuple):
    """The key, how many proposals were taken in, and the coalitions of both: all zero where they are yet to come."""

    key: PRNGKeyArray
    n_taken: Int[Array, ""]
    masks_cp: MaskCP
    values_ck: ValueCK


@dataclass(frozen=True)
class NeymanComplementary:
    """Two proposals of `n_pairs` pairs each, the pair (∅, N) being the first of the first.

    `update` also takes any sample of pairs of another length, in place of what it knows.
    """

    n_players: int
    n_outputs: int = 1
    n_pairs: int = 64
    estimands: ClassVar[tuple[str, ...]] = ("shapley",)
    takes_any_sample: ClassVar[bool] = True
    n_proposals: ClassVar[int] = 2

    @classmethod
    def for_budget(cls, n_players: int, budget: int, *, n_outputs: int = 1) -> Self:
        """Return as many pairs as a budget allows for both proposals together.

        Raises:
            BudgetError: it allows neither two pairs of each size in the first nor all coalitions.
        """
        least = min(4 * (n_players + 1), 2**n_players)
        if budget < least:
            raise too_small(budget, least, "neyman", n_players)
        half = (sum(populations_by_size(n_players)) + 2) // 2
        return cls(n_players, n_outputs, n_pairs=max(min(budget // 4, half), 1))

    def init(self, key: PRNGKeyArray) -> NeymanState:
        """Return the state before evaluation."""
        shape = (4 * self.n_pairs, self.n_players)
        values_ck = jnp.zeros((shape[0], self.n_outputs))
        return NeymanState(key, jnp.zeros((), jnp.int32), jnp.zeros(shape, bool), values_ck)

    def propose(self, state: NeymanState) -> Bool[Array, "C P"]:
        """Return the next 2 · n_pairs coalitions: ∅, N and pairs of all sizes, later those that the spreads call for.

        Where all pairs are there already, ∅ and N fill up.
        """
        return jax.lax.cond(state.n_taken == 0, self._first, self._second, state)

    def update(self, state: NeymanState, masks_cp: MaskCP, values_ck: ValueCK) -> NeymanState:
        """Return the state that knows a proposal too; a sample of any other length takes the place of all."""
        masks_cp, values_ck = jnp.asarray(masks_cp), jnp.asarray(values_ck)
        if len(masks_cp) == 2 * self.n_pairs:
            start = state.n_taken * 2 * self.n_pairs
            masks_cp = jax.lax.dynamic_update_slice_in_dim(state.masks_cp, masks_cp, start, axis=0)
            known_ck = state.values_ck.astype(values_ck.dtype)
            values_ck = jax.lax.dynamic_update_slice_in_dim(known_ck, values_ck, start, axis=0)
        return NeymanState(state.key, state.n_taken + 1, masks_cp, values_ck)

    def estimate(self, state: NeymanState) -> Attribution:
        """Return the Shapley values from all pairs so far; they sum to v(N) - v(∅)."""
        return complementary_attribution(Sample(state.key, state.masks_cp, state.values_ck))

    def _first(self, state: NeymanState) -> Bool[Array, "C P"]:
        return draw_pairs(state.key, self.n_players, self._first_pairs)

    def _second(self, state: NeymanState) -> Bool[Array, "C P"]:
        masks_mp = jnp.zeros((self.n_pairs, self.n_players), bool)
        if self.n_players > 1:
            size_m, index_m = self._chosen(state)
            populations = populations_by_size(self.n_players)
            masks_mp = nth_subsets(state.key, self.n_players, jnp.maximum(size_m, 1), index_m, populations)
            masks_mp = masks_mp & (size_m > 0)[:, None]
        return jnp.stack([masks_mp, ~masks_mp], axis=1).reshape(-1, self.n_players)

    @property
    def _first_pairs(self) -> tuple[int, ...]:
        return allocate(self.n_players, self.n_pairs - 1, even_spread_weights(self.n_players))

    def _chosen(self, state: NeymanState) -> tuple[Int[Array, " M"], Int[Array, " M"]]:
        """Return size and place of each further pair, one by one where it helps most; size 0 where none is left."""
        half = 2 * self.n_pairs
        spread_z = self._spreads(Sample(state.key, state.masks_cp[:half], state.values_ck[:half]))
        there = [min(population, 2**30) for population in populations_by_size(self.n_players)]
        there_z = jnp.asarray(np.array(there, np.int32))

        def choose(count_z, _):
            have_z = count_z.astype(spread_z.dtype)
            # By so much does one more pair lower the variance of a mean over `have`.
            gain_z = jnp.where(count_z < there_z, spread_z / jnp.maximum(have_z * (have_z + 1), 0.5), -1)
            chosen = jnp.argmax(gain_z)
            size = jnp.where(gain_z[chosen] < 0, 0, chosen + 1).astype(jnp.int32)
            return count_z.at[chosen].add(1), (size, count_z[chosen])

        return jax.lax.scan(choose, jnp.asarray(np.array(self._first_pairs, np.int32)), length=self.n_pairs)[1]

    def _spreads(self, sample: Sample) -> Float[Array, " Z"]:
        """Return how much the values vary for each size if one pair of it were drawn, of all outputs together."""
        pairs, n_sizes = pairs_of(sample.masks_cp, sample.values_ck), self.n_players // 2
        strata, cells = strata_of(pairs.size_m, self.n_players, pairs.signs_mp.dtype), cell_means(sample.masks_cp[2:])
        even_z = _portions(jnp.asarray(even_spread_weights(self.n_players) ** 2, strata.count_z.dtype))
        pooled = _PRIOR / (_PRIOR + strata.count_z)
        smaller_j = np.minimum(np.arange(self.n_players + 1), self.n_players - np.arange(self.n_players + 1))

        def of_output(rows_r: Float[Array, " R"]) -> Float[Array, " Z"]:
            found = cells(rows_r)
            square_m = jnp.square(found.influence_rp).reshape(-1, 2 * self.n_players).sum(axis=1)
            blind_z = jax.ops.segment_sum(found.blind_jp.sum(axis=1)[1:-1], smaller_j[1:-1] - 1, n_sizes)
            variance_z = jax.ops.segment_sum(square_m, strata.of_m, n_sizes) + blind_z
            # A mean's variance falls with its pairs, and with how few are unseen; without any, nothing is to be won.
            seen_z = jnp.where(
                strata.unseen_z > 0, variance_z * strata.count_z / jnp.maximum(strata.unseen_z, 1e-30), 0
            )
            return (1 - pooled) * _portions(seen_z) + pooled * even_z

        rows_rk = jnp.stack([pairs.differences_mk, -pairs.differences_mk], axis=1).reshape(
            -1, sample.values_ck.shape[1]
        )
        return jax.lax.map(of_output, rows_rk.T).sum(axis=0)


def paper_budget(n_players: int) -> int:
    """Return the evaluations that the paper grants: 3 P², or all 2^P - 2 coalitions between ∅ and N, and these two."""
    return 2 + min(3 * n_players**2, 2**n_players - 2)


def _portions(array_z: Float[Array, " Z"]) -> Float[Array, " Z"]:
    return array_z / jnp.maximum(array_z.sum(), jnp.finfo(array_z.dtype).tiny)
