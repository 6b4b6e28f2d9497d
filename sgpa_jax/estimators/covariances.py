"""Values from the covariance of players with what pairs are worth, size by size: unbiased, and linear in the game.

Among the coalitions S of one size s = pP let c_i be the covariance of d(S) with the presence of player i. Then

    Shapley value of i = d(N)/P + Σ_s c_i / (P p (1-p)),      s of 1 to P/2, half as much where s = P/2,

because what every member gets from a size, d's mean among the coalitions with i, differs from d's mean by c_i / p. The
sizes are strata, and a sample's covariance estimates that of its size without bias. Nothing depends on d's mean, so
that the shares always sum to d(N) (Covert and Lee 2021, "Improving KernelSHAP", §3.2, of which this is the stratified
form). Where sizes have but two or three pairs and are few themselves, variances come out up to a third too small.
Banzhaf's values are the mean of d(S) times the player's sign, likewise by size.
Axes: `Z` sizes, `M` pairs, `P` players.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sgpa_jax.estimators.sampling import Pairs, degrees_of_freedom, pair_population, strata_of, stratified_variance


class Found(NamedTuple):
    """Estimated values of one output, float[P]: their variances, and degrees of freedom of these, float[]."""

    values_p: Float[Array, " P"]
    variance_p: Float[Array, " P"]
    degrees_of_freedom: Float[Array, ""]


def from_covariances(pairs: Pairs, difference_m: Float[Array, " M"], total: Float[Array, ""], estimand: str) -> Found:
    """Return the values of a game that is worth `difference_m` to the pairs and `total` to (N, ∅).

    What a size without two pairs would add is made up for by the nearest one that has them.
    """
    n_players, dtype = pairs.signs_mp.shape[1], difference_m.dtype
    ends, slope_z, level_z = (jnp.asarray(part, dtype) for part in _weights(n_players, estimand))
    if n_players == 1:
        return Found(ends * total[None], jnp.zeros(1, dtype), jnp.asarray(jnp.inf, dtype))
    strata = strata_of(pairs.size_m, n_players, dtype)
    n_sizes = len(strata.count_z)
    is_half_z = jnp.asarray(np.arange(1, n_sizes + 1) * 2 == n_players)
    population_z = jnp.asarray(pair_population(n_players).clip(max=1e30), dtype)
    # One of two complements of half the players stands for both: d's mean is zero for sure, and nothing is centred.
    enough_z = strata.count_z > jnp.where(is_half_z, 0, 1)
    share_z = np.arange(1, n_sizes + 1) / n_players
    spread_z = jnp.asarray(share_z * (1 - share_z), dtype)
    slope_z = _from_nearest(slope_z * spread_z, enough_z) / spread_z
    level_z = _from_nearest(level_z, enough_z)
    free_z = jnp.maximum(jnp.where(is_half_z, strata.count_z, strata.count_z - 1), 1)
    lost_z = jnp.where(is_half_z, 1, 1 - 1 / population_z)
    mean_z = jax.ops.segment_sum(difference_m, strata.of_m, n_sizes) / jnp.maximum(strata.count_z, 1)
    around_m = difference_m - jnp.where(is_half_z, 0, mean_z)[strata.of_m]
    share_m1 = pairs.size_m.astype(dtype)[:, None] / n_players
    presence_mp = (pairs.signs_mp + 1) / 2 - share_m1
    scores_mp = (slope_z * lost_z / free_z)[strata.of_m][:, None] * around_m[:, None] * presence_mp
    means_mp = (level_z / jnp.maximum(strata.count_z, 1))[strata.of_m] * difference_m
    scores_mp = scores_mp + means_mp[:, None] * (2 * share_m1 - 1)
    is_pair_m1 = (strata.of_m < n_sizes)[:, None]
    scores_mp = jnp.where(is_pair_m1, scores_mp, 0)
    variance_zp = stratified_variance(scores_mp, strata)
    free = degrees_of_freedom(variance_zp.sum(axis=1), free_z)
    return Found(ends * total + scores_mp.sum(axis=0), variance_zp.sum(axis=0), free)


def _weights(n_players: int, estimand: str) -> tuple[float, np.ndarray, np.ndarray]:
    """Return what d(N) counts, what each size's covariances do, and what its mean times p - (1-p) does."""
    share_z = np.arange(1, n_players // 2 + 1) / n_players
    half_z = np.where(2 * share_z == 1, 0.5, 1.0)
    if estimand == "shapley":
        return 1 / n_players, half_z / (n_players * share_z * (1 - share_z)), np.zeros(len(share_z))
    part_z = pair_population(n_players) * 2.0 ** (1 - n_players)
    return 2.0 ** (1 - n_players), 2 * part_z, part_z


def _from_nearest(weight_z: Float[Array, " Z"], enough_z: Array) -> Float[Array, " Z"]:
    """Hand the weight of sizes without enough pairs to the nearest size that has them."""
    size_z = jnp.arange(len(weight_z))
    far_zz = jnp.abs(size_z[:, None] - size_z[None]) + jnp.where(enough_z, 0, 2 * len(weight_z))[None]
    return jax.ops.segment_sum(weight_z, jnp.argmin(far_zz, axis=1), len(weight_z))
