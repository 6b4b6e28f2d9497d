"""Manifests of rows, CSV or JSON lines: read from start to end, or a row again by where it lies in the file.

A file that cannot be read at all is refused. A row that is damaged is told by itself, so that the others can be used.
"""

import codecs
import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from sgpa_jax.errors import UsageError

_LONGEST_LINE = 2**26


class Place(NamedTuple):
    """Where a row is: its number, from 1, and its bytes, half-open."""

    number: int
    start: int
    end: int


class RowFile:
    """A manifest, `.csv` with a header or else JSON lines, in UTF-8; nothing of it is held but the header.

    Attributes:
        path: the file.
        columns: the names in the header; None of JSON lines, where every row has its own.

    Raises:
        UsageError: the file cannot be read, is not in UTF-8, or its header names a column twice.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.columns: tuple[str, ...] | None = None
        with self._opened() as file:
            beginning = file.read(3)
            if beginning[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
                raise UsageError(f"the manifest {self.path} is in UTF-16; save it in UTF-8")
            self._start = 3 if beginning == codecs.BOM_UTF8 else 0
            if self.path.suffix.lower() == ".csv":
                header, self._start = next(self._records(file), ([], self._start))
                self.columns = tuple(name.strip() for name in header)
        names = self.columns or ()
        if twice := {name for name in names if names.count(name) > 1}:
            raise UsageError(f"the manifest {self.path} has the column {min(twice)!r} more than once; leave one")

    def scan(self) -> Iterator[tuple[Place, dict[str, Any] | UsageError]]:
        """Give every row, or what is wrong with it, and where it is; empty lines are none.

        Raises:
            UsageError: the file cannot be read, or from some row on it is not what it should be.
        """
        with self._opened() as file:
            start, number = self._start, 0
            for record, end in self._lines(file) if self.columns is None else self._records(file):
                # A line of JSON is text still, and a record of CSV its cells.
                if record.strip() if isinstance(record, bytes) else record:
                    number += 1
                    place = Place(number, start, end)
                    yield place, self._parsed(record, place)
                start = end

    def at(self, place: Place) -> dict[str, Any]:
        """Return the row at a place that `scan` gave; any number of threads may ask.

        Raises:
            UsageError: the row is damaged, or the file cannot be read any more.
        """
        with self._opened() as file:
            file.seek(place.start)
            data = file.read(place.end - place.start)
        record: bytes | list[str] = data
        if self.columns is not None:
            # A file that was changed meanwhile may have anything there.
            try:
                record = next(csv.reader(io.StringIO(_text(data), newline=""), strict=True), [])
            except csv.Error as error:
                raise self._damaged(place.number, error) from error
        row = self._parsed(record, place)
        if isinstance(row, UsageError):
            raise row
        return row

    def _opened(self) -> BinaryIO:
        try:
            return self.path.open("rb")
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UsageError(f"cannot read the manifest {self.path}: {reason}; check the path") from error

    def _lines(self, file: BinaryIO) -> Iterator[tuple[bytes, int]]:
        """Give each line from the first on, and where it ends."""
        end = self._start
        file.seek(end)
        try:
            while line := file.readline(_LONGEST_LINE):
                if len(line) == _LONGEST_LINE:
                    raise UsageError(f"the manifest {self.path} has a line of more than {_LONGEST_LINE >> 20} MiB")
                end += len(line)
                yield line, end
        except OSError as error:
            raise UsageError(f"cannot read the manifest {self.path}: {error.strerror}; check the path") from error

    def _records(self, file: BinaryIO) -> Iterator[tuple[list[str], int]]:
        """Give the cells of each record, which may go over several lines, and where it ends."""
        # The first record of all is the header, which is no row.
        number, end = -1 if self.columns is None else 0, self._start

        def lines() -> Iterator[str]:
            nonlocal end
            for line, ends in self._lines(file):
                end = ends
                yield _text(line)

        reader = csv.reader(lines(), strict=True)
        try:
            for cells in reader:
                number += 1
                yield cells, end
        except csv.Error as error:
            raise self._damaged(number + 1, error) from error

    def _damaged(self, number: int, error: csv.Error) -> UsageError:
        return UsageError(
            f"the manifest {self.path} is no CSV from row {number} on ({error}): expected cells of at most "
            f"{csv.field_size_limit():,} characters, and every quote closed"
        )

    def _parsed(self, record: bytes | Sequence[str], place: Place) -> dict[str, Any] | UsageError:
        name = f"row {place.number} of the manifest {self.path}"
        try:
            row, suspect = _json(record) if isinstance(record, bytes) else self._cells(record)
            wrong = next(filter(None, map(_wrong_text, _texts(row))), None) if suspect else None
        except (ValueError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else error
            kind = "JSON lines" if self.columns is None else "CSV"
            return UsageError(f"{name} is no {kind} ({reason}); write it again")
        if not isinstance(row, dict):
            return UsageError(f"{name} is {str(row)[:40]!r}: expected an object with names and values")
        return row if wrong is None else UsageError(f"{name} {wrong}")

    def _cells(self, cells: Sequence[str]) -> tuple[dict[str, str], bool]:
        """Name the cells of a record; the flag is that of `_json`."""
        columns = self.columns or ()
        if len(cells) > len(columns):
            raise ValueError(
                f"{len(cells)} cells under a header of {len(columns)}: texts with commas in them need quotes"
            )
        joined = "".join(cells)
        return dict(zip(columns, cells, strict=False)), "\0" in joined or not joined.isascii()


def read_rows(path: str | Path) -> list[dict[str, Any]]:
    """Return all rows of a manifest.

    Raises:
        UsageError: the file cannot be read, a row is damaged, or there is none.
    """
    rows = []
    for _, row in RowFile(path).scan():
        if isinstance(row, UsageError):
            raise row
        rows.append(row)
    if not rows:
        raise UsageError(f"the manifest {path} has no rows; give at least one recording")
    return rows


def _text(line: bytes) -> str:
    # Bytes of another encoding are kept apart, for the row alone to be refused.
    return line.decode("utf-8", "surrogateescape")


def _json(line: bytes) -> tuple[Any, bool]:
    """Parse a line; the flag tells whether a text in it may hold what no text should."""
    return json.loads(line.decode("utf-8")), b"\\u" in line


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for pair in value.items():
            yield from _texts(pair)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _texts(part)


def _wrong_text(text: str) -> str | None:
    if "\0" in text:
        return "holds a NUL character; write it without"
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        return "holds what is no character of UTF-8; save the manifest in UTF-8"
    return None
