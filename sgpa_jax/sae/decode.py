"""Inputs from latents: from all of them by a matrix product, or from the few that fire by their rows.

Axes: `B` tokens, `D` width, `K` kept latents, `M` latents.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from sgpa_jax.sae.encode import encode, scattered_rows, sum_of_rows
from sgpa_jax.sae.state import SAEState


def decode(sae: SAEState, z: Float[Array, "*batch M"]) -> Float[Array, "*batch D"]:
    """Reconstruction, float32."""
    z_bm = z.reshape(-1, z.shape[-1])
    return (dictionary_sum(sae, z_bm) + sae.b_dec_d[None]).reshape(*z.shape[:-1], -1)


def decode_sparse(sae: SAEState, z_bk: Float[Array, "B K"], index_bk: Int[Array, "B K"]) -> Float[Array, "B D"]:
    """Reconstruction from K latents a token: as `decode` of them and zeros for all others."""
    return sparse_sum(z_bk, index_bk, sae.w_dec_md) + sae.b_dec_d[None]


def reconstruct(sae: SAEState, x: Float[Array, "*batch D"]) -> Float[Array, "*batch D"]:
    """What is left of inputs that went through the autoencoder."""
    return decode(sae, encode(sae, x))


def dictionary_sum(sae: SAEState, z_bm: Float[Array, "B M"], first: int = 0) -> Float[Array, "B D"]:
    """Latents times their rows of the dictionary, those from `first` on."""
    compute = sae.config.compute
    rows_md = sae.w_dec_md[first : first + z_bm.shape[1]]
    return jnp.matmul(z_bm.astype(compute), rows_md.astype(compute), preferred_element_type=jnp.float32)


@jax.custom_vjp
def sparse_sum(
    z_bk: Float[Array, "B K"], index_bk: Int[Array, "B K"], w_dec_md: Float[Array, "M D"]
) -> Float[Array, "B D"]:
    """Latents times their rows; the gradients touch these alone."""
    return sum_of_rows(z_bk, index_bk, w_dec_md)


def _forward(z_bk, index_bk, w_dec_md):
    return sum_of_rows(z_bk, index_bk, w_dec_md), (z_bk, index_bk, w_dec_md)


def _backward(kept, slope_bd):
    z_bk, index_bk, w_dec_md = kept
    slope_kb = jax.lax.map(lambda index_b: (w_dec_md[index_b] * slope_bd).sum(axis=1), index_bk.T)
    return slope_kb.T, None, scattered_rows(z_bk, index_bk, slope_bd, w_dec_md.shape[0])


sparse_sum.defvjp(_forward, _backward)
