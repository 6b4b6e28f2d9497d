"""Alignments as files: JSON (everything), TextGrid for Praat, labels for Audacity, CSV for tables."""

import csv
import dataclasses
import io
import json
import os
from collections.abc import Callable

from sgpa_jax.align.alignment import Alignment, Word
from sgpa_jax.align.textgrid import format_textgrid
from sgpa_jax.errors import unknown_name
from sgpa_jax.files import atomic_write, to_cell


def write_alignment(alignment: Alignment, path: str | os.PathLike[str], *, format: str = "json") -> None:
    """Write `alignment` to `path` in one of `FORMATS`.

    Raises:
        UsageError: there is no such format, or the file cannot be written.
        AlignmentError: the format cannot hold this alignment.
    """
    atomic_write(path, format_alignment(alignment, format))


def format_alignment(alignment: Alignment, format: str) -> str:
    """Return the text of a file in one of `FORMATS`; raises as `write_alignment` does."""
    check_format(format)
    return FORMATS[format](alignment)


def check_format(format: str) -> None:
    """Raise UsageError unless there is such a format."""
    if format not in FORMATS:
        raise unknown_name("alignment format", format, FORMATS)


def _json(alignment: Alignment) -> str:
    return json.dumps(dataclasses.asdict(alignment), ensure_ascii=False, indent=2) + "\n"


def _textgrid(alignment: Alignment) -> str:
    intervals = [(word.start_s, word.end_s, word.text) for word in alignment.words]
    return format_textgrid("words", intervals, alignment.duration_s)


def _audacity(alignment: Alignment) -> str:
    lines = (f"{word.start_s:.6f}\t{word.end_s:.6f}\t{' '.join(word.text.split())}\n" for word in alignment.words)
    return "".join(lines)


def _csv(alignment: Alignment) -> str:
    buffer = io.StringIO(newline="")
    table = csv.writer(buffer)
    table.writerow(field.name for field in dataclasses.fields(Word))
    for word in alignment.words:
        values = dataclasses.astuple(dataclasses.replace(word, text=to_cell(word.text)))
        table.writerow(str(value).lower() if isinstance(value, bool) else value for value in values)
    return buffer.getvalue()


FORMATS: dict[str, Callable[[Alignment], str]] = {
    "json": _json,
    "textgrid": _textgrid,
    "audacity": _audacity,
    "csv": _csv,
}
"""Names of the formats that alignments can be written in."""
