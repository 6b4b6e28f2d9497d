"""The picture: question and answer, the recording with its players tinted, and a bar with its error for every player.

Nothing here shows a window or touches pyplot's state: figures and axes are returned, and belong to the caller.
matplotlib is loaded on the first call. Axes: `S` samples, `F` frames.
"""

import io
import os
import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np

from sgpa_jax.errors import UsageError
from sgpa_jax.explain import Explanation
from sgpa_jax.files import atomic_write
from sgpa_jax.report.facts import (
    absence,
    balance,
    certainty,
    direction,
    finding,
    heard,
    notices,
    number,
    readable,
    short_name,
    unit,
)
from sgpa_jax.report.palette import LIGHT, colour, colours, ink, scale_limit
from sgpa_jax.report.spectrogram import spectrogram

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INK, _QUIET = "#1d1b19", "#655f57"
_DPI = 150
_WIDTH_IN, _LEFT_IN, _RIGHT_IN = 11.0, 0.7, 0.4
_WORD_POINTS, _VALUE_POINTS, _SMALL_POINTS = 11.0, 8.5, 8.5
_POINTS_PER_IN = 72
_LINE_IN = 0.5


def draw_figure(explanation: Explanation) -> "Figure":
    """Return a figure of `explanation`; what its recording looks like is left out where the samples are not at hand.

    Raises:
        UsageError: matplotlib is not installed.
    """
    x = explanation
    warned = textwrap.wrap("  ".join(notices(x)), 118)[:3]
    told = [balance(x), certainty(x), f"An absent player: {absence(x)}"]
    names_in = 1.0 if _crowded(x, _names(x), _WIDTH_IN - _LEFT_IN - _RIGHT_IN, _WORD_POINTS) else 0.4
    seen_in = 1.55 if x.wave is not None else 0.0
    bars_in = 0.3 + 1.7 + names_in if heard(x) else 0.0
    lines = _prompt_lines(x)
    prompt_in = 0.7 + _LINE_IN * len(lines) if lines else 0.0
    warned_in = 0.12 + 0.22 * len(warned) if warned else 0
    sheet = _Sheet(1.85 + warned_in + 1.0 + seen_in + bars_in + prompt_in + 0.95)
    for line in warned:
        sheet.write(line, size=9, color="white", backgroundcolor=_INK)
        sheet.skip(0.22)
    sheet.skip(0.12 if warned else 0)
    _title(x, sheet)
    _legend(x, sheet.axes(0.12, left_in=8.6, above_in=0.55, right_in=0.7))
    _tint(x, sheet.axes(0.98))
    if x.wave is not None:
        sheet.skip(0.05)
        _spectrogram(x, sheet.axes(1.5))
    if heard(x):
        sheet.skip(0.3)
        bars = sheet.axes(1.7)
        _bars(x, bars)
        _words(x, bars)
        sheet.skip(names_in)
    if lines:
        sheet.skip(0.3)
        sheet.write("In the prompt", size=_SMALL_POINTS, color=_QUIET)
        sheet.skip(0.25)
        _prompt(x, lines, sheet.axes(_LINE_IN * len(lines)))
        sheet.skip(0.15)
    sheet.skip(0.1)
    for line in told:
        sheet.write(_cut(line, 150), size=_SMALL_POINTS, color=_QUIET)
        sheet.skip(0.2)
    return sheet.figure


def draw_heat(explanation: Explanation, ax: "Axes") -> "Axes":
    """Draw the recording with its players tinted, and their words under it, onto `ax`, and return that."""
    _tint(explanation, ax)
    _words(explanation, ax)
    return ax


def save_picture(explanation: Explanation, path: str | os.PathLike[str]) -> None:
    """Write `draw_figure` to `path` as a PNG.

    Raises:
        UsageError: matplotlib is not installed, or the file cannot be written.
    """
    buffer = io.BytesIO()
    draw_figure(explanation).savefig(buffer, format="png", dpi=_DPI)
    atomic_write(path, buffer.getvalue())


class _Sheet:
    """A figure that is filled from the top, in inches."""

    def __init__(self, height_in: float) -> None:
        self.height_in, self.top_in = height_in, 0.35
        self.figure: Figure = _matplotlib("figure").Figure(figsize=(_WIDTH_IN, height_in), dpi=_DPI, facecolor="white")

    def skip(self, height_in: float) -> None:
        self.top_in += height_in

    def write(self, text: str, *, size: float, **style: Any) -> None:
        x, y = _LEFT_IN / _WIDTH_IN, 1 - self.top_in / self.height_in
        # A transcript may hold dollars, which are no formulas.
        self.figure.text(x, y, text, fontsize=size, va="top", parse_math=False, **style)

    def axes(
        self, height_in: float, *, left_in: float = _LEFT_IN, right_in: float = _RIGHT_IN, above_in: float | None = None
    ) -> "Axes":
        """Return axes under what is there already, or beside what ends `above_in` higher up, taking no room then."""
        top_in = self.top_in if above_in is None else self.top_in - above_in
        place = (left_in, self.height_in - top_in - height_in, _WIDTH_IN - left_in - right_in, height_in)
        self.top_in += height_in if above_in is None else 0
        return self.figure.add_axes(
            (place[0] / _WIDTH_IN, place[1] / self.height_in, place[2] / _WIDTH_IN, place[3] / self.height_in)
        )


