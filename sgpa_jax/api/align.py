"""`align`: when each word of a transcript is said; and what a recording and its words are aligned with elsewhere."""

from dataclasses import replace
from pathlib import Path

from sgpa_jax.align import AcousticModel, Alignment, transcribe
from sgpa_jax.align import align as align_clip
from sgpa_jax.audio import Clip, read_clip
from sgpa_jax.errors import UsageError
from sgpa_jax.models import load_aligner

HEARD = {"auto": "heard by the aligner", "auto:model": "heard by the model"}
"""Transcripts that stand for what is heard, and by whom."""


def align(
    clip: Clip | str | Path,
    transcript: str,
    *,
    aligner: AcousticModel | str | Path = "pocket",
    rules: str = "sgpa",
    unspellable: str = "error",
    language: str | None = None,
) -> Alignment:
    """Find when each word of a transcript is said in a recording; `auto` takes what the aligner hears, and notes it.

    Raises:
        SgpaError: the recording, the transcript or a name cannot be used.
    """
    return aligned(read_clip(clip), transcript, None, aligner, rules, unspellable, language)


def aligned(
    clip: Clip,
    transcript: str | None,
    alignment: Alignment | None,
    aligner: AcousticModel | str | Path,
    rules: str,
    unspellable: str,
    language: str | None,
) -> Alignment:
    """Return the alignment that was given, or the transcript's."""
    if (transcript is None) == (alignment is None):
        raise UsageError("expected either a transcript, what is said, or an alignment, which also tells when; give one")
    if alignment is not None:
        return alignment
    model = load_aligner(aligner) if isinstance(aligner, str | Path) else aligner
    words = transcribe(clip, model=model) if transcript == "auto" else transcript or ""
    found = align_clip(clip, words, model=model, rules=rules, unspellable=unspellable, language=language)
    if transcript != "auto":
        return found
    return replace(found, notes=(f"the transcript was not given: the aligner heard {words!r}", *found.notes))
