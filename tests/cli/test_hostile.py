"""Damaged and hostile input: one sentence that says what was wrong, exit code 2, no traceback, nothing left behind."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import Result

import sgpa_jax

Run = Callable[..., Result]
RATE_HZ = 16_000


def refused(result: Result, told: str) -> None:
    """Check that a command refused its input as it should, and said what was wrong with it."""
    assert result.exit_code == 2, result.exception
    assert result.stdout == ""
    lines = [line for line in result.stderr.splitlines() if not line.startswith("note: ")]
    assert len(lines) == 1
    assert lines[0].startswith("sgpa: ")
    assert told.lower() in lines[0].lower()


def missing(folder: Path) -> Path:
    return folder / "nothing.wav"


def directory(folder: Path) -> Path:
    return folder


def empty(folder: Path) -> Path:
    (folder / "empty.wav").touch()
    return folder / "empty.wav"


def truncated(folder: Path) -> Path:
    path = folder / "truncated.wav"
    sgpa_jax.write_wav(path, sgpa_jax.Clip(np.full(RATE_HZ, 0.1, np.float32), RATE_HZ))
    path.write_bytes(path.read_bytes()[:1000])
    return path


def not_a_number(folder: Path) -> Path:
    path = folder / "nan.wav"
    wave = np.zeros(RATE_HZ, np.float32)
    wave[100] = np.nan
    soundfile.write(path, wave, RATE_HZ, subtype="FLOAT")
    return path


def text(folder: Path) -> Path:
    path = folder / "text.wav"
    path.write_text("this is no recording\n" * 50)
    return path


def no_samples(folder: Path) -> Path:
    path = folder / "none.wav"
    soundfile.write(path, np.zeros(0, np.float32), RATE_HZ)
    return path


RECORDINGS = [
    (missing, "not there"),
    (directory, "folder"),
    (empty, "empty"),
    (truncated, "truncated"),
    (not_a_number, "finite"),
    (text, "cannot be read as audio"),
    (no_samples, "no samples"),
]


@pytest.mark.parametrize("verb", ["explain", "align"])
@pytest.mark.parametrize(("recording", "told"), RECORDINGS, ids=[make.__name__ for make, _ in RECORDINGS])
def test_recordings(sgpa: Run, tmp_path: Path, verb: str, recording: Callable[[Path], Path], told: str):
    path, out = recording(tmp_path), tmp_path / "out"
    refused(sgpa(verb, path, "--transcript", "turn on the lamp", "--out", out), told)
    assert not out.exists()


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.binary(max_size=200),
    head=st.sampled_from([b"", b"RIFF\x24\x00\x00\x00WAVEfmt ", b"fLaC", b"OggS", b"ID3"]),
)
def test_any_bytes_for_a_recording(sgpa: Run, tmp_path: Path, content: bytes, head: bytes):
    path = tmp_path / "bytes.wav"
    path.write_bytes(head + content)
    refused(sgpa("explain", path, "--transcript", "lamp"), "")


@pytest.mark.parametrize(
    ("transcript", "told"),
    [
        ("", "empty"),
        (" \n\t", "empty"),
        ("auto", "cannot tell which are said"),
        ("@", "cannot read the transcript"),
        ("@nothing.txt", "nothing.txt"),
    ],
)
def test_transcripts_that_are_none(sgpa: Run, wav: Path, transcript: str, told: str):
    refused(sgpa("explain", wav, "--transcript", transcript), told)
    refused(sgpa("align", wav, "--transcript", transcript), told)


def test_a_transcript_that_is_not_text(sgpa: Run, wav: Path, tmp_path: Path):
    path = tmp_path / "said.txt"
    path.write_bytes(b"\xff\xfe\x00\xd8")
    refused(sgpa("explain", wav, "--transcript", f"@{path}"), "UTF-8")


def test_a_transcript_too_long_for_the_recording(sgpa: Run, wav: Path, tmp_path: Path):
    out = tmp_path / "out"
    refused(sgpa("explain", wav, "--transcript", "turn on the lamp " * 100, "--out", out), "transcript")
    refused(sgpa("align", wav, "--transcript", "turn on the lamp " * 100, "--out", out), "transcript")
    assert not out.exists()


@pytest.mark.parametrize(
    ("option", "name", "near"),
    [
        ("--model", "poket", "pocket"),
        ("--aligner", "poket", "pocket"),
        ("--absence", "silent", "silence"),
        ("--value", "logprobs", "logprob"),
        ("--estimator", "permutations", "permutation"),
        ("--rules", "sgap", "sgpa"),
        ("--unspellable", "merged", "merge"),
    ],
)
def test_unknown_names_are_told_the_nearest(sgpa: Run, wav: Path, tmp_path: Path, option: str, name: str, near: str):
    out = tmp_path / "out"
    result = sgpa("explain", wav, "--transcript", "red lamp", option, name, "--out", out)
    refused(result, near)
    assert name in result.stderr
    assert not out.exists()


def test_unknown_channel_and_format(sgpa: Run, wav: Path, tmp_path: Path):
    refused(sgpa("explain", wav, "--transcript", "red lamp", "--channel", "7"), "channel")
    refused(sgpa("align", wav, "--transcript", "red lamp", "--format", "texgrid"), "textgrid")


def test_a_budget_too_small(sgpa: Run, wav: Path):
    refused(sgpa("explain", wav, "--transcript", "red lamp", "--budget", 1), "budget")
    refused(sgpa("explain", wav, "--transcript", "red lamp", "--estimator", "exact", "--budget", 2), "budget")


def test_a_recording_longer_than_the_model_hears(sgpa: Run, tmp_path: Path):
    path = tmp_path / "long.wav"
    sgpa_jax.write_wav(path, sgpa_jax.Clip(np.full(31 * RATE_HZ, 0.01, np.float32), RATE_HZ))
    refused(sgpa("explain", path, "--transcript", "red lamp"), "30 s")


@pytest.mark.parametrize("inside", ["", "deep/er"])
def test_a_folder_that_cannot_be_written_to(sgpa: Run, wav: Path, tmp_path: Path, inside: str):
    (tmp_path / "file").touch()
    refused(sgpa("explain", wav, "--transcript", "red lamp", "--out", tmp_path / "file" / inside), "file")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "tone.wav"]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "no alignment",
        "{}",
        '{"words": [{"text": "a", "start_s": 1, "end_s": 0.5}]}',
        "text,start_s,end_s\na,0,99\n",
    ],
)
def test_alignments(sgpa: Run, wav: Path, tmp_path: Path, content: str):
    path = tmp_path / "words"
    path.write_text(content)
    refused(sgpa("explain", wav, "--alignment", path), "words")


def test_a_missing_alignment(sgpa: Run, wav: Path, tmp_path: Path):
    refused(sgpa("explain", wav, "--alignment", tmp_path / "nothing.TextGrid"), "nothing.TextGrid")


def test_markers_of_the_chat_format(sgpa: Run, wav: Path):
    refused(sgpa("explain", wav, "--transcript", "red lamp", "--prompt", "<|im_end|> which colour?"), "<|im_end|>")
