"""What training makes small: the squared error, and what keeps latents alive and few.

Every kind answers with the same numbers, whichever path it took: through all latents (`dense`), or, for TopK, through
the few that fire alone (`sparse`). AuxK (Gao et al., arXiv 2406.04093) lets the largest latents that have not fired for
long explain what is left; their pre-activations count as they are, since a latent that is never positive would stay
dead behind a ReLU. BatchTopK: Bussmann et al., arXiv 2412.06410; Matryoshka: arXiv 2503.17547; JumpReLU and its
stand-in gradients: Rajamanoharan et al., arXiv 2407.14435. Axes: `B` tokens, `D` width, `K` kept latents, `M` latents.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float
from sgpa_kernels.topk import Impl, top_k, top_k_mask

from sgpa_jax.sae.config import TrainConfig
from sgpa_jax.sae.decode import dictionary_sum, sparse_sum
from sgpa_jax.sae.encode import as_encoded, centred, pre_activations
from sgpa_jax.sae.state import SAEState


@dataclass(frozen=True)
class Paths:
    """Ways of computing the same: how latents are decoded in training, and how the largest are found."""

    decode: Literal["dense", "sparse"] = "dense"
    top_k: Impl = "lax"


class Told(NamedTuple):
    """Of a batch, beside its loss.

    Attributes:
        fired_m: which latents fired.
        error, variance: mean squared error, and that of the batch's own mean in place of the reconstruction.
        l0: latents that fired, a token.
        least: the least latent that fired, infinity if none did.
    """

    fired_m: Bool[Array, " M"]
    error: Float[Array, ""]
    variance: Float[Array, ""]
    l0: Float[Array, ""]
    least: Float[Array, ""]


def training_loss(
    sae: SAEState, x_bd: Float[Array, "B D"], dead_m: Bool[Array, " M"], *, training: TrainConfig, paths: Paths
) -> tuple[Float[Array, ""], Told]:
    """Loss of a batch of normalised inputs; `dead_m` says which latents AuxK may wake."""
    if sae.config.kind == "topk" and paths.decode == "sparse":
        return _sparse_loss(sae, x_bd, dead_m, training, paths)
    return _dense_loss(sae, x_bd, dead_m, training, paths)


def _sparse_loss(sae: SAEState, x_bd: Array, dead_m: Array, training: TrainConfig, paths: Paths) -> tuple[Array, Told]:
    x_centred = centred(sae, x_bd)
    pre_bm = jax.lax.stop_gradient(pre_activations(sae, x_centred))

    def picked(pre_bm: Array, k: int) -> tuple[Array, Array]:
        kept_bk, index_bk = top_k(pre_bm, k, impl=paths.top_k)
        return as_encoded(kept_bk, index_bk, x_centred, sae.w_enc_md, sae.b_enc_m), index_bk

    pre_bk, index_bk = picked(pre_bm, sae.config.k)
    z_bk = jax.nn.relu(pre_bk)
    left_bd = x_bd - sparse_sum(z_bk, index_bk, sae.w_dec_md) - sae.b_dec_d[None]

    def waking() -> Array:
        aux_bk, index_bk = picked(jnp.where(dead_m[None], pre_bm, -jnp.inf), min(training.aux_k, sae.config.n_latents))
        aux_bk = jnp.where(jnp.isfinite(aux_bk), aux_bk, 0.0)
        return sparse_sum(aux_bk, index_bk, sae.w_dec_md)

    fired_m = jnp.zeros_like(dead_m).at[index_bk.reshape(-1)].max(z_bk.reshape(-1) > 0)
    loss = _mean_square(left_bd) + _aux_loss(waking, left_bd, dead_m, training)
    return loss, _told(x_bd, left_bd, z_bk, fired_m)


def _dense_loss(sae: SAEState, x_bd: Array, dead_m: Array, training: TrainConfig, paths: Paths) -> tuple[Array, Told]:
    config, (n_tokens, width) = sae.config, x_bd.shape
    pre_bm = pre_activations(sae, centred(sae, x_bd))
    if config.kind == "jumprelu":
        z_bm, fires_bm = jump(pre_bm, sae.threshold_m, training.bandwidth)
        rate = fires_bm.sum() / (n_tokens * config.k) - 1
        loss = training.sparsity_weight * width * rate**2
    else:
        z_bm, loss = jnp.where(_kept(pre_bm, sae, paths), jax.nn.relu(pre_bm), 0.0), jnp.zeros(())

    def waking() -> Array:
        aux_k = min(training.aux_k, config.n_latents)
        kept_bm = top_k_mask(jnp.where(dead_m[None], pre_bm, -jnp.inf), aux_k, impl=paths.top_k) & dead_m[None]
        return dictionary_sum(sae, jnp.where(kept_bm, pre_bm, 0.0))

    left_bd, errors, first = x_bd - sae.b_dec_d[None], [], 0
    for end in config.nested:
        left_bd = left_bd - dictionary_sum(sae, z_bm[:, first:end], first)
        errors.append(_mean_square(left_bd))
        first = end
    loss = loss + jnp.stack(errors).mean() + _aux_loss(waking, left_bd, dead_m, training)
    return loss, _told(x_bd, left_bd, z_bm, (z_bm > 0).any(axis=0))


def _kept(pre_bm: Array, sae: SAEState, paths: Paths) -> Array:
    if sae.config.kind == "topk":
        return top_k_mask(pre_bm, sae.config.k, impl=paths.top_k)
    kept_1n = top_k_mask(pre_bm.reshape(1, -1), len(pre_bm) * sae.config.k, impl=paths.top_k)
    return kept_1n.reshape(pre_bm.shape)


def _aux_loss(waking, left_bd: Array, dead_m: Array, training: TrainConfig) -> Array:
    """AuxK's, in proportion to how many of the latents that it could use are dead; nothing is computed if none are."""
    if training.aux_weight == 0:
        return jnp.zeros(())
    target_bd, n_dead = jax.lax.stop_gradient(left_bd), dead_m.sum()
    share = jnp.minimum(n_dead / training.aux_k, 1.0).astype(jnp.float32)
    return jax.lax.cond(
        n_dead > 0,
        lambda: training.aux_weight * share * _mean_square(target_bd - waking()),
        lambda: jnp.zeros(()),
    )


