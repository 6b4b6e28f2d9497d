"""Loudness and spectral change of a wave, frame by frame: what stage 3 (SGPA, section 3.3) looks at.

Axes: `S` samples, `F` frames, `N` frequency bins.
"""

from typing import Literal

import numpy as np
from jaxtyping import Float

_WINDOW_S, _LAG_S, _BAND_HZ = 0.008, 0.004, 300
_FLOOR = 1e-3
_LOUDEST_PERCENT, _QUIETEST = 99, 1e-6


def loudness_and_change(
    wave_s: Float[np.ndarray, "S"], *, frame: int, hop: int, padding: Literal["constant", "reflect"]
) -> tuple[Float[np.ndarray, "F"], Float[np.ndarray, "F-1"]]:
    """Return the RMS of each frame and the squared distance between the magnitude spectra of neighbouring frames.

    Frame f is centred on sample `f * hop`; F = 1 + S // hop. `padding` is what lies beyond the ends: zeros or a mirror
    image. The spectra have a periodic Hann window.
    """
    padded = np.pad(wave_s.astype(np.float64), frame // 2, mode=padding)
    frames_fs = np.lib.stride_tricks.sliding_window_view(padded, frame)[::hop]
    loudness_f = np.sqrt(np.mean(np.square(frames_fs), axis=1))
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(frame) / frame)
    magnitude_fn = np.abs(np.fft.rfft(frames_fs * hann, axis=1))
    return loudness_f, np.sum(np.square(np.diff(magnitude_fn, axis=0)), axis=1)


def scaled(values: Float[np.ndarray, "F"]) -> Float[np.ndarray, "F"]:
    """Return `values` between 0 (smallest) and 1 (largest)."""
    low, high = values.min(), values.max()
    return (values - low) / (high - low + 1e-9)


def sharpness(wave_s: Float[np.ndarray, "S"], rate_hz: int, *, hop: int) -> Float[np.ndarray, "F"]:
    """Return how much the log spectrum changes around sample `f * hop`: the mean squared distance from 4 ms before to 4
    ms after, of 8 ms windows (which meet, and do not overlap) and 300 Hz bands up to 8 kHz.

    F = 1 + S // hop; the wave is mirrored beyond its ends. What is 60 dB below the loudest bin counts as silence.
    """
    frame, lag = max(2, round(_WINDOW_S * rate_hz)), max(1, round(_LAG_S * rate_hz / hop))
    padded = np.pad(wave_s.astype(np.float64), frame // 2 + lag * hop, mode="reflect")
    frames_fs = np.lib.stride_tricks.sliding_window_view(padded, frame)[::hop]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(frame) / frame)
    magnitude_fn = np.abs(np.fft.rfft(frames_fs * hann, axis=1))[:, : 1 + round(8000 * frame / rate_hz)]
    width = max(1, round(_BAND_HZ * frame / rate_hz))
    n_bands = max(1, magnitude_fn.shape[1] // width)
    level_fn = np.log(magnitude_fn[:, : n_bands * width] + _FLOOR * magnitude_fn.max() + np.finfo(float).tiny)
    band_fn = level_fn.reshape(len(level_fn), n_bands, -1).mean(axis=2)
    return np.mean(np.square(band_fn[2 * lag :] - band_fn[: -2 * lag]), axis=1)[: 1 + len(wave_s) // hop]


def loudness_step(wave_s: Float[np.ndarray, "S"], rate_hz: int, *, hop: int) -> Float[np.ndarray, "F"]:
    """Return how much louder it gets at sample `f * hop`: 1 by far louder, -1 by far quieter, 0.76 by 13 dB.

    The power of the 8 ms behind it is compared with that of the 8 ms before. F = 1 + S // hop; the wave is mirrored
    beyond its ends. What is 60 dB below the loud hundredth counts as silence.
    """
    frame = max(2, round(_WINDOW_S * rate_hz))
    power_s = np.square(np.pad(wave_s.astype(np.float64), frame, mode="reflect"))
    floor = _QUIETEST * np.percentile(power_s, _LOUDEST_PERCENT) + np.finfo(float).tiny
    total_s = np.append(0.0, np.cumsum(power_s))
    at = np.arange(0, len(wave_s) + 1, hop) + frame
    before_f, after_f = (total_s[at] - total_s[at - frame]) / frame, (total_s[at + frame] - total_s[at]) / frame
    return np.tanh((np.log(after_f + floor) - np.log(before_f + floor)) / 3)
