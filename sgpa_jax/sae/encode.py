"""Latents of inputs: all M of them, or the k that a TopK autoencoder keeps and their places.

A TopK keeps the k largest pre-activations and cuts the negative ones of these to zero; the other kinds keep what
exceeds a threshold. Axes: `B` tokens, `D` width, `K` kept latents, `M` latents.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
from sgpa_kernels.topk import Impl, top_k, top_k_mask

from sgpa_jax.errors import UsageError
from sgpa_jax.sae.state import SAEState


def encode(sae: SAEState, x: Float[Array, "*batch D"], *, impl: Impl = "lax") -> Float[Array, "*batch M"]:
    """Latents of inputs of any floating dtype, float32; `impl` is how the largest are found, which changes nothing."""
    x_bd = x.reshape(-1, x.shape[-1])
    pre_bm = pre_activations(sae, centred(sae, x_bd))
    if sae.config.kind == "topk":
        kept_bm = top_k_mask(pre_bm, sae.config.k, impl=impl)
    else:
        kept_bm = pre_bm > sae.threshold_m[None]
    return jnp.where(kept_bm, jax.nn.relu(pre_bm), 0.0).reshape(*x.shape[:-1], -1)


def encode_sparse(
    sae: SAEState, x_bd: Float[Array, "B D"], *, impl: Impl = "lax"
) -> tuple[Float[Array, "B K"], Int[Array, "B K"]]:
    """The k latents of a TopK autoencoder (zeros among them where fewer are positive), and which they are, in order.

    Raises:
        UsageError: the autoencoder is of another kind, whose tokens have any number of latents.
    """
    if sae.config.kind != "topk":
        raise UsageError(f"a {sae.config.kind} autoencoder keeps no fixed number of latents; use encode")
    x_bd = centred(sae, x_bd)
    kept_bk, index_bk = top_k(jax.lax.stop_gradient(pre_activations(sae, x_bd)), sae.config.k, impl=impl)
    return jax.nn.relu(as_encoded(kept_bk, index_bk, x_bd, sae.w_enc_md, sae.b_enc_m)), index_bk


def centred(sae: SAEState, x_bd: Float[Array, "B D"]) -> Float[Array, "B D"]:
    """What the encoder multiplies, float32."""
    x_bd = x_bd.astype(jnp.float32)
    return x_bd - sae.b_dec_d[None] if sae.config.pre_bias else x_bd


def pre_activations(sae: SAEState, centred_bd: Float[Array, "B D"]) -> Float[Array, "B M"]:
    """Pre-activations of centred inputs."""
    compute = sae.config.compute
    product_bm = jax.lax.dot_general(
        centred_bd.astype(compute), sae.w_enc_md.astype(compute), (((1,), (1,)), ((), ())),
        preferred_element_type=jnp.float32,
    )  # fmt: skip
    return product_bm + sae.b_enc_m[None]


@jax.custom_vjp
def as_encoded(
    kept_bk: Float[Array, "B K"],
    index_bk: Int[Array, "B K"],
    centred_bd: Float[Array, "B D"],
    w_enc_md: Float[Array, "M D"],
    b_enc_m: Float[Array, " M"],
) -> Float[Array, "B K"]:
    """Return pre-activations that were picked without a gradient, with the gradient that they have.

    It touches the K rows that were picked, and never an array of B × M.
    """
    return kept_bk


def _forward(kept_bk, index_bk, centred_bd, w_enc_md, b_enc_m):
    return kept_bk, (index_bk, centred_bd, w_enc_md)


def _backward(kept, slope_bk):
    index_bk, centred_bd, w_enc_md = kept
    slope_d = sum_of_rows(slope_bk, index_bk, w_enc_md)
    slope_md = scattered_rows(slope_bk, index_bk, centred_bd, w_enc_md.shape[0])
    slope_m = jnp.zeros_like(w_enc_md[:, 0]).at[index_bk.reshape(-1)].add(slope_bk.reshape(-1))
    return jnp.zeros_like(slope_bk), None, slope_d, slope_md, slope_m


as_encoded.defvjp(_forward, _backward)


def sum_of_rows(
    weight_bk: Float[Array, "B K"], index_bk: Int[Array, "B K"], rows_md: Float[Array, "M D"]
) -> Float[Array, "B D"]:
    """For every token, its K rows times its weights: one row a token after the other, never B × K × D at once."""

    def step(sum_bd: Array, pair: tuple[Array, Array]) -> tuple[Array, None]:
        weight_b, index_b = pair
        return sum_bd + weight_b[:, None] * rows_md[index_b], None

    none_bd = jnp.zeros((len(index_bk), rows_md.shape[1]), rows_md.dtype)
    return jax.lax.scan(step, none_bd, (weight_bk.T, index_bk.T))[0]


def scattered_rows(
    weight_bk: Float[Array, "B K"], index_bk: Int[Array, "B K"], x_bd: Float[Array, "B D"], n_rows: int
) -> Float[Array, "M D"]:
    """Every token's row added, times its weights, to the K rows that it names."""

    def step(sum_md: Array, pair: tuple[Array, Array]) -> tuple[Array, None]:
        weight_b, index_b = pair
        return sum_md.at[index_b].add(weight_b[:, None] * x_bd), None

    return jax.lax.scan(step, jnp.zeros((n_rows, x_bd.shape[1]), x_bd.dtype), (weight_bk.T, index_bk.T))[0]
