"""`sgpa report`: saved explanations become pages again."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from sgpa_jax.explain import Explanation

Run = Callable[..., Result]


def test_with_the_recording(sgpa: Run, explanation: Explanation, tmp_path: Path):
    saved, page = tmp_path / "x.json", tmp_path / "x.html"
    explanation.save(saved)
    result = sgpa("report", saved, "--out", page)
    assert (result.exit_code, result.stderr) == (0, "")
    assert "data:audio" in page.read_text(encoding="utf-8")


def test_without_it_the_page_is_silent_and_says_so(sgpa: Run, wav: Path, explanation: Explanation, tmp_path: Path):
    saved, page = tmp_path / "x.json", tmp_path / "x.html"
    explanation.save(saved)
    wav.rename(tmp_path / "moved.wav")
    result = sgpa("report", saved, "--out", page)
    assert result.exit_code == 0
    assert "--audio" in result.stderr
    assert "data:audio" not in page.read_text(encoding="utf-8")
    assert sgpa("report", saved, "--out", page, "--audio", tmp_path / "moved.wav").exit_code == 0
    assert "data:audio" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: text.replace("explanation/1", "explanation/2"),
        lambda text: json.dumps([text]),
        lambda text: text.replace('"players"', '"layers"'),
        lambda text: "\x00\x01\x02",
    ],
    ids=["empty", "half", "newer", "list", "no players", "binary"],
)
def test_damaged_files_are_refused(sgpa: Run, explanation: Explanation, tmp_path: Path, damage: Callable[[str], str]):
    saved = tmp_path / "x.json"
    saved.write_text(damage(explanation.to_json()), encoding="utf-8")
    result = sgpa("report", saved, "--out", tmp_path / "x.html")
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert not (tmp_path / "x.html").exists()
