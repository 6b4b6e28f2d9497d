"""Loudness and spectral change of a wave, frame by frame: what stage 3 (SGPA, section 3.3) weighs against each other.

Axes: `S` samples, `F` frames, `N` frequency bins.
"""

from typing import Literal

import numpy as np
from jaxtyping import Float


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
