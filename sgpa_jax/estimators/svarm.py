"""Stratified SVARM (Kolpaczki et al. 2024, "Approximating the Shapley value without marginal contributions").

A player's value is the mean over sizes of v(S) with it minus the mean over sizes of v(S) without it: a stratum for each
player, size and membership, and every coalition serves one of each player's. The few coalitions of at most one player,
or of all but at most one, are all evaluated; others are drawn one by one and unpaired, more of the smallest and largest
as published, here without replacement and with a fixed number of each size. What the shares sum to beyond or below
v(N) - v(∅) is taken off them equally, and a stratum without a coalition gets the mean of its size, as in
`complementary.py`. Axes: `C` coalitions, `Z` sizes, `P` players, `K` outputs.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from sgpa_jax.estimators.base import Attribution, too_small
from sgpa_jax.estimators.complementary import cell_means, shares
from sgpa_jax.estimators.sampling import Sample, places, share
from sgpa_jax.estimators.subsets import nth_subsets
from sgpa_jax.typing import MaskCP, PRNGKeyArray, ValueCK


@dataclass(frozen=True)
class StratifiedSvarm:
    """The 2 + 2 P coalitions of the borders and `n_samples` others, or all there are; propose once.

    `update` takes any sample that begins with ∅ and N and whose coalitions of one size are a uniform draw.
    """

    n_players: int
    n_outputs: int = 1
    n_samples: int = 128
    estimands: ClassVar[tuple[str, ...]] = ("shapley",)
    takes_any_sample: ClassVar[bool] = False
    n_proposals: ClassVar[int] = 1

    @classmethod
    def for_budget(cls, n_players: int, budget: int, *, n_outputs: int = 1) -> Self:
        """Return as many samples as a budget allows beside the borders.

        Raises:
            BudgetError: it allows neither the borders and two samples of each size between them, nor all coalitions.
        """
        borders = min(2**n_players, 2 + 2 * n_players)
        least = min(2**n_players, borders + 2 * max(n_players - 3, 0))
        if budget < least:
            raise too_small(budget, least, "svarm", n_players)
        return cls(n_players, n_outputs, n_samples=budget - borders)

    @property
    def counts_by_size(self) -> tuple[int, ...]:
        """How many coalitions of size 1 to P - 1 are proposed."""
        sizes = range(1, self.n_players)
        populations = [math.comb(self.n_players, size) for size in sizes]
        # The paper's probabilities by size: as 1 / s up to the middle, and the mirror of it.
        inner = share(self.n_samples, populations[1:-1], [1 / min(size, self.n_players - size) for size in sizes][1:-1])
        return (*populations[:1], *inner, *populations[-1:])[: len(populations)]

    def init(self, key: PRNGKeyArray) -> Sample:
        """Return the state before evaluation."""
        n_coalitions = 2 + sum(self.counts_by_size)
        masks_cp = jnp.zeros((n_coalitions, self.n_players), bool)
        return Sample(key, masks_cp, jnp.zeros((n_coalitions, self.n_outputs)))

    def propose(self, state: Sample) -> Bool[Array, "C P"]:
        """Return ∅, N and the samples by size, the same ones however often."""
        ends_cp = jnp.array([[False], [True]]) & jnp.ones((1, self.n_players), bool)
        return jnp.concatenate([ends_cp, self._draw(state.key)])

    def update(self, state: Sample, masks_cp: MaskCP, values_ck: ValueCK) -> Sample:
        """Return the state that holds these coalitions and their values."""
        return Sample(state.key, jnp.asarray(masks_cp), jnp.asarray(values_ck))

    def estimate(self, state: Sample) -> Attribution:
        """Return the Shapley values; they sum to v(N) - v(∅)."""
        empty_k, full_k = state.values_ck[:2]
        inside, outside = cell_means(state.masks_cp), cell_means(~state.masks_cp)

        def of_output(values_c: Array) -> tuple[Array, Array, Array]:
            with_it, without = inside(values_c), outside(values_c)
            return shares(
                with_it.mean_jp[1:].sum(axis=0) - without.mean_jp[1:].sum(axis=0),
                with_it.influence_rp - without.influence_rp,
                jnp.concatenate([with_it.blind_jp[1:], without.blind_jp[1:]]),
                values_c[1] - values_c[0],
            )

        values_kp, errors_kp, free_k = jax.lax.map(of_output, state.values_ck.T)
        return Attribution(values_kp.T, errors_kp.T, empty_k, full_k, 1 / (1 / free_k).mean())

    def _draw(self, key: PRNGKeyArray) -> Bool[Array, "C P"]:
        half = self.n_players // 2
        small, large = self.counts_by_size[:half], self.counts_by_size[half:][::-1]
        populations = [math.comb(self.n_players, size) for size in range(1, half + 1)]
        drawn = [jnp.zeros((0, self.n_players), bool)]
        if sum(small):
            drawn.append(nth_subsets(key, self.n_players, *places(small), populations))
        if sum(large):
            # A large coalition is all but a small one, drawn with another key.
            other = jax.random.fold_in(key, self.n_players)
            drawn.append(~nth_subsets(other, self.n_players, *places(large), populations))
        return jnp.concatenate(drawn)
