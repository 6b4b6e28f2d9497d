"""The figures of a study, from its records: what the tables say, to look at.

matplotlib is loaded when a figure is drawn.
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sgpa_jax.study.partitions import AUTHORS, CTC, NATIVE, RANDOM, TRUE, UNIFORM, WORDS
from sgpa_jax.study.records import Record, numbers
from sgpa_jax.study.summaries import HIDDEN, SPOKEN, wilson

_INK, _QUIET = "#1c1b19", "#8a867f"
# The poles of the reports' scale; here they mean no sign.
_BLUE, _ORANGE = "#4f94de", "#d97519"


def study_figures(by_model: Mapping[str, Sequence[Record]]) -> dict[str, tuple[str, bytes]]:
    """Return name → (what it shows, PNG) of every figure that the records have numbers for."""
    drawn = {
        "evidence": ("How often the evidence ranks first (hits), and the first player lies in it (points).", _evidence),
        "concentration": ("Gini coefficient of |φ| by cut, one dot an item; bars are means.", _concentration),
        "profiles": ("Share of Σ|φ| before each moment of the recording, mean over items.", _profiles),
        "faithfulness": ("Deletion area less that of random players as long: left of zero is faithful.", _deletion),
        "sensitivity": ("Rank correlation with the values of the words when something is changed.", _sensitivity),
    }
    figures = {}
    for name, (caption, draw) in drawn.items():
        png = _drawn(by_model, draw)
        if png is not None:
            figures[name] = (caption, png)
    return figures


def _drawn(by_model: Mapping[str, Sequence[Record]], draw: Any) -> bytes | None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6 * len(by_model), 3.4), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(by_model), squeeze=False)[0]
    shown = False
    for axes, (model, records) in zip(panels, by_model.items(), strict=True):
        shown = bool(draw(axes, records)) or shown
        axes.set_title(model, fontsize=11, color=_INK, loc="left")
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=9, colors=_INK)
    if not shown:
        return None
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=160, metadata={"Software": None})
    return buffer.getvalue()


def _evidence(axes: Any, records: Sequence[Record]) -> bool:
    names = [TRUE, WORDS, AUTHORS, CTC, RANDOM, UNIFORM, NATIVE]
    for row, name in enumerate(names):
        game = HIDDEN if name == NATIVE else SPOKEN
        for kind, offset, colour in (("hit", -0.15, _ORANGE), ("points", 0.15, _BLUE)):
            found = list(numbers(records, "evidence", kind, players=name, value=game).values())
            if found:
                low, high = wilson(sum(found), len(found))
                axes.plot([low, high], [row + offset] * 2, color=colour, linewidth=1.5)
                axes.plot(np.mean(found), row + offset, "o", color=colour, markersize=5)
                axes.text(1.03, row + offset, f"n={len(found)}", fontsize=6.5, color=_QUIET, va="center")
    axes.set_yticks(range(len(names)), names)
    axes.set_xlim(-0.02, 1.16)
    axes.set_xticks([0, 0.5, 1])
    axes.invert_yaxis()
    axes.set_xlabel("hits (orange), points (blue)", fontsize=9)
    return bool(numbers(records, "evidence", "hit", players=WORDS, value=SPOKEN))


def _concentration(axes: Any, records: Sequence[Record]) -> bool:
    shown = [(WORDS, SPOKEN), (RANDOM, SPOKEN), (UNIFORM, SPOKEN), (WORDS, HIDDEN), (NATIVE, HIDDEN)]
    spread = np.random.default_rng(0)
    for column, (name, game) in enumerate(shown):
        found = numbers(records, "concentration", "gini", players=name, value=game, setting="identity")
        gini_i = np.array([*found.values()])
        if gini_i.size:
            axes.plot(column + spread.uniform(-0.15, 0.15, gini_i.size), gini_i, ".", color=_BLUE, markersize=3)
            axes.plot([column - 0.25, column + 0.25], [gini_i.mean()] * 2, color=_ORANGE, linewidth=2)
    labels = [f"{name}\n{game.split('/')[1]}" for name, game in shown]
    axes.set_xticks(range(len(shown)), labels, fontsize=8)
    axes.set_ylim(0, 1)
    axes.set_ylabel("Gini", fontsize=9)
    return bool(numbers(records, "concentration", "gini", players=WORDS, value=SPOKEN, setting="identity"))


def _profiles(axes: Any, records: Sequence[Record]) -> bool:
    shown = (
        (WORDS, HIDDEN, _ORANGE, "-"),
        (NATIVE, HIDDEN, _BLUE, "-"),
        (WORDS, SPOKEN, _ORANGE, ":"),
        (RANDOM, SPOKEN, _QUIET, "--"),
    )
    drawn = False
    for name, game, colour, style in shown:
        curves = [r.curves[f"profile {name} {game}"] for r in records if f"profile {name} {game}" in r.curves]
        if curves:
            drawn = True
            mean_g = np.mean(curves, axis=0)
            label = f"{name}, {game.split('/')[1]} (n={len(curves)})"
            axes.plot(np.linspace(0, 1, len(mean_g)), mean_g, style, color=colour, label=label)
    if drawn:
        axes.legend(fontsize=7, frameon=False)
    axes.set_xlabel("part of the recording", fontsize=9)
    axes.set_ylabel("share of Σ|φ|", fontsize=9)
    return drawn


def _deletion(axes: Any, records: Sequence[Record]) -> bool:
    kinds = {(m.value, m.setting): None for r in records for m in r.measures if m.name == "deletion area"}
    spread = np.random.default_rng(0)
    for row, (value, judge) in enumerate(kinds):
        where = {"players": WORDS, "value": value, "setting": judge}
        ours = numbers(records, "faithfulness", "deletion area", **where)
        random = numbers(records, "faithfulness", "random deletion area", **where)
        gap_i = np.array([ours[item] - random[item] for item in ours if item in random])
        # Nats and cosines do not share an axis: each in units of its own spread.
        gap_i = gap_i / (gap_i.std() or 1.0)
        axes.plot(gap_i, row + spread.uniform(-0.2, 0.2, gap_i.size), ".", color=_BLUE, markersize=3)
        axes.plot([gap_i.mean()] * 2, [row - 0.3, row + 0.3], color=_ORANGE, linewidth=2)
    axes.axvline(0, color=_INK, linewidth=0.8)
    axes.set_yticks(range(len(kinds)), [f"{value}\nby {judge}" for value, judge in kinds], fontsize=6.5)
    axes.invert_yaxis()
    axes.set_xlabel("difference, in standard deviations", fontsize=9)
    return bool(kinds)


def _sensitivity(axes: Any, records: Sequence[Record]) -> bool:
    kinds = {m.setting: None for r in records for m in r.measures if m.table == "sensitivity"}
    rows = []
    for setting in kinds:
        found = [*numbers(records, "sensitivity", "Spearman's ρ", players=WORDS, setting=setting).values()]
        if found:
            rows.append((setting, found))
    if rows:
        axes.boxplot(
            [found for _, found in rows], orientation="horizontal", widths=0.6, showfliers=False, whis=(10, 90),
            medianprops={"color": _ORANGE, "linewidth": 2}, boxprops={"color": _BLUE}, whiskerprops={"color": _BLUE},
            capprops={"color": _BLUE},
        )  # fmt: skip
        labels = [f"{setting} (n={len(found)})" for setting, found in rows]
        axes.set_yticks(range(1, len(rows) + 1), labels, fontsize=6.5)
        axes.invert_yaxis()
    axes.set_xlabel("Spearman's ρ", fontsize=9)
    return bool(rows)
