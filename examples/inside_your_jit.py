"""Estimate Shapley values inside of your own jitted function: estimators are pure, so they vmap and jit like anything.

A linear model explains a whole batch of inputs at once; absent features are zero.
"""

import jax
import jax.numpy as jnp

from sgpa_jax.estimators import Permutation

weight_p = jnp.array([2.0, -1.0, 0.5, 3.0])
estimator = Permutation(n_players=4, n_pairs=8)


@jax.jit
def explain_batch(keys_b: jax.Array, inputs_bp: jax.Array) -> jax.Array:
    """Return the Shapley values of every input's features, float[B, P]."""

    def explain_one(key: jax.Array, input_p: jax.Array) -> jax.Array:
        state = estimator.init(key)
        masks_cp = estimator.propose(state)
        values_ck = (jnp.where(masks_cp, input_p[None, :], 0.0) @ weight_p)[:, None]
        return estimator.estimate(estimator.update(state, masks_cp, values_ck)).values_pk[:, 0]

    return jax.vmap(explain_one)(keys_b, inputs_bp)


inputs_bp = jnp.arange(12.0).reshape(3, 4)
shapley_bp = explain_batch(jax.random.split(jax.random.key(0), 3), inputs_bp)
print(shapley_bp)
