"""Praat's TextGrid: interval tiers out of the long and the short text form, and one tier of words into the long one.

Praat itself reads nothing but free-standing numbers, quoted strings and flags, in order, and so do we: the names of the
long form ("xmin =", "intervals [3]:") are comments to both.
"""

import re
import reprlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sgpa_jax.errors import AlignmentError

_VALUE = re.compile(r'"((?:[^"]|"")*)"|<(exists|absent)>|(?<!\S)([-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)(?!\S)')


@dataclass(frozen=True)
class Tier:
    """A named sequence of (start_s, end_s, label)."""

    name: str
    intervals: tuple[tuple[float, float, str], ...]


def parse_textgrid(text: str) -> list[Tier]:
    """Return the interval tiers.

    Raises:
        AlignmentError: the text is not a TextGrid, or ends too early.
    """
    values = _values(text)
    try:
        if next(values) != "ooTextFile" or next(values) != "TextGrid":
            raise AlignmentError(
                "this is no TextGrid: expected Praat's text file type; save it as a text file in Praat"
            )
        _skip_times(values)
        n_tiers = _number(values) if next(values) is True else 0
        tiers: list[Tier | None] = []
        while len(tiers) < n_tiers:
            tiers.append(_tier(values))
        return [tier for tier in tiers if tier is not None]
    except StopIteration as error:
        raise AlignmentError(
            "the TextGrid ends too early: expected the tiers and intervals that it announces; save it again"
        ) from error


def format_textgrid(name: str, intervals: Sequence[tuple[float, float, str]], duration_s: float) -> str:
    """Return a long TextGrid of one tier; gaps become empty intervals, as Praat wants the whole time covered.

    Raises:
        AlignmentError: intervals overlap.
    """
    covered: list[tuple[float, float, str]] = []
    at_s = 0.0
    for start_s, end_s, label in intervals:
        if start_s < at_s:
            raise AlignmentError(
                f"{label!r} begins before the word before it ends, which a TextGrid cannot hold: choose json or csv"
            )
        if start_s > at_s:
            covered.append((at_s, start_s, ""))
        covered.append((start_s, end_s, label))
        at_s = end_s
    if at_s < duration_s:
        covered.append((at_s, duration_s, ""))
    lines = [
        'File type = "ooTextFile"', 'Object class = "TextGrid"', "",
        "xmin = 0", f"xmax = {duration_s!r}", "tiers? <exists>", "size = 1", "item []:", "    item [1]:",
        '        class = "IntervalTier"', f"        name = {_quoted(name)}", "        xmin = 0",
        f"        xmax = {duration_s!r}", f"        intervals: size = {len(covered)}",
    ]  # fmt: skip
    for number, (start_s, end_s, label) in enumerate(covered, start=1):
        lines += [
            f"        intervals [{number}]:",
            f"            xmin = {start_s!r}",
            f"            xmax = {end_s!r}",
            f"            text = {_quoted(label)}",
        ]
    return "\n".join(lines) + "\n"


def _values(text: str) -> Iterator[str | float | bool]:
    for match in _VALUE.finditer(text):
        string, flag, number = match.groups()
        if string is not None:
            yield string.replace('""', '"')
        elif flag is not None:
            yield flag == "exists"
        else:
            yield float(number)


def _number(values: Iterator[str | float | bool]) -> float:
    value = next(values)
    if not isinstance(value, float):
        raise AlignmentError(
            f"the TextGrid holds {reprlib.repr(value)} where a number is expected: save it again in Praat"
        )
    return value


def _skip_times(values: Iterator[str | float | bool]) -> None:
    """Skip the beginning and the end of the file or of a tier: its intervals tell them as well."""
    for _ in range(2):
        _number(values)


def _string(values: Iterator[str | float | bool]) -> str:
    value = next(values)
    if not isinstance(value, str):
        raise AlignmentError(
            f"the TextGrid holds {reprlib.repr(value)} where a text is expected: save it again in Praat"
        )
    return value


def _tier(values: Iterator[str | float | bool]) -> Tier | None:
    kind, name = _string(values), _string(values)
    _skip_times(values)
    size = _number(values)
    if kind == "IntervalTier":
        intervals = []
        while len(intervals) < size:
            intervals.append((_number(values), _number(values), _string(values)))
        return Tier(name, tuple(intervals))
    points = 0
    while points < size:
        _number(values)
        _string(values)
        points += 1
    return None


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'
