"""A wav2vec2 folder as an acoustic model: its files, what it hears and when, and what is wrong with damaged folders."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sgpa_checkpoints
from flax import nnx
from safetensors.numpy import save_file

from sgpa_jax.audio import Clip
from sgpa_jax.errors import AudioError, CheckpointError, SgpaError, UsageError
from sgpa_jax.models import load_aligner
from sgpa_jax.models.aligner import PocketAligner
from sgpa_jax.models.wav2vec2 import Wav2Vec2, Wav2Vec2Config
from sgpa_jax.models.wav2vec2_aligner import Wav2Vec2Aligner

VOCABULARY = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, "|": 4, "E": 5, "T": 6, "'": 7, "Ä": 8}
CONFIG = {
    "model_type": "wav2vec2", "vocab_size": 9, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "intermediate_size": 24, "conv_dim": [8] * 7, "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2,
}  # fmt: skip
FILES = {
    "config.json": CONFIG,
    "vocab.json": VOCABULARY,
    "tokenizer_config.json": {"word_delimiter_token": "|", "pad_token": "<pad>", "do_lower_case": False},
    "preprocessor_config.json": {"feature_size": 1, "sampling_rate": 16000, "do_normalize": True},
}
Build = Callable[..., Path]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Write a folder of random weights; files by stem, merged into the usual ones, or left out where None."""
    config = Wav2Vec2Config.from_hf(CONFIG)
    network = nnx.eval_shape(lambda: Wav2Vec2(config, rngs=nnx.Rngs(0)))
    rng = np.random.default_rng(0)
    parameters = {
        ".".join(map(str, path)): (0.3 * rng.standard_normal(leaf.shape)).astype(np.float32)
        for path, leaf in nnx.to_flat_state(nnx.state(network, nnx.Param))
    }
    save_file(sgpa_checkpoints.export(parameters, sgpa_checkpoints.WAV2VEC2), tmp_path / "model.safetensors")

    def write(**changes: Any) -> Path:
        for name, usual in FILES.items():
            change = changes.get(name.removesuffix(".json"), {})
            if change is not None:
                (tmp_path / name).write_text(json.dumps({**usual, **change}))
        return tmp_path

    return write


def noise(n_samples: int, *, rate_hz: int = 16000) -> Clip:
    return Clip(0.1 * np.random.default_rng(3).standard_normal(n_samples).astype(np.float32), rate_hz)


def test_emissions_are_the_networks_log_probabilities_at_their_times(build: Build):
    aligner = load_aligner(build())
    assert isinstance(aligner, Wav2Vec2Aligner)
    clips = [noise(9000), noise(4001)]
    for clip, heard in zip(clips, aligner.emissions(clips), strict=True):
        character, n_samples = heard["character"], len(clip.wave_s)
        # A frame's convolutions hear 25 ms; it stands for the 20 ms in their middle.
        assert (character.frame_s, character.offset_s, character.blank) == (0.02, 0.0025, 0)
        assert character.labels == tuple(VOCABULARY)
        assert character.log_probs_tv.shape == ((n_samples - 400) // 320 + 1, 9)
        wave_bs = jnp.asarray((clip.wave_s - clip.wave_s.mean()) / np.sqrt(clip.wave_s.var() + 1e-7))[None]
        network = nnx.merge(aligner._graph, aligner._state)
        logits = nnx.jit(lambda network, *inputs: network(*inputs))(network, wave_bs, jnp.array([n_samples]))
        np.testing.assert_allclose(character.log_probs_tv, jax.nn.log_softmax(logits)[0], atol=1e-4)
    assert aligner.lexicon is None
    assert (aligner.rate_hz, aligner.name) == (16000, build().name)


def test_level_matters_only_where_recordings_are_not_normalised(build: Build):
    clip = noise(8000)
    soft = Clip(clip.wave_s * np.float32(0.1), 16000)
    for normalise in (True, False):
        aligner = load_aligner(build(preprocessor_config={"do_normalize": normalise}))
        heard, heard_soft = (one["character"].log_probs_tv for one in aligner.emissions([clip, soft]))
        assert np.allclose(heard, heard_soft, atol=2e-3) is normalise


def test_other_rates_are_resampled_and_silence_is_finite(build: Build):
    aligner = load_aligner(build())
    eight, silence = aligner.emissions([noise(4000, rate_hz=8000), Clip(np.zeros(8000, np.float32), 16000)])
    assert eight["character"].log_probs_tv.shape == silence["character"].log_probs_tv.shape == (24, 9)
    assert np.isfinite(silence["character"].log_probs_tv).all()


def test_a_clip_without_a_frame_is_refused(build: Build):
    with pytest.raises(AudioError, match="at least 25 ms"):
        load_aligner(build()).emissions([noise(399)])


def test_bfloat16_is_another_model_that_hears_much_the_same(build: Build):
    folder, clip = build(), noise(8000)
    exact, rough = load_aligner(folder), load_aligner(folder, dtype="bfloat16")
    assert exact.digest != rough.digest
    heard, heard_roughly = (one.emissions([clip])[0]["character"].log_probs_tv for one in (exact, rough))
    assert heard_roughly.dtype == np.float32
    assert 0 < np.abs(np.exp(heard) - np.exp(heard_roughly)).max() < 0.05


@pytest.mark.parametrize("word_break", [" ", {"content": " ", "lstrip": False}])
def test_the_word_break_has_one_name_whatever_the_vocabulary_calls_it(build: Build, word_break: Any):
    folder = build(vocab={"|": 8, "Ä": 4}, tokenizer_config={"word_delimiter_token": "Ä"})
    assert load_aligner(folder).emissions([noise(800)])[0]["character"].labels[4:] == ("|", "E", "T", "'", "<8>")
    vocabulary = {" " if label == "|" else label: i for label, i in VOCABULARY.items()}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "tokenizer_config.json").write_text(json.dumps({"word_delimiter_token": word_break}))
    assert load_aligner(folder).emissions([noise(800)])[0]["character"].labels[4] == "|"


