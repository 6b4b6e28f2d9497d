"""Sound events: what is heard of a recording outside of its words.

A sound is a stretch of at least 150 ms that stands out from the recording's background (`evidence.py`); silence belongs
to nobody. All measures are relative to the recording, so that its gain changes nothing. Axes: `F` frames.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Float

from sgpa_jax.audio import Clip
from sgpa_jax.players.evidence import Evidence, evidence
from sgpa_jax.players.levels import BELOW_PEAK_DB, decibels
from sgpa_jax.players.player import Player

SHORTEST_S = 0.15
"""Anything shorter is no sound event."""

GUARD_S = 0.03
"""Kept free around words, because word edges are not perfect."""

MERGE_S = 0.2
"""Stretches with a shorter gap between them are one: ticks, steps, knocking."""

SURE_NATS = 80.0
"""A sound has at least one frame of this much evidence …"""

HEARD_NATS = 33.0
"""… and lasts over the frames around it that have this much. Both were chosen on training voices."""

SMEARED_FRAMES, SMEARED_DB = 3, 6.0
"""A frame so much below the loudest one within so many frames only overlaps the sound that is there."""

STEP_DB = 6.0
"""What follows a word directly and falls by this much without rising by it is the word's own decay, not a sound."""


def sound_events(clip: Clip, spans: Sequence[tuple[float, float]]) -> tuple[Player, ...]:
    """Return the sounds outside of `spans` (half-open, seconds; the words), ordered by time: "sound", "sound 2" …"""
    told = evidence(clip)
    heard_f = (told.nats_f >= HEARD_NATS) & (told.excess_f > _least_excess(told.excess_f))
    found = [stretch for gap in _gaps(spans, clip.duration_s) for stretch in _stretches(told, heard_f, *gap)]
    return tuple(
        Player("sound" if number == 1 else f"sound {number}", "sound", start_s, end_s)
        for number, (start_s, end_s) in enumerate(found, start=1)
    )


def _least_excess(excess_f: Float[np.ndarray, "F"]) -> Float[np.ndarray, "F"]:
    """Return what a frame's power above the background must exceed, so that sharp edges are not smeared by windows."""
    padded_f = np.pad(excess_f, SMEARED_FRAMES)
    loudest_f = np.lib.stride_tricks.sliding_window_view(padded_f, 2 * SMEARED_FRAMES + 1).max(axis=-1)
    return np.maximum(10 ** (-SMEARED_DB / 10) * loudest_f, 10 ** (-BELOW_PEAK_DB / 10))


def _gaps(spans: Sequence[tuple[float, float]], duration_s: float) -> Iterator[tuple[float, float]]:
    """Yield what the spans and the guards around them leave free."""
    at_s = 0.0
    for start_s, end_s in sorted(spans):
        if start_s - GUARD_S > at_s:
            yield at_s, start_s - GUARD_S
        at_s = max(at_s, end_s + GUARD_S)
    if duration_s > at_s:
        yield at_s, duration_s


def _stretches(
    told: Evidence, heard_f: Bool[np.ndarray, "F"], gap_start_s: float, gap_end_s: float
) -> Iterator[tuple[float, float]]:
    """Yield the stretches of sound inside of one gap, in seconds."""
    start_f, end_f = told.start_f, told.end_f
    inside = np.flatnonzero((start_f >= gap_start_s) & (end_f <= gap_end_s))
    heard = inside[heard_f[inside]]
    breaks = np.flatnonzero(start_f[heard[1:]] - end_f[heard[:-1]] >= MERGE_S)
    for run in np.split(heard, breaks + 1) if heard.size else ():
        first, last = int(run[0]), int(run[-1])
        if gap_start_s > 0 and first <= inside[0] + 1:
            first = _after_decay(decibels(told.power_f[first : last + 1]), first)
        if first > last or told.nats_f[first : last + 1].max() < SURE_NATS:
            continue
        # The outermost frames speak for the recording's ends as well.
        start_s = start_f[first] if first > 0 else gap_start_s
        end_s = end_f[last] if last < start_f.size - 1 else gap_end_s
        if end_s - start_s >= SHORTEST_S:
            yield float(start_s), float(end_s)


def _after_decay(stretch_f: Float[np.ndarray, "F"], first: int) -> int:
    """Return the frame at which a stretch of levels that follows a word, and begins at `first`, stops being its decay.

    Where it never does, that is the frame behind it.
    """
    lowest_f = np.minimum.accumulate(stretch_f)
    rises = np.flatnonzero(stretch_f >= lowest_f + STEP_DB)
    decay_f = stretch_f[: rises[0]] if rises.size else stretch_f
    quarter = max(1, decay_f.size // 4)
    if decay_f[:quarter].mean() - decay_f[-quarter:].mean() < STEP_DB:
        return first
    return first + (int(np.argmin(decay_f)) if rises.size else stretch_f.size)
