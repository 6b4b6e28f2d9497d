"""One self-contained page of a study: figures first, then every table. It asks no network and runs no script."""

import html
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from string import Template
from typing import Any

from sgpa_jax.report import base64_of, document
from sgpa_jax.study.table import Cell, Table, shown


def page(tables: Sequence[Table], figures: Mapping[str, tuple[str, bytes]], told: Mapping[str, Any]) -> str:
    """Return the page of tables and figures.

    Args:
        tables: in order.
        figures: name → (caption, PNG).
        told: what everything was made from.
    """
    folder = resources.files("sgpa_jax.study")
    template, style = (folder.joinpath(f"page.{kind}").read_text("utf-8") for kind in ("html", "css"))
    models = ", ".join(model["name"] for model in told["models"])
    body = Template(template).substitute(
        kicker=html.escape(f"{told['corpus']} · {told['items']} items · {models}"),
        contents="\n".join(_link(table) for table in tables),
        figures="\n".join(_figure(name, caption, png) for name, (caption, png) in figures.items()),
        tables="\n".join(_table(table) for table in tables),
        facts="\n".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(text)}</dd>" for name, text in _facts(told)),
    )
    return document(title="SGPA study", style=style, body=body)


def _link(table: Table) -> str:
    return f'<li><a href="#{table.name}">{html.escape(table.title)}</a></li>'


def _figure(name: str, caption: str, png: bytes) -> str:
    source = f"data:image/png;base64,{base64_of(png)}"
    words = html.escape(caption)
    return (
        f'<figure id="figure-{name}"><div class="scroller" tabindex="0"><img src="{source}" alt="{words}"></div>'
        f"<figcaption>{words}</figcaption></figure>"
    )


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in table.columns)
    body = "\n".join(f"<tr>{''.join(_cell(row.get(name)) for name in table.columns)}</tr>" for row in table.rows)
    return (
        f'<section id="{table.name}" aria-labelledby="{table.name}-title">\n'
        f'<h2 id="{table.name}-title">{html.escape(table.title)}</h2>\n<p class="quiet">{_prose(table.note)}</p>\n'
        f'<div class="scroller" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table>'
        "</div>\n</section>"
    )


def _prose(text: str) -> str:
    """Escape a note, whose names stand between backticks."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))


def _cell(cell: Cell) -> str:
    is_number = isinstance(cell, int | float) and not isinstance(cell, bool)
    opened = '<td class="number">' if is_number else "<td>"
    return f"{opened}{html.escape(shown(cell))}</td>"


def _facts(told: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        ("Command", told["command"]),
        (
            "Models",
            ", ".join(f"{model['name']} ({model['digest'][:12]}, {model['dtype']})" for model in told["models"]),
        ),
        ("Aligner", f"{told['aligner']['name']} ({told['aligner']['digest'][:12]})"),
        ("Settings", ", ".join(f"{name} {value}" for name, value in told["settings"].items())),
        ("Hardware", told["hardware"]),
        ("Software", ", ".join(f"{name} {version}" for name, version in told["versions"].items())),
    ]
