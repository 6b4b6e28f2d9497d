"""What an item gave, kept in one file an item and subject, so that a study that was stopped goes on where it was.

A subject is a model, or `ALIGNMENT` for what needs none. Everything that tables are made of is in the records: numbers
under names (`Measure`), attributions of one cut into players (`Attribution`), and curves.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import quote

from sgpa_jax.errors import UsageError
from sgpa_jax.files import atomic_write

ALIGNMENT = "alignment"
"""The subject of what is measured without a language model."""


@dataclass(frozen=True)
class Measure:
    """One number about an item; None where it could not be had, with the record telling of how many it could.

    Attributes:
        table: which table it is for, such as "concentration".
        name: what is measured, such as "gini".
        number: the number.
        players: the cut into players that it is about, such as "words".
        value: the value function that it is about, or that judges.
        setting: whatever else tells it apart, such as an absence, a distance or an edge's kind.
    """

    table: str
    name: str
    number: float | None
    players: str = ""
    value: str = ""
    setting: str = ""


@dataclass(frozen=True)
class Attribution:
    """The values of one game on one cut into players.

    Attributes:
        players: the cut's name.
        value: the value function.
        absence: how players are absent.
        labels, spans_s: of the players, in the order of time.
        values: φ of each.
        standard_errors: of each, zero where exact.
        empty_value, full_value: v(∅) and v(N).
        estimator: its name; "exact" where all coalitions were evaluated.
        requested, unique, forwards: evaluations, as `Evaluations` counts them.
        seconds: wall time of the evaluations, compilation apart where it could be kept apart.
    """

    players: str
    value: str
    absence: str
    labels: tuple[str, ...]
    spans_s: tuple[tuple[float, float], ...]
    values: tuple[float, ...]
    standard_errors: tuple[float, ...]
    empty_value: float
    full_value: float
    estimator: str
    requested: int
    unique: int
    forwards: int
    seconds: float


@dataclass(frozen=True)
class Record:
    """All that one item gave under one subject.

    Attributes:
        item: its id.
        subject: a model's name, or `ALIGNMENT`.
        key: digest of everything that the numbers depend on; a record of another key is made again.
        condition, category, voice: the item's.
        error: why there is nothing, in one sentence; None where all went well.
        facts: what else is known, such as the answer that was given.
        measures, attributions: see there.
        curves: float lists by name.
        seconds: wall time of all of it.
    """

    item: str
    subject: str
    key: str
    condition: str = ""
    category: str = ""
    voice: str = ""
    error: str | None = None
    facts: dict[str, str | float | int | bool | None] = field(default_factory=dict)
    measures: tuple[Measure, ...] = ()
    attributions: tuple[Attribution, ...] = ()
    curves: dict[str, tuple[float, ...]] = field(default_factory=dict)
    seconds: float = 0.0


class RecordFolder:
    """The records of a study, `<folder>/<subject>/<item>.json`, each written whole or not at all."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def path(self, subject: str, item: str) -> Path:
        """Where a record is, or would be."""
        return self.folder / quote(subject, safe="") / f"{quote(item, safe='')}.json"

    def load(self, subject: str, item: str, key: str) -> Record | None:
        """Return a record; None where there is none of this key, whatever else is in its place."""
        try:
            told = json.loads(self.path(subject, item).read_text(encoding="utf-8"))
            record = _record(told)
        except (FileNotFoundError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
            return None
        except OSError as error:
            raise UsageError(f"cannot read {self.path(subject, item)}: {error.strerror}; check the folder") from error
        return record if (record.key, record.item, record.subject) == (key, item, subject) else None

    def save(self, record: Record) -> None:
        """Write a record.

        Raises:
            UsageError: the folder cannot be written to.
        """
        text = json.dumps(asdict(record), ensure_ascii=False, allow_nan=False)
        atomic_write(self.path(record.subject, record.item), text + "\n")


def numbers(
    records: Iterable[Record], table: str, name: str, *, players: str = "", value: str = "", setting: str = ""
) -> dict[str, float]:
    """Return the number of every item that has it, in the order of the records."""
    wanted = (table, name, players, value, setting)
    return {
        record.item: measure.number
        for record in records
        for measure in record.measures
        if (measure.table, measure.name, measure.players, measure.value, measure.setting) == wanted
        and measure.number is not None
    }


def settings(records: Sequence[Record], table: str) -> Iterator[Measure]:
    """Yield one measure of each kind that the records have for a table, in the order of their first appearance."""
    seen = set()
    for record in records:
        for measure in record.measures:
            kind = (measure.name, measure.players, measure.value, measure.setting)
            if measure.table == table and kind not in seen:
                seen.add(kind)
                yield measure


def _record(told: dict) -> Record:
    measures = tuple(Measure(**row) for row in told.pop("measures"))
    attributions = tuple(_attribution(row) for row in told.pop("attributions"))
    curves = {name: tuple(curve) for name, curve in told.pop("curves").items()}
    return Record(**told, measures=measures, attributions=attributions, curves=curves)


def _attribution(row: dict) -> Attribution:
    spans_s = tuple((start_s, end_s) for start_s, end_s in row.pop("spans_s"))
    labels, values, errors = (tuple(row.pop(name)) for name in ("labels", "values", "standard_errors"))
    return Attribution(**row, labels=labels, spans_s=spans_s, values=values, standard_errors=errors)
