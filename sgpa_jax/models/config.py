"""Architectures as frozen, hashable dataclasses, read strictly from a Hugging Face `config.json`.

Values that the hub's files leave out are filled with the defaults of transformers' own configuration classes
(`Qwen2AudioEncoderConfig`, `Qwen2Config`, 5.23). A key that changes the mathematics and that we do not implement is an
error, never ignored.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sgpa_jax.errors import CheckpointError


@dataclass(frozen=True, kw_only=True)
class MelConfig:
    """A Whisper-type log-mel front end (`WhisperFeatureExtractor`): lengths in samples at `rate_hz`."""

    rate_hz: int = 16000
    n_mels: int = 128
    n_fft: int = 400
    hop_samples: int = 160
    window_s: float = 30.0

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> "MelConfig":
        """Read a `preprocessor_config.json`."""
        return cls(
            rate_hz=config.get("sampling_rate", 16000),
            n_mels=config.get("feature_size", 128),
            n_fft=config.get("n_fft", 400),
            hop_samples=config.get("hop_length", 160),
            window_s=float(config.get("chunk_length", 30)),
        )

    @property
    def window_samples(self) -> int:
        """The longest recording that the model hears at once."""
        return int(self.window_s * self.rate_hz)


@dataclass(frozen=True, kw_only=True)
class WhisperEncoderConfig:
    """The audio tower of Qwen2-Audio: Whisper's encoder, average-pooled by two before its last LayerNorm."""

    n_mels: int
    width: int
    n_layers: int
    n_heads: int
    ffn_width: int
    max_positions: int

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> "WhisperEncoderConfig":
        """Read `audio_config` of a Qwen2-Audio `config.json`."""
        _only(config, "audio_config.activation_function", "activation_function", ("gelu",), default="gelu")
        _only(config, "audio_config.scale_embedding", "scale_embedding", (False,), default=False)
        return cls(
            n_mels=config.get("num_mel_bins", 128),
            width=config.get("d_model", 1280),
            n_layers=config.get("encoder_layers", 32),
            n_heads=config.get("encoder_attention_heads", 20),
            ffn_width=config.get("encoder_ffn_dim", 5120),
            max_positions=config.get("max_source_positions", 1500),
        )


@dataclass(frozen=True, kw_only=True)
class Qwen2Config:
    """A Qwen2 decoder: RMSNorm, rotary positions, grouped-query attention with q/k/v biases, SwiGLU."""

    vocab_size: int
    width: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_width: int
    ffn_width: int
    rope_theta: float
    norm_eps: float
    tied_head: bool

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> "Qwen2Config":
        """Read `text_config` of a Qwen2-Audio `config.json`; both spellings of the rotary base are accepted."""
        _only(config, "text_config.hidden_act", "hidden_act", ("silu",), default="silu")
        _only(config, "text_config.use_sliding_window", "use_sliding_window", (False,), default=False)
        _only(config, "text_config.use_mrope", "use_mrope", (False,), default=False)
        rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
        _only(rope, "text_config.rope_parameters.rope_type", "rope_type", ("default",), default="default")
        width, n_heads = config.get("hidden_size", 4096), config.get("num_attention_heads", 32)
        return cls(
            vocab_size=config.get("vocab_size", 151936),
            width=width,
            n_layers=config.get("num_hidden_layers", 32),
            n_heads=n_heads,
            n_kv_heads=config.get("num_key_value_heads") or n_heads,
            head_width=config.get("head_dim") or width // n_heads,
            ffn_width=config.get("intermediate_size", 22016),
            rope_theta=float(rope.get("rope_theta") or config.get("rope_theta") or 10000.0),
            norm_eps=config.get("rms_norm_eps", 1e-6),
            tied_head=config.get("tie_word_embeddings", False),
        )


@dataclass(frozen=True, kw_only=True)
class AudioLMConfig:
    """Encoder, linear projector and decoder, with audio placed at the positions of `audio_token_id`."""

    encoder: WhisperEncoderConfig
    decoder: Qwen2Config
    audio_token_id: int

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> "AudioLMConfig":
        """Read the `config.json` of a Qwen2-Audio checkpoint.

        Raises:
            CheckpointError: another architecture, or a setting that we do not implement.
        """
        if config.get("model_type") != "qwen2_audio":
            raise CheckpointError(
                f"config.json describes model_type {config.get('model_type')!r}, but audio language models of type "
                "'qwen2_audio' can be loaded; give a folder of that architecture"
            )
        return cls(
            encoder=WhisperEncoderConfig.from_hf(config["audio_config"]),
            decoder=Qwen2Config.from_hf(config["text_config"]),
            audio_token_id=config.get("audio_token_index", config.get("audio_token_id", 151646)),
        )


def _only(config: Mapping[str, Any], label: str, key: str, allowed: tuple[Any, ...], *, default: Any) -> None:
    value = config.get(key, default)
    if value not in allowed and value is not None:
        raise CheckpointError(f"config.json sets {label} to {value!r}, but only {allowed} is implemented")
