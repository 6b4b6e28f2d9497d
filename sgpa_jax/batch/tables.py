"""A data set's tables as files: Parquet, a part for each bundle of items, each whole or not there at all.

`OUT/{items,players,coalitions}/part-00012.parquet` are those of bundle 12, and `OUT/run.json` says what the run is. A
part is never changed in place. Its metadata hold the key of the result that it belongs to, so that a bundle which was
stopped between two of its parts is told from a finished one. Columns are those of `schemas.py`.
"""

import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sgpa_jax.batch.outcome import Coalitions, Outcome
from sgpa_jax.batch.schemas import (
    TABLES,
    arrow,
    coalitions_of,
    coalitions_table,
    items_table,
    players_table,
    schema_of,
)
from sgpa_jax.errors import UsageError
from sgpa_jax.files import PARTIAL, atomic_write

if TYPE_CHECKING:
    import pyarrow as pa

RUN = "run.json"
"""Settings, model, the manifest's key, and the number of bundles; parts of another run have another `key`."""

_SCHEMA = "sgpa-jax/batch/1"
_LONGEST_RUN, _MOST_BUNDLES = 2**24, 2**24


class Keys(NamedTuple):
    """What a part belongs to: its own result, and that whose coalitions it rests on."""

    key: str
    coalitions: str


class Standing(NamedTuple):
    """How far a data set is: bundles that there are to be, those still missing, and items so far and failed ones."""

    bundles: int
    missing: tuple[int, ...]
    items: int
    failed: int


def write_part(out: Path, bundle: int, outcomes: Sequence[Outcome], *, key: str) -> None:
    """Write the tables of a finished bundle; its items come last, and with them it is finished.

    Args:
        out: the data set's folder.
        bundle: its index.
        outcomes: of its items, in order.
        key: of the result, from `bundle_key`: the same for the same items, game, estimator and seed.

    Raises:
        UsageError: the folder cannot be written to; nothing partial is left.
    """
    write_table(out, "coalitions", bundle, coalitions_table(outcomes), Keys(key, key))
    write_result(out, bundle, outcomes, Keys(key, key))


def write_result(out: Path, bundle: int, outcomes: Sequence[Outcome], keys: Keys) -> None:
    """Write the players and then the items of a bundle whose coalitions are there already."""
    write_table(out, "players", bundle, players_table(outcomes), keys)
    write_table(out, "items", bundle, items_table(outcomes), keys)


def write_table(out: Path, name: str, bundle: int, table: "pa.Table", keys: Keys) -> None:
    """Write one part.

    Raises:
        UsageError: the folder cannot be written to.
    """
    told = {"schema": _SCHEMA, **keys._asdict()}
    buffer = io.BytesIO()
    # Numbers of one column are alike in their high bytes, and a sample's rows follow each other.
    floats = ["outputs.list.element", "values.list.element"] if name == "coalitions" else []
    arrow().parquet.write_table(
        table.replace_schema_metadata(told),
        buffer,
        compression="zstd",
        use_dictionary=[column for column in table.column_names if name != "coalitions" and column != "explanation"],
        column_encoding={column: "BYTE_STREAM_SPLIT" for column in floats}
        | ({"sample.list.element": "DELTA_BINARY_PACKED"} if floats else {}),
        write_page_checksum=True,
    )
    atomic_write(part(out, name, bundle), buffer.getvalue())


def bundle_key(run_key: str, bundle: int) -> str:
    """Return the key of a bundle's result, from that of its run."""
    return hashlib.sha256(json.dumps([run_key, bundle]).encode()).hexdigest()


def part(out: Path, name: str, bundle: int) -> Path:
    """Return the file of one of `TABLES` for a bundle."""
    return Path(out) / name / f"part-{bundle:05d}.parquet"


def bundles_in(out: Path, name: str = "items") -> list[int]:
    """Return the bundles that have a part, in order."""
    found = [path.stem.removeprefix("part-") for path in (Path(out) / name).glob("part-*.parquet")]
    return sorted(int(number) for number in found if number.isascii() and number.isdigit())


def keys_of(out: Path, name: str, bundle: int) -> Keys | None:
    """Return what a part belongs to, None where it is not there.

    Raises:
        UsageError: it is damaged.
    """
    path = part(out, name, bundle)
    if not path.exists():
        return None
    with _opened(path, name) as file:
        told = file.schema_arrow.metadata
        return Keys(*(told[field.encode()].decode() for field in Keys._fields))


def finished(out: Path, bundle: int, key: str) -> bool:
    """Whether all parts of a bundle are there, and of this very result.

    Raises:
        UsageError: one of them is damaged.
    """
    keys = keys_of(out, "items", bundle)
    if keys is None or keys.key != key or keys_of(out, "players", bundle) != keys:
        return False
    rests_on = keys_of(out, "coalitions", bundle)
    return rests_on is not None and rests_on.key == keys.coalitions


def finished_bundles(out: Path) -> list[int]:
    """Return the bundles whose parts are all there and of the run that `run.json` tells of, in order.

    Raises:
        UsageError: `run.json` or a part is damaged or not there.
    """
    key = read_run(out)["key"]
    return [bundle for bundle in bundles_in(out) if finished(out, bundle, bundle_key(key, bundle))]


