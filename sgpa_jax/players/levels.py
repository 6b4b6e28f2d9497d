"""How loud a recording is, frame by frame: what energy segments and ambient noise are measured by.

Axes: `F` frames, `S` samples.
"""

import numpy as np
from jaxtyping import Float

from sgpa_jax.audio import Clip

FRAME_S = 0.02
HOP_S = 0.01
FLOOR_DB = -120.0
"""Digital silence, in dB relative to full scale."""

ABOVE_FLOOR_DB = 8.0
"""What is active is this much louder than the 10th percentile of the frames …"""

BELOW_PEAK_DB = 40.0
"""… and at most this much quieter than the loudest frame."""


def frame_power(clip: Clip) -> Float[np.ndarray, "F"]:
    """Return the mean square of each 20 ms frame (hop 10 ms), float64[F]; a clip shorter than a frame is one frame."""
    wave_s = clip.wave_s.astype(np.float64)
    square_s = np.square(wave_s - wave_s.mean())
    frame, hop = _frame_samples(clip)
    total_s = np.concatenate([[0.0], np.cumsum(square_s)])
    starts = np.arange(0, wave_s.size - frame + 1, hop)
    return np.maximum(total_s[starts + frame] - total_s[starts], 0.0) / frame


def frame_edges_s(clip: Clip) -> tuple[Float[np.ndarray, "F"], Float[np.ndarray, "F"]]:
    """Return where each frame's share begins and ends, in seconds: the hop around its middle, half-open."""
    frame, hop = _frame_samples(clip)
    start_f = (np.arange(0, clip.wave_s.size - frame + 1, hop) + (frame - hop) / 2) / clip.rate_hz
    return start_f, start_f + hop / clip.rate_hz


def decibels(power: Float[np.ndarray, "F"]) -> Float[np.ndarray, "F"]:
    """Return mean squares in dB relative to full scale, never below `FLOOR_DB`."""
    return 10.0 * np.log10(np.maximum(power, 10.0 ** (FLOOR_DB / 10.0)))


def active_db(level_f: Float[np.ndarray, "F"]) -> float:
    """Return the level above which a frame is no part of the recording's noise floor, in dB."""
    return float(max(np.percentile(level_f, 10) + ABOVE_FLOOR_DB, level_f.max() - BELOW_PEAK_DB))


def _frame_samples(clip: Clip) -> tuple[int, int]:
    return min(round(FRAME_S * clip.rate_hz), clip.wave_s.size), min(round(HOP_S * clip.rate_hz), clip.wave_s.size)
