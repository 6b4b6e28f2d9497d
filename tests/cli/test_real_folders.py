"""The commands on folders as the hub has them, of random weights: LFM2-Audio, Qwen2-Audio and wav2vec2, as users do."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import Result

import sgpa_jax

Run = Callable[..., Result]
FAMILIES = ["lfm2_audio", "qwen2_audio"]
WORDS = ["Five", "lamps,", "please!"]
SAID = ("--transcript", "Five lamps, please!")
QUESTION = ("--prompt", "Which colour is the lamp?")
RESPONSE = ("--response", "The lamp is red.")


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of swelling noise at 22.05 kHz."""
    swell_s = np.abs(np.sin(np.arange(44100) / 3000))
    wave_s = 0.2 * swell_s * np.random.default_rng(1).standard_normal(44100)
    path = tmp_path_factory.mktemp("speech") / "speech.wav"
    sgpa_jax.write_wav(path, sgpa_jax.Clip(wave_s.astype(np.float32), 22050))
    return path


@pytest.fixture
def explain(sgpa: Run, tiny_folder: Callable[[str], Path], speech: Path) -> Callable[..., dict[str, Any]]:
    """Explain with a model's folder and the aligner's, and check what every explanation must be."""

    def run(model: Path, *options: object, aligner: Path | None = None) -> dict[str, Any]:
        models = ("--model", model, "--aligner", aligner or tiny_folder("wav2vec2"))
        result = sgpa("explain", speech, *models, *SAID, *QUESTION, "--json", *options)
        assert result.exit_code == 0, result.stderr
        told = json.loads(result.stdout)
        assert told["in_domain"] is None
        assert [player["label"] for player in told["players"] if player["kind"] == "word"] == WORDS
        assert np.isfinite(told["values"]).all() and np.abs(told["values"]).max() > 0
        assert np.abs(told["efficiency_gap"]).max() < 1e-4
        return told

    return run


def _values(told: dict[str, Any]) -> np.ndarray:
    return np.array([told["empty_value"], told["full_value"], *told["values"]])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_given_response_is_explained_in_both_dtypes(explain, tiny_folder, family: str):
    wide, narrow = (explain(tiny_folder(family), *RESPONSE, "--dtype", dtype) for dtype in ("float32", "bfloat16"))
    assert (wide["model"]["dtype"], narrow["model"]["dtype"]) == ("float32", "bfloat16")
    assert wide["model"]["name"] == tiny_folder(family).name
    assert wide["aligner"]["emission"] == "character"
    assert [output["name"] for output in wide["outputs"]] == ["response", "T", "he", " lamp", " is", " red", "."]
    scale = np.abs(wide["full_value"][0])
    assert 0 < np.abs(_values(narrow)[:2, 0] - _values(wide)[:2, 0]).max() < 0.05 * scale


@pytest.mark.parametrize(("family", "n_new"), [("lfm2_audio", 6), ("qwen2_audio", 3)])
def test_the_models_own_answer_is_explained(explain, tiny_folder, family: str, n_new: int):
    told = explain(tiny_folder(family), "--max-new-tokens", n_new, "--dtype", "float32")
    assert told["response"] and not told["game"]["response_given"]
    assert len(told["outputs"]) > 1


def test_converted_folders_give_the_same_values(sgpa: Run, explain, tiny_folder, tmp_path: Path):
    folders = {name: tiny_folder(name) for name in ("lfm2_audio", "wav2vec2")}
    for name, folder in folders.items():
        result = sgpa("convert", folder, tmp_path / name, "--dtype", "float32")
        assert (result.exit_code, result.stdout.strip()) == (0, str(tmp_path / name)), result.stderr
    before = explain(folders["lfm2_audio"], *RESPONSE, "--dtype", "float32")
    after = explain(tmp_path / "lfm2_audio", *RESPONSE, "--dtype", "float32", aligner=tmp_path / "wav2vec2")
    np.testing.assert_array_equal(_values(after), _values(before))
    assert after["players"] == before["players"]


def test_coalitions_and_weights_are_shared_by_devices(explain, tiny_folder):
    folder = tiny_folder("lfm2_audio")
    alone = explain(folder, *RESPONSE, "--dtype", "float32")
    shared = explain(folder, *RESPONSE, "--dtype", "float32", "--mesh", "data=2,model=2")
    np.testing.assert_allclose(_values(shared), _values(alone), atol=1e-4)


