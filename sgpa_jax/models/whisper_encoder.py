"""Whisper's encoder as the audio tower of language models, with the two ways in which they pool its frames.

Upstream: transformers `Qwen2AudioEncoder`, `AudioFlamingo3Encoder` and `VoxtralEncoder` (5.23). Pooled by means, frames
past a clip's end are hidden as attention keys in every layer, so a clip may be encoded in any bucket that holds its
frames; upstream's fixed window gives the same numbers. Voxtral hides nothing: it hears the silence behind a clip as
well, and every clip takes the positions of whole windows. A clip of several windows is encoded window by window, and
its positions follow one another.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from sgpa_jax.models.config import only
from sgpa_jax.models.layers import Conv1d, LayerNorm, Linear, attention, gelu

Count = TypeVar("Count", int, Array)


@dataclass(frozen=True, kw_only=True)
class WhisperEncoderConfig:
    """Sizes, and how frames are pooled.

    `mean2_norm` averages pairs of frames before the last LayerNorm (Qwen2-Audio, Audio Flamingo 3), `norm_stack4` puts
    four frames side by side behind it (Voxtral).
    """

    n_mels: int
    width: int
    n_layers: int
    n_heads: int
    ffn_width: int
    max_positions: int
    pool: Literal["mean2_norm", "norm_stack4"] = "mean2_norm"

    @classmethod
    def from_hf(
        cls, config: Mapping[str, Any], *, pool: Literal["mean2_norm", "norm_stack4"] = "mean2_norm"
    ) -> "WhisperEncoderConfig":
        """Read `audio_config` of a `config.json`, whose keys go by Whisper's names or by the common ones."""
        only(config, "audio_config.activation_function", "activation_function", ("gelu",), default="gelu")
        only(config, "audio_config.scale_embedding", "scale_embedding", (False,), default=False)
        return cls(
            n_mels=config.get("num_mel_bins", 128),
            width=config.get("d_model", config.get("hidden_size", 1280)),
            n_layers=config.get("encoder_layers", config.get("num_hidden_layers", 32)),
            n_heads=config.get("encoder_attention_heads", config.get("num_attention_heads", 20)),
            ffn_width=config.get("encoder_ffn_dim", config.get("intermediate_size", 5120)),
            max_positions=config.get("max_source_positions", 1500),
            pool=pool,
        )

    @property
    def n_out(self) -> int:
        """Width of a pooled position."""
        return self.width if self.pool == "mean2_norm" else 4 * self.width

    @property
    def position_frames(self) -> tuple[int, int]:
        """Middle of the first position's receptive field, and the distance of positions, in mel frames."""
        return (1, 4) if self.pool == "mean2_norm" else (3, 8)

    def n_tokens(self, n_frames: Count) -> Count:
        """Decoder positions for clips of `n_frames` mel frames (`_get_feat_extract_output_lengths`)."""
        if self.pool == "norm_stack4":
            return -(-n_frames // (2 * self.max_positions)) * (self.max_positions // 4)
        return ((n_frames - 1) // 2 + 1 - 2) // 2 + 1


class WhisperEncoder(nnx.Module):
    """Log-mel frames to pooled audio features of the encoder's width."""

    def __init__(self, config: WhisperEncoderConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.conv1 = Conv1d(config.n_mels, config.width, stride=1, rngs=rngs)
        self.conv2 = Conv1d(config.width, config.width, stride=2, rngs=rngs)
        self.positions = nnx.Param(_sinusoids(config.max_positions, config.width))
        self.layers = nnx.List([WhisperLayer(config, rngs=rngs) for _ in range(config.n_layers)])
        self.norm = LayerNorm(config.width)

    def __call__(self, mel_bfm: Float[Array, "B F M"], n_frames_b: Int[Array, " B"]) -> Float[Array, "B T D"]:
        """Encode clips of `n_frames_b` mel frames each, in a bucket of F frames: T = F // 4 pooled positions, or
        those of whole windows with `norm_stack4` and where F is more than one window.

        Of these, `config.n_tokens(n_frames_b)` are real; the rest hold values nobody may read. F must leave room for
        two frames behind a clip's end, which hold the log-mel of silence: the stem's convolutions look at them.
        """
        n_clips, n_frames, n_mels = mel_bfm.shape
        window = 2 * self.positions.shape[0]
        n_windows = -(-n_frames // window)
        if n_windows == 1:
            return self._window(mel_bfm, n_frames_b)
        # A bucket's last frame is silent, as is the rest of the last window.
        mel_bfm = jnp.pad(mel_bfm, ((0, 0), (0, n_windows * window - n_frames), (0, 0)), "edge")
        mel_wbfm = mel_bfm.reshape(n_clips, n_windows, window, n_mels).swapaxes(0, 1)
        n_frames_wb = jnp.clip(n_frames_b[None] - window * jnp.arange(n_windows)[:, None], 0, window)
        pooled_wbtd = jax.lax.map(lambda one: self._window_if_any(*one), (mel_wbfm, n_frames_wb))
        return pooled_wbtd.swapaxes(0, 1).reshape(n_clips, -1, pooled_wbtd.shape[3])

    def frames(self, mel_bfm: Float[Array, "B F M"], n_frames_b: Int[Array, " B"]) -> Float[Array, "B G D"]:
        """Return the residual stream before pooling: G = F // 2 frames of a window, with `norm_stack4` all of it."""
        hears_all = self.config.pool == "norm_stack4"
        if hears_all:  # the same within a window
            mel_bfm = jnp.pad(mel_bfm, ((0, 0), (0, 2 * self.positions.shape[0] - mel_bfm.shape[1]), (0, 0)), "edge")
        x = gelu(self.conv2(gelu(self.conv1(mel_bfm))))
        x = x + self.positions[...][None, : x.shape[1]].astype(x.dtype)
        mask = (jnp.arange(x.shape[1])[None, :] < ((n_frames_b - 1) // 2 + 1)[:, None]) | hears_all
        for layer in self.layers:
            x = layer(x, mask)
        return x

    def pool(self, frames_bgd: Float[Array, "B G D"]) -> Float[Array, "B T D"]:
        """Average pairs of frames, then normalise; or normalise, then stack four frames."""
        if self.config.pool == "norm_stack4":
            frames_bgd = self.norm(frames_bgd[:, : frames_bgd.shape[1] // 4 * 4])
            return frames_bgd.reshape(frames_bgd.shape[0], -1, 4 * frames_bgd.shape[2])
        pairs = frames_bgd[:, : frames_bgd.shape[1] // 2 * 2].reshape(frames_bgd.shape[0], -1, 2, frames_bgd.shape[2])
        return self.norm(pairs.mean(axis=2))

    def _window_if_any(self, mel_bfm: Float[Array, "B F M"], n_frames_b: Int[Array, " B"]) -> Float[Array, "B T D"]:
        """Encode a window of every clip, unless all have ended before it: buckets are longer than what they hold."""
        nothing = jnp.zeros_like(jax.eval_shape(self._window, mel_bfm, n_frames_b))
        return jax.lax.cond(jnp.any(n_frames_b > 0), self._window, lambda *_: nothing, mel_bfm, n_frames_b)

    def _window(self, mel_bfm: Float[Array, "B F M"], n_frames_b: Int[Array, " B"]) -> Float[Array, "B T D"]:
        return self.pool(self.frames(mel_bfm, n_frames_b))


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


def _sinusoids(n_positions: int, width: int) -> Float[Array, "G D"]:
    """Whisper's fixed sinusoids, sines first; a checkpoint stores them like any other tensor."""
    rate = jnp.exp(-jnp.log(10000.0) / (width // 2 - 1) * jnp.arange(width // 2, dtype=jnp.float32))
    angle = jnp.arange(n_positions, dtype=jnp.float32)[:, None] * rate[None, :]
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=1)
