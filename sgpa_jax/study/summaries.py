"""Shares, means and their like over the records of a study, for its tables and figures."""

import math
from collections.abc import Iterable

import numpy as np

from sgpa_jax.study.records import Measure, Record, numbers

SPOKEN, HIDDEN = "logprob/silence", "logprob/attention"
"""The study's own game, its absent players silent; and that which native tokens play as well, where they are hidden."""

_Z_95 = 1.959964


def grouped(records: Iterable[Record]) -> dict[str, list[Record]]:
    """Return the records of each subject."""
    found: dict[str, list[Record]] = {}
    for record in records:
        found.setdefault(record.subject, []).append(record)
    return found


def of(records: Iterable[Record], kind: Measure, name: str, *, players: str | None = None) -> dict[str, float]:
    """Numbers of a measure that stands where another one stands."""
    return numbers(records, kind.table, name, players=players or kind.players, value=kind.value, setting=kind.setting)


def mean(each: Iterable[float]) -> float | None:
    """Return the mean; None of nothing."""
    listed = list(each)
    return float(np.mean(listed)) if listed else None


def median(each: Iterable[float]) -> float | None:
    """Return the median; None of nothing."""
    return quantile(each, 0.5)


def quantile(each: Iterable[float], share: float) -> float | None:
    """Return a quantile; None of nothing."""
    listed = list(each)
    return float(np.quantile(listed, share)) if listed else None


def wilson(hits: float, n: int) -> tuple[float | None, float | None]:
    """Return the 95 % score interval of a share (Wilson 1927)."""
    if n == 0:
        return None, None
    share, z2 = hits / n, _Z_95**2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z_95 * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return max(0.0, middle - half), min(1.0, middle + half)