def test_files_that_newer_and_older_folders_have_otherwise(build: Build):
    folder = build(preprocessor_config=None, tokenizer_config=None)
    (folder / "processor_config.json").write_text(json.dumps({"feature_extractor": {"do_normalize": False}}))
    vocabulary = {label: i for label, i in VOCABULARY.items() if label != "<unk>"}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    aligner = load_aligner(folder)
    assert isinstance(aligner, Wav2Vec2Aligner)
    assert not aligner.normalise
    assert aligner.labels[3:5] == ("<3>", "|")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"vocab": None}, "no vocab.json"),
        ({"preprocessor_config": None}, "no preprocessor_config.json"),
        ({"vocab": {"B": 9}}, r"numbers 'B' 9"),
        ({"vocab": {"B": 5}}, r"numbers 'B' 5"),
        ({"vocab": {"deu": {"a": 1}}}, "numbers 'deu'"),
        ({"tokenizer_config": {"pad_token": "<s>"}}, "pads with '<s>', number 1"),
        ({"preprocessor_config": {"feature_size": 80}}, "feature_size"),
        ({"config": {"model_type": "qwen2"}}, "'qwen2'"),
        ({"config": {"intermediate_size": 25}}, "25 is intermediate_size"),
        ({"config": {"adapter_attn_dim": 16}}, "adapter_attn_dim"),
    ],
)
def test_a_folder_that_is_not_whole_is_refused_in_one_sentence(build: Build, changes: dict[str, Any], says: str):
    with pytest.raises(CheckpointError, match=says) as caught:
        load_aligner(build(**changes))
    assert "\n" not in str(caught.value)


def test_the_shipped_aligner_goes_by_name_and_by_folder():
    folder = sgpa_checkpoints.shipped_folder("pocket_aligner")
    assert isinstance(load_aligner(), PocketAligner)
    assert load_aligner().name == "pocket"
    assert isinstance(load_aligner(folder, dtype="float32"), PocketAligner)


@pytest.mark.parametrize(
    ("name", "dtype", "error", "says"),
    [
        ("pocket", "bfloat16", UsageError, "float32 alone"),
        ("pocket", "float16", UsageError, "bfloat16"),
        ("pockets", None, UsageError, "pocket"),
    ],
)
def test_names_and_dtypes_that_are_not_offered(name: str, dtype: str | None, error: type[SgpaError], says: str):
    with pytest.raises(error, match=says):
        load_aligner(name, dtype=dtype)
