"""A table of a study: its rows as Markdown, CSV and JSON, every number with its n."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sgpa_jax.files import to_cell

Cell = str | int | float | bool | None


@dataclass(frozen=True)
class Table:
    """Rows under columns.

    Attributes:
        name: of its files, such as "concentration".
        title: one line.
        note: what its numbers are, for whoever reads only this table.
        columns: names in order; a unit stands in the name, as in `median_ms`.
        rows: a mapping from column to cell; what a row lacks stays empty.
    """

    name: str
    title: str
    note: str
    columns: tuple[str, ...]
    rows: tuple[Mapping[str, Cell], ...]

    def markdown(self) -> str:
        """Return the title, the note, and the rows as Markdown."""
        lines = [
            f"## {self.title}",
            "",
            self.note,
            "",
            f"| {' | '.join(self.columns)} |",
            f"|{'|'.join('---' for _ in self.columns)}|",
        ]
        lines += [f"| {' | '.join(_escaped(shown(row.get(name))) for name in self.columns)} |" for row in self.rows]
        return "\n".join(lines) + "\n"

    def csv(self) -> str:
        """Return the rows with a header, numbers in full."""
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, self.columns, lineterminator="\n")
        writer.writeheader()
        for row in self.rows:
            cells = ((name, row.get(name)) for name in self.columns)
            writer.writerow(
                {name: to_cell(cell.replace("\r", " ")) if isinstance(cell, str) else cell for name, cell in cells}
            )
        return buffer.getvalue()

    def facts(self) -> dict[str, Any]:
        """Return the table as JSON holds it: numbers that are not finite become None."""
        rows = [{name: _finite(row.get(name)) for name in self.columns} for row in self.rows]
        return {"name": self.name, "title": self.title, "note": self.note, "columns": self.columns, "rows": rows}


def as_json(tables: Sequence[Table], about: Mapping[str, Any]) -> str:
    """Return several tables, and what they were made from, as one JSON text."""
    told = {**about, "tables": [table.facts() for table in tables]}
    return json.dumps(told, ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def shown(cell: Cell) -> str:
    """Return a cell for readers: four digits that matter, and a dash for what there is not."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return "–"
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if not isinstance(cell, float):
        return str(cell)
    if math.isinf(cell):
        return "∞" if cell > 0 else "−∞"
    size = abs(cell)
    text = f"{cell:.1e}" if 0 < size < 1e-3 else f"{cell:.0f}" if size >= 1000 else f"{cell:.{_decimals(size)}f}"
    return text.replace("-", "−")


def _decimals(size: float) -> int:
    return 1 if size >= 100 else 2 if size >= 10 else 3


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _finite(cell: Cell) -> Cell:
    return None if isinstance(cell, float) and not math.isfinite(cell) else cell
