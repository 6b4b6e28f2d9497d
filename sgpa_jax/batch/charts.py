"""The charts of a data set's page, drawn in SVG that stretches; what is read stands beside them as text."""

import html
from collections.abc import Sequence

from sgpa_jax.batch.survey import GAP_DECADES, N_TENTHS, Survey

_MOST_COLUMNS = 24


def charts(found: Survey) -> str:
    """Return the section of all charts that there is something to draw in."""
    drawn = [_positions(found), _player_counts(found), _gaps(found)]
    return f'<section class="charts">{"".join(chart for chart in drawn if chart)}</section>' if any(drawn) else ""


def _positions(found: Survey) -> str:
    quartiles = found.position_quartiles()
    if not any(quartiles):
        return ""
    top = 1.08 * max(1.0, *(known[2] for known in quartiles if known))
    shapes = [f'<line class="even" x1="0" x2="100" y1="{100 - 100 / top:.2f}" y2="{100 - 100 / top:.2f}"/>']
    step = 100 / N_TENTHS
    for tenth, known in enumerate(quartiles):
        if known:
            low, middle, high = (100 - 100 * value / top for value in known)
            left, right = step * (tenth + 0.1), step * (tenth + 0.9)
            shapes.append(
                f'<rect class="box" x="{left:.2f}" y="{high:.2f}" width="{0.8 * step:.2f}" height="{low - high:.2f}"/>'
                f'<line class="middle" x1="{left:.2f}" x2="{right:.2f}" y1="{middle:.2f}" y2="{middle:.2f}"/>'
            )
    told = ", ".join(f"{known[1]:.1f}" if known else "none" for known in quartiles)
    return _chart(
        "Where in the utterance",
        "Size of a value as a multiple of the utterance's mean, by tenths of the utterance: median and middle half. "
        "The dashed line is an even share.",
        f"Medians from the first tenth to the last: {told}",
        "".join(shapes),
        (f"{top:.1f}×", "0"),
        ("first words", "last words"),
    )


def _player_counts(found: Survey) -> str:
    first, last = min(found.players, default=0), max(found.players, default=0)
    if first == last:
        return ""
    width = -(-(last - first + 1) // _MOST_COLUMNS)
    counts = [sum(found.players[n] for n in range(start, start + width)) for start in range(first, last + 1, width)]
    last = first + width * len(counts) - 1
    return _chart(
        "Players of an item",
        f"How many items have so many players{f', {width} numbers to a column' if width > 1 else ''}.",
        f"From {first} to {last} players: {', '.join(map(str, counts))} items",
        _columns(counts),
        (f"{max(counts):,}", "0"),
        (str(first), str(last)),
    )


def _gaps(found: Survey) -> str:
    classes = found.gaps.nonzero()[0]
    if len(classes) < 2:
        return ""
    first, last = int(classes[0]), int(classes[-1])
    counts = found.gaps[first : last + 1].tolist()
    ends = (_gap_class(first), _gap_class(last))
    return _chart(
        "Efficiency gaps",
        "How far the values' sum is from what there was to share, by powers of ten: how many items.",
        f"From {ends[0]} to {ends[1]}: {', '.join(map(str, counts))} items",
        _columns(counts),
        (f"{max(counts):,}", "0"),
        ends,
    )


def _chart(title: str, about: str, told: str, shapes: str, high: Sequence[str], along: Sequence[str]) -> str:
    marks, places = ("".join(f"<span>{html.escape(text)}</span>" for text in texts) for texts in (high, along))
    return (
        f'<section><h2>{title}</h2><p class="quiet">{html.escape(about)}</p>'
        f'<div class="chart" role="img" aria-label="{html.escape(told)}"><div class="high">{marks}</div>'
        f'<svg viewBox="0 0 100 100" preserveAspectRatio="none" aria-hidden="true">{shapes}</svg>'
        f'<div class="along">{places}</div></div></section>'
    )


def _columns(counts: Sequence[int]) -> str:
    step, most = 100 / len(counts), max(counts)
    return "".join(
        f'<rect class="column" x="{step * (place + 0.05):.2f}" y="{100 - 100 * count / most:.2f}" '
        f'width="{0.9 * step:.2f}" height="{100 * count / most:.2f}"/>'
        for place, count in enumerate(counts)
        if count
    )


def _gap_class(place: int) -> str:
    """Say which gaps are counted in a class."""
    end = ("below", GAP_DECADES[place]) if place < len(GAP_DECADES) else ("above", GAP_DECADES[-1])
    return f"{end[0]} 10{_raised(end[1])}"


def _raised(power: int) -> str:
    return str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
