"""What the commands are given: transcripts, the demo that ships, and recordings of what was saved."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

import sgpa_jax
from sgpa_jax.errors import UsageError

if TYPE_CHECKING:
    from sgpa_jax.explain import Explanation


def read_transcript(argument: str) -> str:
    """Return the words said: `argument` itself, or the text of the UTF-8 file that `@FILE` names.

    Raises:
        UsageError: no words, or an unreadable file.
    """
    text = _read_text(Path(argument[1:])) if argument.startswith("@") else argument
    if not text.strip():
        raise UsageError("the transcript is empty: give the words that were said, as TEXT or in a @FILE")
    return " ".join(text.split())


def shipped_demo() -> tuple[Path, str, str]:
    """Return the recording that ships, its transcript and its question."""
    from sgpa_checkpoints import read_json, shipped_folder

    folder = shipped_folder("demo")
    told = read_json(folder / "demo.json")
    return folder / "demo.wav", told["transcript"], told["prompt"]


def with_recording(explanation: "Explanation", audio: Path | None, channel: str) -> "Explanation":
    """Return a saved explanation with its recording, from `audio` or from where it was; a note if it is not there."""
    source = audio or Path(explanation.clip.path or "")
    if audio is None and not source.is_file():
        typer.echo("note: the recording is not where it was, so the page is silent: give it with --audio", err=True)
        return explanation
    return explanation.with_wave(sgpa_jax.read_clip(source, channel=channel))


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UsageError(f"cannot read the transcript {path}: {error.strerror}; check the path after the @") from error
    except ValueError as error:
        raise UsageError(f"cannot read the transcript {path}: it is not UTF-8 text; save it as UTF-8") from error
