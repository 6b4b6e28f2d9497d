"""The families of checkpoints that we load: how each one's configuration is read, which network it is, its rule table.

A family is told by `model_type` in `config.json`; LFM2-Audio's file has none and is known by its four parts.
"""

import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import sgpa_checkpoints
from flax import nnx

from sgpa_jax.errors import CheckpointError
from sgpa_jax.models.audio_lm import AudioLM, AudioLMConfig
from sgpa_jax.models.audio_out import AudioOutConfig
from sgpa_jax.models.config import needed, only, size, strict
from sgpa_jax.models.fastconformer import FastConformerConfig
from sgpa_jax.models.fill import shape_rngs
from sgpa_jax.models.lfm2 import Lfm2Config
from sgpa_jax.models.mel import WhisperMelConfig
from sgpa_jax.models.nemo_mel import NemoMelConfig
from sgpa_jax.models.projector import ProjectorConfig
from sgpa_jax.models.qwen2 import Qwen2Config
from sgpa_jax.models.whisper_encoder import WhisperEncoderConfig


@dataclass(frozen=True)
class Family:
    """One architecture of checkpoints.

    Attributes:
        name: its `model_type`.
        read_config: `config.json` and `preprocessor_config.json` (None where the folder has none) to the configuration.
        build: the configuration to a network with random parameters; called under `nnx.eval_shape`.
        rules: which tensor of a checkpoint becomes which parameter.
        normalise: the hub's name of a tensor, for all of its spellings.
    """

    name: str
    read_config: Callable[[Mapping[str, Any], Mapping[str, Any] | None], AudioLMConfig]
    build: Callable[[AudioLMConfig], nnx.Module]
    rules: tuple[sgpa_checkpoints.AnyRule, ...]
    normalise: Callable[[str], str] = str


def family_of(config: Mapping[str, Any]) -> Family:
    """Return the family of a `config.json`.

    Raises:
        CheckpointError: none that we know.
    """
    name = "lfm2_audio" if {"preprocessor", "encoder", "lfm"} <= config.keys() else config.get("model_type")
    if not isinstance(name, str) or name not in FAMILIES:
        raise CheckpointError(
            f"config.json describes model_type {reprlib.repr(name)}, but audio language models of type "
            f"{', '.join(FAMILIES)} can be loaded; give a folder of one of these architectures"
        )
    return FAMILIES[name]


def _build(config: AudioLMConfig) -> AudioLM:
    return AudioLM(config, rngs=shape_rngs())


@strict
def _qwen2_audio(config: Mapping[str, Any], preprocessor: Mapping[str, Any] | None) -> AudioLMConfig:
    encoder, decoder = _part(config, "audio_config"), _part(config, "text_config")
    encoder, decoder = WhisperEncoderConfig.from_hf(encoder), Qwen2Config.from_hf(decoder)
    return AudioLMConfig(
        front_end=_front_end(encoder, preprocessor),
        encoder=encoder,
        projector=ProjectorConfig(n_in=encoder.width, n_out=decoder.width),
        decoder=decoder,
        audio_token_id=config.get("audio_token_index", config.get("audio_token_id", 151646)),
    )


