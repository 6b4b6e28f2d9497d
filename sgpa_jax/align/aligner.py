"""Alignment from end to end: transcript, path, refinement, words (SGPA, section 3), for one clip or many at once."""

from collections.abc import Mapping, Sequence

from sgpa_jax.align.alignment import AcousticModel, Alignment, Emissions
from sgpa_jax.align.authors import authors_spans
from sgpa_jax.align.letters import SEPARATOR, letter_columns
from sgpa_jax.align.path import Path, find_paths
from sgpa_jax.align.pronounce import Pronunciation, columns, is_known, pronunciations
from sgpa_jax.align.refine import refined_spans
from sgpa_jax.align.timing import timed_words
from sgpa_jax.align.topology import Topology, ctc_topology, phone_topology
from sgpa_jax.align.transcript import UNSPELLABLE, Transcript, read_transcript
from sgpa_jax.audio import Clip
from sgpa_jax.errors import AlignmentError, UsageError, unknown_name

RULES = ("sgpa", "authors")
"""The rule sets of stages 3 and 4: ours, and those of the authors' package."""

EMISSIONS = ("auto", "phone", "character")
"""What the path may run over; "auto" takes phones where the model hears them, and characters for the authors' rules."""

SHORTEST_PHONE_S = 0.03
"""Phones are not taken to be shorter than this where the recording has the time."""

SHORTEST_CLIP_S = 0.05
"""No shorter recording can hold a word."""


def align(
    clip: Clip,
    transcript: str,
    *,
    model: AcousticModel,
    rules: str = "sgpa",
    emission: str = "auto",
    unspellable: str = "error",
    language: str | None = None,
) -> Alignment:
    """Return when each word of `transcript` is said in `clip`; see `align_batch`."""
    return align_batch(
        [clip],
        [transcript],
        model=model,
        rules=rules,
        emission=emission,
        unspellable=unspellable,
        language=language,
    )[0]


def align_batch(
    clips: Sequence[Clip],
    transcripts: Sequence[str],
    *,
    model: AcousticModel,
    rules: str = "sgpa",
    emission: str = "auto",
    unspellable: str = "error",
    language: str | None = None,
) -> list[Alignment]:
    """Return the alignments of several clips, the same as one by one.

    Args:
        clips: recordings at any rate.
        transcripts: one text for each.
        model: hears the labels.
        rules: one of `RULES`.
        emission: one of `EMISSIONS`.
        unspellable: what happens to a word without anything to spell, "error", "merge" (with the word before it) or
            "interpolate" (a share of the gap between its neighbours).
        language: of the transcripts, such as "en"; None takes a model whose letters are a to z to be for English.
            Numbers and symbols are said in English only, in other languages they cannot be spelled.

    Raises:
        AlignmentError: a transcript is empty, cannot be spelled or cannot fit its clip, or a clip is too short.
        UsageError: a name is unknown, the counts differ, or the model has no such emissions.
    """
    for kind, name, known in (("rules", rules, RULES), ("emission", emission, EMISSIONS)):
        if name not in known:
            raise unknown_name(kind, name, known)
    if unspellable not in UNSPELLABLE:
        raise unknown_name("policy for unspellable words", unspellable, UNSPELLABLE)
    if len(clips) != len(transcripts):
        raise UsageError(f"{len(clips)} clips came with {len(transcripts)} transcripts: expected one for each")
    for clip in clips:
        if clip.duration_s < SHORTEST_CLIP_S:
            raise AlignmentError(
                f"the recording lasts {clip.duration_s * 1000:.1f} ms: expected at least {SHORTEST_CLIP_S * 1000:.0f} "
                "ms of speech; check that it is whole"
            )
    heard = model.emissions(clips)
    texts = [
        read_transcript(text, alphabet=letter_columns(own["character"]), unspellable=unspellable, language=language)
        for text, own in zip(transcripts, heard, strict=True)
    ]
    kind = _emission(emission, rules, model, heard)
    emissions = [own[kind] for own in heard]
    topologies = [topology(text, own, model) for text, own in zip(texts, emissions, strict=True)]
    paths = find_paths(emissions, topologies)
    return [
        _alignment(clip, text, path, model=model, rules=rules, kind=kind)
        for clip, text, path in zip(clips, texts, paths, strict=True)
    ]


def _emission(emission: str, rules: str, model: AcousticModel, heard: Sequence[Mapping[str, Emissions]]) -> str:
    has_phones = model.lexicon is not None and all("phone" in own for own in heard)
    if emission == "phone" and not has_phones:
        raise UsageError(f"the aligner {model.name!r} hears no phones: choose emission='character'")
    if emission != "auto":
        return emission
    return "phone" if has_phones and rules == "sgpa" else "character"


def topology(text: Transcript, emissions: Emissions, model: AcousticModel) -> Topology:
    """Return the paths that spell `text` in `emissions` of `model`."""
    column = columns(emissions)
    if emissions.blank is not None:
        letters = letter_columns(emissions)
        separator = {SEPARATOR: column[SEPARATOR]} if SEPARATOR in column else {}
        return ctc_topology(text.tokens, letters | separator, blank=emissions.blank)
    lexicon = model.lexicon or {}
    words = [
        (owner, pronunciations(word, lexicon, initials=token.initials))
        for owner, token in enumerate(text.tokens)
        for word in token.spoken
    ]
    return _held(words, column, emissions)


def _held(
    words: Sequence[tuple[int, Sequence[Pronunciation]]], column: dict[str, int], emissions: Emissions
) -> Topology:
    """Phones last 30 ms each, or less in a recording that is too short for that."""
    hold = max(1, round(SHORTEST_PHONE_S / emissions.frame_s))
    while True:
        topology = phone_topology(words, column, hold=hold)
        if hold == 1 or topology.fewest_frames() <= len(emissions.log_probs_tv):
            return topology
        hold -= 1


def _alignment(clip: Clip, text: Transcript, path: Path, *, model: AcousticModel, rules: str, kind: str) -> Alignment:
    spans = authors_spans(clip, path) if rules == "authors" else refined_spans(clip, path)
    notes = list(text.notes)
    if kind == "phone":
        notes += [
            f"{token.text!r} is not in the lexicon: its letters were aligned, each as any of the phones that it can be"
            for token in text.tokens
            if not all(is_known(word, model.lexicon or {}) for word in token.spoken)
        ]
    notes += [
        f"{token.text!r} cannot be spelled and was placed between its neighbours by its length"
        for token in text.tokens
        if not token.spoken
    ]
    words = timed_words([token.text for token in text.tokens], spans, clip.duration_s)
    return Alignment(words, clip.duration_s, text.text, model.name, model.digest, rules, kind, tuple(notes))
