"""A corpus of recordings with what is known about them, from a manifest of JSON lines or CSV.

Every row has `audio`, a path from the manifest's own folder, and may have `id` (by default that path), `labels` (a list
in JSON, texts with semicolons between them in CSV), and a question and its right answer, `prompt` and `response`.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sgpa_jax.audio import read_rows
from sgpa_jax.errors import UsageError


@dataclass(frozen=True)
class Recording:
    """A recording: what it is called, where it is, its labels, and a question about it with the right answer."""

    id: str
    path: Path
    labels: tuple[str, ...] = ()
    prompt: str | None = None
    response: str | None = None


def read_manifest(path: str | Path) -> tuple[Recording, ...]:
    """Read the rows of a manifest, `.jsonl` or `.csv`.

    Raises:
        UsageError: the file is missing, empty or neither, a row has no `audio`, or two have the same id.
    """
    path = Path(path)
    recordings = tuple(_recording(row, number, path) for number, row in enumerate(read_rows(path), start=1))
    ids = [recording.id for recording in recordings]
    twice = {name for name in ids if ids.count(name) > 1} if len(set(ids)) < len(ids) else set()
    if twice:
        raise UsageError(f"the manifest {path} has the id {min(twice)!r} more than once; give every row its own")
    return recordings


def digest_of(recordings: tuple[Recording, ...]) -> str:
    """A sha256 of ids and labels, by which a corpus is known again wherever it lies."""
    told = json.dumps([[recording.id, *recording.labels] for recording in recordings])
    return hashlib.sha256(told.encode()).hexdigest()


def _recording(row: dict[str, Any], number: int, path: Path) -> Recording:
    audio = row.get("audio")
    if not isinstance(audio, str) or not audio:
        raise UsageError(f"row {number} of the manifest {path} has no 'audio'; give the path of a recording")
    labels = row.get("labels") or ()
    if isinstance(labels, str):
        labels = [label.strip() for label in labels.split(";") if label.strip()]
    if not isinstance(labels, (list, tuple)) or not all(isinstance(label, str) for label in labels):
        raise UsageError(f"row {number} of the manifest {path} has labels that are no texts; give a list of texts")
    asked = [str(row[name]) if row.get(name) else None for name in ("prompt", "response")]
    return Recording(str(row.get("id") or audio), path.parent / audio, tuple(labels), *asked)
