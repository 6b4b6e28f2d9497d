"""What alignment works with and gives: acoustic models and their emissions in, timed words out.

Axes: `T` emission frames, `V` labels. Times are seconds from the start of the clip, intervals are half-open.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from sgpa_jax.audio import Clip
from sgpa_jax.models import Emissions


@dataclass(frozen=True)
class Word:
    """One word of the transcript and when it is said.

    Attributes:
        text: the word as written, its punctuation included.
        start_s, end_s: where its audio begins and ends.
        ctc_start_s, ctc_end_s: the same before boundary refinement; None where the alignment was given, or where the
            word has no label of its own.
        confidence: mean posterior of the word's labels on the path, 0 to 1; None where there is none.
        boundary_refined: both edges were placed by refinement.
    """

    text: str
    start_s: float
    end_s: float
    ctc_start_s: float | None = None
    ctc_end_s: float | None = None
    confidence: float | None = None
    boundary_refined: bool = False


@dataclass(frozen=True)
class Alignment:
    """The words of a recording in order.

    Attributes:
        words: in the order of the transcript.
        duration_s: length of the recording.
        transcript: the text that was aligned.
        aligner, digest: name of the acoustic model and of its exact weights.
        rules: "sgpa" or "authors", or "given" for times that were not computed here.
        emission: "phone" or "character", what the path ran over, or "given".
        notes: plain sentences on everything that was not done the usual way.
    """

    words: tuple[Word, ...]
    duration_s: float
    transcript: str
    aligner: str
    digest: str
    rules: str
    emission: str
    notes: tuple[str, ...] = ()


class AcousticModel(Protocol):
    """What the aligner needs of a network; `sgpa_jax.models.load_aligner` gives one, any other object will do."""

    name: str
    digest: str
    rate_hz: int
    transcribes: bool
    """Whether its letters, read greedily, are words."""

    @property
    def lexicon(self) -> Mapping[str, tuple[tuple[str, ...], ...]] | None:
        """Pronunciations of lower-case words, each a sequence of labels of the "phone" emissions; None: no phones."""
        ...

    def emissions(self, clips: Sequence[Clip]) -> list[dict[str, Emissions]]:
        """Return per clip its `Emissions` under "character" and perhaps "phone".

        Labels of characters are a blank, "|" between words, and letters; those of phones are "sil" and the lexicon's.
        """
        ...
