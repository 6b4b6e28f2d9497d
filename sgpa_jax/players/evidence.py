"""How surely each moment of a recording is more than its background, told from the spectrum.

A quiet beep hardly changes how loud a noisy recording is, and changes its own band a lot. The background is a spectrum,
that of the recording's quietest frames, times a gain that follows swelling noise: whatever slowly lifts most bands
alike is background still. The evidence against it is the log-likelihood ratio of as much power as is there and of as
much as the background has, summed over the bands that exceed it: in nats, about 10 where there is nothing else.
Axes: `F` frames, `N` frequencies, `B` bands.
"""

import itertools
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from sgpa_jax.audio import Clip
from sgpa_jax.players.levels import BELOW_PEAK_DB, FLOOR_DB, HOP_S

WINDOW_S = 0.032
"""Hann windows of this length: lines 30 Hz apart."""

N_BANDS, LOWEST_HZ, HIGHEST_HZ = 32, 80.0, 8000.0
"""Bands as wide as those of the ear, as far as the recording has them."""

QUIETEST = 0.1
"""The share of the frames, the least loud over all bands, of whose powers the background is the median."""

GAIN_QUANTILE = 0.4
"""The gain of a frame's background: this quantile, over the bands, of how far they are above the background's own."""

GAIN_DB = 15.0
"""No background swells by more: what lifts all bands by more than this is a sound."""

STEEP_S, STEEP_DB = 0.05, 8.0
"""Nor does it do so this fast: what lifts all bands steeply, and lets them fall as steeply again, is a sound."""

_SMOOTHED_FRAMES = 3
_BLOCK_FRAMES = 4096
_HANN_LINES = 1.5
"""A Hann window's noise bandwidth, in lines: as many of them hold one independent value."""

