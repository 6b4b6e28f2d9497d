"""A recording's spectrogram for looking at: short-time magnitudes in decibels, as bytes.

Axes: `S` samples, `F` frames.
"""

import numpy as np
from jaxtyping import UInt8

from sgpa_jax.audio import Clip

TOP_HZ = 8_000
"""Speech has little to see above this frequency."""

_WINDOW_S = 0.02
_RANGE_DB = 60.0
_MAX_FRAMES = 700


def spectrogram(clip: Clip) -> tuple[UInt8[np.ndarray, "bins F"], float]:
    """Return how loud each frequency is over time.

    Returns:
        uint8[bins, F]: 0 is 60 dB or more below the loudest, 255 the loudest; bin 0 is 0 Hz; frames are evenly spaced
            from the start to the end of the clip, every 5 ms or wider so that there are at most 700.
        The frequency in Hz at the upper edge.
    """
    window = max(int(_WINDOW_S * clip.rate_hz), 16)
    n_frames = min(max(int(clip.duration_s / 0.005), 2), _MAX_FRAMES)
    # A first difference lifts the weak high frequencies, as is usual for speech.
    emphasised_s = np.append(clip.wave_s[:1], clip.wave_s[1:] - 0.97 * clip.wave_s[:-1])
    padded_s = np.pad(emphasised_s, (window // 2, window))
    starts = np.linspace(0, clip.wave_s.size - 1, n_frames).astype(np.int64)
    frames = np.lib.stride_tricks.sliding_window_view(padded_s, window)[starts] * np.hanning(window)
    n_fft = 1 << (window - 1).bit_length()
    top_hz = min(TOP_HZ, clip.rate_hz / 2)
    n_bins = int(top_hz * n_fft / clip.rate_hz) + 1
    power = np.abs(np.fft.rfft(frames, n_fft)[:, :n_bins].T) ** 2
    loudness_db = 10 * np.log10(power + 1e-12)
    level = (loudness_db - loudness_db.max()) / _RANGE_DB + 1
    return (level.clip(0, 1) * 255).astype(np.uint8), float(top_hz)
