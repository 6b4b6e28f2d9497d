"""`sgpa align`: every format, on stdout and in files; wav2vec2 folders as users have them; reading what is said."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import sgpa_checkpoints
from flax import nnx
from safetensors.numpy import save_file
from typer.testing import Result

import sgpa_jax
from sgpa_jax.models.wav2vec2 import Wav2Vec2, Wav2Vec2Config

Run = Callable[..., Result]
ALIGNMENT = sgpa_jax.Alignment(
    words=(
        sgpa_jax.Word("lamp", 0.25, 0.5, 0.24, 0.52, 0.9, True),
        sgpa_jax.Word("red", 0.5, 1.0, 0.52, 0.98, 0.8, False),
    ),
    duration_s=2.0,
    transcript="lamp red",
    aligner="pocket",
    digest="00",
    rules="sgpa",
    emission="phone",
    notes=("'lamp' is odd",),
)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    def align(clip: object, transcript: str, **options: object) -> sgpa_jax.Alignment:
        defaults = {"aligner": "pocket", "rules": "sgpa", "unspellable": "error", "language": None}
        assert (transcript, options) == ("lamp red", defaults)
        return ALIGNMENT

    monkeypatch.setattr(sgpa_jax, "align", align)


@pytest.mark.usefixtures("stand_in")
def test_json_by_default(sgpa: Run, wav: Path):
    result = sgpa("align", wav, "--transcript", "lamp  red")
    assert result.exit_code == 0
    assert result.stderr == "note: 'lamp' is odd\n"
    assert json.loads(result.stdout)["words"][0] == {
        "text": "lamp",
        "start_s": 0.25,
        "end_s": 0.5,
        "ctc_start_s": 0.24,
        "ctc_end_s": 0.52,
        "confidence": 0.9,
        "boundary_refined": True,
    }


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize(("format", "held"), [("textgrid", "IntervalTier"), ("audacity", "lamp"), ("csv", "lamp,0.25")])
def test_formats(sgpa: Run, wav: Path, tmp_path: Path, format: str, held: str):
    out = tmp_path / "new" / "words"
    printed = sgpa("align", wav, "--transcript", "lamp red", "--format", format)
    assert (printed.exit_code, held in printed.stdout) == (0, True)
    written = sgpa("align", wav, "--transcript", "lamp red", "--format", format, "--out", out)
    assert (written.exit_code, written.stdout) == (0, "")
    assert out.read_text(encoding="utf-8") == printed.stdout


@pytest.fixture(scope="module", params=["group", "layer"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wav2vec2 of random weights, with every file that its repository on the hub would have."""
    path = tmp_path_factory.mktemp(f"wav2vec2-{request.param}")
    vocabulary = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, "|": 4}
    vocabulary |= {letter: 5 + i for i, letter in enumerate("ETAOINSHRDLUMWCFGYPBVK'XJQZ")}
    files = {
        "config.json": {
            "model_type": "wav2vec2", "architectures": ["Wav2Vec2ForCTC"], "vocab_size": 32, "pad_token_id": 0,
            "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24,
            "conv_dim": [8] * 7, "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2,
            "feat_extract_norm": request.param, "conv_bias": request.param == "layer",
            "do_stable_layer_norm": request.param == "layer",
        },
        "vocab.json": vocabulary,
        "tokenizer_config.json": {"word_delimiter_token": "|", "pad_token": "<pad>"},
        "preprocessor_config.json": {"do_normalize": True, "feature_size": 1, "sampling_rate": 16000},
    }  # fmt: skip
    for name, fields in files.items():
        (path / name).write_text(json.dumps(fields))
    config = Wav2Vec2Config.from_hf(files["config.json"])
    network = nnx.eval_shape(lambda: Wav2Vec2(config, rngs=nnx.Rngs(0)))
    rng = np.random.default_rng(0)
    parameters = {
        ".".join(map(str, keys)): (0.4 * rng.standard_normal(leaf.shape)).astype(np.float32)
        for keys, leaf in nnx.to_flat_state(nnx.state(network, nnx.Param))
    }
    # Random weights may hear the blank alone: let letters be what is heard.
    parameters["head.bias"][:5] = -5.0
    save_file(sgpa_checkpoints.export(parameters, sgpa_checkpoints.WAV2VEC2), path / "model.safetensors")
    return path


@pytest.fixture
def speech(tmp_path: Path) -> Path:
    """Two seconds of swelling noise at 22.05 kHz."""
    swell_s = np.abs(np.sin(np.arange(44100) / 3000))
    wave_s = 0.2 * swell_s * np.random.default_rng(1).standard_normal(44100)
    sgpa_jax.write_wav(tmp_path / "speech.wav", sgpa_jax.Clip(wave_s.astype(np.float32), 22050))
    return tmp_path / "speech.wav"


@pytest.mark.parametrize("rules", ["sgpa", "authors"])
def test_a_wav2vec2_folder_aligns(sgpa: Run, folder: Path, speech: Path, rules: str):
    result = sgpa("align", speech, "--transcript", "Five lamps, please!", "--aligner", folder, "--rules", rules)
    assert result.exit_code == 0, result.stderr
    told = json.loads(result.stdout)
    assert [word["text"] for word in told["words"]] == ["Five", "lamps,", "please!"]
    assert (told["aligner"], told["emission"], told["rules"]) == (folder.name, "character", rules)
    edges_s = [(word["start_s"], word["end_s"]) for word in told["words"]]
    assert all(0 <= start_s < end_s <= 2 for start_s, end_s in edges_s)
    assert sorted(edges_s) == edges_s
    assert all(word["ctc_start_s"] < word["ctc_end_s"] for word in told["words"])
    assert all(0 < word["confidence"] <= 1 for word in told["words"])


def test_without_a_transcript_what_the_aligner_hears_is_aligned_and_said_so(sgpa: Run, folder: Path, speech: Path):
    result = sgpa("align", speech, "--transcript", "auto", "--aligner", folder)
    assert result.exit_code == 0, result.stderr
    told = json.loads(result.stdout)
    assert told["transcript"] == " ".join(word["text"] for word in told["words"])
    assert set(told["transcript"]) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZ' ")
    assert told["notes"][0] == f"the transcript was not given: the aligner heard {told['transcript']!r}"
    assert "was not given" in result.stderr


def test_the_pocket_aligner_does_not_pretend_to_transcribe(sgpa: Run):
    demo = sgpa_checkpoints.shipped_folder("demo")
    result = sgpa("align", demo / "demo.wav", "--transcript", "auto")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "cannot tell which are said" in result.stderr


def test_a_folder_without_its_vocabulary_is_refused(sgpa: Run, folder: Path, speech: Path, tmp_path: Path):
    for file in folder.iterdir():
        if file.name != "vocab.json":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    result = sgpa("align", speech, "--transcript", "lamp", "--aligner", tmp_path)
    assert (result.exit_code, result.stdout) == (2, "")
    assert len(result.stderr.splitlines()) == 1
    assert "no vocab.json" in result.stderr
