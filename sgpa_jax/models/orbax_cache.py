"""Parameters already in our layout, kept by Orbax in the folders that `sgpa convert` writes.

Such a folder holds `parameters/` and a stamp, `converted.json`: which folder they came from and what that held, the
rule table and the parameters' shapes, their dtype, and length and CRC of every file. Parameters that no longer belong
(other rules or shapes, another source) or that are damaged are never used: `restore` says why, and its caller converts
the source again. There is no cache behind the user's back: mapping and laying out safetensors took less time than
restoring did wherever it was measured (`benchmarks/loading.py`).
"""

import errno
import hashlib
import json
import logging
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import sgpa_checkpoints
from sgpa_checkpoints import AnyRule

from sgpa_jax.errors import CheckpointError, UsageError
from sgpa_jax.files import PARTIAL, atomic_write, checksums, sweep

STAMP = "converted.json"
_LONGEST_NAME = 255
_PARAMETERS = "parameters"
# Raise it when what a transform does changes without its name.
_VERSION = 1
_BLOCK, _BLOCKS = 4096, 64
# What Orbax writes of an array besides its values, roughly.
_LEAF_BYTES = 1024
_DTYPES = ("float32", "bfloat16")


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
    fresh = write_arrays(folder / _PARAMETERS, dict(parameters))
    try:
        # Killed from here on, new parameters lie beside an old stamp, whose checksums are not theirs.
        shutil.rmtree(folder / _PARAMETERS, ignore_errors=True)
        fresh.rename(folder / _PARAMETERS)
    except OSError as error:
        raise UsageError(f"cannot write {folder}: {error.strerror}; choose a folder that can be written to") from error
    stamp = {
        "source": str(source.resolve()),
        "source_key": content_key(source),
        "table": _table_key({path: array.shape for path, array in parameters.items()}, rules),
        "dtype": dtype,
        "files": checksums(folder / _PARAMETERS),
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
    if stamp["files"] != checksums(folder / _PARAMETERS):
        raise StaleError("its files are damaged")
    import orbax.checkpoint as ocp

    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    wanted = {
        path: jax.ShapeDtypeStruct(slot.shape, slot.dtype, sharding=slot.sharding or here)
        for path, slot in slots.items()
    }
    with ocp.StandardCheckpointer() as checkpointer:
        return checkpointer.restore((folder / _PARAMETERS).resolve(), wanted)


def write_arrays(target: Path, arrays: Any) -> Path:
    """Write a tree of arrays by Orbax, and return the folder of a temporary name that is to be renamed to `target`.

    Raises:
        UsageError: it cannot be written; nothing is left of it.
    """
    import orbax.checkpoint as ocp

    fresh = target.resolve().with_name(f".{target.name}{PARTIAL}")
    absl = logging.getLogger("absl")
    level = absl.level
    try:
        fresh.parent.mkdir(parents=True, exist_ok=True)
        sweep(fresh.parent)
        # Orbax's threads tell what goes wrong with a hundred lines of tracebacks, so the room is asked for before them.
        _ask_for_room(fresh, arrays)
        absl.setLevel(logging.CRITICAL + 1)
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(fresh, arrays)
    except (OSError, ValueError) as error:  # a full disk is told by the latter
        sweep(fresh.parent)
        raise UsageError(
            f"cannot write {target} ({str(error)[:200]}); choose a folder that can be written to"
        ) from error
    finally:
        absl.setLevel(level)
    return fresh


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


def _ask_for_room(path: Path, arrays: Any) -> None:
    """Raise OSError where a disk, or a limit on the size of files, leaves no room for a tree of arrays."""
    n_bytes = sum(leaf.nbytes + _LEAF_BYTES for leaf in jax.tree.leaves(arrays))
    try:
        with path.open("xb") as file:
            file.truncate(n_bytes)
    finally:
        path.unlink(missing_ok=True)
    if n_bytes > shutil.disk_usage(path.parent).free:
        raise OSError(errno.ENOSPC, f"{n_bytes / 1e6:.1f} MB are needed, and the disk has less left")


def _stamp(folder: Path) -> dict[str, Any]:
    stamp = sgpa_checkpoints.read_json(folder / STAMP)
    kinds = {"source": str, "source_key": str, "table": str, "dtype": str, "files": dict}
    is_whole = all(isinstance(stamp.get(name), kind) for name, kind in kinds.items()) and stamp["dtype"] in _DTYPES
    if not is_whole or max(map(len, Path(stamp["source"]).parts), default=0) > _LONGEST_NAME or "\0" in stamp["source"]:
        raise CheckpointError(f"{folder / STAMP} is damaged; convert the original folder again")
    return stamp


def _table_key(shapes: Mapping[str, tuple[int, ...]], rules: tuple[AnyRule, ...]) -> str:
    table = re.sub(r" at 0x[0-9a-f]+", "", repr(rules))
    shown = f"{_VERSION} {table} {sorted((path, tuple(shape)) for path, shape in shapes.items())}"
    return hashlib.sha256(shown.encode()).hexdigest()
