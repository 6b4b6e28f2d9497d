"""Reading the words off an acoustic model: greedy CTC (Graves et al. 2006), for recordings without a transcript."""

import re
from itertools import groupby

from sgpa_jax.align.alignment import AcousticModel, Emissions
from sgpa_jax.align.letters import SEPARATOR
from sgpa_jax.audio import Clip
from sgpa_jax.errors import AlignmentError, UsageError

_SPECIAL = re.compile(r"<.+>|\[.+\]")


def transcribe(clip: Clip, *, model: AcousticModel) -> str:
    """Return what `model` hears said in `clip`, in the letters of its vocabulary.

    Raises:
        AlignmentError: it hears no word.
        UsageError: it is not made for that.
    """
    if not model.transcribes:
        raise UsageError(
            f"the aligner {model.name!r} finds given words, but cannot tell which are said: give the words, or a "
            "wav2vec2 fine-tuned for CTC as aligner"
        )
    text = greedy_transcript(model.emissions([clip])[0]["character"])
    if not text:
        raise AlignmentError(f"the aligner {model.name!r} hears no word in the recording: give the words that are said")
    return text


def greedy_transcript(emissions: Emissions) -> str:
    """Return the likeliest label of every frame as text: repeats as one, no blanks, separators as single spaces.

    Special labels such as `<s>` or `[UNK]` say nothing.

    Raises:
        UsageError: the emissions are of phones.
    """
    if emissions.blank is None:
        raise UsageError("emissions of phones cannot be read as text: give those of characters")
    heard = [int(column) for column, _ in groupby(emissions.log_probs_tv.argmax(axis=1))]
    labels = [emissions.labels[column] for column in heard if column != emissions.blank]
    text = "".join(" " if label == SEPARATOR else label for label in labels if not _SPECIAL.fullmatch(label))
    return " ".join(text.split())
