"""The paper's boundary refinement at the edges of words, with its two parameters free: α, and the margin δ.

Section 3.3 of SGPA moves an edge to the moment of least cost, α · loudness + (1 − α) · spectral change, both min–max
scaled within a window: the gap between two labels and δ on either side, or 2 δ around an edge that has nobody on its
other side. What is still loud there stays where it was. The authors' code has α = 0.8 and δ = 40 ms, and refines every
label; this refines words alone and shares their edges, as their later package does. Axes: `F` frames, `E` edges.
"""

from dataclasses import replace
from itertools import pairwise

import numpy as np
from jaxtyping import Float

from sgpa_jax.align import Alignment, loudness_and_change
from sgpa_jax.audio import Clip

ALPHA, MARGIN_S = 0.8, 0.04
"""The authors' choice."""

_FRAME, _HOP = 256, 64
_LOUD = 0.5
_SHORTEST_S = 0.05


def paper_alignment(raw: Alignment, clip: Clip, *, alpha: float = ALPHA, margin_s: float = MARGIN_S) -> Alignment:
    """Return the words of `raw`, which are where the path has them, with their edges refined.

    Frames beyond a window mirror it: zeros, as the authors have them, draw edges to a window's end.
    """
    words = raw.words
    edges_s = [_quietest(clip, words[0].start_s, words[0].start_s, 2 * margin_s, alpha)]
    for left, right in pairwise(words):
        # An edge stays inside of its gap, and where there is none it stays where it is.
        found_s = _quietest(clip, left.end_s, right.start_s, margin_s, alpha)
        edges_s.append(min(max(found_s, left.end_s), right.start_s))
    edges_s.append(_quietest(clip, words[-1].end_s, words[-1].end_s, 2 * margin_s, alpha))
    for index in range(1, len(edges_s)):
        edges_s[index] = max(edges_s[index], edges_s[index - 1] + _SHORTEST_S)
    latest_s = clip.duration_s
    for index in reversed(range(len(edges_s))):
        edges_s[index] = latest_s = min(edges_s[index], latest_s)
        latest_s -= min(_SHORTEST_S, clip.duration_s / (len(words) + 1))
    placed = tuple(replace(word, start_s=edges_s[index], end_s=edges_s[index + 1]) for index, word in enumerate(words))
    return replace(raw, words=placed, rules=f"paper, α {alpha:g}, δ {1000 * margin_s:g} ms")


def _quietest(clip: Clip, from_s: float, to_s: float, margin_s: float, alpha: float) -> float:
    """The cheapest moment around a gap; its middle where even that is loud."""
    middle_s = (from_s + to_s) / 2
    begin = max(0, int((from_s - margin_s) * clip.rate_hz))
    region_s = clip.wave_s[begin : max(begin, int((to_s + margin_s) * clip.rate_hz))]
    if len(region_s) < _FRAME:
        return middle_s
    loudness_f, change_f = loudness_and_change(region_s, frame=_FRAME, hop=_HOP, padding="reflect")
    cost_f = alpha * _scaled(loudness_f) + (1 - alpha) * _scaled(np.concatenate([change_f[:1], change_f]))
    best = int(np.argmin(cost_f))
    if loudness_f[best] > _LOUD * loudness_f.mean():
        return middle_s
    return (begin + _HOP * best) / clip.rate_hz


def _scaled(values_f: Float[np.ndarray, "F"]) -> Float[np.ndarray, "F"]:
    return (values_f - values_f.min()) / (np.ptp(values_f) + 1e-9)
