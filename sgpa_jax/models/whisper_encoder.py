"""Qwen2-Audio's audio tower: Whisper's encoder, average-pooled over pairs of frames before its last LayerNorm.

Upstream: transformers `Qwen2AudioEncoder` (5.23). Frames past a clip's end are hidden as attention keys in every layer,
so a clip may be encoded in any bucket that holds its frames; upstream's fixed window gives the same numbers.
"""

from typing import TypeVar

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from sgpa_jax.models.config import WhisperEncoderConfig
from sgpa_jax.models.layers import Conv1d, LayerNorm, Linear, attention, gelu

Count = TypeVar("Count", int, Array)


class WhisperEncoder(nnx.Module):
    """Log-mel frames to pooled audio features of the encoder's width."""

    def __init__(self, config: WhisperEncoderConfig, *, rngs: nnx.Rngs):
        self.conv1 = Conv1d(config.n_mels, config.width, stride=1, rngs=rngs)
        self.conv2 = Conv1d(config.width, config.width, stride=2, rngs=rngs)
        self.positions = nnx.Param(_sinusoids(config.max_positions, config.width))
        self.layers = nnx.List([WhisperLayer(config, rngs=rngs) for _ in range(config.n_layers)])
        self.norm = LayerNorm(config.width)

    def __call__(self, mel_bfm: Float[Array, "B F M"], n_frames_b: Int[Array, " B"]) -> Float[Array, "B T D"]:
        """Encode clips of `n_frames_b` mel frames each, in a bucket of F frames: T = F // 4 pooled positions.

        Of these, `n_audio_tokens(n_frames_b)` are real; the rest hold values nobody may read. F must leave room for
        two frames behind a clip's end, which hold the log-mel of silence: the stem's convolutions look at them.
        """
        frames = self.frames(mel_bfm, n_frames_b)
        pairs = frames[:, : frames.shape[1] // 2 * 2].reshape(frames.shape[0], -1, 2, frames.shape[2])
        return self.norm(pairs.mean(axis=2))

    def frames(self, mel_bfm: Float[Array, "B F M"], n_frames_b: Int[Array, " B"]) -> Float[Array, "B G D"]:
        """Return the residual stream before pooling: G = F // 2 frames, at most as many as there are positions."""
        # Upstream's window ends there too, so that what is behind a clip of full length is its own zero padding.
        x = gelu(self.conv2(gelu(self.conv1(mel_bfm[:, : 2 * self.positions.shape[0]]))))
        x = x + self.positions[...][None, : x.shape[1]].astype(x.dtype)
        mask = jnp.arange(x.shape[1])[None, :] < ((n_frames_b - 1) // 2 + 1)[:, None]
        for layer in self.layers:
            x = layer(x, mask)
        return x


class WhisperLayer(nnx.Module):
    """A pre-LayerNorm transformer layer; the key projection has no bias."""

    def __init__(self, config: WhisperEncoderConfig, *, rngs: nnx.Rngs):
        width = config.width
        self.n_heads = config.n_heads
        self.attention_norm = LayerNorm(width)
        self.query = Linear(width, width, rngs=rngs)
        self.key = Linear(width, width, bias=False, rngs=rngs)
        self.value = Linear(width, width, rngs=rngs)
        self.out = Linear(width, width, rngs=rngs)
        self.ffn_norm = LayerNorm(width)
        self.up = Linear(width, config.ffn_width, rngs=rngs)
        self.down = Linear(config.ffn_width, width, rngs=rngs)

    def __call__(self, x: Float[Array, "B G D"], key_mask: Bool[Array, "B G"]) -> Float[Array, "B G D"]:
        """Attend over the frames that `key_mask` lets be seen, then the feed-forward."""
        y = self.attention_norm(x)
        heads = (*y.shape[:2], self.n_heads, y.shape[2] // self.n_heads)
        query, key, value = (project(y).reshape(heads) for project in (self.query, self.key, self.value))
        mask = jnp.broadcast_to(key_mask[:, None, :], (y.shape[0], y.shape[1], y.shape[1]))
        x = x + self.out(attention(query, key, value, mask))
        return x + self.down(gelu(self.up(self.ffn_norm(x))))


def n_audio_tokens(n_frames: Count) -> Count:
    """Number of decoder positions for clips of `n_frames` mel frames (`_get_feat_extract_output_lengths`)."""
    return ((n_frames - 1) // 2 + 1 - 2) // 2 + 1


def _sinusoids(n_positions: int, width: int) -> Float[Array, "G D"]:
    """Whisper's fixed sinusoids, sines first; a checkpoint stores them like any other tensor."""
    rate = jnp.exp(-jnp.log(10000.0) / (width // 2 - 1) * jnp.arange(width // 2, dtype=jnp.float32))
    angle = jnp.arange(n_positions, dtype=jnp.float32)[:, None] * rate[None, :]
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=1)
