"""Alignments that others made: TextGrid, whisperX and MFA JSON, our own JSON, CSV. What a file is, its content says.

Everything that a damaged or hostile file can hold ends in one `AlignmentError` that names the file.
"""

import codecs
import csv
import io
import json
import os
import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sgpa_jax.align.alignment import Alignment, Word
from sgpa_jax.align.textgrid import Tier, parse_textgrid
from sgpa_jax.align.timing import Span, timed_words
from sgpa_jax.errors import AlignmentError
from sgpa_jax.files import from_cell

_PAUSES = frozenset(("", "<eps>", "sil", "<sil>", "sp", "spn", "<p:>"))
"""What aligners write where no word is said."""

_COLUMNS = (
    ("text", "word", "label", "token"),
    ("start_s", "start", "begin", "xmin", "start_sec", "start_time"),
    ("end_s", "end", "xmax", "stop", "end_sec", "end_time"),
)
"""Names that the columns of a table may have."""

_TOLERANCE_S = 0.1
"""By so much the recording's end may differ from what a file says; words are cut there."""

_LONGEST_S = 1e6

_Row = tuple[str, float | None, float | None]


def read_alignment(path: str | os.PathLike[str], *, duration_s: float) -> Alignment:
    """Return the alignment in the file at `path`, made for a recording of `duration_s`.

    Our own JSON comes back as it was written; of any other file the words and times are taken. Words that a file lists
    without times, as whisperX does with numbers, get a share of the gap between their neighbours.

    Raises:
        AlignmentError: the file cannot be read, is of no known kind, is damaged, or is not of this recording.
    """
    path = Path(path)
    text = _read_text(path)
    try:
        alignment = _parse(text, duration_s)
        _check(alignment, duration_s)
    except AlignmentError as error:
        raise AlignmentError(f"{path}: {error}") from error
    return replace(alignment, duration_s=duration_s)


def read_tiers(path: str | os.PathLike[str]) -> list[Tier]:
    """Return all interval tiers of the TextGrid at `path`.

    Raises:
        AlignmentError: the file cannot be read, or is no TextGrid.
    """
    return parse_textgrid(_read_text(Path(path)))


def _read_text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        raise AlignmentError(
            f"cannot read {str(path)!r} ({error}): expected an alignment file; check the path"
        ) from error
    encoding = "utf-16" if data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise AlignmentError(f"{path} is not text in UTF-8 or UTF-16: save the alignment in one of those") from error


def _parse(text: str, duration_s: float) -> Alignment:
    start = text.lstrip()
    if start[:1] in ("{", "["):
        return _parse_json(start, duration_s)
    if "ooTextFile" in start[:200]:
        tiers = {tier.name: tier.intervals for tier in parse_textgrid(text)}
        intervals = tiers[_word_tier(list(tiers))]
        return _given([(label, start_s, end_s) for start_s, end_s, label in intervals], duration_s)
    return _given(list(_csv_rows(text)), duration_s)


def _parse_json(text: str, duration_s: float) -> Alignment:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise AlignmentError(f"the JSON is damaged ({error}): export the alignment again") from error
    readers: Mapping[str, Callable[[dict[str, Any], float], Alignment]] = {
        "tiers": _from_mfa,
        "segments": _from_whisperx,
        "word_segments": _from_whisperx,
        "words": _from_ours,
    }
    found = next((read for key, read in readers.items() if isinstance(content, dict) and key in content), None)
    if found is None:
        raise AlignmentError(
            "the JSON has neither 'words' nor 'tiers' nor 'segments': expected an alignment of sgpa, the Montreal "
            "Forced Aligner or whisperX"
        )
    try:
        return found(content, duration_s)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise AlignmentError(
            f"the JSON is not what it seems ({type(error).__name__}: {error}): expected words with their times"
        ) from error


def _from_ours(content: dict[str, Any], duration_s: float) -> Alignment:
    if "rules" not in content:
        return _given([(row["text"], row["start_s"], row["end_s"]) for row in content["words"]], duration_s)
    words = tuple(
        Word(
            _text(row["text"]),
            _time(row["start_s"]),
            _time(row["end_s"]),
            _maybe_time(row["ctc_start_s"]),
            _maybe_time(row["ctc_end_s"]),
            _maybe_time(row["confidence"]),
            bool(row["boundary_refined"]),
        )
        for row in content["words"]
    )
    names = {key: _text(content[key]) for key in ("transcript", "aligner", "digest", "rules", "emission")}
    notes = tuple(_text(note) for note in content["notes"])
    return Alignment(words, _time(content["duration_s"]), **names, notes=notes)


def _from_mfa(content: dict[str, Any], duration_s: float) -> Alignment:
    entries = content["tiers"][_word_tier(list(content["tiers"]))]["entries"]
    return _given([(label, start_s, end_s) for start_s, end_s, label in entries], duration_s)


