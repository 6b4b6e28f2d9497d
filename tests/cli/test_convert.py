"""`sgpa convert`: what it writes loads, and it writes over nothing."""

from collections.abc import Callable
from pathlib import Path

import pytest
import sgpa_checkpoints
from typer.testing import Result

from sgpa_jax.models import load_model

Run = Callable[..., Result]
POCKET = sgpa_checkpoints.shipped_folder("pocket")


def test_a_folder_is_converted_and_loads(sgpa: Run, tmp_path: Path):
    out = tmp_path / "new" / "converted"
    result = sgpa("convert", POCKET, out)
    assert (result.exit_code, result.stdout.strip()) == (0, str(out))
    assert (out / "tokenizer.json").read_bytes() == (POCKET / "tokenizer.json").read_bytes()
    assert load_model(out).dtype == "bfloat16"
    assert sgpa("convert", POCKET, out, "--dtype", "float32").exit_code == 0
    assert load_model(out, dtype="float32").dtype == "float32"
    assert sgpa("doctor", "--model", out).exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("gone", "out"), "no such folder"),
        ((POCKET, "taken"), "exists and is no converted checkpoint"),
        ((POCKET, "out", "--dtype", "int8"), "unknown dtype 'int8'"),
        (("taken", "out"), "config.json"),
        ((POCKET, "out", "--revision", "main"), "has no revision"),
    ],
)
def test_bad_input_is_told_and_writes_nothing(sgpa: Run, tmp_path: Path, monkeypatch, arguments, told: str):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").mkdir()
    result = sgpa("convert", *arguments)
    assert result.exit_code == 2
    assert told in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_a_folder_that_cannot_be_written_is_told(sgpa: Run, tmp_path: Path):
    (tmp_path / "file").write_text("")
    result = sgpa("convert", POCKET, tmp_path / "file" / "out")
    assert (result.exit_code, "cannot write" in result.stderr) == (2, True)
