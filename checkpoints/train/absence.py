"""Take words out of a synthesised utterance as an explanation's coalitions do: ``silence``, ``delete`` or ``noise``.

The pocket model is trained on such waves, so that a recording with words missing is nothing new to it. A coalition cuts
at the edges an aligner found, which are shared by neighbouring words and a little off; so are the edges drawn here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from .speech import RATE_HZ, Span, Utterance

MODES = ("none", "silence", "delete", "noise")

_JITTER_S = 0.025
_SHARED_GAP_S = 0.15
_FLOOR_FRAME = 320
_FLOOR_PERCENTILE = 10
_SHORTEST = RATE_HZ // 4


def take_out(
    utterance: Utterance, absent: Sequence[bool], *, sound_absent: bool, mode: str, rng: np.random.Generator
) -> Utterance:
    """The utterance without the words marked in ``absent`` (and without its sounds, if ``sound_absent``).

    The spans are those of the new wave: a deleted word has an (almost) empty span at the place of the cut, and what
    follows comes earlier. Phones are dropped. ``mode`` is one of ``MODES``; "none" returns the utterance as it is.
    """
    if mode == "none" or not (any(absent) or sound_absent):
        return utterance
    segments = [edge for edge, gone in zip(_cuts(utterance.words, rng), absent, strict=True) if gone]
    if sound_absent:
        segments += [(s.start_s + rng.uniform(-1, 1) * _JITTER_S, s.end_s + _JITTER_S) for s in utterance.sounds]
    gone_s = np.zeros(len(utterance.wave_s), bool)
    for start_s, end_s in segments:
        gone_s[max(round(start_s * RATE_HZ), 0) : max(round(end_s * RATE_HZ), 0)] = True
    if mode == "delete":
        return _deleted(utterance, gone_s)
    fill = 0.0 if mode == "silence" else _floor(utterance.wave_s) * rng.standard_normal(len(gone_s))
    return replace(utterance, wave_s=np.where(gone_s, fill, utterance.wave_s).astype(np.float32), phones=())


def _cuts(words: Sequence[Span], rng: np.random.Generator) -> list[tuple[float, float]]:
    """The word segments an aligner could have found: neighbours share one edge unless a pause parts them."""
    cuts = [[word.start_s, word.end_s] for word in words]
    for (left, right), (word, after) in zip(pairwise(cuts), pairwise(words), strict=True):
        if after.start_s - word.end_s < _SHARED_GAP_S:
            left[1] = right[0] = rng.uniform(min(word.end_s, after.start_s), after.start_s) + _jitter(rng, word, after)
        else:
            left[1] += _jitter(rng, word)
            right[0] += _jitter(rng, after)
    if cuts:
        cuts[0][0] += _jitter(rng, words[0])
        cuts[-1][1] += _jitter(rng, words[-1])
    return [(start_s, end_s) for start_s, end_s in cuts]


def _jitter(rng: np.random.Generator, *words: Span) -> float:
    # Short words keep most of their length.
    largest_s = min(_JITTER_S, *(0.3 * (word.end_s - word.start_s) for word in words))
    return rng.uniform(-largest_s, largest_s)


def _deleted(utterance: Utterance, gone_s: np.ndarray) -> Utterance:
    moved = np.concatenate([[0], np.cumsum(~gone_s)])

    def move(span: Span) -> Span:
        start, end = (moved[min(max(round(t * RATE_HZ), 0), len(gone_s))] for t in (span.start_s, span.end_s))
        return Span(span.label, start / RATE_HZ, end / RATE_HZ)

    wave_s = utterance.wave_s[~gone_s]
    wave_s = np.pad(wave_s, (0, max(0, _SHORTEST - len(wave_s))))
    return Utterance(wave_s, tuple(map(move, utterance.words)), (), tuple(map(move, utterance.sounds)))


def _floor(wave_s: np.ndarray) -> float:
    """Root mean square of the quietest frames: the level of the recording's own background."""
    frames = wave_s[: len(wave_s) // _FLOOR_FRAME * _FLOOR_FRAME].reshape(-1, _FLOOR_FRAME)
    return float(np.percentile(np.sqrt(np.mean(np.square(frames), axis=1)), _FLOOR_PERCENTILE)) if len(frames) else 0.0
