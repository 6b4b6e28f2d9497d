"""Where rows come from as Arrow tables: Parquet files, folders of `datasets.save_to_disk`, and data sets of the hub.

Recordings inside them stay encoded, and where they are: `datasets` is never asked to decode one.
"""

import math
import os
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from sgpa_jax.batch.columns import AUDIO, KNOWN
from sgpa_jax.errors import UsageError, unknown_name

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

HUB = "hf:"
"""What the names of the hub's data sets begin with."""

_HUB_ID = re.compile(
    r"(?P<name>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(/(?P<config>[\w.-]+))?(@(?P<revision>[\w./-]+))?"
)
_TEXT_ROWS = 4096
_RECORDING_ROWS = 32
_PAGE = 2**20


class ParquetRows:
    """The rows of a Parquet file. Texts are held as its columns; recordings inside are read when they are asked for."""

    def __init__(self, path: Path, limit: int | None = None):
        self.name = str(path)
        self.folder = path.parent
        self._path = path
        parquet, self._errors = _parquet()
        try:
            with parquet.ParquetFile(path) as file:
                self.columns = tuple(file.schema_arrow.names)
                self._audio = _audio_column(self.columns)
                self._metadata = file.metadata
                groups = range(file.metadata.num_row_groups)
                self._ends = list(accumulate(file.metadata.row_group(group).num_rows for group in groups))
                batches = list(_limited(file.iter_batches(_TEXT_ROWS, columns=_leaves(file.schema_arrow)), limit))
        except self._errors as error:
            raise UsageError(f"the manifest {path} cannot be read as Parquet ({_line(error)})") from error
        self._texts = batches
        self._starts = [0, *accumulate(batch.num_rows for batch in batches)]

    def texts(self) -> Iterator[Mapping[str, Any] | UsageError]:
        """Give every row without recordings that are inside the file."""
        return (row for batch in self._texts for row in _rows(batch))

    def recordings(self) -> Iterator[Mapping[str, Any] | UsageError]:
        """Give the recording of every row, reading a few at a time."""
        given = 0
        try:
            for batch in self._read(range(len(self._ends))):
                for audio in batch.column(0):
                    if given == self._starts[-1]:
                        return
                    given += 1
                    yield {self._audio: _seen(audio)}
        except self._errors as error:
            raise UsageError(f"the manifest {self.name} cannot be read any more ({_line(error)})") from error

    def at(self, index: int) -> Mapping[str, Any]:
        """Return a row with its recording."""
        batch = bisect_right(self._starts, index) - 1
        row = _row(self._texts[batch].slice(index - self._starts[batch], 1), index, self.name)
        group = bisect_right(self._ends, index)
        behind = index - (self._ends[group - 1] if group else 0)
        try:
            for batch in self._read([group]):
                if behind < batch.num_rows:
                    return {**row, self._audio: _held(batch.column(0)[behind])}
                behind -= batch.num_rows
        except self._errors as error:
            raise UsageError(f"row {index + 1} of {self.name} cannot be read ({_line(error)})") from error
        raise UsageError(f"the manifest {self.name} was changed while it was read; start again")

    def _read(self, groups: Sequence[int]) -> Iterator["pa.RecordBatch"]:
        parquet, _ = _parquet()
        # A reader of its own for each who asks, since threads do not share one; and by pages, not by whole groups.
        with parquet.ParquetFile(self._path, metadata=self._metadata, pre_buffer=False, buffer_size=_PAGE) as file:
            yield from file.iter_batches(_RECORDING_ROWS, row_groups=groups, columns=[self._audio], use_threads=False)


