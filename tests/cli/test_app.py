"""The command itself: help, version, exit codes, and one sentence for every mistake."""

from collections.abc import Callable

import pytest
from typer.testing import Result

import sgpa_jax

Run = Callable[..., Result]


def test_without_a_verb_it_says_what_there_is(sgpa: Run):
    result = sgpa()
    assert result.exit_code == 0
    for verb in ("explain", "align", "report", "doctor"):
        assert verb in result.stdout


def test_version(sgpa: Run):
    assert sgpa("--version").stdout == f"sgpa-jax {sgpa_jax.__version__}\n"


@pytest.mark.parametrize("verb", ["explain", "align", "report", "doctor"])
def test_every_verb_has_help(sgpa: Run, verb: str):
    result = sgpa(verb, "--help")
    assert result.exit_code == 0
    assert f"sgpa {verb}" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["explane"], "No such command 'explane'"),
        (["explain", "--transcrip", "a"], "--transcript"),
        (["explain", "a.wav", "--budget", "many"], "--budget"),
        (["explain", "a.wav", "--budget", "0"], "--budget"),
        (["explain", "a.wav", "--seed", "-1"], "--seed"),
        (["explain", "a.wav", "--max-new-tokens", "0"], "--max-new-tokens"),
        (["explain", "a.wav", "--out"], "--out"),
        (["explain", "a.wav", "b.wav"], "b.wav"),
        (["explain", "--transcript", "a"], "no AUDIO was given"),
        (["explain", "a.wav"], "--transcript"),
        (["explain", "a.wav", "--transcript", "a", "--alignment", "b"], "either"),
        (["explain", "a.wav", "--demo"], "--demo"),
        (["align", "a.wav"], "--transcript"),
        (["report", "a.json"], "--out"),
    ],
)
def test_wrong_use_gets_one_sentence(sgpa: Run, arguments: list[str], told: str):
    result = sgpa(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("sgpa: ")
    assert told in result.stderr


def test_an_error_of_ours_is_not_hidden(sgpa: Run, wav, monkeypatch: pytest.MonkeyPatch):
    def explain(*_: object, **__: object) -> None:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(sgpa_jax, "explain", explain, raising=False)
    result = sgpa("explain", wav, "--transcript", "a")
    assert result.exit_code == 1
    assert isinstance(result.exception, ZeroDivisionError)


def test_interrupted(sgpa: Run, wav, tmp_path, monkeypatch: pytest.MonkeyPatch):
    def explain(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sgpa_jax, "explain", explain, raising=False)
    result = sgpa("explain", wav, "--transcript", "a", "--out", tmp_path / "out")
    assert result.exit_code == 130
    assert not (tmp_path / "out").exists()
