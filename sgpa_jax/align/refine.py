"""Stage 3 as the rule set "sgpa" has it: words share their edges, which lie where labels and sound say they change.

The paper (section 3.3) moves edges to where the sound is quiet and steady. That is a good place to cut, but not where a
word ends: on synthesised speech with known times it doubles the error of an edge that the phones already place well.
So every edge is instead the best guess of a small model of where labels meet (`edges.py`). Neighbouring words share one
edge; a pause between them belongs to nobody.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from sgpa_jax.align.edges import SPIKES, EdgeFinder, Window, place
from sgpa_jax.align.path import Path, Run
from sgpa_jax.align.timing import SHORTEST_S, Span
from sgpa_jax.audio import Clip

PAUSE_S = 0.04
"""Phones with a gap of this length between them have a pause there: silence is a label of its own."""

SPIKES_PAUSE_S = 0.18
"""Between CTC labels there are gaps without any pause; longer ones are more often pauses than not."""

FAR_S = 0.2
"""No word begins or ends farther than this from its outer labels."""


@dataclass(frozen=True)
class _Word:
    """The labels of a word that are on the path."""

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
    find, words = EdgeFinder(clip, path), spoken(path)
    starts, ends = ([_placed(find, window) for window in windows] for windows in edge_windows(find, words))
    starts_s, ends_s = _at_least([at_s for at_s, _ in starts], [at_s for at_s, _ in ends], clip.duration_s)
    return {
        word.owner: Span(
            starts_s[number],
            ends_s[number],
            find.time_s(word.first),
            find.time_s(word.end),
            float(np.mean([run.confidence for run in word.runs])),
            starts[number][1] and ends[number][1],
        )
        for number, word in enumerate(words)
    }


def edge_windows(find: EdgeFinder, words: Sequence[_Word]) -> tuple[list[Window], list[Window]]:
    """Return where the start and the end of every word may lie; one window that two words share is in both lists."""
    frame_s = find.path.emissions.frame_s
    far, n_frames = FAR_S / frame_s, len(find.path.state_t)
    starts, ends = [find.start(words[0].runs[0], max(0, words[0].first - far), words[0].middle)], []
    for left, right in pairwise(words):
        if _is_pause(find, left, right):
            middle = (left.end + right.first) / 2
            ends.append(find.end(left.runs[-1], left.middle, min(middle, left.end + far)))
            starts.append(find.start(right.runs[0], max(middle, right.first - far), right.middle))
        else:
            starts.append(find.joined(left.runs[-1], right.runs[0], left.middle, right.middle))
            ends.append(starts[-1])
    last = words[-1]
    return starts, [*ends, find.end(last.runs[-1], last.middle, min(n_frames, last.end + far))]


def spoken(path: Path) -> list[_Word]:
    """Return the words that have labels on the path, in order."""
    owners = sorted({run.owner for run in path.runs} - {-1})
    return [_Word(owner, tuple(run for run in path.runs if run.owner == owner)) for owner in owners]


def _placed(find: EdgeFinder, window: Window) -> tuple[float, bool]:
    return place(window, find.habits.weights[window.kind])


def _is_pause(find: EdgeFinder, left: _Word, right: _Word) -> bool:
    """Whether somebody else, or nobody for long enough, is between two words."""
    gap_s = (right.first - left.end) * find.path.emissions.frame_s
    shortest_s = SPIKES_PAUSE_S if find.habits is SPIKES else PAUSE_S
    return right.owner != left.owner + 1 or gap_s >= shortest_s


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
