"""Players that need no words: windows of one length, and segments between the quietest moments of a recording.

Both are what word players are compared with. Axes: `F` frames.
"""

import itertools
import math
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float

from sgpa_jax.audio import Clip
from sgpa_jax.errors import PlayerError, UsageError
from sgpa_jax.players.levels import HOP_S, active_db, decibels, frame_edges_s, frame_power
from sgpa_jax.players.player import Player, Players

WINDOW_S = 0.5

SHORTEST_S = 0.15
"""No energy segment is shorter: stretches of activity that are, are left to the floor."""

LONGEST_S = 0.6
"""Longer stretches of activity are cut where they are quietest."""

MERGE_S = 0.08
"""Stretches of activity with a shorter gap between them are one."""

_SMOOTHED_FRAMES = 5


def window_players(clip: Clip, window_s: float = WINDOW_S) -> Players:
    """Cut a recording every `window_s` seconds: "window 1", "window 2" …; a rest shorter than half joins the last.

    Raises:
        UsageError: `window_s` is not a positive number, or shorter than a sample.
    """
    if not (math.isfinite(window_s) and window_s * clip.rate_hz >= 1):
        raise UsageError(f"windows of {window_s} s: expected a length of at least a sample, such as {WINDOW_S}")
    n_windows = max(1, math.floor(clip.duration_s / window_s + 0.5))
    edges_s = [*(window_s * i for i in range(n_windows)), clip.duration_s]
    return _named("window", list(itertools.pairwise(edges_s)), clip)


def energy_players(clip: Clip, *, shortest_s: float = SHORTEST_S, longest_s: float = LONGEST_S) -> Players:
    """Take what is louder than the recording's noise floor, cut where it is quietest: "segment 1", "segment 2" …

    Active are 20 ms frames more than 8 dB above the 10th percentile and at most 40 dB below the loudest, gaps under
    80 ms closed. A stretch longer than `longest_s` is cut at the frame of least energy (over 60 ms) that leaves
    `shortest_s` on both sides, and so are its parts; a shorter stretch than that is nobody's.

    Raises:
        PlayerError: nothing stands out from the floor.
        UsageError: lengths that are not positive, or a longest one below twice the shortest.
    """
    if not 0 < 2 * shortest_s <= longest_s:
        raise UsageError(
            f"energy segments of {shortest_s} to {longest_s} s: expected the longest to be at least twice the shortest"
        )
    power_f = frame_power(clip)
    level_f = decibels(power_f)
    smooth_f = np.convolve(power_f, np.ones(_SMOOTHED_FRAMES) / _SMOOTHED_FRAMES, mode="same")
    # The outermost frames speak for the recording's ends as well.
    edges_s = [0.0, *frame_edges_s(clip)[0][1:].tolist(), clip.duration_s]
    active = np.flatnonzero(level_f > active_db(level_f))
    shortest, longest, gap = (round(length_s / HOP_S) for length_s in (shortest_s, longest_s, MERGE_S))
    spans = [
        (edges_s[first], edges_s[last])
        for run in (np.split(active, np.flatnonzero(np.diff(active) > gap) + 1) if active.size else ())
        for first, last in _cut(smooth_f, int(run[0]), int(run[-1]) + 1, shortest, longest)
        if last - first >= shortest
    ]
    if not spans:
        raise PlayerError("nothing in the recording is louder than its floor for long enough; cut it into windows")
    return _named("energy", spans, clip)


def _cut(
    power_f: Float[np.ndarray, "F"], first: int, last: int, shortest: int, longest: int
) -> Iterator[tuple[int, int]]:
    if last - first <= longest:
        yield first, last
        return
    middle = first + shortest + int(np.argmin(power_f[first + shortest : last - shortest + 1]))
    yield from _cut(power_f, first, middle, shortest, longest)
    yield from _cut(power_f, middle, last, shortest, longest)


def _named(kind: str, spans: list[tuple[float, float]], clip: Clip) -> Players:
    name = "segment" if kind == "energy" else kind
    named = (Player(f"{name} {number}", kind, *span_s) for number, span_s in enumerate(spans, start=1))
    return Players(tuple(named), clip.wave_s.size, clip.rate_hz)
