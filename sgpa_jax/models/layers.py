"""Layers that the networks share, with torch's numerics: epsilons, exact GELU, two-pass variances, float32 softmax.

Shapes: B batch, T positions, D width, H heads, V vocabulary. Kernels are stored as (in, out), convolutions as
(taps, in, out); `sgpa_checkpoints` transposes on the way in.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int


class Linear(nnx.Module):
    """y = x W + b over the last axis."""

    def __init__(self, n_in: int, n_out: int, *, bias: bool = True, rngs: nnx.Rngs):
        self.kernel = nnx.Param(nnx.initializers.lecun_normal()(rngs.params(), (n_in, n_out), jnp.float32))
        self.bias = nnx.Param(jnp.zeros(n_out, jnp.float32)) if bias else None

    def __call__(self, x: Float[Array, "*batch n_in"]) -> Float[Array, "*batch n_out"]:
        """Apply in the dtype of `x`."""
        y = x @ self.kernel[...].astype(x.dtype)
        return y if self.bias is None else y + _row(self.bias[...], y)


class Embedding(nnx.Module):
    """A table of V vectors, kept as (V, D) so that it can serve as the output head without a transposed copy."""

    def __init__(self, n_rows: int, width: int, *, rngs: nnx.Rngs):
        self.table = nnx.Param(0.02 * jax.random.normal(rngs.params(), (n_rows, width), jnp.float32))

    def __call__(self, ids: Int[Array, "*batch"]) -> Float[Array, "*batch D"]:
        """Look rows up."""
        return self.table[...][ids]

    def logits(self, x: Float[Array, "*batch D"]) -> Float[Array, "*batch V"]:
        """Score every row against `x`, accumulated and returned in float32."""
        return jnp.einsum("...d,vd->...v", x, self.table[...].astype(x.dtype), preferred_element_type=jnp.float32)


class LayerNorm(nnx.Module):
    """LayerNorm with torch's epsilon of 1e-5, computed in float32."""

    def __init__(self, width: int):
        self.scale = nnx.Param(jnp.ones(width, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(width, jnp.float32))

    def __call__(self, x: Float[Array, "*batch D"]) -> Float[Array, "*batch D"]:
        """Normalise the last axis."""
        y = x.astype(jnp.float32)
        y = y - y.mean(-1, keepdims=True)
        y = y * jax.lax.rsqrt(jnp.mean(y * y, -1, keepdims=True) + 1e-5)
        y = y * _row(self.scale[...].astype(jnp.float32), y) + _row(self.bias[...].astype(jnp.float32), y)
        return y.astype(x.dtype)


class RMSNorm(nnx.Module):
    """RMSNorm as Qwen2 has it: normalised in float32, cast back, then scaled."""

    def __init__(self, width: int, eps: float):
        self.scale = nnx.Param(jnp.ones(width, jnp.float32))
        self.eps = eps

    def __call__(self, x: Float[Array, "*batch D"]) -> Float[Array, "*batch D"]:
        """Normalise the last axis."""
        y = x.astype(jnp.float32)
        y = (y * jax.lax.rsqrt(jnp.mean(y * y, -1, keepdims=True) + self.eps)).astype(x.dtype)
        return y * _row(self.scale[...].astype(x.dtype), y)


class Conv1d(nnx.Module):
    """A convolution over time with zero padding of one on both sides and three taps, as Whisper's stem has it."""

    def __init__(self, n_in: int, n_out: int, *, stride: int, rngs: nnx.Rngs):
        self.kernel = nnx.Param(nnx.initializers.lecun_normal()(rngs.params(), (3, n_in, n_out), jnp.float32))
        self.bias = nnx.Param(jnp.zeros(n_out, jnp.float32))
        self.stride = stride

    def __call__(self, x: Float[Array, "B F n_in"]) -> Float[Array, "B G n_out"]:
        """Convolve: G = (F - 1) // stride + 1 frames."""
        kernel = self.kernel[...].astype(x.dtype)
        n_out_frames = (x.shape[1] - 1) // self.stride + 1
        padded = jnp.pad(x, ((0, 0), (1, 1), (0, 0)))
        # Three shifted matrix products: XLA's CPU convolutions are several times slower at these widths.
        taps = [padded[:, i : i + (n_out_frames - 1) * self.stride + 1 : self.stride] @ kernel[i] for i in range(3)]
        y = taps[0] + taps[1] + taps[2]
        return y + _row(self.bias[...], y)


def gelu(x: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """GELU with the exact error function, as torch's default."""
    return jax.nn.gelu(x, approximate=False)


def rotate(x: Float[Array, "B T H D"], positions_bt: Int[Array, "B T"], theta: float) -> Float[Array, "B T H D"]:
    """Rotary position embedding in the half-split layout, its angles in float32."""
    half = x.shape[-1] // 2
    frequency = 1.0 / theta ** (jnp.arange(half, dtype=jnp.float32) / half)
    angle = (positions_bt.astype(jnp.float32)[:, :, None] * frequency[None, None, :])[:, :, None, :]
    cos, sin = jnp.cos(angle).astype(x.dtype), jnp.sin(angle).astype(x.dtype)
    left, right = x[..., :half], x[..., half:]
    return jnp.concatenate([left * cos - right * sin, right * cos + left * sin], axis=-1)


def attention(
    query: Float[Array, "B T H D"],
    key: Float[Array, "B U G D"],
    value: Float[Array, "B U G D"],
    mask: Bool[Array, "B T U"],
) -> Float[Array, "B T W"]:
    """Masked attention of H query heads over G key heads (H a multiple of G), softmax in float32, W = H * D.

    A query that may look at nothing gets the average of all values; callers never read such rows.
    """
    n_batch, n_query, n_heads, width = query.shape
    groups, n_keys = key.shape[2], key.shape[1]
    # Heads first, and the sums divided at the end: a third less time on CPUs than weights that are divided before.
    query = query.reshape(n_batch, n_query, groups, -1, width).transpose(0, 2, 3, 1, 4)
    rows = (n_batch, groups, n_heads // groups * n_query)
    scores = jnp.einsum(
        "bgtd,bgud->bgtu",
        query.reshape(*rows, width),
        key.transpose(0, 2, 1, 3),
        preferred_element_type=jnp.float32,
    ).reshape(n_batch, groups, -1, n_query, n_keys)
    scores = jnp.where(mask[:, None, None], scores * width**-0.5, jnp.finfo(jnp.float32).min)
    weights = jnp.exp(scores - scores.max(axis=-1, keepdims=True))
    summed = jnp.einsum(
        "bgtu,bgud->bgtd",
        weights.astype(value.dtype).reshape(*rows, n_keys),
        value.transpose(0, 2, 1, 3),
        preferred_element_type=jnp.float32,
    ).reshape(n_batch, groups, -1, n_query, width)
    attended = (summed / weights.sum(axis=-1, keepdims=True)).astype(value.dtype)
    return attended.transpose(0, 3, 1, 2, 4).reshape(n_batch, n_query, n_heads * width)


def _row(vector: Float[Array, " D"], like: Array) -> Array:
    """Give a vector the rank of `like` (rank promotion is refused in the tests) and its dtype."""
    return vector.astype(like.dtype).reshape((1,) * (like.ndim - 1) + (-1,))
