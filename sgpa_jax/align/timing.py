"""Stage 4 (SGPA, section 3.4): spans of words become the words of an alignment, each of them inside of the clip.

Words that have no labels of their own get a share of the gap between their neighbours, by length.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sgpa_jax.align.alignment import Word
from sgpa_jax.errors import AlignmentError

SHORTEST_S = 0.05
"""No word is shorter, unless its neighbours leave no room."""


@dataclass(frozen=True)
class Span:
    """When a word is said: after and before refinement, its confidence, and whether both edges were refined."""

    start_s: float
    end_s: float
    ctc_start_s: float | None = None
    ctc_end_s: float | None = None
    confidence: float | None = None
    refined: bool = False


def timed_words(texts: Sequence[str], spans: Mapping[int, Span], duration_s: float) -> tuple[Word, ...]:
    """Return the words; those that `spans` lacks are placed between their neighbours.

    Raises:
        AlignmentError: there is no room between the neighbours.
    """
    return tuple(
        Word(text, span.start_s, span.end_s, span.ctc_start_s, span.ctc_end_s, span.confidence, span.refined)
        for text, span in zip(texts, interpolated(texts, spans, duration_s), strict=True)
    )


def interpolated(texts: Sequence[str], spans: Mapping[int, Span], duration_s: float) -> list[Span]:
    """Return a span for every text; a gap too narrow for those within is widened at its neighbours' cost.

    Raises:
        AlignmentError: the neighbours have nothing to give.
    """
    placed: list[Span | None] = [spans.get(number) for number in range(len(texts))]
    number = 0
    while number < len(texts):
        if placed[number] is None:
            end = next((later for later in range(number, len(texts)) if placed[later] is not None), len(texts))
            _fill(placed, range(number, end), texts, duration_s)
            number = end
        number += 1
    return [span for span in placed if span is not None]


def _fill(placed: list[Span | None], missing: range, texts: Sequence[str], duration_s: float) -> None:
    """Place the words `missing`, all others next to them being there."""
    before = placed[missing.start - 1] if missing.start else None
    after = placed[missing.stop] if missing.stop < len(placed) else None
    from_s = before.end_s if before else 0.0
    to_s = after.start_s if after else duration_s
    lacking_s = SHORTEST_S * len(missing) - (to_s - from_s)
    if lacking_s > 0:
        spare_before_s = max(0.0, before.end_s - before.start_s - SHORTEST_S) if before else 0.0
        spare_after_s = max(0.0, after.end_s - after.start_s - SHORTEST_S) if after else 0.0
        if spare_before_s + spare_after_s < lacking_s:
            raise AlignmentError(
                f"there is no room for {texts[missing.start]!r} between its neighbours: expected "
                f"{SHORTEST_S * 1000:.0f} ms; choose unspellable='merge'"
            )
        from_before_s = min(spare_before_s, max(lacking_s / 2, lacking_s - spare_after_s))
        from_s -= from_before_s
        to_s += lacking_s - from_before_s
        if before:
            placed[missing.start - 1] = replace(before, end_s=from_s)
        if after:
            placed[missing.stop] = replace(after, start_s=to_s)
    lengths = [len(texts[number]) for number in missing]
    shares = np.cumsum([0, *lengths]) / sum(lengths)
    edges_s = np.minimum(from_s + (to_s - from_s) * shares, to_s)
    for number, start_s, end_s in zip(missing, edges_s[:-1], edges_s[1:], strict=True):
        placed[number] = Span(float(start_s), float(end_s))
