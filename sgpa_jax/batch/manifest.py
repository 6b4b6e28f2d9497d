"""Manifests: what a data set says of its recordings, opened without decoding or holding any of them.

`open_manifest` takes a folder of recordings with transcripts, `.csv`, `.jsonl`, `.parquet`, a folder of
`datasets.save_to_disk`, or a data set of the hub. What its columns may be called is in `columns.py`.
"""

import hashlib
import math
import os
import reprlib
from array import array
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from sgpa_jax.audio import Clip
from sgpa_jax.batch.columns import AUDIO, Said, audio_of, checked_id, read_id, read_said
from sgpa_jax.batch.datasets import HUB, ParquetRows, hub_rows, is_saved, saved_rows
from sgpa_jax.batch.folders import AudioFolder, Source, TextRows
from sgpa_jax.batch.places import locate
from sgpa_jax.batch.recordings import HeaderReader, recording_of
from sgpa_jax.batch.texts import Texts
from sgpa_jax.errors import SgpaError, UsageError

_READERS = 16
_ROWS_A_READER = 16


@dataclass(frozen=True, eq=False)
class Row:
    """One item of a manifest.

    Attributes:
        id: its name, different from every other's.
        audio: where its recording is; or the encoded file itself; or a clip, of a data set that holds samples.
        name: how the manifest calls the recording.
        transcript: what is said; None where the manifest does not tell.
        alignment: a file that also tells when; it goes before the transcript.
        prompt: the question; None asks what the model is usually asked.
        response: the answer to explain; None explains the model's own.
    """

    id: str
    audio: Path | bytes | Clip
    name: str
    transcript: str | None
    alignment: Path | None
    prompt: str | None
    response: str | None


class Manifest:
    """The rows of a data set, of which only ids, lengths and places are held.

    Attributes:
        name: what errors call it.
        ids: different from each other; of a row without one, the path of its recording or else "row-000017".
        n_words: int64[N], of each transcript; 0 where there is none.
    """

    def __init__(self, source: Source, *, allow_outside: bool = False):
        self.name = source.name
        self._source = source
        self._allow_outside = allow_outside
        ids, n_words, told_s, digest = Texts(), array("q"), array("d"), hashlib.sha256()
        for number, row in enumerate(source.texts(), start=1):
            id, said = self._scanned(row, number)
            ids.append(id)
            # Single spaces are all that is left between words.
            n_words.append(said.transcript.count(" ") + 1 if said and said.transcript else 0)
            told_s.append(said.duration_s if said else math.nan)
            digest.update(self._told(id, said).encode())
        if not ids:
            raise UsageError(f"the manifest {self.name} has no rows; give at least one recording")
        if (twice := ids.repeated()) is not None:
            raise UsageError(f"the manifest {self.name} has the id {twice!r} more than once; give every row its own")
        self.ids: Sequence[str] = ids
        self.n_words: Int[np.ndarray, " N"] = np.asarray(n_words)
        self._told_s: Float[np.ndarray, " N"] = np.asarray(told_s)
        self._digest = digest.digest()

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def durations_s(self) -> Float[np.ndarray, " N"]:
        """float64[N], seconds: what the rows say, or else the recordings' headers, or else NaN."""
        return np.where(np.isnan(self._told_s), self._headers[1], self._told_s)

    @cached_property
    def key(self) -> str:
        """A sha256 of what the rows say and of the sizes of the recordings, the same wherever the data set lies."""
        return hashlib.sha256(self._digest + self._headers[0].astype("<i8").tobytes()).hexdigest()

    def row(self, index: int) -> Row:
        """Return a row, its recording not decoded; any number of threads may ask.

        Raises:
            UsageError: what is wrong with this row alone, or where its recording lies.
        """
        if not 0 <= index < len(self):
            raise UsageError(f"the manifest {self.name} has {len(self)} rows, and number {index} was asked for, from 0")
        given = self._source.at(index)
        try:
            return self._row(given, index)
        except (ValueError, SgpaError) as error:
            raise UsageError(f"row {index + 1} of {self.name}: {error}") from error

    def _row(self, given: Mapping[str, Any], index: int) -> Row:
        said = read_said(given)
        id = said.id or _usual_id(said, index + 1)
        if id != self.ids[index]:
            raise UsageError(f"it has the id {id!r} and had {self.ids[index]!r}; the manifest was changed, start again")
        audio = recording_of(said.audio)
        return Row(
            id=id,
            audio=self._located(audio) if isinstance(audio, str) else audio,
            name=said.path or id,
            transcript=said.transcript,
            alignment=None if said.alignment is None else self._located(said.alignment),
            prompt=said.prompt,
            response=said.response,
        )

    def _located(self, name: str) -> Path:
        return locate(name, self._source.folder, allow_outside=self._allow_outside)

    def _scanned(self, row: Mapping[str, Any] | UsageError, number: int) -> tuple[str, Said | None]:
        """The id of a row, and what it says if that can be read: `row` tells why, when it is asked for."""
        if isinstance(row, UsageError):
            return _numbered(number), None
        try:
            said = read_said(row)
            return said.id or _usual_id(said, number), said
        except ValueError:
            return _id_of(row) or _numbered(number), None

    def _told(self, id: str, said: Said | None) -> str:
        """A row as a text that no other row has: texts hold no NUL."""
        if said is None:
            return f"{id}\0\n"
        path, alignment = said.path or "", said.alignment or ""
        if os.path.isabs(path) or os.path.isabs(alignment):
            path, alignment = self._named_anywhere(path), self._named_anywhere(alignment)
        texts = f"{said.transcript or ''}\0{said.prompt or ''}\0{said.response or ''}"
        return f"{id}\0{path}\0{alignment}\0{texts}\0\n"

    def _named_anywhere(self, path: str) -> str:
        """A path that says nothing of what is above the manifest's folder."""
        if not os.path.isabs(path):
            return path
        inside = Path(path).is_relative_to(self._source.folder)
        return os.path.relpath(path, self._source.folder) if inside else os.path.basename(path)

    @cached_property
    def _headers(self) -> tuple[Int[np.ndarray, " N"], Float[np.ndarray, " N"]]:
        """Sizes and durations; these only where the rows do not say them."""
        sizes, durations_s = np.full(len(self), -1, np.int64), np.full(len(self), np.nan)
        reader, wanted = HeaderReader(self._source.folder, allow_outside=self._allow_outside), np.isnan(self._told_s)

        def read(rows: Sequence[tuple[int, Mapping[str, Any] | UsageError]]) -> None:
            for index, row in rows:
                audio = None if isinstance(row, UsageError) else audio_of(row)
                sizes[index], durations_s[index] = reader.read(audio, duration=bool(wanted[index]))

        rows = iter(enumerate(islice(self._source.recordings(), len(self))))
        with ThreadPoolExecutor(_READERS) as pool:
            while some := list(islice(rows, _READERS * _ROWS_A_READER)):
                list(pool.map(read, (some[start::_READERS] for start in range(_READERS))))
        return sizes, durations_s


