"""The corpus of a study: recordings with what is said, asked and known about each, from JSON lines or CSV.

Every row has `audio`, a path from the manifest's own folder, and `transcript`. It may have `id` (by default the path),
`prompt`, `response` (the right answer), `evidence` (indices of the words that must decide the answer, `SOUND` for the
sound beside them), exact times of `words`, `phones` and `sounds`, and `condition`, `category` and `voice`, by which
tables tell recordings apart. Times are lists of [label, start, end] in seconds. In CSV they are the same lists as JSON,
and evidence is numbers with semicolons between them.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from sgpa_jax.audio import read_rows
from sgpa_jax.errors import UsageError

SOUND = -1
"""Index that stands for the sound in a recording's evidence."""

_LONGEST_ID = 200
_TIMED = ("words", "phones", "sounds")


class Span(NamedTuple):
    """A label and when it is heard, half-open, in seconds."""

    label: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Item:
    """One recording of a corpus.

    Attributes:
        id: its name, different from every other's.
        path: where the recording is.
        transcript: what is said.
        prompt: the question; None asks what the model's world usually asks.
        response: the right answer, where it is known.
        evidence: indices of the transcript's words that must decide the answer, `SOUND` for the sound; empty where
            that is not known.
        words, phones, sounds: exact times; empty where they are not known.
        condition: how it was recorded, such as "clean".
        category: what its question needs, such as "negation".
        voice: who speaks.
    """

    id: str
    path: Path
    transcript: str
    prompt: str | None = None
    response: str | None = None
    evidence: tuple[int, ...] = ()
    words: tuple[Span, ...] = ()
    phones: tuple[Span, ...] = ()
    sounds: tuple[Span, ...] = ()
    condition: str = ""
    category: str = ""
    voice: str = ""


def read_corpus(path: str | Path) -> tuple[Item, ...]:
    """Read the rows of a manifest, `.jsonl` or `.csv`; recordings are not opened.

    Raises:
        UsageError: the file is missing, empty or neither, a row lacks what it must have or holds what it must not, or
            two rows have the same id.
    """
    path = Path(path)
    items: dict[str, Item] = {}
    for number, row in enumerate(read_rows(path), start=1):
        try:
            item = _item(row, path.parent)
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
            raise UsageError(f"row {number} of the manifest {path}: {error}") from error
        if item.id in items:
            raise UsageError(f"the manifest {path} has the id {item.id!r} more than once; give every row its own")
        items[item.id] = item
    return tuple(items.values())


def _item(row: dict[str, Any], folder: Path) -> Item:
    for name in ("audio", "transcript"):
        if not isinstance(row.get(name), str) or not row[name].strip():
            raise ValueError(f"{name!r} is missing; give every recording its path and what is said in it")
    texts = {name: row.get(name) or None for name in ("prompt", "response", "condition", "category", "voice")}
    for name, text in texts.items():
        if text is not None and not isinstance(text, str):
            raise ValueError(f"{name!r} is {text!r}; expected a text")
    name = str(row.get("id") or row["audio"])
    if len(quote(name, safe="")) > _LONGEST_ID:
        raise ValueError(f"the id {name[:40]!r}… is too long for a file's name; give a shorter one")
    words, phones, sounds = (_spans(key, row.get(key)) for key in _TIMED)
    n_words = len(words) or len(row["transcript"].split())
    return Item(
        id=name,
        path=folder / row["audio"],
        transcript=" ".join(row["transcript"].split()),
        prompt=texts["prompt"],
        response=texts["response"],
        evidence=_evidence(row.get("evidence"), n_words),
        words=words,
        phones=phones,
        sounds=sounds,
        condition=texts["condition"] or "",
        category=texts["category"] or "",
        voice=texts["voice"] or "",
    )


def _spans(name: str, given: Any) -> tuple[Span, ...]:
    if not given:
        return ()
    rows = json.loads(given) if isinstance(given, str) else given
    spans = []
    for row in rows:
        if not isinstance(row, Sequence) or isinstance(row, str) or len(row) != 3:
            raise ValueError(f"{name!r} has {row!r}; expected [label, start, end] in seconds")
        start_s, end_s = float(row[1]), float(row[2])
        if not (math.isfinite(end_s) and 0 <= start_s < end_s) or (spans and start_s < spans[-1].end_s - 1e-6):
            raise ValueError(
                f"{name!r} has {row[0]!r} from {start_s} s to {end_s} s; expected times in order, ends after starts"
            )
        spans.append(Span(str(row[0]), start_s, end_s))
    return tuple(spans)


def _evidence(given: Any, n_words: int) -> tuple[int, ...]:
    if given is None or given == "":
        return ()
    listed = given.split(";") if isinstance(given, str) else given
    indices = [int(index) for index in listed]
    if not all(index == SOUND or 0 <= index < n_words for index in indices):
        raise ValueError(f"'evidence' is {indices} for {n_words} words; expected their indices, or {SOUND} for a sound")
    return tuple(sorted(set(indices)))
