"""Parameters already in our layout, kept by Orbax in the folders that `sgpa convert` writes.

Such a folder holds `parameters/` and a stamp, `converted.json`: which folder they came from and what that held, the
rule table and the parameters' shapes, their dtype, and length and CRC of every file. Parameters that no longer belong
(other rules or shapes, another source) or that are damaged are never used: `restore` says why, and its caller converts
the source again. There is no cache behind the user's back: mapping and laying out safetensors took less time than
restoring did wherever it was measured (`benchmarks/loading.py`).
"""

import hashlib
import json
import re
import shutil
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import sgpa_checkpoints
from sgpa_checkpoints import AnyRule

from sgpa_jax.errors import CheckpointError, UsageError
from sgpa_jax.files import atomic_write

STAMP = "converted.json"
_PARAMETERS = "parameters"
# Raise it when what a transform does changes without its name.
_VERSION = 1
_BLOCK, _BLOCKS = 4096, 64


class StaleError(Exception):
    """Converted parameters that must not be used, and why."""


def is_converted(folder: Path) -> bool:
    """Whether `sgpa convert` has written this folder."""
    return (folder / STAMP).is_file()


def source_of(folder: Path) -> Path:
    """Return the folder that this one was converted from, wherever that is now.

    Raises:
        CheckpointError: the stamp is damaged.
    """
    return Path(_stamp(folder)["source"])


def save(
    folder: Path,
    source: Path,
    parameters: Mapping[str, jax.Array],
    rules: tuple[AnyRule, ...],
    dtype: str,
) -> None:
    """Write parameters (by path) and their stamp into an existing folder, in place of those that it may hold.

    Raises:
        UsageError: the folder cannot be written to.
    """
    import orbax.checkpoint as ocp

    try:
        with tempfile.TemporaryDirectory(prefix=".parameters.", dir=folder) as scratch:
            fresh = Path(scratch).resolve() / _PARAMETERS
            with ocp.StandardCheckpointer() as checkpointer:
                checkpointer.save(fresh, dict(parameters))
            # Without a stamp a folder counts as not converted, so that one half of each is never taken for a whole.
            (folder / STAMP).unlink(missing_ok=True)
            shutil.rmtree(folder / _PARAMETERS, ignore_errors=True)
            fresh.rename(folder / _PARAMETERS)
    except OSError as error:
        raise UsageError(f"cannot write {folder}: {error.strerror}; choose a folder that can be written to") from error
    stamp = {
        "source": str(source.resolve()),
        "source_key": content_key(source),
        "table": _table_key({path: array.shape for path, array in parameters.items()}, rules),
        "dtype": dtype,
        "files": dict(_checksums(folder / _PARAMETERS)),
    }
    atomic_write(folder / STAMP, json.dumps(stamp, indent=1) + "\n")


def restore(
    folder: Path, slots: Mapping[str, jax.ShapeDtypeStruct], rules: tuple[AnyRule, ...], dtype: str
) -> dict[str, jax.Array]:
    """Return the parameters by path, each where its slot says.

    Raises:
        CheckpointError: they are of another dtype, or the stamp is damaged.
        StaleError: they are damaged, or of other rules, shapes or another source.
    """
    stamp = _stamp(folder)
    if stamp["dtype"] != dtype:
        raise CheckpointError(
            f"{folder} was converted to {stamp['dtype']}, but {dtype} was asked for; ask for {stamp['dtype']}, or "
            f"convert the original folder again with --dtype {dtype}"
        )
    if stamp["table"] != _table_key({path: slot.shape for path, slot in slots.items()}, rules):
        raise StaleError("the rules or the configuration have changed since")
    source = Path(stamp["source"])
    if source.is_dir() and content_key(source) != stamp["source_key"]:
        raise StaleError(f"{source} has changed since")
    if stamp["files"] != dict(_checksums(folder / _PARAMETERS)):
        raise StaleError("its files are damaged")
    import orbax.checkpoint as ocp

    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    wanted = {
        path: jax.ShapeDtypeStruct(slot.shape, slot.dtype, sharding=slot.sharding or here)
        for path, slot in slots.items()
    }
    with ocp.StandardCheckpointer() as checkpointer:
        return checkpointer.restore((folder / _PARAMETERS).resolve(), wanted)


def content_key(folder: Path) -> str:
    """Return a sha256 that tells one set of weights from another without reading all of them.

    It covers every safetensors file's length, its header and blocks of 4 KiB at 64 even distances: training or
    quantising changes all of those, and damage between them is found by whoever reads the file whole.

    Raises:
        sgpa_checkpoints.FormatError: the folder is incomplete or damaged.
    """
    digest = hashlib.sha256()
    for path, header in sgpa_checkpoints.read_headers(folder).items():
        n_bytes = path.stat().st_size
        digest.update(f"{path.name} {n_bytes} {sorted(header.items())}".encode())
        with path.open("rb") as file:
            for k in range(_BLOCKS):
                file.seek(k * n_bytes // _BLOCKS)
                digest.update(file.read(_BLOCK))
    return digest.hexdigest()


def _stamp(folder: Path) -> dict[str, Any]:
    stamp = sgpa_checkpoints.read_json(folder / STAMP)
    kinds = {"source": str, "source_key": str, "table": str, "dtype": str, "files": dict}
    if not all(isinstance(stamp.get(name), kind) for name, kind in kinds.items()):
        raise CheckpointError(f"{folder / STAMP} is damaged; convert the original folder again")
    return stamp


def _table_key(shapes: Mapping[str, tuple[int, ...]], rules: tuple[AnyRule, ...]) -> str:
    table = re.sub(r" at 0x[0-9a-f]+", "", repr(rules))
    shown = f"{_VERSION} {table} {sorted((path, tuple(shape)) for path, shape in shapes.items())}"
    return hashlib.sha256(shown.encode()).hexdigest()


def _checksums(folder: Path) -> Iterator[tuple[str, list[int]]]:
    """Yield name, and length and CRC, of every file below a folder."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            crc = n_bytes = 0
            with path.open("rb") as file:
                while block := file.read(2**24):
                    crc, n_bytes = zlib.crc32(block, crc), n_bytes + len(block)
            yield path.relative_to(folder).as_posix(), [n_bytes, crc]