def open_manifest(
    where: str | Path, *, split: str | None = None, limit: int | None = None, allow_outside: bool = False
) -> Manifest:
    """Open a data set.

    Args:
        where: a folder of recordings with transcripts, `.csv`, `.jsonl`, `.parquet`, a folder of
            `datasets.save_to_disk`, or `hf:owner/name[/configuration][@revision]` on the hub.
        split: of a data set that has several.
        limit: take the first so many rows.
        allow_outside: whether recordings may lie outside of the manifest's folder.

    Raises:
        UsageError: it cannot be read, has no rows or no column of recordings, or two rows have the same id.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"the limit is {limit}; expected at least one row")
    source = _source(where, split, limit, allow_outside)
    columns = source.columns
    if columns is not None and not any(name in columns for name in AUDIO):
        shown = ", ".join(map(reprlib.repr, columns[:12]))
        raise UsageError(f"the manifest {source.name} has no column 'audio'; it has {shown}")
    return Manifest(source, allow_outside=allow_outside)


def _source(where: str | Path, split: str | None, limit: int | None, allow_outside: bool) -> Source:
    if isinstance(where, str) and where.startswith(HUB):
        return hub_rows(where, split, limit)
    path = Path(where)
    if path.is_dir() and is_saved(path):
        return saved_rows(path, split, limit)
    if split is not None:
        raise UsageError(f"{path} has no splits, and {split!r} was asked for; leave it out")
    if path.is_dir():
        return AudioFolder(path, limit, allow_outside=allow_outside)
    if path.suffix.lower() in (".csv", ".jsonl"):
        return TextRows(path, limit)
    if path.suffix.lower() == ".parquet":
        return ParquetRows(path, limit)
    raise UsageError(
        f"{str(where)!r} is no manifest: expected a folder, a file .csv, .jsonl or .parquet, or hf:owner/name; check "
        "the path"
    )


def _usual_id(said: Said, number: int) -> str:
    """The id of a row without one: the path of its recording, or a number where that is inside the data set."""
    return checked_id(said.audio) if isinstance(said.audio, str) else _numbered(number)


def _numbered(number: int) -> str:
    return f"row-{number:06d}"


def _id_of(row: Mapping[str, Any]) -> str | None:
    """The id of a row of which something else is wrong."""
    try:
        return read_id(row)
    except ValueError:
        return None
