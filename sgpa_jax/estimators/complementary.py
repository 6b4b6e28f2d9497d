"""Shapley values from complementary contributions, cell by cell (Zhang et al. 2023, "Efficient sampling approaches to
Shapley value approximation").

A player's value is the mean over sizes `j` of the mean of d(S) = v(S) - v(N∖S) over the coalitions of `j` players that
it is in: a cell for each player and size, to which S and N∖S both bring something. Pairs are drawn by size, more of
the sizes whose cells fill slowly. What the shares sum to beyond or below v(N) - v(∅) is taken off them equally, which
never takes them farther from the truth (the sum of squares over all players). A cell that no pair of the sample is in
is not taken for zero: it gets the mean over its size of all that was seen, and the spread there as its error.
Standard errors come from the deviations inside of cells, corrected for their number and for cells that are wholly seen.
Where few coalitions bring anything at all, cells look constant that are not: where 9 of 12 players must agree,
10 evaluations a player give 95 % intervals that cover 45 % (here and by `neyman.py`), and 62 % by `svarm.py`; those of
`regression.py` still cover 95 %.
Axes: `M` pairs, `R` rows of coalitions, `J` sizes from 0 to P, `P` players, `K` outputs.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sgpa_jax.estimators.base import Attribution
from sgpa_jax.estimators.sampling import PairSampler, Sample, pairs_of
from sgpa_jax.typing import MaskCP

_PRIOR = 1.0
"""Deviations that the common spread of a size stands for, beside a cell's own."""


@dataclass(frozen=True)
class ComplementaryContributions(PairSampler):
    """Shapley values as means of complementary contributions over sizes."""

    name: ClassVar[str] = "complementary"

    @property
    def weights_by_size(self) -> Float[np.ndarray, " Z"]:
        """What is best if d(S) spreads equally at all sizes: the square roots of the kernel's weights."""
        return even_spread_weights(self.n_players)

    def estimate(self, state: Sample) -> Attribution:
        """Return the Shapley values; they sum to v(N) - v(∅)."""
        return complementary_attribution(state)


class CellMeans(NamedTuple):
    """Means over coalitions of each size that a player is in, of one output.

    Attributes:
        mean_jp: float[J, P].
        influence_rp: float[R, P], how far each row draws the sum over sizes of the player's means, corrected so that
            squares add up to its variance.
        blind_jp: float[J, P], the variance of cells without any row.
    """

    mean_jp: Float[Array, "J P"]
    influence_rp: Float[Array, "R P"]
    blind_jp: Float[Array, "J P"]


def even_spread_weights(n_players: int) -> Float[np.ndarray, " Z"]:
    """Return how pairs are best shared among sizes 1 to P // 2 where d(S) spreads equally at all of them."""
    size_z = np.arange(1, n_players // 2 + 1)
    return np.where(2 * size_z == n_players, 0.5, 1.0) / np.sqrt(size_z * (n_players - size_z))


def complementary_attribution(state: Sample) -> Attribution:
    """Return the values that the cells of any sample of pairs give; pairs of ∅ and N beyond the first do not count."""
    pairs, n_players = pairs_of(state.masks_cp, state.values_ck), state.masks_cp.shape[1]
    total_k = pairs.full_value_k - pairs.empty_value_k
    rows_rk = jnp.stack([pairs.differences_mk, -pairs.differences_mk], axis=1).reshape(-1, len(total_k))
    cells = cell_means(state.masks_cp[2:])

    def of_output(output: tuple[Array, Array]) -> tuple[Array, Array, Array]:
        rows_r, total = output
        found = cells(rows_r)
        influence_mp = found.influence_rp.reshape(-1, 2, n_players).sum(axis=1)
        return shares(total + found.mean_jp[1:-1].sum(axis=0), influence_mp, found.blind_jp[1:-1], total)

    values_kp, errors_kp, free_k = jax.lax.map(of_output, (rows_rk.T, total_k))
    return Attribution(values_kp.T, errors_kp.T, pairs.empty_value_k, pairs.full_value_k, 1 / (1 / free_k).mean())


def cell_means(masks_rp: MaskCP) -> Callable[[Float[Array, " R"]], CellMeans]:
    """Return what finds the cells' means for coalitions, from the values of one output."""
    n_players = masks_rp.shape[1]
    masks_rp = jnp.asarray(masks_rp)
    size_r = masks_rp.sum(axis=1, dtype=jnp.int32)
    # float32 holds no more than 1e38: beyond, all but nothing is unseen anyway.
    population_j = [1.0, *(min(float(math.comb(n_players - 1, size)), 1e38) for size in range(n_players))]

    def by_size(array):
        return jax.ops.segment_sum(array, size_r, n_players + 1)

    def find(values_r: Float[Array, " R"]) -> CellMeans:
        inside_rp = masks_rp.astype(values_r.dtype)
        population_jp = jnp.broadcast_to(jnp.asarray(population_j, values_r.dtype)[:, None], (n_players + 1, n_players))
        count_jp, rows_j1 = by_size(inside_rp), by_size(jnp.ones_like(values_r))[:, None]
        size_mean_j1 = by_size(values_r)[:, None] / jnp.maximum(rows_j1, 1)
        spread_j1 = by_size(jnp.square(values_r - size_mean_j1[size_r, 0]))[:, None] / jnp.maximum(rows_j1 - 1, 1)
        mean_jp = by_size(inside_rp * values_r[:, None]) / jnp.maximum(count_jp, 1)
        deviation_rp = inside_rp * (values_r[:, None] - mean_jp[size_r])
        # What few coalitions tell of a cell's spread is blended with what all cells of the size tell.
        free_jp = jnp.maximum(count_jp - 1, 0)
        squares_j1, free_j1 = (
            part_jp.sum(axis=1, keepdims=True) for part_jp in (by_size(jnp.square(deviation_rp)), free_jp)
        )
        common_j1 = jnp.where(free_j1 > 0, squares_j1 / jnp.maximum(free_j1, 1), spread_j1)
        own_jp = free_jp / (free_jp + _PRIOR)
        unseen_jp = jnp.maximum((population_jp - count_jp) / population_jp, 0) / jnp.maximum(count_jp, 1)
        factor_jp = jnp.sqrt(own_jp * unseen_jp / jnp.maximum(free_jp, 1))
        return CellMeans(
            jnp.where(count_jp > 0, mean_jp, size_mean_j1),
            deviation_rp * factor_jp[size_r],
            jnp.where(count_jp > 0, (1 - own_jp) * unseen_jp * common_j1, spread_j1),
        )

    return find


def shares(sum_p, influence_mp, blind_jp, total) -> tuple[Array, Array, Array]:
    """Return the shares of which P times is `sum_p`, moved to sum to `total`; their errors; degrees of freedom."""
    n_players = len(sum_p)
    share_p = sum_p / n_players
    share_p = share_p + (total - share_p.sum()) / n_players
    square_mp = jnp.square((influence_mp - influence_mp.mean(axis=1, keepdims=True)) / n_players)
    blind_jp = blind_jp / n_players**2
    variance_p = square_mp.sum(axis=0) + blind_jp.sum(axis=0)
    # The degrees of freedom of as many normal deviations whose squares vary as much (Satterthwaite 1946).
    parts_p = jnp.square(square_mp).sum(axis=0) + jnp.square(blind_jp).sum(axis=0)
    free_p = jnp.where(parts_p > 0, 3 * jnp.square(variance_p) / jnp.where(parts_p > 0, parts_p, 1), jnp.inf)
    return share_p, jnp.sqrt(variance_p), 1 / (1 / jnp.maximum(free_p, 1)).mean()
