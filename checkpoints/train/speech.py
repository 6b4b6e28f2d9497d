"""Synthetic speech whose words and phones have exact times, for the trainers and their held-out tests.

Three engines speak: eSpeak NG (formant synthesis, many voices), Flite (voices built from recorded people) and Festival
(diphones of another recorded person, never trained on). Each one tells which phone it makes at which sample, so the
times are the synthesiser's own and not an estimate.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import soxr

from . import espeak, festival, flite
from .phones import Segment

RATE_HZ = 16_000


@dataclass(frozen=True)
class Voice:
    """A voice of one engine ("espeak", "flite" or "festival") at a relative rate of speech and a relative pitch."""

    engine: str
    name: str
    rate: float = 1.0
    pitch: float = 1.0


@dataclass(frozen=True)
class Span:
    """A label with its start and end in seconds, end not included."""

    label: str
    start_s: float
    end_s: float


@dataclass(frozen=True, eq=False)
class Utterance:
    """A 16 kHz float32 wave with the exact times of its words, phones (tiling the wave) and added sounds."""

    wave_s: np.ndarray
    words: tuple[Span, ...]
    phones: tuple[Span, ...]
    sounds: tuple[Span, ...] = ()

    @property
    def duration_s(self) -> float:
        """Length of the wave in seconds."""
        return len(self.wave_s) / RATE_HZ


_ESPEAK_TRAIN = {
    "en-US": "m1 m2 m3 m4 m5 m6 m8 f1 f2 f3 f5 klatt klatt2 klatt4 Alex Alicia Andrea Andy Gene Hugo Lee Mario Mike",
    "en": "m1 m3 f2 f5 linda steph john quincy rob edward benjamin max victor adam anika",
    "en-GB-x-rp": "m4 f3",
    "en-GB-scotland": "m2 f1",
    "en-US-nyc": "f2",
    "en-GB-x-gbclan": "",
    "en-GB-x-gbcwmd": "",
}
TRAIN_VOICES = (
    *(Voice("flite", name) for name in ("slt", "awb", "kal16")),
    *(Voice("espeak", f"gmw/{accent}") for accent in _ESPEAK_TRAIN),
    *(Voice("espeak", f"gmw/{accent}+{variant}") for accent, all_ in _ESPEAK_TRAIN.items() for variant in all_.split()),
)
HELD_OUT_VOICES = (
    Voice("flite", "rms"),
    *(Voice("espeak", f"gmw/{name}") for name in ("en-US+f4", "en-GB-x-rp+m7", "en-US+klatt3", "en+Annie")),
)
HELD_OUT_ENGINE_VOICES = (Voice("festival", "ked_diphone"),)
_ENGINES = {"espeak": espeak.synthesise, "flite": flite.synthesise, "festival": festival.synthesise}
_ENGINE_WEIGHTS = {"espeak": 0.6, "flite": 0.4, "festival": 1.0}


def draw_voice(rng: np.random.Generator, voices: Sequence[Voice]) -> Voice:
    """One of `voices` at a random rate and pitch; engines weighed so that Flite speaks about 40 % of the time."""
    present = sorted({voice.engine for voice in voices})
    weights = np.array([_ENGINE_WEIGHTS[engine] for engine in present])
    engine = rng.choice(present, p=weights / weights.sum())
    mine = [voice for voice in voices if voice.engine == engine]
    low, high = (0.88, 1.14) if engine != "espeak" else (0.7, 1.4)
    rate, pitch = rng.uniform(0.75, 1.35), rng.uniform(low, high)
    return replace(mine[rng.integers(len(mine))], rate=float(rate), pitch=float(pitch))


def synthesise(text: str, voice: Voice) -> Utterance | None:
    """Speak `text`; its words are its stretches without white space, labelled in lower case without punctuation.

    Returns None when the engine lost a word or cut the text differently, so that returned times are always exact.
    """
    words = text.split()
    wave_s, rate_hz, segments = _ENGINES[voice.engine](words, voice.name, voice.rate, voice.pitch)
    spans = _word_spans(words, segments)
    if spans is None:
        return None
    wave_s = soxr.resample(wave_s, rate_hz, RATE_HZ).astype(np.float32)
    return Utterance(wave_s, spans, _tile(segments, len(wave_s) / RATE_HZ))


def _word_spans(words: list[str], segments: list[Segment]) -> tuple[Span, ...] | None:
    """First start and last end of every word's phones; None unless each word has phones, in order and unmixed."""
    owners = [segment.word for segment in segments if segment.word is not None]
    order = [owner for i, owner in enumerate(owners) if i == 0 or owners[i - 1] != owner]
    if order != list(range(len(words))):
        return None
    spans = []
    for index, word in enumerate(words):
        own = [segment for segment in segments if segment.word == index]
        spans.append(Span(word.lower().strip(string.punctuation), own[0].start_s, own[-1].end_s))
    return tuple(spans)


def _tile(segments: list[Segment], duration_s: float) -> tuple[Span, ...]:
    """The phones as spans that cover [0, duration_s) without a hole; neighbouring silences are joined."""
    tiles = [Span("sil", 0.0, 0.0)]
    for segment in [*segments, Segment("sil", duration_s, duration_s, None)]:
        start_s, end_s = min(segment.start_s, duration_s), min(segment.end_s, duration_s)
        for label, until_s in (("sil", start_s), (segment.phone, end_s)):
            if until_s > tiles[-1].end_s:
                from_s = tiles[-1].end_s
                if label == "sil" == tiles[-1].label:
                    from_s = tiles.pop().start_s
                tiles.append(Span(label, from_s, until_s))
    return tuple(tile for tile in tiles if tile.end_s > tile.start_s)
