"""`sgpa doctor`: a whole installation is told from a damaged one."""

from collections.abc import Callable

import pytest
import sgpa_checkpoints
import sgpa_kernels
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