class DatasetRows:
    """The rows of one split of a `datasets.Dataset`, which lies on the disk as Arrow and is mapped, not read."""

    def __init__(self, name: str, folder: Path, dataset: "datasets.Dataset", limit: int | None = None):
        import datasets

        self.name = name
        self.folder = folder
        self.columns = tuple(dataset.column_names)
        self._audio = _audio_column(dataset.column_names)
        if self._audio in dataset.column_names and isinstance(dataset.features[self._audio], datasets.Audio):
            dataset = dataset.cast_column(self._audio, datasets.Audio(decode=False))
        if limit is not None:
            dataset = dataset.select(range(min(limit, len(dataset))))
        known = [name for name in dataset.column_names if name in KNOWN]
        self._rows = dataset.select_columns(known).with_format("arrow")

    def texts(self) -> Iterator[Mapping[str, Any] | UsageError]:
        """Give every row without recordings that are inside the data set."""
        return (self._named(row) for table in self._tables() for row in _rows(table, self._audio))

    def recordings(self) -> Iterator[Mapping[str, Any] | UsageError]:
        """Give the recording of every row, of which no more is read than is looked at."""
        for table in self._tables():
            column = table.column(self._audio)
            for index in range(table.num_rows):
                try:
                    # One by one, so that a damaged row is no other's misfortune.
                    yield self._named({self._audio: _seen(_checked(column.slice(index, 1))[0])})
                except ValueError as error:
                    yield UsageError(_line(error))

    def at(self, index: int) -> Mapping[str, Any]:
        """Return a row with its recording."""
        table: Any = self._rows[index : index + 1]
        row = _row(table, index, self.name, self._audio)
        try:
            audio = _held(_checked(table.column(self._audio))[0])
        except ValueError as error:
            raise UsageError(f"row {index + 1} of {self.name} cannot be read ({_line(error)})") from error
        return self._named({**row, self._audio: audio})

    def _named(self, row: Any) -> Any:
        """Call what lies in the folder by its path from there: `datasets` tells where it put a file on this machine."""
        if isinstance(row, UsageError):
            return row
        audio = row.get(self._audio)
        path = audio.get("path") if isinstance(audio, dict) else audio
        if not isinstance(path, str) or not os.path.isabs(path) or not Path(path).is_relative_to(self.folder):
            return row
        inside = os.path.relpath(path, self.folder)
        return row | {self._audio: audio | {"path": inside} if isinstance(audio, dict) else inside}

    def _tables(self) -> Iterator["pa.Table"]:
        tables: Iterable[Any] = self._rows.iter(_TEXT_ROWS)
        try:
            yield from tables
        except _reading_errors() as error:
            raise UsageError(f"the data set {self.name} cannot be read ({_line(error)}); save it again") from error


def saved_rows(folder: Path, split: str | None, limit: int | None) -> DatasetRows:
    """Open a folder that `datasets.save_to_disk` wrote.

    Raises:
        UsageError: `datasets` is missing, the folder is damaged, or there is no such split.
    """
    datasets = _datasets()
    try:
        found = datasets.load_from_disk(str(folder))
    except _reading_errors() as error:
        raise UsageError(f"the data set {folder} cannot be read ({_line(error)}); save it again") from error
    return DatasetRows(str(folder), folder, _split_of(found, split, str(folder)), limit)


def hub_rows(name: str, split: str | None, limit: int | None) -> DatasetRows:
    """Open a data set of the hub, `hf:owner/name[/configuration][@revision]`, which is fetched first.

    Raises:
        UsageError: `datasets` is missing, or the hub has no such data set, or cannot be reached.
    """
    match = _HUB_ID.fullmatch(name.removeprefix(HUB))
    if match is None:
        raise UsageError(f"{name!r} is no data set of the hub: expected hf:owner/name[/configuration][@revision]")
    datasets = _datasets()
    try:
        found = datasets.load_dataset(match["name"], match["config"], revision=match["revision"])
    except _reading_errors() as error:
        raise UsageError(
            f"{name} cannot be had from the hub ({_line(error)}); check its name, configuration and revision and the "
            "network, or give a folder of datasets.save_to_disk"
        ) from error
    return DatasetRows(name, Path(datasets.config.HF_CACHE_HOME).expanduser(), _split_of(found, split, name), limit)


def is_saved(folder: Path) -> bool:
    """Whether `datasets.save_to_disk` wrote a folder."""
    return any((folder / name).is_file() for name in ("state.json", "dataset_dict.json"))


def _split_of(found: Any, split: str | None, name: str) -> "datasets.Dataset":
    if not isinstance(found, dict):
        if split is not None and split != str(found.split):
            raise UsageError(f"{name} is one split, {str(found.split)!r}, and {split!r} was asked for; leave it out")
        return found
    if split is None and len(found) != 1:
        raise UsageError(f"{name} has the splits {', '.join(sorted(found))}; choose one (--split)")
    if split is not None and split not in found:
        raise unknown_name(f"split of {name}", split, found)
    return found[split or next(iter(found))]


def _audio_column(columns: Sequence[str]) -> str:
    return next((name for name in AUDIO if name in columns), AUDIO[0])


def _leaves(schema: "pa.Schema") -> list[str]:
    """What is to be read for the texts: of recordings inside the file only their names."""
    import pyarrow as pa

    leaves = []
    for field in schema:
        if field.name not in KNOWN:
            continue
        if pa.types.is_struct(field.type):
            leaves += [f"{field.name}.path"] if field.type.get_field_index("path") >= 0 else []
        elif field.name not in AUDIO or _is_text(field.type):
            leaves.append(field.name)
    return leaves


