"""The small transformer with which LFM2-Audio speaks: a frame of audio is a sequence of K codes, one per codebook.

Upstream: liquid-audio 1.3.0, whose blocks fix everything but width and depth: 32 heads over 8 key heads, queries and
keys normed per head, rotation of neighbouring pairs with base 1e6, SwiGLU of two thirds of four widths.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from sgpa_jax.models.layers import Linear, attention

N_HEADS, N_KV_HEADS = 32, 8
ROPE_THETA = 1e6
NORM_EPS = 1e-5
_FFN_STEP = 256

Past = tuple[tuple[Array, Array], ...]
"""Keys and values of the codebooks before, for every layer."""


class Depthformer(nnx.Module):
    """Causal blocks over the codebooks of one frame; there is no norm at the end, every codebook's head has its own."""

    def __init__(self, width: int, n_layers: int, *, rngs: nnx.Rngs):
        self.layers = nnx.List([DepthLayer(width, rngs=rngs) for _ in range(n_layers)])

    def __call__(self, x: Float[Array, "B N D"], past: Past | None = None) -> tuple[Float[Array, "B N D"], Past]:
        """Run N codebooks that follow those of `past`, and return the past of the next."""
        found = []
        for i, layer in enumerate(self.layers):
            x, *written = layer(x, None if past is None else past[i])
            found.append(tuple(written))
        return x, tuple(found)


class DepthLayer(nnx.Module):
    """Attention and SwiGLU, each behind a norm, added to the residual stream; no biases."""

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        head_width = width // N_HEADS
        ffn_width = -(-int(2 * 4 * width / 3) // _FFN_STEP) * _FFN_STEP
        self.operator_norm = LateCastRMSNorm(width)
        self.query = Linear(width, width, bias=False, rngs=rngs)
        self.key = Linear(width, N_KV_HEADS * head_width, bias=False, rngs=rngs)
        self.value = Linear(width, N_KV_HEADS * head_width, bias=False, rngs=rngs)
        self.query_norm = LateCastRMSNorm(head_width)
        self.key_norm = LateCastRMSNorm(head_width)
        self.out = Linear(width, width, bias=False, rngs=rngs)
        self.ffn_norm = LateCastRMSNorm(width)
        self.gate = Linear(width, ffn_width, bias=False, rngs=rngs)
        self.up = Linear(width, ffn_width, bias=False, rngs=rngs)
        self.down = Linear(ffn_width, width, bias=False, rngs=rngs)

    def __call__(self, x: Float[Array, "B N D"], past: tuple[Array, Array] | None) -> tuple[Array, Array, Array]:
        """Return the new residual stream and all keys and values so far."""
        y = self.operator_norm(x)
        query, key, value = (
            project(y).reshape(*y.shape[:2], -1, y.shape[2] // N_HEADS)
            for project in (self.query, self.key, self.value)
        )
        start = 0 if past is None else past[0].shape[1]
        query, key = _rotate_pairs(self.query_norm(query), start), _rotate_pairs(self.key_norm(key), start)
        if past is not None:
            key, value = jnp.concatenate([past[0], key], axis=1), jnp.concatenate([past[1], value], axis=1)
        mask_nu = jnp.tril(jnp.ones((x.shape[1], key.shape[1]), bool), k=start)
        mask = jnp.broadcast_to(mask_nu[None], (x.shape[0], *mask_nu.shape))
        x = x + self.out(attention(query, key, value, mask))
        y = self.ffn_norm(x)
        return x + self.down(jax.nn.silu(self.gate(y)) * self.up(y)), key, value


class LateCastRMSNorm(nnx.Module):
    """RMSNorm that scales in float32 before it casts back, unlike transformers': in bfloat16 the two differ."""

    def __init__(self, width: int):
        self.scale = nnx.Param(jnp.ones(width, jnp.float32))

    def __call__(self, x: Float[Array, "*batch D"]) -> Float[Array, "*batch D"]:
        """Normalise the last axis."""
        y = x.astype(jnp.float32)
        y = y * jax.lax.rsqrt(jnp.mean(y * y, -1, keepdims=True) + NORM_EPS)
        scale = self.scale[...].astype(jnp.float32).reshape((1,) * (y.ndim - 1) + (-1,))
        return (y * scale).astype(x.dtype)


def _rotate_pairs(x: Float[Array, "B N H D"], start: int) -> Float[Array, "B N H D"]:
    """Rotary position embedding whose pairs are neighbours, positions from `start`, in float32."""
    half = x.shape[-1] // 2
    frequency = 1.0 / ROPE_THETA ** (jnp.arange(half, dtype=jnp.float32) / half)
    position = start + jnp.arange(x.shape[1], dtype=jnp.float32)
    angle = (position[:, None] * frequency[None, :])[None, :, None, :]
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    pairs = x.astype(jnp.float32).reshape(*x.shape[:-1], half, 2)
    left, right = pairs[..., 0], pairs[..., 1]
    turned = jnp.stack([left * cos - right * sin, right * cos + left * sin], axis=-1)
    return turned.reshape(x.shape).astype(x.dtype)
