"""What a clip sounds like as a few hundred numbers: levels, changes, rhythm and pitch of its mel bands.

Frames of 25 ms every 10 ms become log energies in 48 bands, equal steps on the mel scale from 50 Hz to 8 kHz. What
describes a clip are moments and quantiles over time, how much neighbouring frames differ, how fast the level swings
(1 to 32 Hz), and how the loud frames' autocorrelation spreads over pitches. Axes: `S` samples, `F` frames, `B` bands.
"""

import functools

import numpy as np
from jaxtyping import Float

from sgpa_jax.audio import Clip

RATE_HZ = 16000
_WINDOW, _HOP, _FFT = 400, 160, 1024
_N_BANDS, _LOW_HZ, _HIGH_HZ = 48, 50.0, 8000.0
_QUANTILES = (0.1, 0.5, 0.9)
_SWINGS_HZ = (1, 2, 4, 8, 16, 32)
_PITCHES_HZ = np.geomspace(60, 1000, 41)
_FLOOR = 1e-8


def spectral_statistics(clip: Clip) -> Float[np.ndarray, " A"]:
    """The numbers of a clip; a louder copy has others only where the level itself is described."""
    wave_s = clip.at_rate(RATE_HZ).wave_s.astype(np.float64)
    wave_s = np.pad(wave_s, (0, max(0, 2 * _WINDOW - len(wave_s))))
    frames_fs = np.lib.stride_tricks.sliding_window_view(wave_s, _WINDOW)[::_HOP] * np.hanning(_WINDOW)
    power_fq = np.abs(np.fft.rfft(frames_fs, _FFT)) ** 2
    log_fb = np.log10(power_fq @ _bands() + _FLOOR)
    level_f = np.log10(power_fq.mean(axis=1) + _FLOOR)
    shape_fb = log_fb - log_fb.mean(axis=1, keepdims=True)
    # Loud frames are what a clip is about; the rest is room.
    loud_f = level_f >= np.quantile(level_f, 0.7)
    parts = [
        log_fb.mean(axis=0), log_fb.std(axis=0), *np.quantile(log_fb, _QUANTILES, axis=0),
        shape_fb[loud_f].mean(axis=0), shape_fb[loud_f].std(axis=0),
        np.abs(np.diff(log_fb, axis=0)).mean(axis=0), np.maximum(np.diff(log_fb, axis=0), 0).max(axis=0),
        _swings(level_f), _swings(shape_fb.std(axis=1)), _pitches(power_fq[loud_f]),
        np.array([level_f.mean(), level_f.std(), level_f.max() - level_f.min(), np.log(clip.duration_s)]),
    ]  # fmt: skip
    return np.concatenate(parts)


@functools.cache
def _bands() -> Float[np.ndarray, "Q B"]:
    """Triangles of area one, equally far apart on the mel scale."""
    low_mel, high_mel = (2595 * np.log10(1 + hz / 700) for hz in (_LOW_HZ, _HIGH_HZ))
    edges_mel = np.linspace(low_mel, high_mel, _N_BANDS + 2)
    edges_hz = 700 * (10 ** (edges_mel / 2595) - 1)
    bins_hz = np.fft.rfftfreq(_FFT, 1 / RATE_HZ)[:, None]
    low, middle, high = edges_hz[:-2], edges_hz[1:-1], edges_hz[2:]
    triangles = np.maximum(np.minimum((bins_hz - low) / (middle - low), (high - bins_hz) / (high - middle)), 0)
    return triangles / np.maximum(triangles.sum(axis=0), _FLOOR)


def _swings(level_f: Float[np.ndarray, " F"]) -> Float[np.ndarray, " H"]:
    """Share of a curve's variance that swings in each octave; frames are 10 ms apart."""
    n = max(len(level_f), 128)
    power_q = np.abs(np.fft.rfft(level_f - level_f.mean(), n)) ** 2
    hz_q = np.fft.rfftfreq(n, _HOP / RATE_HZ)
    edges = zip((0.0, *_SWINGS_HZ[:-1]), _SWINGS_HZ, strict=True)
    return np.array([power_q[(hz_q > low) & (hz_q <= high)].sum() for low, high in edges]) / (power_q.sum() + _FLOOR)


def _pitches(power_fq: Float[np.ndarray, "F Q"]) -> Float[np.ndarray, " H"]:
    """Autocorrelation at the periods of pitches, its largest value and where it lies, averaged over frames."""
    # The root flattens the spectrum: formants weigh less, the period more.
    correlation_fs = np.fft.irfft(np.sqrt(power_fq))
    periods_h = np.round(RATE_HZ / _PITCHES_HZ).astype(int)
    value_fh = correlation_fs[:, periods_h] / (correlation_fs[:, :1] + _FLOOR)
    strongest_f = value_fh.argmax(axis=1)
    share_h = np.bincount(strongest_f, minlength=len(periods_h)) / len(strongest_f)
    return np.concatenate([value_fh.mean(axis=0), share_h, [value_fh.max(axis=1).mean(), strongest_f.std()]])
