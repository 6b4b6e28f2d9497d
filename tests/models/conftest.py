"""Tiny folders of other audio language models, every number random, as their own libraries write them."""

import base64
import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    AudioFlamingo3Config,
    AudioFlamingo3ForConditionalGeneration,
    AudioFlamingo3Processor,
    PreTrainedTokenizerFast,
    VoxtralConfig,
    VoxtralForConditionalGeneration,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    WhisperFeatureExtractor,
)

WINDOW_S, N_MELS = 2, 16
ENCODER = {
    "num_mel_bins": N_MELS, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 96, "max_source_positions": 50 * WINDOW_S,
}  # fmt: skip
DECODER = {
    "hidden_size": 40, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 56, "rms_norm_eps": 1e-5, "vocab_size": 340,
}  # fmt: skip
MARKERS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<sound>"]
TEMPLATE = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% for turn in messages %}<|im_start|>"
    "{{ turn.role }}\n{% for part in turn.content %}{{ '<sound>' if part.type == 'audio' else part.text }}{% endfor %}"
    "<|im_end|>\n{% endfor %}{{ '<|im_start|>assistant\n' }}"
)
VOXTRAL_NAMES = {1: "<s>", 2: "</s>", 3: "[INST]", 4: "[/INST]", 24: "[AUDIO]", 25: "[BEGIN_AUDIO]"}


class Tiny(NamedTuple):
    """A network, its processor (or feature extractor), its folder, and the id that ends an answer."""

    network: Any
    processor: Any
    folder: Path
    end_id: int


@pytest.fixture(scope="session")
def flamingo(tmp_path_factory) -> Tiny:
    """Audio Flamingo 3."""
    folder = tmp_path_factory.mktemp("flamingo")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=MARKERS, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(["system user assistant helpful"] * 4, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=MARKERS[0], eos_token=MARKERS[2])
    processor = AudioFlamingo3Processor(_extractor(), fast, chat_template=TEMPLATE)
    processor.save_pretrained(folder)
    config = AudioFlamingo3Config(
        audio_config=ENCODER, text_config={"model_type": "qwen2", **DECODER}, audio_token_id=MARKERS.index("<sound>")
    )
    end_id = MARKERS.index("<|im_end|>")
    return Tiny(_saved(AudioFlamingo3ForConditionalGeneration(config), folder, end_id), processor, folder, end_id)


@pytest.fixture(scope="session")
def voxtral(tmp_path_factory) -> Tiny:
    """Voxtral, whose tokenizer is a `tekken.json`."""
    folder = tmp_path_factory.mktemp("voxtral")
    ranks = [bytes([byte]) for byte in range(256)] + [b"wh", b"ch", b"ich", b"which", b"\n\n"]
    content = {
        "config": {
            "pattern": r" ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
            "default_vocab_size": 30 + len(ranks),
            "default_num_special_tokens": 30,
        },
        "vocab": [{"rank": rank, "token_bytes": base64.b64encode(token).decode()} for rank, token in enumerate(ranks)],
        "special_tokens": [{"rank": rank, "token_str": name} for rank, name in VOXTRAL_NAMES.items()],
    }
    (folder / "tekken.json").write_text(json.dumps(content))
    config = VoxtralConfig(
        audio_config=ENCODER,
        text_config={"model_type": "llama", "head_dim": 12, "rope_theta": 1e6, **DECODER},
        audio_token_id=24,
    )
    return Tiny(_saved(VoxtralForConditionalGeneration(config), folder, 2), _extractor(), folder, 2)


@pytest.fixture(scope="session")
def wav2vec2(tmp_path_factory) -> Path:
    """A folder of wav2vec2 with layer norms and nine letters."""
    folder = tmp_path_factory.mktemp("wav2vec2")
    config = Wav2Vec2Config(
        vocab_size=9, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=40,
        conv_dim=[12, 16, 20, 20], conv_kernel=[10, 3, 3, 2], conv_stride=[5, 4, 4, 4],
        # torch's bfloat16 convolution is wrong on a CPU where a group has no multiple of 16 channels.
        num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2,
        feat_extract_norm="layer", conv_bias=True, do_stable_layer_norm=True,
    )  # fmt: skip
    _randomised(Wav2Vec2ForCTC(config)).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)
    labels = ["<pad>", "<s>", "</s>", "<unk>", "|", "e", "t", "a", "o"]
    (folder / "vocab.json").write_text(json.dumps({label: i for i, label in enumerate(labels)}))
    return folder


def _randomised(network: torch.nn.Module) -> Any:
    """Return a network none of whose parameters is zero, or one, or equal to another."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.15 * torch.randn_like(parameter))
    return network.eval()


def _saved(network: Any, folder: Path, end_id: int) -> Any:
    network = _randomised(network)
    network.generation_config.eos_token_id = end_id
    network.generation_config.repetition_penalty = 1.5  # not ours to follow
    network.save_pretrained(folder)
    _extractor().save_pretrained(folder)
    return network


def _extractor() -> WhisperFeatureExtractor:
    return WhisperFeatureExtractor(feature_size=N_MELS, chunk_length=WINDOW_S, return_attention_mask=True)
