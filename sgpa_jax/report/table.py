"""The terminal's report: the answer, a bar for every player, and how surely; colours where a terminal has them."""

import io

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from sgpa_jax.explain import Explanation
from sgpa_jax.report.facts import (
    absence,
    balance,
    certainty,
    direction,
    finding,
    has_text,
    notices,
    output_name,
    player_name,
    readable,
    span,
    uncertain,
    unit,
)
from sgpa_jax.report.fired import concept_table
from sgpa_jax.report.palette import LIGHT, scale_limit
from sgpa_jax.report.together import group_totals, strongest_interactions

_BAR_CELLS = 12
"""Of either side of zero."""


def table(explanation: Explanation) -> RenderableType:
    """Return what `rich` prints: the question and answer, the players with bars, what was computed and how surely."""
    x = explanation
    return Group(
        *[Text(f"! {notice}", style="bold") for notice in notices(x)],
        Text.assemble(
            (f"{readable(x.question)} " if x.question else "", "dim"), ("→ ", "dim"), (readable(x.response), "bold")
        ),
        Text(finding(x)),
        Padding(_players(x), (1, 0)),
        *[
            Padding(Text(f"{name}: {told}"), (0, 0, 1, 0))
            for name, told in (("Groups", group_totals(x)), ("Together", strongest_interactions(x)))
            if told
        ],
        *([Text("Concepts that the players fire"), Padding(concept_table(x), (0, 0, 1, 0))] if x.concepts else []),
        Text(
            f"{balance(x)}\n{certainty(x)}\nEfficiency gap {x.efficiency_gap[0]:+.1e}. An absent player: {absence(x)}",
            "dim",
        ),
    )


def plain_table(explanation: Explanation, width: int = 100) -> str:
    """Return the same as text without colours, `width` cells wide."""
    console = Console(file=io.StringIO(), width=width, color_system=None, force_terminal=False, legacy_windows=False)
    with console.capture() as capture:
        console.print(table(explanation))
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def _players(explanation: Explanation) -> Table:
    limit = scale_limit(explanation.values[:, 0])
    rows = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    rows.add_column("player" if has_text(explanation) else "heard", overflow="ellipsis", no_wrap=True, max_width=24)
    rows.add_column("when", style="dim", no_wrap=True)
    measure = unit(explanation)
    rows.add_column(
        Text(f"{output_name(explanation, 0)}{f', {measure}' if measure else ''}"), justify="right", no_wrap=True
    )
    rows.add_column(Text(f"{direction(explanation)[2] + ' →':>{2 * _BAR_CELLS + 1}}"), no_wrap=True)
    for p in range(len(explanation.players)):
        rows.add_row(
            Text(player_name(explanation, p)),
            Text(span(explanation, p)),
            Text(uncertain(explanation, p, 0)),
            _bar(float(explanation.values[p, 0]), limit),
        )
    return rows


def _bar(value: float, limit: float) -> Text:
    halves = round(abs(value) / limit * 2 * _BAR_CELLS)
    whole, half = divmod(halves, 2)
    if value < 0:
        left = ("▐" * half + "█" * whole).rjust(_BAR_CELLS)
        return Text.assemble((left, LIGHT.negative), ("│", "dim"))
    return Text.assemble(" " * _BAR_CELLS, ("│", "dim"), ("█" * whole + "▌" * half, LIGHT.positive))
