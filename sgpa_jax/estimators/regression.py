"""Values as the coefficients of a weighted regression on pairs: KernelSHAP, Leverage SHAP and Kernel Banzhaf.

The Shapley values are the additive game nearest to a game under the Shapley kernel's weights, among those that share
out v(N) - v(∅) (Charnes et al. 1988; Lundberg and Lee 2017). By pairs: d(S) is regressed on the players' signs, +1
inside of S and -1 outside. A size of pairs weighs in the fit what it weighs among all coalitions, however many of it
were drawn, so the fit is exact once all pairs are there. The methods differ in how they share pairs among sizes:
KernelSHAP by the kernel (paired, Covert and Lee 2021), Leverage SHAP by leverage scores, which is about equally
(Musco and Witter 2025). The constraint is met exactly by regressing in the space of what sums to zero.
Standard errors are those of a regression estimator under stratified sampling (Särndal et al. 1992, §6.6, §7.9):
residuals, corrected for leverage as the jackknife does, around the mean of their size, and none from a size that is
wholly there.
Axes: `Z` sizes, `M` pairs, `P` players, `K` outputs.
"""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sgpa_jax.estimators.base import Attribution
from sgpa_jax.estimators.sampling import (
    PairSampler,
    Sample,
    Strata,
    alike_weights,
    degrees_of_freedom,
    pair_population,
    pairs_of,
    strata_of,
    stratified_variance,
)

_CORRECTION = 0.75
"""Residuals are divided by this power of one minus their leverage: with the jackknife's 1, intervals of 10 evaluations
a player cover 96 to 97 %, with the ½ that is exact for equal spreads (HC2), 93 to 94.5 %."""


@dataclass(frozen=True)
class KernelShap(PairSampler):
    """Shapley values by weighted least squares, with sizes drawn in proportion to the Shapley kernel."""

    name: ClassVar[str] = "kernelshap"

    @property
    def weights_by_size(self) -> Float[np.ndarray, " Z"]:
        """What all pairs of a size weigh together under the Shapley kernel."""
        return kernel_mass(self.n_players)

    def estimate(self, state: Sample) -> Attribution:
        """Return the Shapley values of the nearest additive game; they sum to v(N) - v(∅)."""
        pairs = pairs_of(state.masks_cp, state.values_ck)
        total_k = pairs.full_value_k - pairs.empty_value_k
        mean_sign_m1 = pairs.signs_mp.mean(axis=1, keepdims=True)
        fit = _regress(
            pairs.signs_mp - mean_sign_m1,
            pairs.differences_mk - mean_sign_m1 * total_k[None],
            kernel_mass(self.n_players),
            strata_of(pairs.size_m, self.n_players, pairs.signs_mp.dtype),
        )
        shares_pk = fit[0] - fit[0].mean(axis=0, keepdims=True) + total_k[None] / self.n_players
        return Attribution(shares_pk, fit[1], pairs.empty_value_k, pairs.full_value_k, fit[2])


@dataclass(frozen=True)
class LeverageShap(KernelShap):
    """Shapley values by weighted least squares, with sizes drawn in proportion to their leverage scores."""

    name: ClassVar[str] = "leverage"

    @property
    def weights_by_size(self) -> Float[np.ndarray, " Z"]:
        """What all pairs of a size add to the rank of the regression: coalitions of each size the same."""
        return alike_weights(self.n_players)


@dataclass(frozen=True)
class KernelBanzhaf(PairSampler):
    """Banzhaf values by least squares on pairs drawn evenly from all there are (Liu et al. 2025, "Kernel Banzhaf").

    Sizes are strata here too, and the pair (∅, N) is one more, known for sure.
    """

    estimands: ClassVar[tuple[str, ...]] = ("banzhaf",)
    name: ClassVar[str] = "kernelshap"

    @property
    def weights_by_size(self) -> Float[np.ndarray, " Z"]:
        """How many pairs there are of each size, as a part of all coalitions."""
        return pair_population(self.n_players) * 2.0**-self.n_players

    def estimate(self, state: Sample) -> Attribution:
        """Return the Banzhaf values of the nearest additive game; their sum is what it is."""
        pairs = pairs_of(state.masks_cp, state.values_ck)
        weight_z = np.append(self.weights_by_size, 2.0**-self.n_players)
        strata = strata_of(pairs.size_m, self.n_players, pairs.signs_mp.dtype)
        certain = Strata(
            jnp.append(strata.of_m, len(weight_z) - 1), jnp.append(strata.count_z, 1), jnp.append(strata.unseen_z, 0)
        )
        fit = _regress(
            jnp.concatenate([pairs.signs_mp, jnp.ones((1, self.n_players), pairs.signs_mp.dtype)]),
            jnp.concatenate([pairs.differences_mk, (pairs.full_value_k - pairs.empty_value_k)[None]]),
            weight_z,
            certain,
        )
        return Attribution(fit[0], fit[1], pairs.empty_value_k, pairs.full_value_k, fit[2])


def kernel_mass(n_players: int) -> Float[np.ndarray, " Z"]:
    """Return what all pairs of size 1 to P // 2 weigh together under the Shapley kernel; sums to 1."""
    size_z = np.arange(1, n_players // 2 + 1)
    mass_z = np.where(2 * size_z == n_players, 0.5, 1.0) / (size_z * (n_players - size_z))
    return mass_z / mass_z.sum()


def _regress(x_mp, y_mk, mass_z: np.ndarray, strata: Strata) -> tuple[Array, Array, Array]:
    """Return coefficients, their standard errors and degrees of freedom; of the smallest norm where there are many."""
    dtype = x_mp.dtype
    each_z = jnp.asarray(mass_z, dtype) / jnp.maximum(strata.count_z, 1)
    weight_m1 = jnp.append(each_z, 0)[strata.of_m][:, None]
    with jax.default_matmul_precision("highest"):
        reach_mp = weight_m1 * (x_mp @ jnp.linalg.pinv(x_mp.T @ (weight_m1 * x_mp), hermitian=True))
        found_pk = reach_mp.T @ y_mk
        leverage_m1 = (reach_mp * x_mp).sum(axis=1, keepdims=True)
        left_mk = (y_mk - x_mp @ found_pk) / jnp.maximum(1 - leverage_m1, jnp.finfo(dtype).eps ** 0.5) ** _CORRECTION

    free_z = strata.count_z - 1 - jax.ops.segment_sum(leverage_m1[:, 0], strata.of_m, len(mass_z))

    def uncertainty(left_m: Float[Array, " M"]) -> tuple[Array, Array]:
        variance_zp = stratified_variance(reach_mp * left_m[:, None], strata)
        return jnp.sqrt(variance_zp.sum(axis=0)), degrees_of_freedom(variance_zp.sum(axis=1), free_z)

    errors_kp, free_k = jax.lax.map(uncertainty, left_mk.T)
    return found_pk, errors_kp.T, 1 / (1 / free_k).mean()
