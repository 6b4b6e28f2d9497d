"""Unbiased KernelSHAP (Covert and Lee 2021, "Improving KernelSHAP", §3.2): the regression's matrix is exact.

KernelSHAP solves A φ = b with both estimated from the same sample, and so is biased a little. Of the two only b has to
be: under the Shapley kernel A is known, among what sums to zero a multiple of the identity. The rest is a mean of d(S)
times centred signs, by size, whose expectation over the draws is the Shapley value. From d(S) we take what a game of
equal shares would give, which is known and leaves the mean as it is. It varies more than KernelSHAP does: it is the one
to average over many runs. Axes: `Z` sizes, `M` pairs, `P` players, `K` outputs.
"""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sgpa_jax.estimators.base import Attribution
from sgpa_jax.estimators.regression import KernelShap, kernel_mass
from sgpa_jax.estimators.sampling import Sample, degrees_of_freedom, pairs_of, strata_of, stratified_variance


@dataclass(frozen=True)
class UnbiasedKernelShap(KernelShap):
    """Shapley values without bias at any budget, from pairs drawn in proportion to the Shapley kernel."""

    name: ClassVar[str] = "unbiased_kernelshap"

    def estimate(self, state: Sample) -> Attribution:
        """Return unbiased Shapley values; they sum to v(N) - v(∅)."""
        pairs = pairs_of(state.masks_cp, state.values_ck)
        strata = strata_of(pairs.size_m, self.n_players, pairs.signs_mp.dtype)
        total_k = pairs.full_value_k - pairs.empty_value_k
        mean_sign_m1 = pairs.signs_mp.mean(axis=1, keepdims=True)
        each_z = self._reach_by_size.astype(pairs.signs_mp.dtype) / jnp.maximum(strata.count_z, 1)
        reach_mp = jnp.append(each_z, 0)[strata.of_m][:, None] * (pairs.signs_mp - mean_sign_m1)
        beyond_mk = pairs.differences_mk - mean_sign_m1 * total_k[None]

        def uncertainty(beyond_m: Float[Array, " M"]) -> tuple[Array, Array]:
            variance_zp = stratified_variance(reach_mp * beyond_m[:, None], strata)
            return jnp.sqrt(variance_zp.sum(axis=0)), degrees_of_freedom(variance_zp.sum(axis=1), strata.count_z - 1)

        errors_kp, free_k = jax.lax.map(uncertainty, beyond_mk.T)
        with jax.default_matmul_precision("highest"):
            shares_pk = total_k[None] / self.n_players + reach_mp.T @ beyond_mk
        return Attribution(shares_pk, errors_kp.T, pairs.empty_value_k, pairs.full_value_k, 1 / (1 / free_k).mean())

    @property
    def _reach_by_size(self) -> Float[np.ndarray, " Z"]:
        """Weights of the sizes over the multiple of the identity: the mean square of a centred sign."""
        mass_z, size_z = kernel_mass(self.n_players), np.arange(1, self.n_players // 2 + 1)
        squares_z = 4 * size_z * (self.n_players - size_z) / self.n_players
        return mass_z * (self.n_players - 1) / (mass_z * squares_z).sum()
