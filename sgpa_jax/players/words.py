"""Words and sounds as players: the words of an alignment, and whatever else is heard around them.

A sound is a stretch of at least 150 ms above the recording's noise floor and outside of the words; silence belongs to
nobody. The measures are relative to the recording, so that its gain changes nothing. Axes: `F` frames.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from sgpa_jax.audio import Clip
from sgpa_jax.players.levels import active_db, decibels, frame_edges_s, frame_power
from sgpa_jax.players.player import Player, Players

if TYPE_CHECKING:
    from sgpa_jax.align import Alignment

SHORTEST_S = 0.15
"""Anything shorter is no sound event."""

GUARD_S = 0.03
"""Kept free around words, because word edges are not perfect."""

MERGE_S = 0.2
"""Stretches with a shorter gap between them are one: ticks, steps, knocking."""

STEP_DB = 6.0
"""What follows a word directly and falls by this much without rising by it is the word's own decay, not a sound."""


def word_players(alignment: "Alignment", clip: Clip, *, sounds: bool = True) -> Players:
    """Return the words of `alignment` and, unless `sounds` is false, the sounds around them, ordered by time.

    Raises:
        PlayerError: there is neither a word nor a sound, or words are empty, overlap or lie outside of the clip.
    """
    words = [
        Player(word.text, "word", word.start_s, word.end_s, word.confidence, word.boundary_refined)
        for word in alignment.words
    ]
    events = sound_events(clip, [word.span_s for word in words]) if sounds else ()
    players = sorted([*words, *events], key=lambda player: player.span_s)
    return Players(tuple(players), clip.wave_s.size, clip.rate_hz)


def spoken_players(alignment: "Alignment", clip: Clip) -> Players:
    """Return the words of `alignment` alone, as SGPA's paper has them: sounds beside them belong to nobody.

    Where a word runs into the next one, as the authors' rules let it grow, the next one keeps the samples.

    Raises:
        PlayerError: nothing of a word is left.
    """
    next_s = [*(word.start_s for word in alignment.words[1:]), clip.duration_s]
    players = [
        Player(word.text, "word", word.start_s, min(word.end_s, limit_s), word.confidence, word.boundary_refined)
        for word, limit_s in zip(alignment.words, next_s, strict=True)
    ]
    return Players(tuple(players), clip.wave_s.size, clip.rate_hz)


def sound_events(clip: Clip, spans: Sequence[tuple[float, float]]) -> tuple[Player, ...]:
    """Return the sounds outside of `spans` (half-open, seconds; the words), ordered by time: "sound", "sound 2" …"""
    level_f = decibels(frame_power(clip))
    found = [stretch for gap in _gaps(spans, clip.duration_s) for stretch in _stretches(clip, level_f, *gap)]
    return tuple(
        Player("sound" if number == 1 else f"sound {number}", "sound", start_s, end_s)
        for number, (start_s, end_s) in enumerate(found, start=1)
    )


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
    clip: Clip, level_f: Float[np.ndarray, "F"], gap_start_s: float, gap_end_s: float
) -> Iterator[tuple[float, float]]:
    """Yield the loud stretches inside of one gap, in seconds."""
    start_f, end_f = frame_edges_s(clip)
    inside = np.flatnonzero((start_f >= gap_start_s) & (end_f <= gap_end_s))
    loud = inside[level_f[inside] > active_db(level_f)]
    breaks = np.flatnonzero(start_f[loud[1:]] - end_f[loud[:-1]] >= MERGE_S)
    for run in np.split(loud, breaks + 1) if loud.size else ():
        first, last = int(run[0]), int(run[-1])
        if gap_start_s > 0 and first <= inside[0] + 1:
            first = _after_decay(level_f, first, last)
        if first > last:
            continue
        # The outermost frames speak for the recording's ends as well.
        start_s = start_f[first] if first > 0 else gap_start_s
        end_s = end_f[last] if last < level_f.size - 1 else gap_end_s
        if end_s - start_s >= SHORTEST_S:
            yield float(start_s), float(end_s)


def _after_decay(level_f: Float[np.ndarray, "F"], first: int, last: int) -> int:
    """Return the frame at which a stretch that follows a word stops being the word's decay (`last + 1`: never)."""
    stretch_f = level_f[first : last + 1]
    lowest_f = np.minimum.accumulate(stretch_f)
    rises = np.flatnonzero(stretch_f >= lowest_f + STEP_DB)
    decay_f = stretch_f[: rises[0]] if rises.size else stretch_f
    quarter = max(1, decay_f.size // 4)
    if decay_f[:quarter].mean() - decay_f[-quarter:].mean() < STEP_DB:
        return first
    return first + (int(np.argmin(decay_f)) if rises.size else stretch_f.size)
