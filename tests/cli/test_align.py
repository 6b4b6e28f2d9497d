"""`sgpa align` with the aligner stood in for: every format, on stdout and in files."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

import sgpa_jax

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


@pytest.fixture(autouse=True)
def aligner(monkeypatch: pytest.MonkeyPatch) -> None:
    def align(clip: object, transcript: str, **options: object) -> sgpa_jax.Alignment:
        assert (transcript, options) == ("lamp red", {"aligner": "pocket", "rules": "sgpa", "unspellable": "error"})
        return ALIGNMENT

    monkeypatch.setattr(sgpa_jax, "align", align)


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


@pytest.mark.parametrize(("format", "held"), [("textgrid", "IntervalTier"), ("audacity", "lamp"), ("csv", "lamp,0.25")])
def test_formats(sgpa: Run, wav: Path, tmp_path: Path, format: str, held: str):
    out = tmp_path / "new" / "words"
    printed = sgpa("align", wav, "--transcript", "lamp red", "--format", format)
    assert (printed.exit_code, held in printed.stdout) == (0, True)
    written = sgpa("align", wav, "--transcript", "lamp red", "--format", format, "--out", out)
    assert (written.exit_code, written.stdout) == (0, "")
    assert out.read_text(encoding="utf-8") == printed.stdout
