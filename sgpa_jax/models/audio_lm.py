"""An audio language model: front end, encoder, pooling, projector, decoder, with audio placed among a prompt's tokens.

One design for every family (`families.py` says which parts each has). Upstream: transformers
`Qwen2AudioForConditionalGeneration` (5.23) and liquid-audio's `LFM2AudioModel` (1.3.0). A row may hold fewer audio
positions than its layout has room for: the others do not exist, and the tokens behind close up to the left, which
gives the numbers of a prompt of exactly that length. So clips of different lengths share one static shape.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from sgpa_jax.models.audio_out import AudioOut, AudioOutConfig
from sgpa_jax.models.fastconformer import FastConformer, FastConformerConfig
from sgpa_jax.models.lfm2 import Lfm2, Lfm2Config
from sgpa_jax.models.mel import Count, WhisperMelConfig
from sgpa_jax.models.nemo_mel import NemoMelConfig
from sgpa_jax.models.order import causal_order
from sgpa_jax.models.projector import Projector, ProjectorConfig
from sgpa_jax.models.qwen2 import Qwen2, Qwen2Config
from sgpa_jax.models.whisper_encoder import WhisperEncoder, WhisperEncoderConfig

NO_CLIP = -1
"""Clip of a token that is text."""


@dataclass(frozen=True, kw_only=True)
class AudioLMConfig:
    """The parts of a model; `audio_token_id` is the placeholder for audio, None where the format has none."""

    front_end: WhisperMelConfig | NemoMelConfig
    encoder: WhisperEncoderConfig | FastConformerConfig
    projector: ProjectorConfig
    decoder: Qwen2Config | Lfm2Config
    audio_token_id: int | None = None
    audio_out: AudioOutConfig | None = None

    def n_audio(self, n_samples: Count) -> Count:
        """Decoder positions of waveforms of `n_samples` at the front end's rate."""
        return self.encoder.n_tokens(self.front_end.n_frames(n_samples))

    @property
    def frames_per_position(self) -> int | None:
        """Mel frames of an audio position, where an encoder takes any number of positions; None for Whisper's."""
        return 8 if isinstance(self.encoder, FastConformerConfig) else None

    def n_activations(self, n_frames: int) -> int:
        """About how many numbers encoding a clip of `n_frames` mel frames holds at once, where that is most."""
        encoder, n_encoded = self.encoder, n_frames // (self.frames_per_position or 2)
        if isinstance(encoder, WhisperEncoderConfig):
            n_encoded = min(n_encoded, encoder.max_positions)  # window by window
        in_layer = n_encoded * (encoder.ffn_width + 6 * encoder.width + encoder.n_heads * n_encoded)
        if isinstance(encoder, FastConformerConfig):
            return max(in_layer, n_frames * encoder.n_mels * encoder.n_channels // 4)
        return in_layer


class Layout(NamedTuple):
    """Where text and audio stand in rows of T tokens: numpy arrays on the host, traced ones inside of a jit.

    Attributes:
        ids_bt: int[B, T], token ids; anything valid where audio stands.
        clip_bt: int[B, T], the clip whose audio stands here, `NO_CLIP` for text.
        place_bt: int[B, T], which of that clip's positions this is.
        exists_bt: bool[B, T], false behind a row's end.
        codes_btk: int[B, T, K], codes of audio that the model spoke before, -1 for other tokens; None without any.
    """

    ids_bt: Any
    clip_bt: Any
    place_bt: Any
    exists_bt: Any
    codes_btk: Any = None


class Placed(NamedTuple):
    """Decoder inputs with the audio in place: the first `n_b` embeddings of a row exist, the others are rubbish."""

    x: Float[Array, "B T D"]
    n_b: Int[Array, " B"]

    @property
    def exists_bt(self) -> Bool[Array, "B T"]:
        """Which positions exist."""
        return jnp.arange(self.x.shape[1])[None, :] < self.n_b[:, None]


class AudioLM(nnx.Module):
    """Waveforms and token ids in, next-token logits out, computed in the dtype of the weights."""

    def __init__(self, config: AudioLMConfig, *, rngs: nnx.Rngs):
        self.config = config
        encoder, decoder = config.encoder, config.decoder
        self.encoder = (
            WhisperEncoder(encoder, rngs=rngs)
            if isinstance(encoder, WhisperEncoderConfig)
            else FastConformer(encoder, rngs=rngs)
        )
        self.projector = Projector(config.projector, rngs=rngs)
        self.decoder = Qwen2(decoder, rngs=rngs) if isinstance(decoder, Qwen2Config) else Lfm2(decoder, rngs=rngs)
        self.audio_out = None if config.audio_out is None else AudioOut(config.audio_out, rngs=rngs)

    def hear(
        self, wave_bns: Float[Array, "B N S"], n_samples_bn: Int[Array, "B N"]
    ) -> tuple[Float[Array, "B N A D"], Int[Array, "B N"]]:
        """Audio embeddings of the N waveforms of every row (zeros behind their ends), and how many are real."""
        front_end, n_samples = self.config.front_end, n_samples_bn.reshape(-1)
        mel = front_end.features(wave_bns.reshape(-1, wave_bns.shape[2]), n_samples)
        audio = self.encode(mel, front_end.n_frames(n_samples))
        return audio.reshape(*wave_bns.shape[:2], *audio.shape[1:]), self.config.n_audio(n_samples_bn)

    def encode(self, mel_bfm: Float[Array, "B F M"], n_frames_b: Int[Array, " B"]) -> Float[Array, "B A D"]:
        """Audio embeddings for the decoder, of which `config.encoder.n_tokens(n_frames_b)` a row are real."""
        # Upstream's last window ends there too: what is behind a clip of full length is the encoder's own padding.
        mel_bfm = mel_bfm[:, : self.config.front_end.most_frames]
        return self.projector(self.encoder(mel_bfm.astype(self.projector.first.kernel.dtype), n_frames_b))

    def place(self, layout: Layout, audio_bnad: Float[Array, "B N A D"], n_audio_bn: Int[Array, "B N"]) -> Placed:
        """Put the audio embeddings of N clips a row at their places and close up what does not exist."""
        is_audio = layout.clip_bt != NO_CLIP
        clip, n_room = jnp.maximum(layout.clip_bt, 0), audio_bnad.shape[2]
        exists = layout.exists_bt & (~is_audio | (layout.place_bt < jnp.take_along_axis(n_audio_bn, clip, axis=1)))
        source = clip * n_room + jnp.clip(layout.place_bt, 0, n_room - 1)
        audio = audio_bnad.reshape(audio_bnad.shape[0], -1, audio_bnad.shape[3])
        audio = jnp.take_along_axis(audio, source[:, :, None], axis=1)
        x = jnp.where(is_audio[:, :, None], audio, self.decoder.embedding(layout.ids_bt).astype(audio.dtype))
        if layout.codes_btk is not None:
            assert self.audio_out is not None
            spoken = self.audio_out.embed_codes(jnp.maximum(layout.codes_btk, 0)).astype(x.dtype)
            x = jnp.where(layout.codes_btk[:, :, :1] >= 0, spoken, x)
        front = jnp.argsort(~exists, axis=1, stable=True)
        return Placed(jnp.take_along_axis(x, front[:, :, None], axis=1), exists.sum(axis=1))

    def hidden(self, placed: Placed, *, edit: Callable[[int, Array], Array] | None = None) -> Float[Array, "B T D"]:
        """Final hidden states under the causal mask; `edit` taps the residual stream after every layer."""
        return self.decoder(placed.x, causal_order(placed.exists_bt), edit=edit)


def layout_of_ids(ids_t: Int[np.ndarray, " T"], is_audio_t: Bool[np.ndarray, " T"]) -> Layout:
    """Lay out one row of ids: every unbroken run of audio positions is the next clip.

    Returns:
        A `Layout` of numpy arrays, B = 1.
    """
    starts = is_audio_t & ~np.concatenate([[False], is_audio_t[:-1]])
    clip = np.where(is_audio_t, np.cumsum(starts) - 1, NO_CLIP).astype(np.int32)
    first = np.maximum.accumulate(np.where(starts, np.arange(len(ids_t)), 0))
    place = np.where(is_audio_t, np.arange(len(ids_t)) - first, 0).astype(np.int32)
    return Layout(*(row[None] for row in (ids_t, clip, place, np.ones(len(ids_t), bool))))
