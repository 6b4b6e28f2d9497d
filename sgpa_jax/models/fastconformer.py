"""FastConformer, the audio encoder of LFM2-Audio (and of NeMo's Parakeet and Canary): eightfold subsampling by strided
convolutions, then conformer layers with relative positions (arXiv:2305.05084).

Upstream: NeMo `ConformerEncoder` as liquid-audio has it; transformers' `ParakeetEncoder` (5.23) without input scaling
is the same network. Clips are hidden from their padding everywhere, so any bucket gives the numbers of the clip alone.
"""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from sgpa_jax.errors import CheckpointError
from sgpa_jax.models.config import needed, only
from sgpa_jax.models.layers import LayerNorm, Linear

Count = TypeVar("Count", int, Array)


@dataclass(frozen=True, kw_only=True)
class FastConformerConfig:
    """Sizes of a FastConformer that subsamples by eight and attends without limits."""

    n_mels: int
    width: int
    n_layers: int
    n_heads: int
    ffn_width: int
    n_channels: int
    n_taps: int

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> "FastConformerConfig":
        """Read the `encoder` of an LFM2-Audio `config.json`, with NeMo's defaults for what it leaves out.

        Raises:
            CheckpointError: a size is missing, or a setting changes the network and is not implemented.
        """
        for key, default, allowed in (
            ("feat_out", -1, (-1,)),
            ("subsampling", "striding", ("dw_striding",)),
            ("subsampling_factor", 4, (8,)),
            ("causal_downsampling", False, (False,)),
            ("reduction", None, (None,)),
            ("self_attention_model", "rel_pos", ("rel_pos",)),
            ("att_context_size", [-1, -1], ([-1, -1], [[-1, -1]])),
            ("att_context_style", "regular", ("regular",)),
            ("xscaling", True, (False,)),
            ("untie_biases", True, (True,)),
            ("conv_norm_type", "batch_norm", ("batch_norm",)),
            ("conv_context_size", None, (None,)),
            ("use_bias", True, (True,)),
        ):
            only(config, f"encoder.{key}", key, allowed, default=default)
        width, n_taps = needed(config, "encoder.d_model", "d_model"), config.get("conv_kernel_size", 31)
        n_channels = config.get("subsampling_conv_channels", -1)
        if n_taps % 2 == 0:
            raise CheckpointError(
                f"config.json sets encoder.conv_kernel_size to {n_taps}, but only odd ones are implemented"
            )
        return cls(
            n_mels=needed(config, "encoder.feat_in", "feat_in"),
            width=width,
            n_layers=needed(config, "encoder.n_layers", "n_layers"),
            n_heads=config.get("n_heads", 4),
            ffn_width=width * config.get("ff_expansion_factor", 4),
            n_channels=width if n_channels == -1 else n_channels,
            n_taps=n_taps,
        )

    @property
    def position_frames(self) -> tuple[int, int]:
        """Middle of the first position's receptive field, and the distance of positions, in mel frames."""
        return 0, 8

    def n_tokens(self, n_frames: Count) -> Count:
        """Decoder positions for clips of `n_frames` mel frames: an eighth, rounded up."""
        return _eighth(n_frames)


class FastConformer(nnx.Module):
    """Log-mel frames to audio features of the encoder's width, one for every eight frames."""

    def __init__(self, config: FastConformerConfig, *, rngs: nnx.Rngs):
        self.subsampling = Subsampling(config, rngs=rngs)
        self.layers = nnx.List([FastConformerLayer(config, rngs=rngs) for _ in range(config.n_layers)])

    def __call__(self, mel_bfm: Float[Array, "B F M"], n_frames_b: Int[Array, " B"]) -> Float[Array, "B G D"]:
        """Encode clips of `n_frames_b` mel frames each, in a bucket of F frames: G = ceil(F / 8) positions.

        Of these, `config.n_tokens(n_frames_b)` are real; the rest hold values nobody may read.
        """
        return self.pool(self.frames(mel_bfm, n_frames_b))

    def frames(self, mel_bfm: Float[Array, "B F M"], n_frames_b: Int[Array, " B"]) -> Float[Array, "B G D"]:
        """Return the output of the last layer: G frames."""
        x = self.subsampling(mel_bfm, n_frames_b)
        exists_bg = _exists(_eighth(n_frames_b), x.shape[1])
        positions = relative_positions(x.shape[1], x.shape[2]).astype(x.dtype)
        for layer in self.layers:
            x = layer(x, positions, exists_bg)
        return x

    def pool(self, frames_bgd: Float[Array, "B G D"]) -> Float[Array, "B G D"]:
        """Return the frames as they are: every one of them is a position of the decoder."""
        return frames_bgd


