"""Clips from which events were taken, as coalitions take them: silence, a cut, or noise in their place.

What is left of an event counts as heard if it is half of it or more.
"""

from collections.abc import Set
from dataclasses import replace

import numpy as np

from sgpa_checkpoints.sound_world.clips import Event, SoundClip
from sgpa_checkpoints.sound_world.ontology import GENDERS, with_ancestors

MODES = ("silence", "delete", "noise")
_SHORTEST_S = 0.25


def without(clip: SoundClip, gone: Set[int], *, mode: str = "silence", seed: int = 0) -> SoundClip:
    """The clip without the time spans of some of its events, and without what cannot be heard then.

    Args:
        clip: whose events are taken.
        gone: their numbers.
        mode: one of `MODES`; what is behind a deleted span comes earlier.
        seed: of the noise.
    """
    rate_hz = clip.rate_hz
    kept_s = np.ones(len(clip.wave_s), bool)
    for number in gone:
        event = clip.events[number]
        kept_s[round(event.start_s * rate_hz) : round(event.end_s * rate_hz)] = False
    if mode == "delete":
        wave_s, moved = clip.wave_s[kept_s], np.concatenate([[0], np.cumsum(kept_s)])
        wave_s = np.pad(wave_s, (0, max(0, int(_SHORTEST_S * rate_hz) - len(wave_s))))
    else:
        moved = np.arange(len(kept_s) + 1)
        level = 0.0 if mode == "silence" else float(np.percentile(np.abs(clip.wave_s), 20))
        wave_s = np.where(kept_s, clip.wave_s, level * np.random.default_rng(seed).standard_normal(len(kept_s)))
    events = [_left(event, kept_s, moved, rate_hz) for event in clip.events]
    return among(replace(clip, wave_s=wave_s.astype(np.float32)), tuple(event for event in events if event is not None))


def among(clip: SoundClip, events: tuple[Event, ...]) -> SoundClip:
    """The clip as if only these events were heard in it; what its caption says stays as it was."""
    labels = {event.label for event in events}
    speaks = bool(labels & set(GENDERS.values()))
    return replace(clip, events=events, labels=with_ancestors(labels), voice=clip.voice if speaks else None)


def _left(event: Event, kept_s: np.ndarray, moved: np.ndarray, rate_hz: int) -> Event | None:
    first, last = round(event.start_s * rate_hz), round(event.end_s * rate_hz)
    left = np.flatnonzero(kept_s[first:last])
    if 2 * len(left) < last - first:
        return None
    first, last = first + left[0], first + left[-1] + 1
    return replace(event, start_s=float(moved[first]) / rate_hz, end_s=float(moved[last]) / rate_hz)