def _title(explanation: Explanation, sheet: _Sheet) -> None:
    question, answer = readable(explanation.question), readable(explanation.response)
    sheet.write(_cut(question, 95), size=12, color=_QUIET)
    sheet.skip(0.3)
    sheet.write(_cut(answer, 90), size=26 if len(answer) <= 24 else 13, color=_INK, weight="bold")
    sheet.skip(0.65)
    sheet.write(_cut(finding(explanation), 95), size=11, color=_INK)
    sheet.skip(0.55)


def _tint(explanation: Explanation, ax: "Axes") -> None:
    limit = scale_limit(explanation.values)
    for p, edges_s in zip(heard(explanation), _edges_s(explanation), strict=True):
        ax.axvspan(*edges_s, color=colour(float(explanation.values[p, 0]), limit, LIGHT), linewidth=0)
        for edge_s in edges_s:
            ax.axvline(edge_s, color="white", linewidth=1)
    if explanation.wave is not None:
        times_s, low, high = _envelope(explanation.wave.wave_s, explanation.wave.rate_hz)
        ax.fill_between(times_s, low, high, color=_INK, linewidth=0.4)
        reach = float(np.abs(explanation.wave.wave_s).max()) or 1.0
        ax.set_ylim(-1.08 * reach, 1.08 * reach)
    ax.set_xlim(0, explanation.clip.duration_s)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(False)


def _spectrogram(explanation: Explanation, ax: "Axes") -> None:
    assert explanation.wave is not None
    level, top_hz = spectrogram(explanation.wave)
    extent = (0, explanation.wave.duration_s, 0, top_hz / 1000)
    shown = (level / 255) ** 1.6
    ax.imshow(shown, cmap="Greys", origin="lower", aspect="auto", extent=extent, interpolation="bilinear", vmax=1.1)
    for edge_s in _edges_s(explanation).ravel().tolist():
        ax.axvline(edge_s, color="white", linewidth=1)
    ax.set_xticks([])
    ax.set_yticks([0, round(top_hz / 1000)])
    ax.set_ylabel("kHz", color=_QUIET, fontsize=_SMALL_POINTS, labelpad=1)
    _quieten(ax)


def _bars(explanation: Explanation, ax: "Axes") -> None:
    rows = heard(explanation)
    values, errors = explanation.values[rows, 0], explanation.standard_errors[rows, 0]
    limit = scale_limit(explanation.values)
    starts, ends = _edges_s(explanation).T
    widths = ends - starts
    shades = [colour(float(value), limit, LIGHT) for value in values]
    ax.bar(starts, values, widths, align="edge", color=shades, edgecolor=_QUIET, linewidth=0.5)
    ax.axhline(0, color=_INK, linewidth=0.8)
    centres = starts + widths / 2
    if not explanation.is_exact:
        ax.errorbar(centres, values, errors, fmt="none", ecolor=_INK, elinewidth=1, capsize=2.5)
    low, high = min(float(np.min(values - errors)), 0.0), max(float(np.max(values + errors)), 0.0)
    texts = [number(float(value), limit) for value in values]
    turned = _crowded(explanation, texts, _width_in(ax), _VALUE_POINTS)
    room = (0.3 if turned else 0.16) * (high - low or 1.0)
    ax.set_ylim(low - (room if low < 0 else 0), high + room)
    ax.set_xlim(0, explanation.clip.duration_s)
    for text, centre, value, error in zip(texts, centres, values, errors, strict=True):
        above = value >= 0
        place = (centre, value + error if above else value - error)
        ax.annotate(
            text, place, xytext=(0, 3 if above else -3), textcoords="offset points", ha="center",
            va="bottom" if above else "top", fontsize=6 if turned else _VALUE_POINTS, color=_INK,
            rotation=90 if turned else 0,
        )  # fmt: skip
    ax.set_ylabel(unit(explanation) or "value", color=_QUIET, fontsize=_SMALL_POINTS)
    ax.locator_params(axis="y", nbins=4)
    _quieten(ax)