class Subsampling(nnx.Module):
    """Three strided 3x3 convolutions over time and mel bins, two of them depthwise, then a projection."""

    def __init__(self, config: FastConformerConfig, *, rngs: nnx.Rngs):
        channels = config.n_channels
        self.conv1 = Conv2d(channels, rngs=rngs)
        self.conv2, self.mix2 = Depthwise((3, 3), channels, stride=2, rngs=rngs), Linear(channels, channels, rngs=rngs)
        self.conv3, self.mix3 = Depthwise((3, 3), channels, stride=2, rngs=rngs), Linear(channels, channels, rngs=rngs)
        self.out = Linear(channels * _eighth(config.n_mels), config.width, rngs=rngs)

    def __call__(self, mel_bfm: Float[Array, "B F M"], n_frames_b: Int[Array, " B"]) -> Float[Array, "B G D"]:
        """Subsample time and mel bins by eight; what is behind a clip's end is zero for every convolution."""
        n, x = n_frames_b, _hide(mel_bfm[..., None], n_frames_b)
        for convolve in (self.conv1, lambda x: self.mix2(self.conv2(x)), lambda x: self.mix3(self.conv3(x))):
            n = _halved(n)
            x = _hide(jax.nn.relu(convolve(x)), n)
        # The checkpoint's projection counts mel bins fastest.
        return self.out(x.swapaxes(2, 3).reshape(*x.shape[:2], -1))


class FastConformerLayer(nnx.Module):
    """Half a feed-forward, attention, convolution and half a feed-forward, each pre-LayerNorm, then a LayerNorm."""

    def __init__(self, config: FastConformerConfig, *, rngs: nnx.Rngs):
        self.ffn1_norm, self.ffn1 = LayerNorm(config.width), FeedForward(config, rngs=rngs)
        self.attention_norm, self.attention = LayerNorm(config.width), RelativeAttention(config, rngs=rngs)
        self.conv_norm, self.conv = LayerNorm(config.width), ConvModule(config, rngs=rngs)
        self.ffn2_norm, self.ffn2 = LayerNorm(config.width), FeedForward(config, rngs=rngs)
        self.norm = LayerNorm(config.width)

    def __call__(
        self, x: Float[Array, "B G D"], positions_rd: Float[Array, "R D"], exists_bg: Bool[Array, "B G"]
    ) -> Float[Array, "B G D"]:
        """Apply to frames of which `exists_bg` are real; `positions_rd` are the `relative_positions` of G frames."""
        x = x + 0.5 * self.ffn1(self.ffn1_norm(x))
        x = x + self.attention(self.attention_norm(x), positions_rd, exists_bg)
        x = x + self.conv(self.conv_norm(x), exists_bg)
        x = x + 0.5 * self.ffn2(self.ffn2_norm(x))
        return self.norm(x)


class FeedForward(nnx.Module):
    """Linear, SiLU, linear."""

    def __init__(self, config: FastConformerConfig, *, rngs: nnx.Rngs):
        self.up = Linear(config.width, config.ffn_width, rngs=rngs)
        self.down = Linear(config.ffn_width, config.width, rngs=rngs)

    def __call__(self, x: Float[Array, "B G D"]) -> Float[Array, "B G D"]:
        """Apply position by position."""
        return self.down(jax.nn.silu(self.up(x)))


