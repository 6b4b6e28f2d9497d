"""Reading words off emissions: repeats, blanks, separators and special labels."""

import numpy as np
import pytest

from sgpa_jax.align import Emissions, greedy_transcript, transcribe
from sgpa_jax.errors import AlignmentError, UsageError

LABELS = ("<pad>", "<s>", "[UNK]", "|", "A", "B")


def emissions(frames: str, labels: tuple[str, ...] = LABELS, blank: int | None = 0) -> Emissions:
    """Frames by the number of their likeliest label."""
    return Emissions(np.eye(len(labels), dtype=np.float32)[[int(c) for c in frames]], 0.02, 0.0, labels, blank)


class Reader:
    name, digest, rate_hz, lexicon, transcribes = "reader", "0", 16000, None, True

    def __init__(self, frames: str) -> None:
        self.frames = frames

    def emissions(self, clips):
        return [{"character": emissions(self.frames)} for _ in clips]


@pytest.mark.parametrize(
    ("frames", "text"),
    [
        ("0004455", "AB"),
        ("44", "A"),
        ("404", "AA"),
        ("40044", "AA"),
        ("4335", "A B"),
        ("330433053", "A B"),
        ("14250", "AB"),
        ("000", ""),
        ("33", ""),
    ],
)
def test_frames_collapse_to_text(frames: str, text: str):
    assert greedy_transcript(emissions(frames)) == text


def test_a_recording_is_transcribed(spoken):
    assert transcribe(spoken, model=Reader("43350")) == "A B"
    with pytest.raises(AlignmentError, match="'reader' hears no word"):
        transcribe(spoken, model=Reader("0130"))


def test_an_aligner_that_spells_badly_is_not_asked(spoken):
    reader = Reader("43350")
    reader.transcribes = False
    with pytest.raises(UsageError, match="cannot tell which are said"):
        transcribe(spoken, model=reader)


def test_phones_are_no_text():
    with pytest.raises(UsageError, match="phones"):
        greedy_transcript(emissions("012", ("sil", "aa", "b"), None))
