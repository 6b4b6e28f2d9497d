"""What the host does for a bundle before the model is asked: read, resample, align, and cut into players.

It runs ahead of the device by one bundle, in a thread of its own.
"""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from sgpa_jax.align import AcousticModel, Alignment, align_batch, read_alignment
from sgpa_jax.api import HEARD, Asked, Prepared, Question, laid_out, prepared, timed, usual_prompt
from sgpa_jax.audio import read_clip
from sgpa_jax.batch.job import Job
from sgpa_jax.batch.manifest import Manifest
from sgpa_jax.errors import SgpaError, UsageError
from sgpa_jax.models import Model

READERS = 4
"""Threads that read and resample: decoding leaves Python alone for most of its time."""


@dataclass(frozen=True, eq=False)
class Ready:
    """An item that may be run, or why it may not.

    Attributes:
        id: the item's.
        name: how the manifest calls its recording.
        prepared: what is to be run; None where it failed.
        error: why, in one sentence; None where it did not.
        seconds: its share of what this took.
    """

    id: str
    name: str
    prepared: Prepared | None
    error: str | None
    seconds: float


def prepare_bundle(
    manifest: Manifest, bundle: Sequence[int], model: Model, aligner: AcousticModel, job: Job
) -> list[Ready]:
    """Prepare the items of a bundle; what is wrong with one is told of it and leaves the others alone."""
    began_s, asked = time.perf_counter(), job.asked
    with ThreadPoolExecutor(READERS) as readers:
        read = list(readers.map(lambda index: _read(manifest, index, model, job), bundle))
    timed_ones = _aligned([question for _, question in read if isinstance(question, Question)], model, aligner, asked)
    found: list[tuple[str, Prepared | SgpaError]] = []
    for name, question in read:
        if isinstance(question, SgpaError):
            found.append((name, question))
            continue
        alignment = timed_ones[id(question)]
        found.append((name, alignment if isinstance(alignment, SgpaError) else _cut(question, alignment, model, asked)))
    each_s = (time.perf_counter() - began_s) / len(bundle)
    return [
        Ready(manifest.ids[index], name, None, str(one), each_s)
        if isinstance(one, SgpaError)
        else Ready(manifest.ids[index], name, one, None, each_s)
        for index, (name, one) in zip(bundle, found, strict=True)
    ]


def _read(manifest: Manifest, index: int, model: Model, job: Job) -> tuple[str, Question | SgpaError]:
    """Return how the manifest calls a recording, and what is asked about it."""
    name = manifest.ids[index]
    try:
        row = manifest.row(index)
        name = row.name
        if row.transcript in HEARD:
            raise UsageError(f"its transcript {row.transcript!r} means what is heard: leave it out, give --transcript")
        clip = read_clip(row.audio, channel=job.channel)
        alignment = row.alignment and read_alignment(row.alignment, duration_s=clip.duration_s)
        words = None if alignment is not None else row.transcript or job.transcript
        response = row.response if job.given_responses else None
        return name, Question(clip, usual_prompt(model, row.prompt or job.prompt), words, alignment, response)
    except SgpaError as error:
        return name, error


def _aligned(
    questions: Sequence[Question], model: Model, aligner: AcousticModel, asked: Asked
) -> dict[int, Alignment | SgpaError | None]:
    """Return when the words of each recording are said, by the question's identity; those to be aligned, together."""
    found: dict[int, Alignment | SgpaError | None] = {}
    together = [one for one in questions if one.transcript is not None and one.transcript not in HEARD]
    try:
        clips, texts = [one.clip for one in together], [one.transcript or "" for one in together]
        aligned = align_batch(
            clips, texts, model=aligner, rules=asked.rules, unspellable=asked.unspellable, language=asked.language
        )
        found = dict(zip(map(id, together), aligned, strict=True))
    except SgpaError:
        # One of them cannot be aligned: each by itself tells which.
        pass
    for one in questions:
        if id(one) not in found:
            try:
                found[id(one)] = timed(model, one, asked, aligner)
            except SgpaError as error:
                found[id(one)] = error
    return found


def _cut(question: Question, alignment: Alignment | None, model: Model, asked: Asked) -> Prepared | SgpaError:
    try:
        return prepared(model, question, laid_out(model, question, asked), alignment, asked)
    except SgpaError as error:
        return error
