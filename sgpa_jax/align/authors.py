"""Stages 3 and 4 as the authors' package has them (mllm-shap 0.1.12), kept for comparison with their results.

Every edge between two labels is searched for, words are cut out of the refined labels, and what lies between them, the
separators, belongs to nobody. Known weaknesses are kept: frames are counted in samples whatever the rate, frames beyond
a window are zeros (so outer edges run to the window's end), spectral change is one frame early, and a word shorter than
50 ms grows to the right, perhaps into the next one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from sgpa_jax.align.path import Path, Run
from sgpa_jax.align.spectral import loudness_and_change, scaled
from sgpa_jax.align.timing import Span
from sgpa_jax.audio import Clip

ENERGY_WEIGHT, CHANGE_WEIGHT = 0.8, 0.2
_FRAME, _HOP = 256, 64
_OUTER_S, _INNER_S = 0.08, 0.04
_SHORTEST_S = 0.05
_LOUD = 0.5


@dataclass(frozen=True)
class _Edge:
    at_s: float
    refined: bool


def authors_spans(clip: Clip, path: Path) -> dict[int, Span]:
    """Return the span of every word that has labels on `path`, by its number."""
    # The original stretches its frames over the whole clip and knows no offset.
    frame_s = clip.duration_s / len(path.state_t)
    starts, ends = _label_edges(clip, path.runs, frame_s)
    spans = {}
    for owner in sorted({run.owner for run in path.runs} - {-1}):
        own = [number for number, run in enumerate(path.runs) if run.owner == owner]
        start_s, end_s = _cut(starts[own[0]].at_s, ends[own[-1]].at_s, clip)
        spans[owner] = Span(
            start_s,
            end_s,
            path.runs[own[0]].first * frame_s,
            path.runs[own[-1]].end * frame_s,
            float(np.mean([path.runs[number].confidence for number in own])),
            all(starts[number].refined and ends[number].refined for number in own),
        )
    return spans


def _label_edges(clip: Clip, runs: Sequence[Run], frame_s: float) -> tuple[list[_Edge], list[_Edge]]:
    """Start and end of every label, shared by neighbours."""
    inner = []
    for left, right in pairwise(runs):
        from_s, to_s = left.end * frame_s, right.first * frame_s
        found = _quietest(clip, (from_s + to_s) / 2, (to_s - from_s) / 2 + _INNER_S)
        inner.append(_Edge(min(max(found.at_s, from_s), to_s), found.refined))
    first = _quietest(clip, runs[0].first * frame_s, _OUTER_S)
    last = _quietest(clip, min(runs[-1].end * frame_s, clip.duration_s), _OUTER_S)
    return [first, *inner], [*inner, last]


def _quietest(clip: Clip, centre_s: float, reach_s: float) -> _Edge:
    """The cheapest frame around `centre_s`; the centre itself where even that is loud."""
    begin = max(0, int((centre_s - reach_s) * clip.rate_hz))
    region_s = clip.wave_s[begin : max(begin, int((centre_s + reach_s) * clip.rate_hz))]
    if len(region_s) < _FRAME:
        return _Edge(centre_s, False)
    loudness_f, change_f = loudness_and_change(region_s, frame=_FRAME, hop=_HOP, padding="constant")
    cost_f = ENERGY_WEIGHT * scaled(loudness_f) + CHANGE_WEIGHT * scaled(np.append(change_f, 0.0))
    best = int(np.argmin(cost_f))
    if loudness_f[best] > _LOUD * loudness_f.mean():
        return _Edge(centre_s, False)
    return _Edge((begin + _HOP * best) / clip.rate_hz, True)


def _cut(start_s: float, end_s: float, clip: Clip) -> tuple[float, float]:
    """Whole samples, at least 50 ms unless the clip ends before that."""
    if end_s - start_s < _SHORTEST_S:
        end_s = start_s + _SHORTEST_S
    n_samples, rate_hz = clip.wave_s.size, clip.rate_hz
    return min(int(start_s * rate_hz), n_samples) / rate_hz, min(int(end_s * rate_hz), n_samples) / rate_hz