def read_items(out: Path, columns: Sequence[str] | None = None) -> Iterator["pa.Table"]:
    """Give the items of one bundle after another, of all columns or some.

    Raises:
        UsageError: a part is damaged.
    """
    return (read_table(out, "items", bundle, columns) for bundle in bundles_in(out))


def read_players(out: Path, columns: Sequence[str] | None = None) -> Iterator["pa.Table"]:
    """Give the players of one bundle after another, of all columns or some.

    Raises:
        UsageError: a part is damaged.
    """
    return (read_table(out, "players", bundle, columns) for bundle in bundles_in(out, "players"))


def read_coalitions(out: Path, bundle: int) -> dict[str, Coalitions]:
    """Return what is known of the games of a bundle, by their keys; nothing where there is no part.

    Raises:
        UsageError: the part is damaged.
    """
    path = part(out, "coalitions", bundle)
    if not path.exists():
        return {}
    try:
        return coalitions_of(read_table(out, "coalitions", bundle))
    except (ValueError, TypeError) as error:
        raise damaged(path, error) from error


def read_table(out: Path, name: str, bundle: int, columns: Sequence[str] | None = None) -> "pa.Table":
    """Return one part.

    Raises:
        UsageError: it is not there, or damaged.
    """
    path = part(out, name, bundle)
    with _opened(path, name) as file:
        table = file.read(columns=None if columns is None else [*columns])
        table.validate(full=True)
        return table


def read_run(out: Path) -> dict[str, Any]:
    """Return what `OUT/run.json` tells; its "key" is that of the run and "bundles" how many there are to be.

    Raises:
        UsageError: there is none, or it is damaged.
    """
    path = Path(out) / RUN
    try:
        with path.open("rb") as file:
            told = json.loads(file.read(_LONGEST_RUN))
    except FileNotFoundError as error:
        raise UsageError(f"there is no {path}: expected a folder that sgpa batch wrote; check the path") from error
    except (OSError, ValueError, RecursionError) as error:
        raise damaged(path, error) from error
    fits = isinstance(told, dict) and isinstance(told.get("key"), str)
    if not (fits and isinstance(told.get("bundles"), int) and 0 <= told["bundles"] < _MOST_BUNDLES):
        raise damaged(path, ValueError("no key, or no number of bundles"))
    return told


def standing(out: Path) -> Standing:
    """Return how far the data set in a folder is.

    Raises:
        UsageError: `run.json` or a part is damaged or not there.
    """
    n_bundles, found = read_run(out)["bundles"], finished_bundles(out)
    n_items = n_failed = 0
    for bundle in found:
        table = read_table(out, "items", bundle, ["error"])
        n_items += len(table)
        n_failed += len(table) - table["error"].null_count
    missing = sorted({*range(n_bundles)} - {*found})
    return Standing(n_bundles, tuple(missing), n_items, n_failed)


def failures(out: Path, *, limit: int) -> list[tuple[str, str]]:
    """Return the ids of the first so many items that failed, and why.

    Raises:
        UsageError: a part is damaged.
    """
    found: list[tuple[str, str]] = []
    for table in read_items(out, ["id", "error"]):
        rows = zip(table["id"].to_pylist(), table["error"].to_pylist(), strict=True)
        found += [(id, error) for id, error in rows if error is not None]
        if len(found) >= limit:
            break
    return found[:limit]


def share_parts(source: Path, into: Path, bundle: int, names: Sequence[str] = TABLES) -> None:
    """Give another folder a bundle's parts, in the order of `TABLES`: the same files, or copies on another disk.

    Raises:
        UsageError: a part is not there, or the folder cannot be written to.
    """
    for name in names:
        path, target = part(source, name, bundle), part(into, name, bundle)
        temporary = target.with_name(f".{target.name}.{os.getpid()}{PARTIAL}")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary.unlink(missing_ok=True)
            try:
                os.link(path, temporary)
            except OSError:
                shutil.copyfile(path, temporary)
            os.replace(temporary, target)
        except OSError as error:
            raise UsageError(f"cannot give {into} the part {path}: {error.strerror}; choose another folder") from error
        finally:
            # A name that replaces another one of the same file stays.
            temporary.unlink(missing_ok=True)


def damaged(path: Path, error: Exception) -> UsageError:
    """Return what to say of a file that cannot be read as what it should be."""
    return UsageError(
        f"{path} cannot be read ({' '.join(str(error).split())[:80]}): delete it and run sgpa batch again, which then "
        "makes its bundle anew"
    )


@contextmanager
def _opened(path: Path, name: str) -> Iterator[Any]:
    """Give a part as an open Parquet file; whatever is found wrong with it in there is one sentence."""
    pa = arrow()
    try:
        with pa.parquet.ParquetFile(path, page_checksum_verification=True) as file:
            if not file.schema_arrow.equals(schema_of(name)):
                raise ValueError("its columns are others")
            yield file
    except (OSError, ValueError, TypeError, KeyError, MemoryError, pa.ArrowException) as error:
        raise damaged(path, error) from error
