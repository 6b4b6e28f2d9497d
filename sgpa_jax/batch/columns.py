"""What a row of a manifest says, under the names that corpora and data sets give to their columns.

LibriSpeech calls what is said `text`, Common Voice `sentence`. VoiceBench's `prompt` is what is said as well: its
recordings are the questions. `output` and `reference`, answers that others gave, are not ours to explain and are left.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import quote

AUDIO = ("audio", "file", "file_name", "path")
"""Names of the column with the recordings, the first that says something."""

TRANSCRIPT = ("transcript", "text", "transcription", "sentence")
"""Names of the column with what is said."""

DURATION = ("duration_s", "duration")
"""Names of the column with the seconds that a recording lasts."""

KNOWN = frozenset((*AUDIO, *TRANSCRIPT, *DURATION, "id", "alignment", "prompt", "response", "output", "reference"))
"""Every column that is looked at."""

_LONGEST_TEXT = 100_000
_LONGEST_ID = 200


class Said(NamedTuple):
    """What a row says, checked, with the recording as it stands there.

    Attributes:
        id: its own, if it has one.
        audio: a path, an encoded file, or a mapping with `path`, `bytes`, or `array` and `sampling_rate`.
        path: of the recording, if it has one; where the recording is inside the data set, no more than a name.
        transcript, alignment, prompt, response: texts; None where there is none.
        duration_s: NaN where the row does not say.
    """

    id: str | None
    audio: Any
    path: str | None
    transcript: str | None
    alignment: str | None
    prompt: str | None
    response: str | None
    duration_s: float


def read_said(row: Mapping[str, Any]) -> Said:
    """Read a row.

    Raises:
        ValueError: it says what it must not, in a clause that begins with the column's name.
    """
    audio = audio_of(row)
    inside = isinstance(audio, dict)
    path = audio.get("path") if inside else audio if isinstance(audio, str) else None
    if path is None and isinstance(row.get("file"), str):
        path = row["file"]
    transcript, prompt = _text(_first(row, TRANSCRIPT), "the transcript"), _text(row.get("prompt"), "'prompt'")
    if prompt is not None and _prompt_is_said(row, inside):
        transcript, prompt = prompt, None
    return Said(
        id=read_id(row),
        audio=audio,
        path=_text(path, "the path of 'audio'"),
        transcript=None if transcript is None else " ".join(transcript.split()),
        alignment=_text(row.get("alignment"), "'alignment'"),
        prompt=prompt,
        response=_text(row.get("response"), "'response'"),
        duration_s=_seconds(_first(row, DURATION)),
    )


def read_id(row: Mapping[str, Any]) -> str | None:
    """Return the row's own id, None where it has none.

    Raises:
        ValueError: it is none that files can be named after.
    """
    given = row.get("id")
    return None if given is None or given == "" else checked_id(given)


def checked_id(given: Any) -> str:
    """Return what is to be an id.

    Raises:
        ValueError: files cannot be named after it.
    """
    if isinstance(given, bool) or not isinstance(given, (str, int)):
        raise ValueError(f"'id' is {str(given)[:40]!r}; expected a text or a whole number")
    name = str(given)
    if not name.isprintable() or not name.strip():
        raise ValueError(f"'id' is {name[:40]!r}; expected characters that can be seen")
    # A character takes at most 3 bytes of a quoted name, or 12.
    if len(name) * (3 if name.isascii() else 12) > _LONGEST_ID and len(quote(name, safe="")) > _LONGEST_ID:
        raise ValueError(f"'id' is {name[:40]!r}…, too long for a file's name; give a shorter one")
    return name


def audio_of(row: Mapping[str, Any]) -> Any:
    """Return the recording as it stands in a row, None where it has none."""
    return _first(row, AUDIO)


def _prompt_is_said(row: Mapping[str, Any], inside: bool) -> bool:
    """Whether the row is shaped like VoiceBench's: nothing else tells what is said, and it holds an answer or sound."""
    if "alignment" in row or any(name in row for name in TRANSCRIPT):
        return False
    return inside or "output" in row or "reference" in row


def _first(row: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    for name in names:
        value = row.get(name)
        if value is not None and value != "":
            return value
    return None


def _text(given: Any, name: str) -> str | None:
    if given is None or given == "":
        return None
    if not isinstance(given, str):
        raise ValueError(f"{name} is {str(given)[:40]!r}; expected a text")
    if len(given) > _LONGEST_TEXT:
        raise ValueError(f"{name} has {len(given):,} characters; expected at most {_LONGEST_TEXT:,}")
    if "\0" in given:
        raise ValueError(f"{name} holds a NUL character; write it without")
    return None if given.isspace() else given


def _seconds(given: Any) -> float:
    """Seconds as a number or its text; NaN of anything else, so that the recording's header is asked."""
    try:
        seconds = float(given) if isinstance(given, (int, float, str)) and not isinstance(given, bool) else math.nan
    except (ValueError, OverflowError):
        return math.nan
    return seconds if 0 < seconds < math.inf else math.nan