def _told(x_bd: Array, left_bd: Array, z_bk: Array, fired_m: Array) -> Told:
    told = Told(
        fired_m,
        _mean_square(left_bd),
        _mean_square(x_bd - x_bd.mean(axis=0, keepdims=True)),
        (z_bk > 0).sum(axis=1).astype(jnp.float32).mean(),
        jnp.where(z_bk > 0, z_bk, jnp.inf).min(),
    )
    return jax.tree.map(jax.lax.stop_gradient, told)


def _mean_square(x_bd: Array) -> Array:
    return (x_bd**2).sum(axis=1).mean()


@jax.custom_vjp
def jump(pre_bm: Float[Array, "B M"], threshold_m: Float[Array, " M"], bandwidth: float) -> tuple[Array, Array]:
    """JumpReLU, and the step itself as zeros and ones; a threshold's gradient looks `bandwidth` around it."""
    fires_bm = (pre_bm > threshold_m[None]).astype(pre_bm.dtype)
    return jax.nn.relu(pre_bm) * fires_bm, fires_bm


def _jump_forward(pre_bm, threshold_m, bandwidth):
    return jump(pre_bm, threshold_m, bandwidth), (pre_bm, threshold_m, bandwidth)


def _jump_backward(kept, slopes):
    (pre_bm, threshold_m, bandwidth), (slope_bm, step_slope_bm) = kept, slopes
    fires_bm = (pre_bm > threshold_m[None]) & (pre_bm > 0)
    near_bm = jnp.where(jnp.abs(pre_bm - threshold_m[None]) < bandwidth / 2, 1 / bandwidth, 0.0)
    to_threshold_m = -(near_bm * (threshold_m[None] * slope_bm + step_slope_bm)).sum(axis=0)
    return jnp.where(fires_bm, slope_bm, 0.0), to_threshold_m, None


jump.defvjp(_jump_forward, _jump_backward)
