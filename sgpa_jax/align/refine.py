"""Stage 3 as the rule set "sgpa" has it: words share their edges, which lie where the sound changes.

The paper (section 3.3) moves edges to where the sound is quiet and steady. That is a good place to cut, but not where a
word ends: on synthesised speech with known times it doubles the error of an edge that the phones already place well.
So what is sought here is the opposite, the sharpest change of the spectrum, near where the evidence for the left label
gives way to that for the right one. Neighbouring words share one edge; a pause between them belongs to nobody.
Axes: `F` frames.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float

from sgpa_jax.align.path import Path, Run
from sgpa_jax.align.spectral import sharpness
from sgpa_jax.align.timing import SHORTEST_S, Span
from sgpa_jax.audio import Clip

HOP_S = 0.002
"""Edges lie on this grid."""

PULL = 3.0
"""How much more prominent (see `_prominence`) the sharpest frame must be at a window's end than at the candidate."""


@dataclass(frozen=True)
class _Habits:
    """What the runs of one kind of emissions are like.

    Attributes:
        reach_s: an edge is sought this far on either side of two labels that meet, or of the gap between them.
        outer_reach_s: likewise for an edge with no label on its other side.
        spread_s: sounds go on for so long before the first and after the last frame of their labels.
        pause_s: words with a gap of this length have a pause between them.
    """

    reach_s: float
    outer_reach_s: float
    spread_s: float
    pause_s: float


_PHONES = _Habits(reach_s=0.016, outer_reach_s=0.016, spread_s=0.0, pause_s=0.08)
# CTC labels are spikes inside of their sounds, and gaps between them are more often sound than silence.
_SPIKES = _Habits(reach_s=0.02, outer_reach_s=0.04, spread_s=0.02, pause_s=0.3)


@dataclass(frozen=True)
class _Edge:
    at_s: float
    refined: bool


@dataclass(frozen=True)
class _Word:
    """The labels of a word that are on the path, and its first and last frame."""

    owner: int
    runs: tuple[Run, ...]

    @property
    def first(self) -> int:
        return self.runs[0].first

    @property
    def end(self) -> int:
        return self.runs[-1].end

    @property
    def middle(self) -> float:
        return (self.first + self.end) / 2


def refined_spans(clip: Clip, path: Path) -> dict[int, Span]:
    """Return the span of every word that has labels on `path`, by its number.

    Spans are in order, do not overlap, and last at least 50 ms if there is room.
    """
    owners = sorted({run.owner for run in path.runs} - {-1})
    words = [_Word(owner, tuple(run for run in path.runs if run.owner == owner)) for owner in owners]
    starts, ends = _edges(_Finder(clip, path), words)
    starts_s, ends_s = _at_least([edge.at_s for edge in starts], [edge.at_s for edge in ends], clip.duration_s)
    return {
        word.owner: Span(
            starts_s[number],
            ends_s[number],
            _time_s(clip, path, word.first),
            _time_s(clip, path, word.end),
            float(np.mean([run.confidence for run in word.runs])),
            starts[number].refined and ends[number].refined,
        )
        for number, word in enumerate(words)
    }


