"""Write a trained *pocket* model as a Hugging Face folder, as any other checkpoint of its architecture looks."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx
from safetensors.numpy import save
from sgpa_checkpoints import LFM2_AUDIO, QWEN2_AUDIO, export

from sgpa_jax.files import atomic_write
from sgpa_jax.models.audio_lm import AudioLMConfig
from sgpa_jax.models.fastconformer import FastConformerConfig
from sgpa_jax.models.lfm2 import Lfm2Config
from sgpa_jax.models.mel import WhisperMelConfig
from sgpa_jax.models.nemo_mel import NemoMelConfig
from sgpa_jax.models.qwen2 import Qwen2Config
from sgpa_jax.models.whisper_encoder import WhisperEncoderConfig
from train.recipe import Recipe


def export_folder(folder: Path, recipe: Recipe, params: nnx.State) -> None:
    """Write config, weights (float32), tokenizer, processor settings and what the model is asked about its world."""
    flat = {".".join(map(str, path)): np.asarray(leaf.get_value()) for path, leaf in nnx.to_flat_state(params)}
    is_qwen = isinstance(recipe.config.decoder, Qwen2Config)
    tensors = export(flat, QWEN2_AUDIO if is_qwen else LFM2_AUDIO)
    atomic_write(folder / "model.safetensors", save(tensors, metadata={"format": "pt"}))
    end, pad = recipe.tokens.index("<|im_end|>"), recipe.tokens.index("<|endoftext|>")
    files: dict[str, Any] = {
        **(_qwen2_audio if is_qwen else _lfm2_audio)(recipe.config, pad, end),
        "generation_config.json": {"eos_token_id": end, "pad_token_id": pad, "do_sample": False},
        "tokenizer.json": _tokenizer(recipe.tokens),
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            **({"processor_class": "Qwen2AudioProcessor"} if is_qwen else {}),
            "unk_token": "<unk>",
            "pad_token": "<|endoftext|>",
            "eos_token": "<|im_end|>",
            "model_max_length": 1024,
        },
        **({} if recipe.closed_world is None else {"world.json": recipe.closed_world}),
    }
    for name, content in files.items():
        atomic_write(folder / name, json.dumps(content, indent=1) + "\n")


def _qwen2_audio(config: AudioLMConfig, pad: int, end: int) -> dict[str, Any]:
    encoder, decoder, mel = config.encoder, config.decoder, config.front_end
    assert isinstance(encoder, WhisperEncoderConfig) and isinstance(decoder, Qwen2Config)
    assert isinstance(mel, WhisperMelConfig)
    return {
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
        "config.json": {
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
        },
    }


def _lfm2_audio(config: AudioLMConfig, pad: int, end: int) -> dict[str, Any]:
    encoder, decoder, mel = config.encoder, config.decoder, config.front_end
    assert isinstance(encoder, FastConformerConfig) and isinstance(decoder, Lfm2Config)
    assert isinstance(mel, NemoMelConfig)
    return {
        "config.json": {
            "architectures": ["Lfm2AudioForConditionalGeneration"],
            "dtype": "float32",
            "preprocessor": {
                "sample_rate": mel.rate_hz,
                "normalize": "per_feature",
                "window_size": mel.frame_samples / mel.rate_hz,
                "window_stride": mel.hop_samples / mel.rate_hz,
                "window": "hann",
                "features": mel.n_mels,
                "n_fft": mel.n_fft,
                "log": True,
                "frame_splicing": 1,
                "dither": 1e-5,
                "pad_to": 0,
                "pad_value": 0.0,
            },
            "encoder": {
                "feat_in": encoder.n_mels,
                "feat_out": -1,
                "n_layers": encoder.n_layers,
                "d_model": encoder.width,
                "subsampling": "dw_striding",
                "subsampling_factor": 8,
                "subsampling_conv_channels": encoder.n_channels,
                "causal_downsampling": False,
                "ff_expansion_factor": encoder.ffn_width // encoder.width,
                "self_attention_model": "rel_pos",
                "n_heads": encoder.n_heads,
                "att_context_size": [-1, -1],
                "xscaling": False,
                "untie_biases": True,
                "conv_kernel_size": encoder.n_taps,
                "conv_norm_type": "batch_norm",
            },
            "lfm": {
                "model_type": "lfm2",
                "vocab_size": decoder.vocab_size,
                "hidden_size": decoder.width,
                "num_hidden_layers": decoder.n_layers,
                "num_attention_heads": decoder.n_heads,
                "num_key_value_heads": decoder.n_kv_heads,
                "intermediate_size": decoder.ffn_width,
                "block_auto_adjust_ff_dim": False,
                "layer_types": ["full_attention" if attends else "conv" for attends in decoder.attends],
                "conv_L_cache": decoder.n_taps,
                "conv_bias": False,
                "max_position_embeddings": 1024,
                "norm_eps": decoder.norm_eps,
                "rope_parameters": {"rope_theta": decoder.rope_theta, "rope_type": "default"},
                "tie_word_embeddings": decoder.tied_head,
                "pad_token_id": pad,
                "eos_token_id": end,
            },
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
