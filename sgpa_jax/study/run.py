"""A study from its manifest to its records: every item under every model, each kept as soon as it is there."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sgpa_jax.errors import SgpaError, UsageError
from sgpa_jax.models import Model
from sgpa_jax.study.alignment_quality import alignment_record
from sgpa_jax.study.corpus import Item
from sgpa_jax.study.heard import Heard, HeardOnce
from sgpa_jax.study.item import study_item
from sgpa_jax.study.programs import keep_room_for_programs
from sgpa_jax.study.records import ALIGNMENT, Record, RecordFolder
from sgpa_jax.study.settings import Settings

SCHEMA = "sgpa-jax/study/2"
"""Part of every record's key: what is measured, and how."""


@dataclass(frozen=True, eq=False)
class Part:
    """What is done with every item on behalf of one subject.

    Attributes:
        subject: whose records these are.
        digest: of all that decides their numbers beside the item and the settings.
        study: makes a record of an item, under a key.
    """

    subject: str
    digest: str
    study: Callable[[Heard, str], Record]


def model_part(model: Model, aligner: HeardOnce, settings: Settings) -> Part:
    """Return the part of a model."""
    told = [model.digest, model.dtype, aligner.digest, asdict(settings)]
    return Part(model.name, json.dumps(told), lambda heard, key: study_item(heard, model, settings, key))


def alignment_part(aligner: HeardOnce) -> Part:
    """Return the part that needs no model: how well words are aligned, and what cuts cut through."""
    return Part(ALIGNMENT, aligner.digest, alignment_record)


def run_parts(
    items: Sequence[Item],
    parts: Sequence[Part],
    aligner: HeardOnce,
    folder: RecordFolder,
    progress: Callable[[int, int], None] | None = None,
) -> list[Record]:
    """Return the record of every item under every subject, in this order; what is on disk is not made again.

    An item that cannot be studied has a record that says why, and the others go on.

    Args:
        items: of the corpus.
        parts: what is done with each.
        aligner: hears the words.
        folder: keeps the records.
        progress: called with (records there, records in all) after each.

    Raises:
        UsageError: the folder cannot be written to, or two parts have one subject.
    """
    subjects = [part.subject for part in parts]
    if len(set(subjects)) < len(subjects):
        raise UsageError(f"the models are called {', '.join(subjects)}: expected different names; rename a folder")
    records: list[Record] = []
    for item in items:
        heard: Heard | None = None
        digest = _digest(item)
        for part in parts:
            key = hashlib.sha256(json.dumps([SCHEMA, digest, part.digest]).encode()).hexdigest()
            record = folder.load(part.subject, item.id, key)
            if record is None:
                try:
                    heard = heard or Heard.of(item, aligner)
                    record = part.study(heard, key)
                except SgpaError as error:
                    record = Record(item.id, part.subject, key, item.condition, item.category, item.voice, str(error))
                folder.save(record)
                keep_room_for_programs()
            records.append(record)
            if progress is not None:
                progress(len(records), len(items) * len(parts))
    return records


def _digest(item: Item) -> str:
    """Of the recording's file and of what the manifest says about it; a file that cannot be read has none."""
    told: dict[str, Any] = {**asdict(item), "path": None}
    try:
        told["audio"] = hashlib.sha256(Path(item.path).read_bytes()).hexdigest()
    except OSError:
        told["audio"] = "unreadable"
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()
