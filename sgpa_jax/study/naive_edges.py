"""Word edges by two methods that hear no words, only how many there are: what any alignment has to beat.

Axes: `F` frames, `E` edges (one more than words).
"""

import numpy as np
from jaxtyping import Float

from sgpa_jax.audio import Clip

_FRAME_S, _HOP_S = 0.025, 0.005
_QUIETEST_DB, _QUIET_PERCENT = 60.0, 10


def uniform_edges(clip: Clip, n_words: int) -> Float[np.ndarray, "E"]:
    """Return equal parts between the first and the last moment that is nearer to the loudest than to the quiet ones.

    What counts as quiet (the tenth percentile, in decibels) did best of 24 settings on training voices.
    """
    level_f = _level_db(clip)
    loud = np.flatnonzero(level_f >= (np.percentile(level_f, _QUIET_PERCENT) + level_f.max()) / 2)
    return np.linspace(loud[0], loud[-1] + 1, n_words + 1) * _HOP_S


def energy_edges(clip: Clip, n_words: int) -> Float[np.ndarray, "E"]:
    """Return the edges of `uniform_edges`, each inner one at the quietest moment within half a part of it."""
    level_f, edges_e = _level_db(clip), uniform_edges(clip, n_words)
    reach_s = (edges_e[1] - edges_e[0]) / 2
    for number, edge_s in enumerate(edges_e[1:-1], start=1):
        first = int(np.ceil((edge_s - reach_s) / _HOP_S))
        region_f = level_f[first : max(first + 1, int((edge_s + reach_s) / _HOP_S))]
        edges_e[number] = (first + int(np.argmin(region_f))) * _HOP_S
    return edges_e


def _level_db(clip: Clip) -> Float[np.ndarray, "F"]:
    """Loudness in decibels below the loudest frame, every 5 ms."""
    frame, hop = round(_FRAME_S * clip.rate_hz), round(_HOP_S * clip.rate_hz)
    padded_s = np.pad(clip.wave_s.astype(np.float64), frame // 2, mode="reflect")
    power_f = np.mean(np.square(np.lib.stride_tricks.sliding_window_view(padded_s, frame)[::hop]), axis=1)
    return np.maximum(10 * np.log10(power_f / max(power_f.max(), 1e-12) + 1e-12), -_QUIETEST_DB)
