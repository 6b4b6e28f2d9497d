"""Voices that say nothing: syllables of vowels and hisses from a source and a filter, with a gender and an emotion.

The source is a band-limited train of pulses with a tilt, the filter three formants of a vowel. Gender sets the pitch
and the length of the vocal tract; emotion sets how high and how lively the pitch is, how fast the syllables come, how
bright and how rough the source is. The two are drawn apart from each other.
"""

from dataclasses import dataclass

import numpy as np

from sgpa_checkpoints.sound_world.draw import Draw
from sgpa_checkpoints.sound_world.noises import noise
from sgpa_checkpoints.sound_world.tones import RATE_HZ, time_s

_PITCH_HZ = {"man": (92.0, 125.0), "woman": (185.0, 240.0)}
_TRACT = {"man": (0.94, 1.03), "woman": (1.13, 1.24)}
_VOWELS_HZ = (
    (730, 1090, 2440),
    (530, 1840, 2480),
    (300, 2200, 2950),
    (570, 840, 2410),
    (320, 900, 2240),
    (480, 1350, 1700),
)
_WIDTHS_HZ = (80.0, 110.0, 160.0)


@dataclass(frozen=True)
class _Manner:
    """How an emotion speaks: factor and movement of the pitch, syllables a second, tilt in dB an octave, roughness."""

    pitch: float
    swing: float
    slope: float
    rate_hz: tuple[float, float]
    tilt_db: float
    rough: float
    breath: float


_MANNERS = {
    "neutral": _Manner(1.0, 0.05, 0.0, (3.4, 4.2), 9.0, 0.0, 0.02),
    "happy": _Manner(1.28, 0.38, 0.1, (4.8, 5.8), 6.0, 0.0, 0.02),
    "sad": _Manner(0.9, 0.03, -0.25, (1.9, 2.5), 15.0, 0.0, 0.12),
    "angry": _Manner(1.1, 0.12, 0.0, (5.2, 6.4), 2.0, 0.75, 0.05),
}


def voice(draw: Draw, n_samples: int, gender: str, emotion: str) -> np.ndarray:
    """Speech-like sound of a gender and an emotion."""
    manner = _MANNERS[emotion]
    pitch_hz = manner.pitch * draw.between(*_PITCH_HZ[gender])
    tract, every_s = draw.between(*_TRACT[gender]), 1 / draw.between(*manner.rate_hz)
    wave_s = np.zeros(n_samples, np.float32)
    for at_s in np.arange(0.0, n_samples / RATE_HZ - 0.1, every_s):
        first = int(at_s * RATE_HZ)
        length = min(int(0.92 * every_s * RATE_HZ), n_samples - first)
        through = at_s * RATE_HZ / n_samples
        wave_s[first : first + length] = _syllable(draw, length, pitch_hz * (1 + manner.slope * through), tract, manner)
    return wave_s


def _syllable(draw: Draw, length: int, pitch_hz: float, tract: float, manner: _Manner) -> np.ndarray:
    share_s = np.arange(length) / length
    swing_s = manner.swing * draw.rng.uniform(0.6, 1.2) * np.sin(np.pi * share_s)
    source_s = _pulses(pitch_hz * (1 + swing_s) * draw.rng.uniform(0.97, 1.03))
    source_s = source_s + manner.breath * draw.rng.standard_normal(length)
    source_s *= 1 - manner.rough * (0.5 + 0.5 * np.sin(2 * np.pi * 38.0 * time_s(length)))
    formants_hz = tract * np.array(_VOWELS_HZ[draw.rng.integers(len(_VOWELS_HZ))])
    n_fft = 1 << (length - 1).bit_length()
    at_hz = np.fft.rfftfreq(n_fft, 1 / RATE_HZ)
    gain_f = (np.maximum(at_hz, 80.0) / 500) ** (-manner.tilt_db / 6.02)
    for formant_hz, width_hz in zip(formants_hz, _WIDTHS_HZ, strict=True):
        gain_f = gain_f * formant_hz**2 / np.abs(formant_hz**2 - at_hz**2 + 1j * width_hz * at_hz)
    vowel_s = np.fft.irfft(np.fft.rfft(source_s, n_fft) * gain_f)[:length]
    vowel_s *= np.minimum(1.0, 8 * np.minimum(share_s, 1 - share_s)) / np.sqrt(np.mean(np.square(vowel_s)))
    if draw.rng.random() < 0.4:
        n_hiss = int(0.25 * length)
        loud = 0.15 if manner.tilt_db > 10 else 0.35
        hiss_s = loud * noise(draw, n_hiss, low_hz=2500 * tract, high_hz=6500) * np.hanning(n_hiss)
        vowel_s[:n_hiss] = hiss_s + vowel_s[:n_hiss] * np.linspace(0, 1, n_hiss) ** 2
    return vowel_s.astype(np.float32)


def _pulses(pitch_hz_s: np.ndarray) -> np.ndarray:
    """A train of pulses of a changing pitch, with as many partials as fit: Dirichlet's kernel."""
    n_partials = int(0.45 * RATE_HZ / pitch_hz_s.max())
    half_s = np.pi * np.cumsum(pitch_hz_s / RATE_HZ)
    below_s = np.sin(half_s)
    safe_s = np.where(np.abs(below_s) < 1e-4, 1.0, below_s)
    return np.where(np.abs(below_s) < 1e-4, 2.0 * n_partials, np.sin((2 * n_partials + 1) * half_s) / safe_s - 1.0)
