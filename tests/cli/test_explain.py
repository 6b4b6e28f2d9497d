"""`sgpa explain` with the library stood in for: what is asked of it, what is printed, what is left behind."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import Result

import sgpa_jax
from sgpa_jax.explain import Explanation

Run = Callable[..., Result]
FILES = ["alignment.TextGrid", "explanation.html", "explanation.json", "explanation.png"]


def test_options_reach_the_library(sgpa: Run, wav: Path, asked: SimpleNamespace):
    options = {
        "transcript": "lamp red",
        "prompt": "which colour?",
        "system": "be brief",
        "response": "red",
        "model": "some-model",
        "aligner": "some-aligner",
        "revision": "main",
        "dtype": "bfloat16",
        "mesh": "data=2",
        "language": "de",
        "players": "phrases",
        "long": "windows",
        "text": "tokens",
        "absence": "delete",
        "text_absence": "replace",
        "value": "mean_logprob",
        "estimand": "owen",
        "groups": "phrases",
        "estimator": "permutation",
        "baseline": "zero",
        "budget": 99,
        "tolerance": "top:2",
        "control": "layers:2",
        "interactions": "k-SII:2",
        "concepts": Path("some-sae"),
        "top": 3,
        "max_new_tokens": 7,
        "seed": 5,
        "rules": "authors",
        "unspellable": "merge",
    }
    flags = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", value)]
    assert sgpa("explain", wav, *flags).exit_code == 0
    assert asked.clip.path == str(wav)
    assert asked.options == {**options, "preset": None, "alignment": None, "archive": None, "progress": None}


def test_a_preset_chooses_what_nobody_gave(sgpa: Run, wav: Path, asked: SimpleNamespace):
    given = ("--preset", "authors", "--transcript", "lamp red", "--absence", "silence", "--budget", 4096, "--seed", 3)
    assert sgpa("explain", wav, *given).exit_code == 0
    chosen = {"players", "value", "estimator", "rules", "max_new_tokens", "text", "estimand", "long", "tolerance"}
    assert not chosen & set(asked.options)
    told = {"preset": "authors", "absence": "silence", "budget": 4096, "seed": 3, "model": "pocket", "baseline": "mean"}
    assert told.items() <= asked.options.items()


def test_table_files_and_time(sgpa: Run, wav: Path, asked: SimpleNamespace, explanation: Explanation, tmp_path: Path):
    out = tmp_path / "a" / "b"
    result = sgpa("explain", wav, "--transcript", "lamp red", "--out", out)
    assert result.exit_code == 0
    assert "lamp" in result.stdout and "red" in result.stdout
    *_, first, second, third, fourth, took = result.stdout.splitlines()
    assert [first, second, third, fourth] == [str(out / name) for name in FILES]
    assert took.startswith("took ")
    assert "note: 'lamp' is odd" in result.stderr
    assert sorted(path.name for path in out.iterdir()) == FILES
    assert sgpa_jax.Explanation.load(out / "explanation.json").to_json() == explanation.to_json()
    assert (out / "explanation.png").read_bytes().startswith(b"\x89PNG")
    alignment = sgpa_jax.read_alignment(out / "alignment.TextGrid", duration_s=2.0)
    assert [word.text for word in alignment.words] == ["lamp", "red"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "tone.wav"]
    assert asked.options["archive"] == out / "coalitions.safetensors"


def test_json_is_all_that_stdout_gets(sgpa: Run, wav: Path, asked: SimpleNamespace, explanation: Explanation):
    result = sgpa("explain", wav, "--transcript", "lamp red", "--json")
    assert json.loads(result.stdout) == json.loads(explanation.to_json())


def test_transcript_from_a_file(sgpa: Run, wav: Path, asked: SimpleNamespace, tmp_path: Path):
    text = tmp_path / "said.txt"
    text.write_text("\ufefflamp\n  red\n", encoding="utf-8")
    assert sgpa("explain", wav, "--transcript", f"@{text}").exit_code == 0
    assert asked.options["transcript"] == "lamp red"


def test_alignment_from_a_file(sgpa: Run, wav: Path, asked: SimpleNamespace, tmp_path: Path):
    table = tmp_path / "words.csv"
    table.write_text("text,start_s,end_s\nlamp,0.2,0.6\nred,0.6,1.0\n", encoding="utf-8")
    assert sgpa("explain", wav, "--alignment", table).exit_code == 0
    assert asked.options["transcript"] is None
    assert [(word.text, word.end_s) for word in asked.options["alignment"].words] == [("lamp", 0.6), ("red", 1.0)]


def test_plan_only(sgpa: Run, wav: Path, monkeypatch: pytest.MonkeyPatch):
    cost = {"players": 2, "labels": ["lamp", "red"], "coalitions": 4}
    monkeypatch.setattr(sgpa_jax, "plan", lambda clip, **options: cost, raising=False)
    monkeypatch.setattr(sgpa_jax, "explain", None, raising=False)
    table = sgpa("explain", wav, "--transcript", "lamp red", "--dry-run")
    assert table.exit_code == 0
    assert [line.split() for line in table.stdout.splitlines()][2] == ["coalitions", "4"]
    assert json.loads(sgpa("explain", wav, "--transcript", "lamp red", "--dry-run", "--json").stdout) == cost


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_all_files_or_none(
    sgpa: Run,
    wav: Path,
    asked: SimpleNamespace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: type[BaseException],
):
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("sgpa_jax.report.save_picture", fail)
    result = sgpa("explain", wav, "--transcript", "lamp red", "--out", tmp_path / "out")
    assert result.exit_code == {KeyboardInterrupt: 130, ZeroDivisionError: 1}[error]
    assert [path.name for path in tmp_path.iterdir()] == ["tone.wav"]


def test_the_papers_budget_by_name(sgpa: Run):
    told = json.loads(
        sgpa("explain", "--demo", "--estimator", "neyman", "--budget", "paper", "--dry-run", "--json").stdout
    )
    assert told["players"] == 9 and told["estimator"] == "neyman" and told["coalitions"] <= 3 * 9**2 + 2
    result = sgpa("explain", "--demo", "--budget", "papers")
    assert result.exit_code == 2 and "is neither a number of coalitions nor paper" in result.stderr
