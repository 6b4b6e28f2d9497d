"""A small random Qwen2-Audio in a folder as the hub has them, and a made-up recording of some words.

Encoder and decoder have the same width and depth; the window is Qwen2-Audio's own, thirty seconds. The mark that ends
an answer scores zero always, which is never the most: every answer is as long as it may be.
"""

import contextlib
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers import decoders as tokenizer_decoders

from sgpa_jax.audio import Clip
from sgpa_jax.models import Model, ModelInputs, load_model
from sgpa_jax.players import Player, Players

RATE_HZ = 16000
PROMPT, RESPONSE = "what?", "a red one"
_VOCABULARY = 1000
_MARKERS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>")


@dataclass(frozen=True, eq=False)
class SpeechToy:
    """transformers' network and ours of the same weights, and a recording with its players.

    Attributes:
        network: transformers' `Qwen2AudioForConditionalGeneration`.
        model: ours.
        extractor: transformers' front end.
        inputs: prompt, recording and a response.
        players: the words; between them is silence that is nobody's.
    """

    network: Any
    model: Model
    extractor: Any
    inputs: ModelInputs
    players: Players


@contextlib.contextmanager
def speech_toy(
    n_words: int, *, width: int = 256, n_layers: int = 4, window_s: int = 30, seed: int
) -> Iterator[SpeechToy]:
    """Make a folder, load it on both sides, and remove it in the end."""
    with tempfile.TemporaryDirectory() as folder:
        network = _network(width, n_layers, window_s, seed)
        _write(Path(folder), network, window_s)
        extractor = transformers.WhisperFeatureExtractor(feature_size=128, chunk_length=window_s)
        model = load_model(folder, dtype="float32")
        clip, players = _recording(n_words, seed)
        inputs = model.prepare(clip, PROMPT, response=RESPONSE)
        yield SpeechToy(network, model, extractor, inputs, players)


def _network(width: int, n_layers: int, window_s: int, seed: int) -> Any:
    torch.manual_seed(seed)
    config = transformers.Qwen2AudioConfig(
        audio_config={
            "num_mel_bins": 128, "d_model": width, "encoder_layers": n_layers, "encoder_attention_heads": 4,
            "encoder_ffn_dim": 4 * width, "max_source_positions": 50 * window_s,
        },
        text_config={
            "model_type": "qwen2", "vocab_size": _VOCABULARY, "hidden_size": width, "num_hidden_layers": n_layers,
            "num_attention_heads": 4, "num_key_value_heads": 4, "intermediate_size": width * 43 // 16,
            "tie_word_embeddings": False,
        },
        audio_token_index=_MARKERS.index("<|AUDIO|>"),
    )  # fmt: skip
    network = transformers.Qwen2AudioForConditionalGeneration(config).eval().requires_grad_(False)
    for name, parameter in network.named_parameters():
        if parameter.ndim > 1 and "embed_positions" not in name:
            fan = parameter[0].numel()
            parameter.normal_(0, 0.1 if "embed_tokens" in name else 1.4 * fan**-0.5)
    network.lm_head.weight[: len(_MARKERS)] = 0
    return network


def _write(folder: Path, network: Any, window_s: int) -> None:
    network.save_pretrained(folder)
    end_id = _MARKERS.index("<|im_end|>")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": end_id}))
    front_end = {
        "feature_size": 128,
        "chunk_length": window_s,
        "sampling_rate": RATE_HZ,
        "n_fft": 400,
        "hop_length": 160,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(front_end))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    vocabulary = {token: i for i, token in enumerate([*_MARKERS, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    vocabulary |= {f"<{i}>": i for i in range(len(vocabulary), _VOCABULARY)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore
    tokenizer.decoder = tokenizer_decoders.ByteLevel()  # pyright: ignore
    tokenizer.add_special_tokens(list(_MARKERS))
    tokenizer.save(str(folder / "tokenizer.json"))


def _recording(n_words: int, seed: int) -> tuple[Clip, Players]:
    """Chirps of a third of a second, each with its own pitch, between pauses with some noise in them."""
    rng, pause_s, word_s = np.random.default_rng(seed), 0.08, 0.34
    step = round((pause_s + word_s) * RATE_HZ)
    wave = 0.002 * rng.standard_normal(n_words * step + round(pause_s * RATE_HZ))
    words = []
    for word in range(n_words):
        start, length = word * step + round(pause_s * RATE_HZ), round(word_s * RATE_HZ)
        low_hz, high_hz = rng.uniform(150, 3000, 2)
        phase = np.cumsum(np.linspace(low_hz, high_hz, length)) * 2 * np.pi / RATE_HZ
        wave[start : start + length] += 0.3 * np.sin(phase) * np.hanning(length)
        words.append(Player(f"word {word}", "word", start / RATE_HZ, (start + length) / RATE_HZ))
    return Clip(wave.astype(np.float32), RATE_HZ), Players(tuple(words), len(wave), RATE_HZ)