class RelativeAttention(nnx.Module):
    """Attention whose scores add, to the match of contents, how far apart two frames are (Transformer-XL's)."""

    def __init__(self, config: FastConformerConfig, *, rngs: nnx.Rngs):
        width, self.n_heads = config.width, config.n_heads
        self.query, self.key = Linear(width, width, rngs=rngs), Linear(width, width, rngs=rngs)
        self.value, self.out = Linear(width, width, rngs=rngs), Linear(width, width, rngs=rngs)
        self.relative = Linear(width, width, bias=False, rngs=rngs)
        self.content_bias = nnx.Param(jnp.zeros((config.n_heads, width // config.n_heads), jnp.float32))
        self.position_bias = nnx.Param(jnp.zeros((config.n_heads, width // config.n_heads), jnp.float32))

    def __call__(
        self, x: Float[Array, "B G D"], positions_rd: Float[Array, "R D"], exists_bg: Bool[Array, "B G"]
    ) -> Float[Array, "B G D"]:
        """Attend to the frames that exist."""
        n_batch, n_frames, width = x.shape
        heads = (n_batch, n_frames, self.n_heads, width // self.n_heads)
        query, key, value = (project(x).reshape(heads) for project in (self.query, self.key, self.value))
        relative = self.relative(positions_rd).reshape(-1, *heads[2:])
        by_content = query + self.content_bias[...].astype(x.dtype)[None, None]
        by_position = query + self.position_bias[...].astype(x.dtype)[None, None]
        scores = jnp.einsum("bthd,buhd->bhtu", by_content, key, preferred_element_type=jnp.float32)
        distant = jnp.einsum("bthd,rhd->bhtr", by_position, relative, preferred_element_type=jnp.float32)
        scores = (scores + _by_distance(distant)) * heads[3] ** -0.5
        weights = jax.nn.softmax(jnp.where(exists_bg[:, None, None], scores, -10000.0), axis=-1).astype(x.dtype)
        return self.out(jnp.einsum("bhtu,buhd->bthd", weights, value).reshape(x.shape))


class ConvModule(nnx.Module):
    """Gated linear unit, depthwise convolution over time, batch normalisation, SiLU, linear."""

    def __init__(self, config: FastConformerConfig, *, rngs: nnx.Rngs):
        width = config.width
        self.value, self.gate = Linear(width, width, rngs=rngs), Linear(width, width, rngs=rngs)
        self.depthwise = Depthwise((config.n_taps,), width, stride=1, rngs=rngs)
        self.norm = BatchNorm(width)
        self.out = Linear(width, width, rngs=rngs)

    def __call__(self, x: Float[Array, "B G D"], exists_bg: Bool[Array, "B G"]) -> Float[Array, "B G D"]:
        """Convolve; frames that do not exist are zero for it."""
        x = jnp.where(exists_bg[:, :, None], self.value(x) * jax.nn.sigmoid(self.gate(x)), 0)
        return self.out(jax.nn.silu(self.norm(self.depthwise(x))))


class BatchNorm(nnx.Module):
    """Batch normalisation by stored statistics, which no gradient changes; torch's epsilon, computed in float32."""

    def __init__(self, width: int):
        self.scale, self.bias = nnx.Param(jnp.ones(width, jnp.float32)), nnx.Param(jnp.zeros(width, jnp.float32))
        self.mean, self.variance = nnx.Param(jnp.zeros(width, jnp.float32)), nnx.Param(jnp.ones(width, jnp.float32))

    def __call__(self, x: Float[Array, "B G D"]) -> Float[Array, "B G D"]:
        """Normalise the last axis."""
        scale, bias, mean, variance = (
            p[...].astype(jnp.float32) for p in (self.scale, self.bias, self.mean, self.variance)
        )
        mean, variance = jax.lax.stop_gradient((mean, variance))
        scale = scale * jax.lax.rsqrt(variance + 1e-5)
        return (x.astype(jnp.float32) * scale[None, None] + (bias - mean * scale)[None, None]).astype(x.dtype)


class Conv2d(nnx.Module):
    """A 3x3 convolution of stride two on a single channel, the one kind that XLA's CPU convolutions are quick at."""

    def __init__(self, n_out: int, *, rngs: nnx.Rngs):
        self.kernel = nnx.Param(jax.random.normal(rngs.params(), (3, 3, 1, n_out), jnp.float32) / 3)
        self.bias = nnx.Param(jnp.zeros(n_out, jnp.float32))

    def __call__(self, x: Float[Array, "B F M 1"]) -> Float[Array, "B G N C"]:
        """Convolve with zero padding of one: each side shrinks to half, rounded up."""
        kernel, bias, layout = (
            self.kernel[...].astype(x.dtype),
            self.bias[...].astype(x.dtype),
            ("NHWC", "HWIO", "NHWC"),
        )
        y = jax.lax.conv_general_dilated(x, kernel, (2, 2), ((1, 1), (1, 1)), dimension_numbers=layout)
        return y + bias[None, None, None]


class Depthwise(nnx.Module):
    """A convolution of every channel by itself, over as many axes as there are numbers of `taps` (odd).

    A sum of shifted slices: XLA's grouped convolutions are many times slower on a CPU.
    """

    def __init__(self, taps: tuple[int, ...], width: int, *, stride: int, rngs: nnx.Rngs):
        scale, self.stride = math.prod(taps) ** -0.5, stride
        self.kernel = nnx.Param(scale * jax.random.normal(rngs.params(), (*taps, width), jnp.float32))
        self.bias = nnx.Param(jnp.zeros(width, jnp.float32))

    def __call__(self, x: Float[Array, "B *positions D"]) -> Float[Array, "B *strided D"]:
        """Convolve with zero padding on both sides: each axis shrinks by the stride, rounded up."""
        kernel, y = self.kernel[...].astype(x.dtype), self.bias[...].astype(x.dtype)
        row = (1,) * (x.ndim - 1) + (-1,)
        padded, y = jnp.pad(x, ((0, 0), *((n // 2, n // 2) for n in kernel.shape[:-1]), (0, 0))), y.reshape(row)
        for at in itertools.product(*map(range, kernel.shape[:-1])):
            window = (slice(i, i + n, self.stride) for i, n in zip(at, x.shape[1:-1], strict=True))
            y = y + padded[(slice(None), *window)] * kernel[at].reshape(row)
        return y


def relative_positions(n_frames: int, width: int) -> Float[Array, "R D"]:
    """Sinusoids of the R = 2 G distances G - 1 … -G, sines and cosines interleaved, float32.

    The last is no distance within G frames; it makes `_by_distance` a matter of reshaping.
    """
    rate = jnp.exp(-math.log(10000.0) / width * jnp.arange(0, width, 2, dtype=jnp.float32))
    angle = jnp.arange(n_frames - 1, -n_frames - 1, -1).astype(jnp.float32)[:, None] * rate[None]
    return jnp.stack([jnp.sin(angle), jnp.cos(angle)], axis=-1).reshape(2 * n_frames, width)


def _by_distance(scores_bhtr: Float[Array, "B H G R"]) -> Float[Array, "B H G G"]:
    """Give frames t and u the score of their distance, which is in column G - 1 - t + u of row t."""
    *lead, n, _ = scores_bhtr.shape
    flat = scores_bhtr.reshape(*lead, 2 * n * n)
    # Along the flat axis that column is at n - 1 + t (2 n - 1) + u: rows of one less, without a gather.
    return flat[..., n - 1 : 2 * n * n - 1].reshape(*lead, n, 2 * n - 1)[..., :n]


def _halved(n: Count) -> Count:
    return (n - 1) // 2 + 1


def _eighth(n: Count) -> Count:
    return _halved(_halved(_halved(n)))


def _exists(n_b: Int[Array, " B"], n_positions: int) -> Bool[Array, "B T"]:
    return jnp.arange(n_positions)[None] < n_b[:, None]


def _hide(x: Float[Array, "B T M C"], n_b: Int[Array, " B"]) -> Float[Array, "B T M C"]:
    return jnp.where(_exists(n_b, x.shape[1])[:, :, None, None], x, 0)
