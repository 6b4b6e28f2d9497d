"""What the commands are given: transcripts, and the demo that ships."""

from pathlib import Path

from sgpa_jax.errors import UsageError


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


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UsageError(f"cannot read the transcript {path}: {error.strerror}; check the path after the @") from error
    except ValueError as error:
        raise UsageError(f"cannot read the transcript {path}: it is not UTF-8 text; save it as UTF-8") from error
