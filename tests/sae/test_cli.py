"""`sgpa sae`: recordings in, an exported autoencoder out; bad input told in a sentence."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from sgpa_jax.audio import Clip, write_wav
from sgpa_jax.cli import app
from sgpa_jax.sae import import_sae, load_sae, open_store


@pytest.fixture
def sgpa() -> Callable[..., Result]:
    return lambda *arguments: CliRunner().invoke(app, ["sae", *map(str, arguments)], prog_name="sgpa")


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    rng, rows = np.random.default_rng(0), []
    for n in range(3):
        write_wav(tmp_path / f"{n}.wav", Clip(0.1 * rng.standard_normal(8000).astype(np.float32), 16000))
        rows.append({"audio": f"{n}.wav", "prompt": "which?", "response": "red"})
    path = tmp_path / "clips.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_from_recordings_to_an_exported_autoencoder(sgpa, manifest: Path, tmp_path: Path, tiny_folder):
    model, activations, runs = tiny_folder("qwen2_audio"), tmp_path / "activations", tmp_path / "runs"
    result = sgpa("harvest", manifest, "--out", activations, "--layers", "0,1", "--model", model, "--batch", 3)
    assert result.exit_code == 0 and "tokens of 3 clips, width 32" in result.stdout, result.output
    assert open_store(activations).layers == (0, 1)

    train = ("train", activations, "--out", runs, "--expansions", "1,2", "--layers", "1", "--k", 4, "--steps", 2)
    # JumpReLU takes one path alone: no time is spent on measuring which is fastest.
    result = sgpa(*train, "--batch", 16, "--kind", "jumprelu")
    assert result.exit_code == 0, result.output
    assert [line.split(":")[0] for line in result.stdout.splitlines()] == [f"{runs}/layer-1-x{n}" for n in (1, 2)]
    trained = load_sae(runs / "layer-1-x2")
    assert (trained.recipe.sae.n_latents, trained.recipe.sae.k, trained.step) == (64, 4, 2)

    folder = runs / "layer-1-x2"
    result = sgpa("eval", folder, activations, "--json", "--model", model, "--answers", manifest)
    figures = json.loads(result.stdout)
    assert {"fvu", "l0", "dead_frac", "dead_eval_frac", "ce_recovered", "kl"} <= figures.keys()
    assert figures["n_tokens"] == open_store(activations).n_rows != figures["n_answer_tokens"]
    assert 0 < figures["l0"] <= 64 and figures["step"] == 2
    assert "fvu" in sgpa("eval", folder, activations).stdout

    result = sgpa("export", folder, tmp_path / "out", "--layout", "saelens")
    assert (result.exit_code, result.stdout.strip()) == (0, str(tmp_path / "out"))
    np.testing.assert_allclose(import_sae(tmp_path / "out").w_enc_md, trained.folded.w_enc_md, rtol=1e-6)

    manifest.write_text(manifest.read_text() + '{"audio": "gone.wav"}\n')
    result = sgpa("harvest", manifest, "--out", tmp_path / "other", "--layers", "1", "--model", model)
    assert result.exit_code == 3 and "gone.wav was left out" in result.stderr
    result = sgpa("eval", folder, activations, "--model", model, "--answers", manifest)
    assert result.exit_code == 2 and "'gone.wav'" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("harvest", "gone.csv", "--out", "out", "--layers", "1"), "cannot read the manifest"),
        (("harvest", "clips.jsonl", "--out", "out", "--layers", "1;2"), "whole numbers with commas"),
        (("train", "gone", "--out", "out"), "holds no activations"),
        (("eval", "gone", "gone"), "holds no autoencoder"),
        (("eval", "gone", "gone", "--model", "pocket"), "both --model and --answers"),
        (("export", "gone", "out"), "holds no autoencoder"),
    ],
)
def test_bad_input_is_told_and_writes_nothing(sgpa, manifest: Path, tmp_path: Path, monkeypatch, arguments, told):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    result = sgpa(*arguments)
    assert result.exit_code == 2, result.output
    assert told in result.stderr and len(result.stderr.splitlines()) == 1
    assert sorted(tmp_path.iterdir()) == before


def test_a_grid_that_cannot_be_trained_trains_nothing(sgpa, write_store, tmp_path: Path):
    store = write_store()
    for wrong, told in (
        (("--preset", "paper"), "ard_paper"),
        (("--layers", "1,2"), "but not 2"),
        (("--kind", "topp"), "topk"),
        (("--mesh", "data=99"), "99 devices"),
        (("--checkpoint-every", "0"), "at least one step"),
    ):
        result = sgpa("train", store.folder, "--out", tmp_path / "runs", "--k", 2, *wrong)
        assert result.exit_code == 2 and told in result.stderr, result.output
    assert not (tmp_path / "runs").exists()
