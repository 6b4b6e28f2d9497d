"""What alignment works with and gives: acoustic models and their emissions in, timed words out.

Axes: `T` emission frames, `V` labels. Times are seconds from the start of the clip, intervals are half-open.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Float

from sgpa_jax.audio import Clip


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


@dataclass(frozen=True, eq=False)
class Emissions:
    """How likely each label is in each frame.

    Attributes:
        log_probs_tv: float32[T, V], natural log; up to a constant per label where a prior was divided out.
        frame_s: duration of a frame.
        offset_s: time of the left edge of frame 0.
        labels: the V names.
        blank: index of the CTC blank, or None where every frame has the label that is heard in it (phones).
    """

    log_probs_tv: Float[np.ndarray, "T V"]
    frame_s: float
    offset_s: float
    labels: tuple[str, ...]
    blank: int | None


class AcousticModel(Protocol):
    """What the aligner needs of a network; `sgpa_jax.models.load_aligner` gives one, any other object will do.

    `lexicon` maps lower-case words to their pronunciations, each a sequence of labels of the "phone" emissions.
    """

    name: str
    digest: str
    rate_hz: int
    lexicon: Mapping[str, tuple[tuple[str, ...], ...]] | None

    def emissions(self, clips: Sequence[Clip]) -> list[dict[str, Emissions]]:
        """Return per clip the emissions under "character" (labels: a blank, "|", letters) and perhaps "phone"."""
        ...
