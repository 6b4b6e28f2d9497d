"""An audio language model: encoder, pooling, projector, decoder, with the audio placed among the prompt's tokens.

Upstream: transformers `Qwen2AudioForConditionalGeneration` (5.23). Rows may hold fewer audio positions than their
placeholders: positions behind `n_audio_b` are hidden and the later tokens' positions close up, which gives the numbers
of a prompt with exactly that many placeholders. So clips of different lengths share one static shape.
"""

from typing import NamedTuple

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from sgpa_jax.models.config import AudioLMConfig
from sgpa_jax.models.layers import Linear
from sgpa_jax.models.qwen2 import Qwen2
from sgpa_jax.models.whisper_encoder import WhisperEncoder, n_audio_tokens


class Placed(NamedTuple):
    """Decoder inputs with the audio in place: embeddings, rotary positions, and the tokens that exist."""

    x: Float[Array, "B T D"]
    positions_bt: Int[Array, "B T"]
    exists_bt: Bool[Array, "B T"]


class AudioLM(nnx.Module):
    """Log-mel and token ids in, next-token logits out."""

    def __init__(self, config: AudioLMConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.encoder = WhisperEncoder(config.encoder, rngs=rngs)
        self.projector = Linear(config.encoder.width, config.decoder.width, rngs=rngs)
        self.decoder = Qwen2(config.decoder, rngs=rngs)

    def encode(self, mel_bfm: Float[Array, "B F M"], n_frames_b: Int[Array, " B"]) -> Float[Array, "B A D"]:
        """Audio embeddings for the decoder, A = F // 4 a row, of which `n_audio_tokens(n_frames_b)` are real."""
        return self.projector(self.encoder(mel_bfm, n_frames_b))

    def place(
        self, ids_bt: Int[Array, "B T"], exists_bt: Bool[Array, "B T"], audio_bad: Array, n_audio_b: Int[Array, " B"]
    ) -> Placed:
        """Put the k-th audio embedding of a row at its k-th placeholder, hiding placeholders from `n_audio_b` on."""
        is_audio = ids_bt == self.config.audio_token_id
        index = jnp.cumsum(is_audio, axis=1) - 1
        exists_bt = exists_bt & (~is_audio | (index < n_audio_b[:, None]))
        source = jnp.clip(index, 0, audio_bad.shape[1] - 1)
        audio = jnp.take_along_axis(audio_bad, source[:, :, None], axis=1)
        text = self.decoder.embedding(ids_bt).astype(audio.dtype)
        positions = jnp.maximum(jnp.cumsum(exists_bt, axis=1) - 1, 0)
        return Placed(jnp.where(is_audio[:, :, None], audio, text), positions, exists_bt)

    def hidden(self, placed: Placed) -> Float[Array, "B T D"]:
        """Final hidden states under the causal mask over the tokens that exist."""
        return self.decoder(placed.x, placed.positions_bt, causal_mask(placed.exists_bt))

    def __call__(
        self,
        ids_bt: Int[Array, "B T"],
        exists_bt: Bool[Array, "B T"],
        mel_bfm: Float[Array, "B F M"],
        n_frames_b: Int[Array, " B"],
    ) -> Float[Array, "B T V"]:
        """Next-token logits at every position (rubbish where `exists_bt` is false), float32."""
        audio = self.encode(mel_bfm, n_frames_b)
        placed = self.place(ids_bt, exists_bt, audio, n_audio_tokens(n_frames_b))
        return self.decoder.logits(self.hidden(placed))


def causal_mask(exists_bt: Bool[Array, "B T"]) -> Bool[Array, "B T T"]:
    """Each token looks at itself and at the tokens before it that exist."""
    n_tokens = exists_bt.shape[1]
    return jnp.tril(jnp.ones((n_tokens, n_tokens), bool))[None] & exists_bt[:, None, :]