_GAINED_BY_OVERLAP = 0.45
"""What each further frame of a mean adds in independent values: neighbours have 2/3 of their samples in common."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """What is told of each frame.

    Attributes:
        nats_f: evidence that there is more than background, float64[F].
        excess_f: power above the background, as a share of the loudest frame's, float64[F].
        power_f: all power, as such a share, float64[F].
        start_f, end_f: the hop around each frame's middle, half-open, in seconds, float64[F].
    """

    nats_f: Float[np.ndarray, "F"]
    excess_f: Float[np.ndarray, "F"]
    power_f: Float[np.ndarray, "F"]
    start_f: Float[np.ndarray, "F"]
    end_f: Float[np.ndarray, "F"]


def evidence(clip: Clip) -> Evidence:
    """Return the evidence of sounds in the frames of a clip; there is none in silence."""
    window, hop = (min(max(1, round(length_s * clip.rate_hz)), clip.wave_s.size) for length_s in (WINDOW_S, HOP_S))
    band_nb = _bands(window, clip.rate_hz)
    power_fb = _smooth(_power(clip, band_nb, window, hop))
    start_f = (np.arange(len(power_fb)) * hop + (window - hop) / 2) / clip.rate_hz
    end_f = start_f + hop / clip.rate_hz
    peak = power_fb.sum(axis=1).max()
    if peak <= 10 ** (FLOOR_DB / 10):
        nothing_f = np.zeros_like(start_f)
        return Evidence(nothing_f, nothing_f, nothing_f, start_f, end_f)
    power_fb = power_fb / peak
    background_fb = _background(power_fb)
    ratio_fb = np.maximum(power_fb / background_fb, 1.0)
    # Power of n independent values has a gamma distribution of shape n; this is its log-likelihood ratio.
    values_b = np.maximum(1.0, band_nb.sum(axis=0) / _HANN_LINES) * (1 + _GAINED_BY_OVERLAP * (_SMOOTHED_FRAMES - 1))
    return Evidence(
        ((ratio_fb - 1 - np.log(ratio_fb)) * values_b).sum(axis=1),
        np.maximum(power_fb - background_fb, 0.0).sum(axis=1),
        power_fb.sum(axis=1),
        start_f,
        end_f,
    )


def _bands(window: int, rate_hz: int) -> Float[np.ndarray, "N B"]:
    """Return which lines are of which band, as ones; bands without a line are left out."""
    line_hz = np.fft.rfftfreq(window, 1 / rate_hz)
    lowest, highest = _cams(np.array([LOWEST_HZ, HIGHEST_HZ]))
    edge_b = np.linspace(lowest, highest, N_BANDS + 1)
    place_n = np.searchsorted(edge_b, _cams(line_hz), side="right") - 1
    band_nb = (place_n[:, None] == np.arange(N_BANDS)).astype(np.float64)
    band_nb = band_nb[:, band_nb.any(axis=0)]
    return band_nb if band_nb.size else np.ones((line_hz.size, 1))


def _cams(frequency_hz: Float[np.ndarray, "N"]) -> Float[np.ndarray, "N"]:
    """Glasberg and Moore's scale, a step of which is as wide as the ear's filters."""
    return 21.4 * np.log10(1 + 0.00437 * frequency_hz)


def _power(clip: Clip, band_nb: Float[np.ndarray, "N B"], window: int, hop: int) -> Float[np.ndarray, "F B"]:
    """Return the power of each frame in each band; long recordings block by block."""
    wave_s = clip.wave_s.astype(np.float64)
    frame_fs = np.lib.stride_tricks.sliding_window_view(wave_s - wave_s.mean(), window)[::hop]
    hann_s = np.hanning(window + 2)[1:-1]
    hann_s /= np.linalg.norm(hann_s) * np.sqrt(window / 2)
    blocks = (frame_fs[first : first + _BLOCK_FRAMES] for first in range(0, len(frame_fs), _BLOCK_FRAMES))
    return np.concatenate([np.abs(np.fft.rfft(block_fs * hann_s)) ** 2 @ band_nb for block_fs in blocks])


def _smooth(power_fb: Float[np.ndarray, "F B"]) -> Float[np.ndarray, "F B"]:
    """Return the mean of each frame and its neighbours; the outermost are their own."""
    padded_fb = np.pad(power_fb, ((_SMOOTHED_FRAMES // 2,) * 2, (0, 0)), mode="edge")
    return np.lib.stride_tricks.sliding_window_view(padded_fb, _SMOOTHED_FRAMES, axis=0).mean(axis=-1)


def _background(power_fb: Float[np.ndarray, "F B"]) -> Float[np.ndarray, "F B"]:
    """Return the background's power where the loudest frame's is 1, never below what is too quiet to be a sound."""
    least = 10 ** (-BELOW_PEAK_DB / 10) / power_fb.shape[1]
    # Below `least` all is alike: a beep in digital silence has less noise beside it than the pauses around it.
    loudness_f = np.log(power_fb + least).mean(axis=1)
    quiet_f = loudness_f <= np.quantile(loudness_f, QUIETEST)
    silent = 10 ** (FLOOR_DB / 10)
    spectrum_b = np.median(power_fb[quiet_f], axis=0) + silent
    gain_f = _without_bursts(np.quantile((power_fb + silent) / spectrum_b, GAIN_QUANTILE, axis=1))
    return spectrum_b * np.minimum(gain_f, 10 ** (GAIN_DB / 10))[:, None] + least


def _without_bursts(gain_f: Float[np.ndarray, "F"]) -> Float[np.ndarray, "F"]:
    """Return the gain with whatever rises and then falls steeply cut down to what is around it."""
    steep = round(STEEP_S / HOP_S)
    change_f = 10 * np.log10(gain_f[steep:] / gain_f[:-steep])
    turns = np.flatnonzero(np.abs(change_f) >= STEEP_DB)
    breaks = np.flatnonzero((np.diff(turns) > 1) | (np.diff(np.sign(change_f[turns])) != 0))
    calm_f = gain_f.copy()
    for rise, fall in itertools.pairwise(np.split(turns, breaks + 1)):
        if change_f[rise[0]] > 0 > change_f[fall[0]]:
            before, after = rise[0], fall[-1] + steep
            burst = slice(before, after + 1)
            calm_f[burst] = np.minimum(gain_f[burst], max(gain_f[before], gain_f[after]))
    return calm_f
