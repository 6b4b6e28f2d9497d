"""A make-believe acoustic model whose emissions follow a known timeline, so that alignments have a right answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest

from sgpa_jax.align import Emissions
from sgpa_jax.audio import Clip

_ARPABET = "aa ae ah ao aw ay b ch d dh eh er ey f g hh ih iy jh k l m n ng ow oy p r s sh t th uh uw v w y z zh"
PHONES = ("sil", *_ARPABET.split())
CHARACTERS = ("<blank>", "|", "'", *"abcdefghijklmnopqrstuvwxyz")
LEXICON = {
    "no": (("n", "ow"),),
    "said": (("s", "eh", "d"),),
    "the": (("dh", "ah"), ("dh", "iy")),
    "tree": (("t", "r", "iy"),),
    "five": (("f", "ay", "v"),),
    "dollars": (("d", "aa", "l", "er", "z"),),
    **{letter: (("ah",) if letter == "x" else (vowel, letter),) for letter, vowel in (("n", "eh"), ("s", "eh"))},
    "u": (("y", "uw"),),
}
TIMELINE = (
    ("sil", 0.3), ("n", 0.08), ("ow", 0.12), ("s", 0.1), ("eh", 0.08), ("d", 0.06), ("sil", 0.25), ("dh", 0.05),
    ("iy", 0.08), ("t", 0.07), ("r", 0.05), ("iy", 0.16), ("sil", 0.2),
)  # fmt: skip
"""What the clip of `spoken` says: "No said, the tree"."""
EDGES_S = ((0.3, 0.5), (0.5, 0.74), (0.99, 1.12), (1.12, 1.4))
TRANSCRIPT = "No said, the tree"
RATE_HZ = 16000


@dataclass
class FakeModel:
    """Hears `timeline`; without one it hears every label equally well everywhere."""

    timeline: tuple[tuple[str, float], ...] | None = None
    frame_s: float = 0.01
    offset_s: float = 0.0
    lexicon: dict[str, tuple[tuple[str, ...], ...]] | None = None
    transcribes: bool = True
    calls: int = 0
    name = "fake"
    digest = "0" * 64
    rate_hz = RATE_HZ

    def emissions(self, clips: Sequence[Clip]) -> list[dict[str, Emissions]]:
        self.calls += 1
        return [
            {"character": self._characters(clip), **({"phone": self._phones(clip)} if self.lexicon else {})}
            for clip in clips
        ]

    def _phones(self, clip: Clip) -> Emissions:
        probability_tv = np.full((self._n_frames(clip), len(PHONES)), 0.1 / (len(PHONES) - 1), np.float32)
        for frame, row_v in enumerate(probability_tv):
            if self.timeline:
                row_v[PHONES.index(self._label(frame))] = 0.9
        return self._emissions(probability_tv, PHONES, None)

    def _characters(self, clip: Clip) -> Emissions:
        probability_tv = np.full((self._n_frames(clip), len(CHARACTERS)), 1 / len(CHARACTERS), np.float32)
        return self._emissions(probability_tv, CHARACTERS, 0)

    def _emissions(self, probability_tv: np.ndarray, labels: tuple[str, ...], blank: int | None) -> Emissions:
        log_probs_tv = np.log(probability_tv / probability_tv.sum(axis=1, keepdims=True))
        return Emissions(log_probs_tv.astype(np.float32), self.frame_s, self.offset_s, labels, blank)

    def _n_frames(self, clip: Clip) -> int:
        return max(1, round((clip.duration_s - self.offset_s) / self.frame_s))

    def _label(self, frame: int) -> str:
        centre_s, at_s = self.offset_s + (frame + 0.5) * self.frame_s, 0.0
        for label, length_s in self.timeline or ():
            at_s += length_s
            if centre_s < at_s:
                return label
        return "sil"


def sound_of(timeline: Sequence[tuple[str, float]], *, rate_hz: int = RATE_HZ) -> Clip:
    """A tone of its own for every phone, faint noise where there is silence."""
    rng = np.random.default_rng(0)
    pieces = []
    for label, length_s in timeline:
        time_s = np.arange(round(length_s * rate_hz)) / rate_hz
        tone_s = 0.3 * np.sin(2 * np.pi * (200 + 150 * PHONES.index(label)) * time_s)
        pieces.append(1e-3 * rng.standard_normal(len(time_s)) + (tone_s if label != "sil" else 0))
    return Clip(np.concatenate(pieces).astype(np.float32), rate_hz)


@pytest.fixture
def spoken() -> Clip:
    """The sound of TIMELINE."""
    return sound_of(TIMELINE)


@pytest.fixture
def model() -> FakeModel:
    """A model that hears TIMELINE and knows its words."""
    return FakeModel(TIMELINE, lexicon=LEXICON)


@pytest.fixture(scope="session")
def story() -> SimpleNamespace:
    """What TIMELINE says and when, and the means to make other models."""
    return SimpleNamespace(transcript=TRANSCRIPT, edges_s=EDGES_S, lexicon=LEXICON, model=FakeModel)
