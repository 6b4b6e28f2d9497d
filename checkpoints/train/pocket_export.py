"""Write a trained *pocket* model as the Hugging Face folder that transformers itself loads."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx
from safetensors.numpy import save
from sgpa_checkpoints import QWEN2_AUDIO, export

from sgpa_jax.files import atomic_write
from sgpa_jax.models.config import AudioLMConfig, MelConfig
from train import world


def export_folder(
    folder: Path, config: AudioLMConfig, mel: MelConfig, params: nnx.State, tokens: tuple[str, ...]
) -> None:
    """Write config, weights (float32), tokenizer, processor settings and the probe that tells the model's world."""
    flat = {".".join(map(str, path)): np.asarray(leaf.get_value()) for path, leaf in nnx.to_flat_state(params)}
    atomic_write(folder / "model.safetensors", save(export(flat, QWEN2_AUDIO), metadata={"format": "pt"}))
    end, pad = tokens.index("<|im_end|>"), tokens.index("<|endoftext|>")
    files: dict[str, Any] = {
        "config.json": _config(config, pad, end),
        "generation_config.json": {"eos_token_id": end, "pad_token_id": pad, "do_sample": False},
        "preprocessor_config.json": {
            "feature_extractor_type": "WhisperFeatureExtractor",
            "processor_class": "Qwen2AudioProcessor",
            "feature_size": mel.n_mels,
            "sampling_rate": mel.rate_hz,
            "hop_length": mel.hop_samples,
            "n_fft": mel.n_fft,
            "chunk_length": int(mel.window_s),
            "return_attention_mask": True,
        },
        "tokenizer.json": _tokenizer(tokens),
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "processor_class": "Qwen2AudioProcessor",
            "unk_token": "<unk>",
            "pad_token": "<|endoftext|>",
            "eos_token": "<|im_end|>",
            "model_max_length": 1024,
        },
        "world.json": {
            "prompt": "what to do ?",
            "probe": world.PROBE,
            "inside": "yes",
            "answer_outside": world.UNKNOWN,
        },
    }
    for name, content in files.items():
        atomic_write(folder / name, json.dumps(content, indent=1) + "\n")


def _config(config: AudioLMConfig, pad: int, end: int) -> dict[str, Any]:
    encoder, decoder = config.encoder, config.decoder
    return {
        "architectures": ["Qwen2AudioForConditionalGeneration"],
        "model_type": "qwen2_audio",
        "dtype": "float32",
        "audio_token_index": config.audio_token_id,
        "audio_config": {
            "model_type": "qwen2_audio_encoder",
            "num_mel_bins": encoder.n_mels,
            "d_model": encoder.width,
            "encoder_layers": encoder.n_layers,
            "encoder_attention_heads": encoder.n_heads,
            "encoder_ffn_dim": encoder.ffn_width,
            "max_source_positions": encoder.max_positions,
            "activation_function": "gelu",
            "scale_embedding": False,
        },
        "text_config": {
            "model_type": "qwen2",
            "vocab_size": decoder.vocab_size,
            "hidden_size": decoder.width,
            "num_hidden_layers": decoder.n_layers,
            "num_attention_heads": decoder.n_heads,
            "num_key_value_heads": decoder.n_kv_heads,
            "intermediate_size": decoder.ffn_width,
            "hidden_act": "silu",
            "max_position_embeddings": 1024,
            "rms_norm_eps": decoder.norm_eps,
            "rope_parameters": {"rope_theta": decoder.rope_theta, "rope_type": "default"},
            "tie_word_embeddings": decoder.tied_head,
            "use_sliding_window": False,
            "pad_token_id": pad,
            "eos_token_id": end,
        },
    }


def _tokenizer(tokens: tuple[str, ...]) -> dict[str, Any]:
    """A word-level tokenizer: lower-cased, split at white space and punctuation, markers kept whole."""
    special = [
        {
            "id": i,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for i, token in enumerate(tokens)
        if token.startswith("<")
    ]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": special,
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{"type": "WhitespaceSplit"}, {"type": "Punctuation", "behavior": "Isolated"}],
        },
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": {token: i for i, token in enumerate(tokens)}, "unk_token": "<unk>"},
    }
