"""`sgpa doctor`: a whole installation is told from a damaged one, and what would load from what would not."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest
import sgpa_checkpoints
import sgpa_kernels
from safetensors.numpy import load_file, save_file
from typer.testing import Result

import sgpa_jax

Run = Callable[..., Result]


def test_this_installation_is_whole(sgpa: Run):
    result = sgpa("doctor")
    assert (result.exit_code, result.stderr) == (0, "")
    assert sgpa_jax.__version__ in result.stdout
    assert "cpu" in result.stdout


def test_a_damaged_file_is_named(sgpa: Run, monkeypatch: pytest.MonkeyPatch):
    told = {"folders": {"pocket": {"files": {"config.json": "0" * 64, "gone.json": "0" * 64}}}}
    monkeypatch.setattr(sgpa_checkpoints, "manifest", lambda: told)
    result = sgpa("doctor")
    assert result.exit_code == 2
    assert "pocket/config.json, pocket/gone.json" in result.stderr


def test_wrong_values_are_our_fault(sgpa: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sgpa_checkpoints, "manifest", lambda: {"folders": {}})
    monkeypatch.setattr(sgpa_kernels, "exact_shapley", lambda values: values[:3])
    assert sgpa("doctor").exit_code == 1


POCKET = sgpa_checkpoints.shipped_folder("pocket")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The pocket model as if it were somebody's own."""
    return Path(shutil.copytree(POCKET, tmp_path / "mine"))


@pytest.mark.parametrize("name", ["pocket", None])
def test_a_checkpoint_that_would_load(sgpa: Run, folder: Path, name: str | None):
    result = sgpa("doctor", "--model", name or folder)
    assert (result.exit_code, result.stderr) == (0, "")
    n_parameters = sum(array.size for array in load_file(POCKET / "model.safetensors").values())
    assert f"{name or 'mine'} (qwen2_audio)" in result.stdout
    assert f"{n_parameters / 1e6:,.1f} million" in result.stdout
    assert f"weights take {4 * n_parameters / 1e6:.1f} MB: fits on the mesh data=1,model=1" in result.stdout
    assert "all fit the configuration" in result.stdout


def test_every_problem_of_a_checkpoint_is_told(sgpa: Run, folder: Path):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors["more"] = np.zeros(3, np.float32)
    tensors["language_model.model.norm.weight"] = np.zeros(5, np.int32)
    del tensors["audio_tower.layer_norm.bias"]
    save_file(tensors, path)
    result = sgpa("doctor", "--model", folder)
    assert result.exit_code == 2
    problems = [line for line in result.stdout.splitlines() if line.startswith("problem ")]
    told = ("more: no rule", "norm.weight: it holds int32", "becomes (5,)", "encoder.norm.bias: no tensor fills it")
    assert [clause for clause in told if not any(clause in problem for problem in problems)] == []
    assert len(problems) == len(told)
    assert result.stderr.strip() == "sgpa: mine would not load: it does not fit in 4 places, each told above"


def test_only_headers_are_read(sgpa: Run, folder: Path):
    """A file of the right length without a single value is judged like the whole one."""
    path = folder / "model.safetensors"
    n_bytes = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(8 + int.from_bytes(file.read(8), "little"))
        file.truncate(n_bytes)
    assert sgpa("doctor", "--model", folder).exit_code == 0
    with path.open("r+b") as file:
        file.truncate(n_bytes - 1)
    result = sgpa("doctor", "--model", folder)
    assert (result.exit_code, "is cut short" in result.stderr) == (2, True)


def test_an_architecture_that_we_do_not_have(sgpa: Run, folder: Path):
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    result = sgpa("doctor", "--model", folder)
    assert result.exit_code == 2
    assert "(unknown)" in result.stdout
    assert "model_type 'llama'" in result.stdout


def test_a_checkpoint_too_big_for_this_machine(sgpa: Run, folder: Path, monkeypatch: pytest.MonkeyPatch):
    """The mesh grows until the weights fit, and the devices may be too few."""
    from sgpa_jax.models import survey

    n_bytes = 4 * sum(array.size for array in load_file(POCKET / "model.safetensors").values())
    monkeypatch.setattr(survey, "_memory", lambda: (n_bytes // 2, "a little", False))
    shown = sgpa("doctor", "--model", folder).stdout.splitlines()
    assert [line.partition(": ")[2].partition(" (")[0] for line in shown if "weights take" in line] == [
        "fits on the mesh data=1,model=4",
        "fits on the mesh data=1,model=2",
    ]
    monkeypatch.setattr(survey, "_memory", lambda: (n_bytes // 2, "a little, shared", True))
    assert "does not fit on these devices" in sgpa("doctor", "--model", folder).stdout
    assert len(jax.devices()) == 8


def test_a_wav2vec2_is_judged_as_well(sgpa: Run, tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "wav2vec2", "hidden_size": 48, "vocab_size": 5}))
    save_file({"lm_head.bias": np.zeros(5, np.float32)}, tmp_path / "model.safetensors")
    result = sgpa("doctor", "--model", tmp_path)
    assert result.exit_code == 2
    assert "(wav2vec2)" in result.stdout
    assert "head.kernel: no tensor fills it (lm_head.weight was expected)" in result.stdout


def test_a_revision_needs_a_model_of_the_hub(sgpa: Run, folder: Path):
    assert sgpa("doctor", "--revision", "main").exit_code == 2
    result = sgpa("doctor", "--model", folder, "--revision", "main")
    assert (result.exit_code, "has no revision" in result.stderr) == (2, True)
