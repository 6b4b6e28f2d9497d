"""The weights of a sparse autoencoder as one pytree, and how they start.

Encoder and decoder lie alike, a row for every latent, so that few latents are few rows of both. Axes: `B` tokens, `D`
width, `M` latents.
"""

from dataclasses import dataclass, field, replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from sgpa_jax.sae.config import SAEConfig


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SAEState:
    """A sparse autoencoder, float32.

    Attributes:
        w_enc_md, b_enc_m: the encoder.
        w_dec_md, b_dec_d: the decoder.
        threshold_m: what a latent must exceed to fire, for all kinds but `topk`, which has no use for it.
        config: sizes and kind.
    """

    w_enc_md: Float[Array, "M D"]
    b_enc_m: Float[Array, " M"]
    w_dec_md: Float[Array, "M D"]
    b_dec_d: Float[Array, " D"]
    threshold_m: Float[Array, " M"]
    config: SAEConfig = field(metadata={"static": True})


def init_sae(config: SAEConfig, x_bd: Float[Array, "B D"], *, key: PRNGKeyArray) -> SAEState:
    """Start with random unit rows, encoder and decoder the same, and the decoder's bias at the inputs' middle.

    The middle is the geometric median of the given normalised inputs. JumpReLU's thresholds start where k latents
    fire for one of them, in the middle.
    """
    rows_md = unit_rows(jax.random.normal(key, (config.n_latents, config.width)))
    middle_d = geometric_median(x_bd.astype(jnp.float32))
    threshold = jnp.zeros(())
    if config.kind == "jumprelu":
        centred_bd = x_bd[:1024] - middle_d[None] if config.pre_bias else x_bd[:1024]
        threshold = jnp.maximum(jnp.median(jax.lax.top_k(centred_bd @ rows_md.T, config.k)[0][:, -1]), 0.0)
    zeros_m = jnp.zeros(config.n_latents)
    # Encoder and decoder are two arrays: a buffer that is given away when training steps must not be there twice.
    return SAEState(rows_md, zeros_m, rows_md.copy(), middle_d, jnp.full_like(zeros_m, threshold), config)


def unit_rows(rows_md: Float[Array, "M D"]) -> Float[Array, "M D"]:
    """Rows at norm one; a row of zeros stays."""
    return rows_md / jnp.maximum(jnp.linalg.norm(rows_md, axis=1, keepdims=True), 1e-12)


def geometric_median(x_bd: Float[Array, "B D"], *, n_iterations: int = 64) -> Float[Array, " D"]:
    """The point with the least sum of distances (Weiszfeld's iteration)."""

    def closer(_: Array, middle_d: Array) -> Array:
        far_b = jnp.maximum(jnp.linalg.norm(x_bd - middle_d[None], axis=1), 1e-6)
        return (x_bd / far_b[:, None]).sum(axis=0) / (1 / far_b).sum()

    return jax.lax.fori_loop(0, n_iterations, closer, x_bd.mean(axis=0))


def with_unit_decoder(sae: SAEState) -> SAEState:
    """The same with decoder rows at norm one."""
    return replace(sae, w_dec_md=unit_rows(sae.w_dec_md))
