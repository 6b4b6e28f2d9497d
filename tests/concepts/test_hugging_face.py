"""Embedders, captioners and namers that are loaded through transformers, from small folders of random weights."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import sgpa_checkpoints
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from sgpa_jax.audio import Clip
from sgpa_jax.concepts import (
    BertScore,
    ClapEmbedder,
    LanguageModel,
    ModelCaptioner,
    TransformersCaptioner,
    name_consistency,
    name_similarity,
)
from sgpa_jax.concepts.writers import cleaned_name
from sgpa_jax.errors import CheckpointError
from sgpa_jax.models import load_model

TEXTS = ["a dog barks at night", "rain falls on a roof", "yes no", "user assistant"]


def tone(hz: float, seconds: float, rate_hz: int = 16000) -> Clip:
    time_s = np.arange(int(seconds * rate_hz)) / rate_hz
    return Clip((0.3 * np.sin(2 * np.pi * hz * time_s)).astype(np.float32), rate_hz)


@pytest.fixture(scope="module")
def tokenizer() -> transformers.PreTrainedTokenizerFast:
    plain = Tokenizer(models.BPE())
    plain.pre_tokenizer, plain.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<unk>", "<pad>", "<s>", "</s>", "<mask>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    plain.train_from_iterator(TEXTS * 4, trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=plain, unk_token="<unk>", pad_token="<pad>", eos_token="</s>", model_max_length=32,
        chat_template="{% for m in messages %}user {{ m['content'] }} {% endfor %}assistant",
    )  # fmt: skip


@pytest.fixture(scope="module")
def clap_folder(tokenizer, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("clap")
    torch.manual_seed(0)
    config = transformers.ClapConfig(
        text_config={
            "vocab_size": 300, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
            "intermediate_size": 24, "max_position_embeddings": 40, "pad_token_id": 1,
        },
        audio_config={
            "window_size": 4, "num_mel_bins": 16, "spec_size": 64, "patch_size": 4, "patch_stride": [4, 4],
            "num_classes": 3, "hidden_size": 32, "depths": [1, 1], "num_attention_heads": [2, 2],
            "patch_embeds_hidden_size": 16, "enable_fusion": False, "projection_dim": 12,
        },
        projection_dim=12,
    )  # fmt: skip
    transformers.ClapModel(config).save_pretrained(folder)
    extractor = transformers.ClapFeatureExtractor(
        feature_size=16,
        sampling_rate=16000,
        hop_length=160,
        max_length_s=2,
        fft_window_size=1024,
        frequency_max=8000,
        truncation="rand_trunc",
    )
    transformers.ClapProcessor(extractor, tokenizer).save_pretrained(folder)
    return folder


def test_clap(clap_folder: Path):
    embedder = ClapEmbedder.load(clap_folder)
    clips = [tone(300, 1.0), tone(700, 2.0, 48000), tone(300, 5.0)]
    unit_ne = embedder.embed_audio(clips)
    assert unit_ne.shape == (3, 12) and unit_ne.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(unit_ne, axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(embedder.embed_audio(clips), unit_ne)
    # What upstream makes of a clip that fits its window; a longer one is the mean of its windows, of equal weight.
    model = transformers.ClapModel.from_pretrained(clap_folder).eval()
    reader = transformers.ClapProcessor.from_pretrained(clap_folder)
    with torch.inference_mode():
        features = reader.feature_extractor(clips[0].wave_s, sampling_rate=16000, return_tensors="pt")
        heard: Any = model.get_audio_features(**features)
        tokens = reader.tokenizer(TEXTS[:2], padding=True, return_tensors="pt")
        read: Any = model.get_text_features(tokens["input_ids"], attention_mask=tokens["attention_mask"])
    np.testing.assert_allclose(unit_ne[:1], heard.pooler_output.numpy(), atol=1e-5)
    cuts = [Clip(clips[2].wave_s[first : first + 32000], 16000) for first in (0, 32000, 64000)]
    mean_e = embedder.embed_audio(cuts).sum(axis=0)
    np.testing.assert_allclose(unit_ne[2], mean_e / np.linalg.norm(mean_e), atol=1e-5)
    np.testing.assert_allclose(embedder.embed_text(TEXTS[:2]), read.pooler_output.numpy(), atol=1e-5)
    np.testing.assert_allclose(name_similarity(embedder, TEXTS, TEXTS), 1, rtol=1e-5)
    assert -1 <= name_consistency(embedder, TEXTS[:2]) <= 1 and math.isnan(name_consistency(embedder, TEXTS[:1]))


def test_an_audio_language_model_captions_alike_in_both_libraries():
    """The pocket model: a Qwen2-Audio folder that transformers loads as it is."""
    folder, clip, prompt = sgpa_checkpoints.shipped_folder("pocket"), tone(440, 1.5), "what is the color ?"
    theirs = TransformersCaptioner.load(folder, prompt, max_new_tokens=8, dtype="float32")
    ours = ModelCaptioner(load_model("pocket"), prompt, max_new_tokens=8)
    assert ours.caption(clip) == theirs.caption(clip) != ""


def test_a_clip_longer_than_the_window_is_described_by_its_beginning():
    heard = []
    model = SimpleNamespace(
        name="toy", window_s=2.0, prepare=lambda clip, prompt: heard.append(clip),
        generate=lambda inputs, max_new_tokens: SimpleNamespace(text=" a tone\n"),
    )  # fmt: skip
    assert ModelCaptioner(model).caption(tone(440, 5)) == "a tone"  # pyright: ignore[reportArgumentType]
    assert heard[0].duration_s == 2


def test_a_language_model_names_and_judges(tokenizer, tmp_path: Path):
    torch.manual_seed(1)
    config = transformers.Qwen2Config(
        vocab_size=300, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2,
        intermediate_size=24, max_position_embeddings=512, eos_token_id=3, pad_token_id=1,
    )  # fmt: skip
    transformers.Qwen2ForCausalLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model = LanguageModel.load(tmp_path, dtype="float32")
    found = model.name_concept(TEXTS[:2], TEXTS[2:])
    assert found == model.name_concept(TEXTS[:2], TEXTS[2:]) and 0 < found.confidence <= 1
    assert found.name is None or len(found.name.split()) <= 6
    odds = model.judge("dog", TEXTS)
    assert odds.shape == (4,) and np.isfinite(odds).all()
    score = BertScore.load(tmp_path, layer=1)
    same, other = score.f1(["a dog barks", "a dog barks"], ["a dog barks", "rain falls"])
    assert same == pytest.approx(1, abs=1e-5) and other < same


def test_answers_become_names():
    assert cleaned_name('\n "Dog barking."\nBecause all of them') == "Dog barking"
    assert cleaned_name("- one two three four five six seven") == "one two three four five six"
    assert cleaned_name("NONE.") is None and cleaned_name(" \n") is None


def test_refuses(tmp_path: Path, clap_folder: Path):
    with pytest.raises(CheckpointError, match="cannot be loaded as a ClapModel"):
        ClapEmbedder.load(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="cannot be loaded as a AutoModelForCausalLM"):
        LanguageModel.load(tmp_path)
    with pytest.raises(CheckpointError, match="nobody/nothing@main"):
        ClapEmbedder.load("nobody/nothing@main")