class _Finder:
    """Finds edges in one clip."""

    def __init__(self, clip: Clip, path: Path) -> None:
        self.clip, self.path = clip, path
        self.habits = _PHONES if path.emissions.blank is None else _SPIKES
        self.hop = max(1, round(HOP_S * clip.rate_hz))
        self.sharpness_f = sharpness(clip.wave_s, clip.rate_hz, hop=self.hop)

    def shared(self, left: _Word, right: _Word) -> _Edge:
        """The edge between two neighbours, never past the middle of either."""
        meet = left.end == right.first
        centre = self._crossing(left.end) if meet else (left.end + right.first) / 2
        low_s = max(self._time_s(left.end) - self.habits.reach_s, self._time_s(left.middle))
        high_s = min(self._time_s(right.first) + self.habits.reach_s, self._time_s(right.middle))
        return self._sharpest(low_s, self._time_s(centre), high_s)

    def start(self, word: _Word) -> _Edge:
        """The edge before a word that has nobody before it."""
        centre_s = max(0.0, self._time_s(self._crossing(word.first)) - self.habits.spread_s)
        high_s = min(centre_s + self.habits.outer_reach_s, self._time_s(word.middle))
        return self._sharpest(max(0.0, centre_s - self.habits.outer_reach_s), centre_s, high_s)

    def end(self, word: _Word) -> _Edge:
        """The edge after a word that has nobody after it."""
        centre_s = min(self.clip.duration_s, self._time_s(self._crossing(word.end)) + self.habits.spread_s)
        low_s = max(centre_s - self.habits.outer_reach_s, self._time_s(word.middle))
        return self._sharpest(low_s, centre_s, min(self.clip.duration_s, centre_s + self.habits.outer_reach_s))

    def is_pause(self, left: _Word, right: _Word) -> bool:
        """Whether somebody else, or nobody for long enough, is between two words."""
        gap_s = (right.first - left.end) * self.path.emissions.frame_s
        return right.owner != left.owner + 1 or gap_s >= self.habits.pause_s

    def _time_s(self, frame: float) -> float:
        return _time_s(self.clip, self.path, frame)

    def _crossing(self, frame: int) -> float:
        """Where between the centres of frames `frame - 1` and `frame` their states are equally likely, in frames."""
        score_ts, state_t = self.path.score_ts, self.path.state_t
        if frame in (0, len(state_t)):
            return float(frame)
        old, new = state_t[frame - 1], state_t[frame]
        lead = max(0.0, float(score_ts[frame - 1, old] - score_ts[frame - 1, new]))
        lag = max(0.0, float(score_ts[frame, new] - score_ts[frame, old]))
        return frame - 0.5 + lead / (lead + lag) if 0 < lead + lag < np.inf else float(frame)

    def _sharpest(self, low_s: float, centre_s: float, high_s: float) -> _Edge:
        step_s = self.hop / self.clip.rate_hz
        grid = np.arange(int(np.ceil(low_s / step_s)), min(int(high_s / step_s) + 1, len(self.sharpness_f)))
        window_f = self.sharpness_f[grid]
        if len(grid) < 3 or np.ptp(window_f) == 0:
            return _Edge(centre_s, False)
        away_f = (grid * step_s - centre_s) / max(centre_s - low_s, high_s - centre_s)
        best = int(np.argmin(PULL * np.square(away_f) - _prominence(window_f)))
        return _Edge(float(grid[best] * step_s), True)


def _prominence(sharpness_f: Float[np.ndarray, "F"]) -> Float[np.ndarray, "F"]:
    """Sharpness from 0 to less than 1: near 1 for a lone peak, all of it small where noise is as sharp everywhere."""
    low, high = sharpness_f.min(), sharpness_f.max()
    return (sharpness_f - low) / (high - low + 2.0 * np.median(sharpness_f))


def _edges(find: _Finder, words: Sequence[_Word]) -> tuple[list[_Edge], list[_Edge]]:
    """Start and end of every word."""
    starts, ends = [find.start(words[0])], []
    for left, right in pairwise(words):
        if find.is_pause(left, right):
            ends.append(find.end(left))
            starts.append(find.start(right))
        else:
            starts.append(find.shared(left, right))
            ends.append(starts[-1])
    return starts, [*ends, find.end(words[-1])]


def _time_s(clip: Clip, path: Path, frame: float) -> float:
    return min(max(path.emissions.offset_s + frame * path.emissions.frame_s, 0.0), clip.duration_s)


def _at_least(starts_s: list[float], ends_s: list[float], duration_s: float) -> tuple[list[float], list[float]]:
    """Widen words that are shorter than 50 ms to both sides, moving their neighbours; shared edges stay shared."""
    starts_s, ends_s = list(starts_s), list(ends_s)
    shortest_s = min(SHORTEST_S, duration_s / len(starts_s))
    for number, (start_s, end_s) in enumerate(zip(starts_s, ends_s, strict=True)):
        lacking_s = max(0.0, shortest_s - (end_s - start_s))
        starts_s[number] = max(0.0, start_s - lacking_s / 2)
        ends_s[number] = end_s + lacking_s / 2
        if number:
            ends_s[number - 1] = min(ends_s[number - 1], starts_s[number])
        if number + 1 < len(starts_s):
            starts_s[number + 1] = max(starts_s[number + 1], ends_s[number])
    at_s = 0.0
    for number in range(len(starts_s)):
        starts_s[number] = max(starts_s[number], at_s)
        at_s = ends_s[number] = max(ends_s[number], starts_s[number] + shortest_s)
    at_s = duration_s
    for number in reversed(range(len(starts_s))):
        ends_s[number] = min(ends_s[number], at_s)
        at_s = starts_s[number] = max(0.0, min(starts_s[number], ends_s[number] - shortest_s))
    return starts_s, ends_s