def _without_recordings(table: "pa.Table", audio: str) -> "pa.Table":
    """The same table, with no more of recordings than their names."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = table.schema.field(audio).type
    if _is_text(kind):
        return table
    place = table.column_names.index(audio)
    if not pa.types.is_struct(kind) or kind.get_field_index("path") < 0:
        return table.remove_column(place)
    paths = pc.struct_field(table.column(audio), "path")  # pyright: ignore[reportAttributeAccessIssue]
    chunks = [pa.StructArray.from_arrays([chunk], ["path"]) for chunk in paths.chunks]
    return table.set_column(place, audio, pa.chunked_array(chunks, pa.struct([("path", paths.type)])))


def _is_text(kind: "pa.DataType") -> bool:
    import pyarrow as pa

    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _rows(table: Any, audio: str | None = None) -> Iterator[Mapping[str, Any] | UsageError]:
    """Rows of a table or batch, with no more of recordings in the column `audio` than their names.

    Where one is damaged the others are found all the same.
    """
    try:
        yield from _listed(table, audio)
    except ValueError:
        for index in range(table.num_rows):
            try:
                yield _row(table.slice(index, 1), index, "the data set", audio)
            except UsageError as error:
                yield error


def _row(table: Any, index: int, name: str, audio: str | None = None) -> Mapping[str, Any]:
    """The only row of a table or batch."""
    try:
        (row,) = _listed(table, audio)
    except ValueError as error:
        raise UsageError(f"row {index + 1} of {name} is damaged, or no text in UTF-8; write it again") from error
    return row


def _listed(table: Any, audio: str | None) -> list[dict[str, Any]]:
    _checked(table)
    return (table if audio is None else _without_recordings(table, audio)).to_pylist()


def _checked(part: Any) -> Any:
    """Refuse what would be read from outside of its memory: Arrow takes a file's word for where its cells begin."""
    part.validate(full=True)
    return part


def _seen(audio: Any) -> Any:
    """A recording as it lies there: its bytes not copied, its samples not converted."""
    import pyarrow as pa

    if not audio.is_valid or _is_text(audio.type):
        return audio.as_py()
    if not pa.types.is_struct(audio.type):
        if hasattr(audio, "as_buffer"):
            return {"bytes": audio.as_buffer()}
        return {"array": audio.values} if hasattr(audio, "values") else audio.as_py()
    seen = {}
    for name in audio.type.names:
        part = audio[name]
        if part.is_valid:
            if name == "bytes" and hasattr(part, "as_buffer"):
                seen[name] = part.as_buffer()
            else:
                seen[name] = part.values if name == "array" and hasattr(part, "values") else part.as_py()
    return seen


def _held(audio: Any) -> Any:
    """A recording in memory of its own."""
    seen = _seen(audio)
    if isinstance(seen, dict) and hasattr(seen.get("bytes"), "to_pybytes"):
        seen["bytes"] = seen["bytes"].to_pybytes()
    if isinstance(seen, dict) and hasattr(seen.get("array"), "to_numpy"):
        array = seen["array"]
        flat = array.type.num_fields == 0
        seen["array"] = array.to_numpy(zero_copy_only=False).copy() if flat else array.to_pylist()
    return seen


def _limited(batches: Iterator["pa.RecordBatch"], limit: int | None) -> Iterator["pa.RecordBatch"]:
    left = math.inf if limit is None else limit
    for batch in batches:
        if left <= batch.num_rows:
            yield batch.slice(0, int(left))
            return
        left -= batch.num_rows
        yield batch


def _parquet() -> tuple[ModuleType, tuple[type[Exception], ...]]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise UsageError("a manifest in Parquet needs pyarrow: pip install 'sgpa-jax[data]'") from error
    return parquet, (pyarrow.ArrowException, OSError, ValueError)


def _datasets() -> ModuleType:
    try:
        import datasets
    except ImportError as error:
        raise UsageError("this data set needs the library datasets: pip install 'sgpa-jax[data]'") from error
    return datasets


def _reading_errors() -> tuple[type[Exception], ...]:
    """What `datasets` raises for what is damaged, missing or out of reach."""
    from datasets.exceptions import DatasetsError
    from huggingface_hub import errors

    # Its HTTP library has changed before, so what that raises is taken from where the hub's own errors have it.
    unreachable = errors.HTTPError  # pyright: ignore[reportPrivateImportUsage]
    return (DatasetsError, OSError, ValueError, RuntimeError, LookupError, TypeError, AttributeError, unreachable)


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:160].rstrip(".")
