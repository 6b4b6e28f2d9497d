"""`sgpa refold`: other values from a finished run, and what it refuses."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

Run = Callable[..., Result]


@pytest.fixture
def finished(sgpa: Run, tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    result = sgpa("explain", "--demo", "--players", "windows:0.8", "--response", "lamp blue", "--out", folder)
    assert result.exit_code == 0, result.output
    return folder


def test_other_values_of_the_same_coalitions(sgpa: Run, finished: Path, tmp_path: Path):
    before = (finished / "explanation.json").read_bytes()
    result = sgpa("refold", finished, "--estimand", "banzhaf", "--interactions", "STII:2", "--out", tmp_path / "other")
    assert result.exit_code == 0, result.output
    assert "Together:" in result.stdout and "STII of order 2" in result.stdout
    new = json.loads((tmp_path / "other" / "explanation.json").read_text())
    assert new["estimand"] == "banzhaf" and new["response"] == "lamp blue"
    assert (finished / "explanation.json").read_bytes() == before
    assert (tmp_path / "other" / "explanation.html").stat().st_size > 10_000
    told = json.loads(sgpa("refold", finished, "--estimator", "leverage", "--json").stdout)
    assert told["estimator"]["name"] == "leverage"
    # All coalitions are known, so that another method of the same values finds the same.
    for row, old_row in zip(told["values"], json.loads(before)["values"], strict=True):
        assert row == pytest.approx(old_row, abs=1e-6)


def test_bad_input_is_one_sentence(sgpa: Run, finished: Path, tmp_path: Path):
    for arguments, part in (
        ((tmp_path / "nowhere",), "cannot open"),
        ((finished, "--estimator", "leverige"), "leverage"),
        ((finished, "--estimand", "owen"), "groups"),
        ((finished, "--interactions", "k-SII"), "order"),
        ((finished, "--groups", "speakers"), "grouping"),
    ):
        result = sgpa("refold", *arguments)
        assert result.exit_code == 2 and part in result.stderr and len(result.stderr.splitlines()) == 1, result.stderr
    (finished / "coalitions.safetensors").write_bytes(b"no tensors")
    result = sgpa("refold", finished)
    assert result.exit_code == 2 and "cannot be read as coalitions" in result.stderr