@strict
def _audio_flamingo3(config: Mapping[str, Any], preprocessor: Mapping[str, Any] | None) -> AudioLMConfig:
    encoder, decoder = _part(config, "audio_config"), _part(config, "text_config")
    only(config, "projector_hidden_act", "projector_hidden_act", ("gelu",), default="gelu")
    only(decoder, "text_config.model_type", "model_type", ("qwen2",), default="qwen2")
    encoder, decoder = WhisperEncoderConfig.from_hf(encoder), Qwen2Config.from_hf(decoder)
    front_end = _in_chunks(encoder, preprocessor)
    return AudioLMConfig(
        front_end=replace(front_end, window_s=_FLAMINGO_LONGEST_S // front_end.chunk_s * front_end.chunk_s),
        encoder=encoder,
        projector=ProjectorConfig(
            n_in=encoder.n_out,
            n_out=decoder.width,
            hidden_width=decoder.width,
            bias=config.get("projector_bias", True),
        ),
        decoder=replace(decoder, tied_head=False),  # upstream never ties it, whatever the section says
        audio_token_id=config.get("audio_token_id", 151669),
    )


_FLAMINGO_LONGEST_S = 600.0
"""What transformers' `AudioFlamingo3Processor` cuts recordings off at (`max_audio_len`)."""

_VOXTRAL_TEXT = {
    "vocab_size": 131072,
    "hidden_size": 3072,
    "intermediate_size": 8192,
    "num_hidden_layers": 30,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1e8,
    "head_dim": 128,
    "max_position_embeddings": 131072,
}
"""What transformers' `VoxtralConfig` fills in for keys that are not there."""


@strict
def _voxtral(config: Mapping[str, Any], preprocessor: Mapping[str, Any] | None) -> AudioLMConfig:
    encoder, decoder = _part(config, "audio_config"), _part(config, "text_config")
    only(config, "projector_hidden_act", "projector_hidden_act", ("gelu",), default="gelu")
    only(decoder, "text_config.model_type", "model_type", ("llama", "mistral"), default="llama")
    for key in ("attention_bias", "mlp_bias"):
        only(decoder, f"text_config.{key}", key, (False,), default=False)
    only(decoder, "text_config.sliding_window", "sliding_window", (None,), default=None)
    encoder, decoder = WhisperEncoderConfig.from_hf(encoder, pool="norm_stack4"), {**_VOXTRAL_TEXT, **decoder}
    n_positions = needed(decoder, "text_config.max_position_embeddings", "max_position_embeddings")
    decoder, front_end = Qwen2Config.from_hf(decoder), _in_chunks(encoder, preprocessor)
    longest_s = max(n_positions // encoder.n_tokens(1), 1) * front_end.chunk_s
    return AudioLMConfig(
        front_end=replace(front_end, window_s=longest_s, chunks_apart=False),
        encoder=encoder,
        projector=ProjectorConfig(n_in=encoder.n_out, n_out=decoder.width, hidden_width=decoder.width, bias=False),
        decoder=replace(decoder, qkv_bias=False, tied_head=False),  # as above
        audio_token_id=config.get("audio_token_id"),
    )


@strict
def _lfm2_audio(config: Mapping[str, Any], preprocessor: Mapping[str, Any] | None) -> AudioLMConfig:
    encoder = FastConformerConfig.from_hf(_part(config, "encoder"))
    decoder = Lfm2Config.from_hf(_part(config, "lfm"))
    return AudioLMConfig(
        front_end=NemoMelConfig.from_hf(_part(config, "preprocessor")),
        encoder=encoder,
        projector=ProjectorConfig(n_in=encoder.width, n_out=decoder.width, hidden_width=decoder.width, norm=True),
        decoder=decoder,
        audio_out=AudioOutConfig.from_hf(config, width=decoder.width) if "depthformer" in config else None,
    )


def _front_end(encoder: WhisperEncoderConfig, preprocessor: Mapping[str, Any] | None) -> WhisperMelConfig:
    return WhisperMelConfig.from_hf({"feature_size": encoder.n_mels} if preprocessor is None else preprocessor)


def _in_chunks(encoder: WhisperEncoderConfig, preprocessor: Mapping[str, Any] | None) -> WhisperMelConfig:
    """Read a front end whose chunks are the windows of its encoder."""
    front_end = _front_end(encoder, preprocessor)
    n_frames = front_end.n_frames(front_end.chunk_samples)
    hears = 2 * size("audio_config.max_source_positions", encoder.max_positions)
    if n_frames != hears:
        raise CheckpointError(
            f"preprocessor_config.json cuts audio into chunks of {n_frames} frames (chunk_length), but the encoder of "
            f"config.json hears {hears} (twice max_source_positions); fetch both files of one version"
        )
    return front_end


def _part(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    part = config.get(key)
    if not isinstance(part, Mapping):
        raise CheckpointError(f"config.json has no section {key!r}; fetch the file again")
    return part


FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family(
            "qwen2_audio",
            _qwen2_audio,
            _build,
            sgpa_checkpoints.QWEN2_AUDIO,
            sgpa_checkpoints.normal_qwen2_audio_name,
        ),
        Family(
            "audioflamingo3",
            _audio_flamingo3,
            _build,
            sgpa_checkpoints.AUDIO_FLAMINGO3,
            sgpa_checkpoints.normal_qwen2_audio_name,
        ),
        Family("voxtral", _voxtral, _build, sgpa_checkpoints.AUDIO_FLAMINGO3, sgpa_checkpoints.normal_qwen2_audio_name),
        Family("lfm2_audio", _lfm2_audio, _build, sgpa_checkpoints.LFM2_AUDIO),
    )
}