def _from_whisperx(content: dict[str, Any], duration_s: float) -> Alignment:
    rows = content.get("word_segments") or [row for part in content["segments"] for row in part["words"]]
    return _given([(row["word"], row.get("start"), row.get("end")) for row in rows], duration_s)


def _word_tier(names: list[str]) -> str:
    """The tier that is called words, perhaps after the name of its only speaker; else the only tier there is."""
    named = [name for name in names if name.lower().split(" - ")[-1].strip() in ("words", "word")]
    chosen = named or names
    if len(chosen) != 1:
        shown = ", ".join(map(reprlib.repr, chosen[:6])) or "none"
        raise AlignmentError(f"expected exactly one tier of words, found {shown}: keep one and call it 'words'")
    return chosen[0]


def _csv_rows(content: str) -> Iterator[_Row]:
    """Rows of a table with a header; of a "type" column (MFA's) only its words are kept."""
    try:
        table = list(csv.reader(io.StringIO(content, newline=""), strict=True))
    except csv.Error as error:
        raise AlignmentError(f"the table is damaged ({error}): export it again as CSV") from error
    header = [name.strip().lower() for name in table[0]] if table else []
    found = [next((header.index(name) for name in names if name in header), -1) for names in _COLUMNS]
    if -1 in found:
        raise AlignmentError(
            "the file is no alignment that is known: expected a TextGrid, JSON, or CSV with the columns "
            "text, start_s, end_s"
        )
    text, start, end = found
    kind = header.index("type") if "type" in header else None
    for number, row in enumerate(table[1:], start=2):
        if not row or (kind is not None and row[kind : kind + 1] not in (["words"], ["word"])):
            continue
        if len(row) != len(header):
            raise AlignmentError(f"line {number} has {len(row)} columns, the header has {len(header)}: export it again")
        try:
            yield from_cell(row[text]), float(row[start]), float(row[end])
        except ValueError as error:
            raise AlignmentError(
                f"line {number} has a time that is no number ({str(error)[:80]}): expected seconds"
            ) from error


def _given(rows: Sequence[_Row], duration_s: float) -> Alignment:
    """An alignment of the rows that are words, in order of time, its end cut to the recording's."""
    words = [(_text(label).strip(), start, end) for label, start, end in rows]
    words = [word for word in words if word[0].lower() not in _PAUSES]
    timed = {
        number: (_time(start), _time(end))
        for number, (_, start, end) in enumerate(words)
        if start is not None and end is not None
    }
    texts = [text for text, *_ in words]
    if words and not timed:
        raise AlignmentError("no word has a time: expected start and end of each; align the recording instead")
    if len(timed) == len(words):
        order = sorted(timed, key=lambda number: timed[number])
        texts, timed = [texts[number] for number in order], {at: timed[number] for at, number in enumerate(order)}
    spans = {
        number: Span(start_s, min(end_s, max(duration_s, end_s - _TOLERANCE_S)))
        for number, (start_s, end_s) in timed.items()
    }
    notes = tuple(
        f"{text!r} has no time in the file and was placed between its neighbours by its length"
        for number, text in enumerate(texts)
        if number not in timed
    )
    placed = timed_words(texts, spans, duration_s)
    return Alignment(placed, duration_s, " ".join(texts), "given", "", "given", "given", notes)


def _check(alignment: Alignment, duration_s: float) -> None:
    if not alignment.words:
        raise AlignmentError("the alignment holds no words: expected at least one; align the recording instead")
    if abs(alignment.duration_s - duration_s) > _TOLERANCE_S:
        raise AlignmentError(
            f"it was made for {alignment.duration_s:.3f} s, and the recording lasts {duration_s:.3f} s: expected the "
            "alignment of this recording"
        )
    for word in alignment.words:
        if not word.text.strip():
            raise AlignmentError(f"the word at {word.start_s:.3f} s has no text: expected a label; remove or name it")
        if not 0 <= word.start_s < word.end_s:
            raise AlignmentError(
                f"{word.text!r} lasts from {word.start_s!r} s to {word.end_s!r} s: expected a start at 0 or later and "
                "an end after it"
            )
        if word.end_s > duration_s:
            raise AlignmentError(
                f"{word.text!r} ends at {word.end_s:.3f} s, and the recording lasts {duration_s:.3f} s: expected the "
                "alignment of this recording"
            )


def _text(value: Any) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise AlignmentError(f"the text of a word is {str(value)[:40]!r}: expected a string without NULs")
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise AlignmentError(f"the text {value!r} holds half of a character: save it as UTF-8 again") from error
    return value


def _time(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < _LONGEST_S:
        raise AlignmentError(f"a time is {str(value)[:40]!r}: expected a number of seconds")
    return float(value)


def _maybe_time(value: Any) -> float | None:
    return None if value is None else _time(value)