def _words(explanation: Explanation, ax: "Axes") -> None:
    names = _names(explanation)
    turned = _crowded(explanation, names, _width_in(ax), _WORD_POINTS)
    ax.set_xticks(_edges_s(explanation).mean(axis=1))
    for label in ax.set_xticklabels(names, fontsize=_WORD_POINTS - 2.5 if turned else _WORD_POINTS, color=_INK):
        label.set_parse_math(False)
        label.set_rotation(40 if turned else 0)
        label.set_horizontalalignment("right" if turned else "center")
        label.set_rotation_mode("anchor" if turned else "default")
    ax.tick_params(axis="x", length=0, pad=5)


def _legend(explanation: Explanation, ax: "Axes") -> None:
    limit = scale_limit(explanation.values)
    shades = [[int(shade[i : i + 2], 16) for i in (1, 3, 5)] for shade in colours(LIGHT)]
    ax.imshow([shades], aspect="auto", extent=(-limit, limit, 0, 1))
    ax.set_xticks([-limit, 0, limit], [number(-limit, limit), "0", number(limit, limit)])
    ax.set_yticks([])
    less, more, _ = direction(explanation)
    ax.set_title(f"{less}    answer    {more}", fontsize=_SMALL_POINTS, color=_QUIET, pad=4)
    _quieten(ax)


def _names(explanation: Explanation) -> list[str]:
    return [_cut(short_name(explanation, p), 18) for p in heard(explanation)]


def _edges_s(explanation: Explanation) -> np.ndarray:
    """When each player that is heard begins and ends, float64[N, 2]."""
    return np.array([explanation.players[p].span_s for p in heard(explanation)]).reshape(-1, 2)


def _prompt_lines(explanation: Explanation) -> list[list[tuple[int, float, float]]]:
    """Set the prompt's text in lines: who, how far from the left and how wide, in points."""
    room = (_WIDTH_IN - _LEFT_IN - _RIGHT_IN) * _POINTS_PER_IN
    lines: list[list[tuple[int, float, float]]] = []
    left = room
    for p in range(len(explanation.players)):
        if explanation.players[p].is_text:
            width = max(0.62 * _WORD_POINTS * len(_cut(short_name(explanation, p), 30)), 3.6 * _VALUE_POINTS) + 12
            if left + width > room:
                lines.append([])
                left = 0.0
            lines[-1].append((p, left, width))
            left += width + 4
    return lines


def _prompt(explanation: Explanation, lines: list[list[tuple[int, float, float]]], ax: "Axes") -> None:
    limit, line_points = scale_limit(explanation.values), _LINE_IN * _POINTS_PER_IN
    for row, line in enumerate(lines):
        for p, left, width in line:
            value, top = float(explanation.values[p, 0]), row * line_points
            shade = colour(value, limit, LIGHT)
            ax.add_patch(
                _matplotlib("patches").Rectangle((left, top), width, line_points - 5, color=shade, linewidth=0)
            )
            for text, below, size in (
                (_cut(short_name(explanation, p), 30), 0.3, _WORD_POINTS), (number(value, limit), 0.68, _VALUE_POINTS)
            ):  # fmt: skip
                ax.text(
                    left + width / 2, top + below * line_points, text, fontsize=size, color=ink(shade), ha="center",
                    va="center", parse_math=False,
                )  # fmt: skip
    ax.set_xlim(0, (_WIDTH_IN - _LEFT_IN - _RIGHT_IN) * _POINTS_PER_IN)
    ax.set_ylim(len(lines) * line_points, 0)
    ax.set_axis_off()


def _width_in(ax: "Axes") -> float:
    figure = ax.get_figure(root=True)
    assert figure is not None
    return ax.get_position().width * figure.get_size_inches()[0]


def _crowded(explanation: Explanation, texts: list[str], width_in: float, points: float) -> bool:
    points_per_s = width_in * _POINTS_PER_IN / explanation.clip.duration_s
    # A letter is about 0.6 of its height wide; a text may use its player's width and a little of the gaps around.
    return any(
        0.6 * points * len(text) > 1.05 * points_per_s * (end_s - start_s)
        for text, (start_s, end_s) in zip(texts, _edges_s(explanation).tolist(), strict=True)
    )


def _envelope(wave_s: np.ndarray, rate_hz: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    step = max(1, wave_s.size // 3000)
    starts = np.arange(0, wave_s.size, step)
    return starts / rate_hz, np.minimum.reduceat(wave_s, starts), np.maximum.reduceat(wave_s, starts)


def _quieten(ax: "Axes") -> None:
    ax.spines[:].set_visible(False)
    ax.tick_params(colors=_QUIET, labelsize=8.5, length=0)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _matplotlib(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(f"matplotlib.{name}")
    except ImportError as error:
        raise UsageError("a picture was asked for without matplotlib: pip install 'sgpa-jax[plot]'") from error