def test_what_is_said_is_aligned(sgpa: Run, tiny_folder, speech: Path):
    given, heard = (
        sgpa("align", speech, "--transcript", said, "--aligner", tiny_folder("wav2vec2")) for said in (SAID[1], "auto")
    )
    assert (given.exit_code, heard.exit_code) == (0, 0)
    words = json.loads(given.stdout)["words"]
    assert [word["text"] for word in words] == WORDS
    edges_s = [(word["start_s"], word["end_s"]) for word in words]
    assert sorted(edges_s) == edges_s and all(0 <= start_s < end_s <= 2 for start_s, end_s in edges_s)
    assert json.loads(heard.stdout)["words"]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_without_a_tokenizer_is_told_in_one_sentence(sgpa: Run, tiny_folder, speech, family: str, tmp_path):
    folder = tmp_path / "incomplete"
    shutil.copytree(tiny_folder(family), folder, ignore=shutil.ignore_patterns("tokenizer.json"))
    aligner = tiny_folder("wav2vec2")
    result = sgpa("explain", speech, "--model", folder, "--aligner", aligner, *SAID, *QUESTION, *RESPONSE)
    assert (result.exit_code, result.stdout) == (2, "")
    assert len(result.stderr.splitlines()) == 1 and "tokenizer.json" in result.stderr


def test_models_and_aligners_are_told_apart(sgpa: Run, tiny_folder, speech: Path):
    model, aligner = tiny_folder("lfm2_audio"), tiny_folder("wav2vec2")
    for wrong in (
        sgpa("explain", speech, "--model", aligner, "--aligner", aligner, *SAID, *RESPONSE),
        sgpa("explain", speech, "--model", model, "--aligner", model, *SAID, *RESPONSE),
        sgpa("align", speech, "--aligner", model, *SAID),
    ):
        assert (wrong.exit_code, wrong.stdout) == (2, "")
        assert len(wrong.stderr.splitlines()) == 1 and "model_type" in wrong.stderr


@pytest.mark.parametrize("family", [*FAMILIES, "wav2vec2"])
def test_doctor_finds_nothing(sgpa: Run, tiny_folder, family: str):
    result = sgpa("doctor", "--model", tiny_folder(family))
    assert (result.exit_code, result.stderr) == (0, "")
    assert f"{tiny_folder(family).name} ({family})" in result.stdout
    assert "all fit the configuration" in result.stdout


def test_the_model_is_asked_for_the_words(tiny_folder, speech: Path):
    model, clip = sgpa_jax.load_model(tiny_folder("lfm2_audio"), dtype="float32"), sgpa_jax.read_clip(speech)
    heard = model.transcribe(clip, max_new_tokens=5)
    assert heard == model.generate(model.prepare(clip, system="Perform ASR."), max_new_tokens=5).text.strip() != ""
    aligner = sgpa_jax.load_aligner(tiny_folder("wav2vec2"))
    options = {"model": model, "aligner": aligner, "response": RESPONSE[1], "unspellable": "interpolate"}
    told, given = (
        sgpa_jax.explain(clip, transcript=transcript, max_new_tokens=5, **options)
        for transcript in ("auto:model", heard)
    )
    assert (told.transcript.text, told.transcript.source) == (heard, "heard by the model")
    assert given.transcript.source == "given"
    np.testing.assert_array_equal(told.values, given.values)


def test_a_model_of_a_closed_world_is_not_asked_for_words(sgpa: Run, speech: Path):
    result = sgpa("explain", speech, "--transcript", "auto:model")
    assert (result.exit_code, result.stdout) == (2, "")
    assert len(result.stderr.splitlines()) == 1 and "cannot transcribe" in result.stderr


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("absence", ["attention", "drop"])
def test_absences_at_the_decoders_input_are_explained(explain, tiny_folder, family: str, absence: str):
    told = explain(tiny_folder(family), *RESPONSE, "--dtype", "float32", "--absence", absence)
    assert (told["engine"], told["game"]["absence"]) == ("trie", absence)
    heard = explain(tiny_folder(family), *RESPONSE, "--dtype", "float32")
    assert heard["engine"] == "waveform"
    np.testing.assert_allclose(told["full_value"], heard["full_value"], atol=1e-4)


def test_what_coalitions_make_the_model_say_is_explained(explain, tiny_folder):
    folder = tiny_folder("lfm2_audio")
    options = ("--max-new-tokens", 4, "--dtype", "float32")
    told = explain(folder, *options, "--value", "tfidf")
    assert (told["engine"], told["full_value"], len(told["outputs"])) == ("generation", [1.0], 1)
    assert told["game"]["readout"] == "generated response"


def test_a_plan_tells_the_engine_and_what_it_will_run(sgpa: Run, tiny_folder, speech: Path):
    models = ("--model", tiny_folder("lfm2_audio"), "--aligner", tiny_folder("wav2vec2"))
    plans = {}
    for absence in ("silence", "embedding"):
        result = sgpa("explain", speech, *models, *SAID, *RESPONSE, "--absence", absence, "--dry-run", "--json")
        assert result.exit_code == 0, result.stderr
        plans[absence] = json.loads(result.stdout)
    assert [plans[absence]["engine"] for absence in plans] == ["waveform", "trie"]
    for told in plans.values():
        assert told["coalitions"] == 2 ** told["players"] and told["response_tokens"] == 6
        assert told["decoder_tokens"] > 0 and told["bytes_at_once"] > 0 and told["shapes"]
    assert plans["embedding"]["decoder_tokens"] < plans["embedding"]["tokens_one_by_one"]
    assert plans["embedding"]["baseline"] == "mean"
