"""Where rows come from as files: CSV and JSON lines, and folders of recordings with transcripts beside them.

Transcripts beside recordings are `x.txt` or `x.TextGrid` for `x.wav`, or lines "x WHAT IS SAID" in a `*.trans.txt` of
the same folder, as LibriSpeech has them.
"""

import os
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from sgpa_jax.audio import Place, RowFile
from sgpa_jax.batch.places import locate
from sgpa_jax.errors import UsageError

_RECORDINGS = frozenset((".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".aif", ".aiff", ".au", ".caf", ".w64"))
_LONGEST_TRANSCRIPT = 2**20
_LONGEST_CHAPTER = 2**26


class Source(Protocol):
    """Rows in order; nothing of a recording is read before it is asked for.

    Attributes:
        name: what errors call it.
        folder: from which paths start, and in which recordings lie.
    """

    name: str
    folder: Path

    @property
    def columns(self) -> tuple[str, ...] | None:
        """Of every row; None where each has its own."""
        ...

    def texts(self) -> Iterator[Mapping[str, Any] | UsageError]:
        """Give every row, or what is wrong with it, without recordings that are inside the data set."""
        ...

    def recordings(self) -> Iterator[Mapping[str, Any] | UsageError]:
        """Give every row again, with its recording, of which no more than the header need be read."""
        ...

    def at(self, index: int) -> Mapping[str, Any]:
        """Return a row with its recording; any number of threads may ask, after `texts` has come to its end.

        Raises:
            UsageError: the row is damaged.
        """
        ...


class TextRows:
    """The rows of a CSV or JSONL file, of which only their places are held."""

    def __init__(self, path: Path, limit: int | None = None):
        self.name = str(path)
        self.folder = path.parent
        self._file = RowFile(path)
        self._limit = limit
        self._bounds = array("q")
        self.columns = self._file.columns

    def texts(self) -> Iterator[Mapping[str, Any] | UsageError]:
        """Give every row."""
        bounds = array("q")
        for place, row in self._file.scan():
            if self._limit is not None and place.number > self._limit:
                break
            bounds.extend((place.start, place.end))
            yield row
        self._bounds = bounds

    def recordings(self) -> Iterator[Mapping[str, Any] | UsageError]:
        """Give every row again: the recordings are files, or arrays in the row."""
        return self.texts()

    def at(self, index: int) -> Mapping[str, Any]:
        """Return a row."""
        return self._file.at(Place(index + 1, self._bounds[2 * index], self._bounds[2 * index + 1]))


class AudioFolder:
    """Recordings in a folder and in those below it, in order of their names, called after their paths."""

    def __init__(self, folder: Path, limit: int | None = None, *, allow_outside: bool = False):
        self.name = str(folder)
        self.folder = folder
        self.columns = ("audio",)
        self._allow_outside = allow_outside
        self._paths = sorted(_recordings_below(folder))[:limit]
        if not self._paths:
            raise UsageError(
                f"the folder {folder} holds no recordings ({', '.join(sorted(_RECORDINGS))}); give one that does, or a "
                "manifest .csv, .jsonl or .parquet"
            )

    def texts(self) -> Iterator[Mapping[str, Any] | UsageError]:
        """Give every recording with what is said in it; the lines of a folder are read once."""
        where, lines = None, {}
        for path in self._paths:
            above = os.path.dirname(path)
            try:
                if above != where:
                    where, lines = above, self._lines_of(above)
                yield self._row(path, lines)
            except UsageError as error:
                yield error

    def recordings(self) -> Iterator[Mapping[str, Any] | UsageError]:
        """Give every path again."""
        return ({"audio": path} for path in self._paths)

    def at(self, index: int) -> Mapping[str, Any]:
        """Return a recording with what is said in it."""
        path = self._paths[index]
        return self._row(path, self._lines_of(os.path.dirname(path)))

    def _row(self, path: str, lines: Mapping[str, str]) -> dict[str, Any]:
        whole, stem = self.folder / path, os.path.splitext(path)[0]
        row = {"audio": path, "id": stem.replace(os.sep, "/"), "transcript": lines.get(whole.stem)}
        beside = whole.with_suffix(".txt")
        if row["transcript"] is None and beside.is_file():
            row["transcript"] = self._read(f"{stem}.txt", _LONGEST_TRANSCRIPT)
        if whole.with_suffix(".TextGrid").is_file():
            row["alignment"] = f"{stem}.TextGrid"
        return row

    def _lines_of(self, above: str) -> dict[str, str]:
        """What is said in each recording of a folder that has its transcripts together."""
        lines = {}
        for path in sorted((self.folder / above).glob("*.trans.txt")):
            for line in self._read(os.path.join(above, path.name), _LONGEST_CHAPTER).splitlines():
                stem, _, said = line.partition(" ")
                lines[stem] = said
        return lines

    def _read(self, name: str, longest: int) -> str:
        path = locate(name, self.folder, allow_outside=self._allow_outside)
        try:
            # A pipe that is called so would be waited for.
            if not path.is_file():
                raise UsageError(f"the transcript {path} is no file; remove it")
            with path.open("rb") as file:
                data = file.read(longest + 1)
        except OSError as error:
            raise UsageError(f"cannot read the transcript {path}: {error.strerror}; check the file") from error
        if len(data) > longest:
            raise UsageError(f"the transcript {path} has more than {longest >> 20} MiB; is this what is said?")
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise UsageError(f"the transcript {path} is not in UTF-8 ({error.reason}); save it so") from error


def _recordings_below(folder: Path) -> Iterator[str]:
    def refuse(error: OSError) -> None:
        raise UsageError(f"cannot read the folder {error.filename}: {error.strerror}; check its permissions") from error

    for here, below, files in os.walk(folder, onerror=refuse):
        below[:] = [name for name in below if not name.startswith(".")]
        above = os.path.relpath(here, folder)
        for name in files:
            if os.path.splitext(name)[1].lower() in _RECORDINGS and not name.startswith("."):
                yield name if above == os.curdir else os.path.join(above, name)
