"""Activations on disk: shards of rows and an index of whose they are.

A folder holds `harvest.json` (what was harvested), `shard-00000.safetensors`, … (a tensor `after_layer_5` [N, D] for
each layer, in the model's own dtype), with `shard-00000.jsonl` beside each: a line for every clip with its id, the
first of its rows (`offset`), how many (`tokens`), `seconds` and `labels`, and an `error` where a clip could not be
heard. `index.jsonl`, all lines with their `shard`, is written last: where it is, the harvest is complete. Axes: `N`
rows, `D` width.
"""

import json
import reprlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from sgpa_jax.errors import UsageError
from sgpa_jax.files import atomic_write

HEADER, INDEX = "harvest.json", "index.jsonl"
SCHEMA = "sgpa-jax/activations/1"
_MOST = 2**40
"""More shards, rows or layers than any harvest has: numbers of a damaged file."""


@dataclass(frozen=True, eq=False)
class ActivationStore:
    """A complete harvest.

    Attributes:
        folder: where it lies.
        header: what was harvested: model, layers, question, clips.
        index: a row for every clip, in the order of the rows.
        rows_in_shard: how many rows each shard has.
    """

    folder: Path
    header: dict[str, Any]
    index: tuple[dict[str, Any], ...]
    rows_in_shard: tuple[int, ...]

    @property
    def layers(self) -> tuple[int, ...]:
        """Decoder layers after which the residual stream was read, counted from 0."""
        return tuple(self.header["layers"])

    @property
    def width(self) -> int:
        """Width of the residual stream."""
        return self.header["width"]

    @property
    def n_rows(self) -> int:
        """Rows of all shards."""
        return sum(self.rows_in_shard)

    def check_layer(self, layer: int) -> None:
        """Raise a UsageError if the layer was not harvested."""
        if layer not in self.layers:
            raise UsageError(
                f"{self.folder} holds the layers {', '.join(map(str, self.layers))}, but not {layer}; harvest it too"
            )

    def rows(self, shard: int, layer: int) -> Float[np.ndarray, "N D"]:
        """Rows of a shard, in the dtype that they are kept in.

        Raises:
            UsageError: the layer was not harvested, or the shard is damaged.
        """
        from safetensors import SafetensorError, safe_open

        self.check_layer(layer)
        path = self.folder / f"{shard_name(shard)}.safetensors"
        try:
            with safe_open(path, framework="numpy") as file:
                rows_nd = file.get_tensor(tensor_name(layer))
        except (OSError, SafetensorError) as error:
            raise UsageError(f"{path} is damaged ({error}); delete it and harvest again") from error
        if rows_nd.shape != (self.rows_in_shard[shard], self.width):
            raise UsageError(f"{path} does not hold what {INDEX} says; delete it and harvest again")
        return rows_nd


def open_store(folder: str | Path) -> ActivationStore:
    """Open a complete harvest.

    Raises:
        UsageError: the folder holds none, or an unfinished one.
    """
    folder = Path(folder)
    header = read_header(folder)
    if header is None:
        raise UsageError(f"{folder} holds no activations; give a folder that `sgpa sae harvest` wrote")
    try:
        lines = (folder / INDEX).read_text(encoding="utf-8").splitlines()
        if header["n_shards"] > len(lines):
            raise ValueError("a shard without a line")
        index = tuple(_row(json.loads(line), header["n_shards"]) for line in lines)
    except FileNotFoundError:
        raise UsageError(f"the harvest in {folder} is not finished; run the same `sgpa sae harvest` again") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError(f"{folder / INDEX} is damaged; delete it and harvest again") from error
    counts = [0] * header["n_shards"]
    for row in index:
        counts[row["shard"]] += row["tokens"]
    return ActivationStore(folder, header, index, tuple(counts))


def read_header(folder: Path) -> dict[str, Any] | None:
    """Return what a folder's harvest is of; None if it holds none.

    Raises:
        UsageError: a newer or damaged header.
    """
    path = folder / HEADER
    if not path.is_file():
        return None
    try:
        header = json.loads(path.read_text(encoding="utf-8"))
        if header["schema"] == SCHEMA:
            _check(header)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError(f"{path} is damaged; harvest into another folder") from error
    if header["schema"] != SCHEMA:
        told = reprlib.repr(header["schema"])
        raise UsageError(f"{path} is of schema {told}, but this version reads {SCHEMA}; harvest again")
    return header


def write_shard(folder: Path, shard: int, layers: dict[int, np.ndarray], rows: list[dict[str, Any]]) -> None:
    """Write a shard: its lines first, so that where its tensors are all of it is."""
    from safetensors.numpy import save

    atomic_write(folder / f"{shard_name(shard)}.jsonl", json_lines(rows))
    tensors = {tensor_name(layer): np.ascontiguousarray(rows_nd) for layer, rows_nd in layers.items()}
    atomic_write(folder / f"{shard_name(shard)}.safetensors", save(tensors))


def has_shard(folder: Path, shard: int) -> bool:
    """Whether a shard is complete."""
    return (folder / f"{shard_name(shard)}.safetensors").is_file()


def finish(folder: Path, n_shards: int) -> None:
    """Write the index of a harvest whose shards are all there."""
    rows = []
    for shard in range(n_shards):
        try:
            lines = (folder / f"{shard_name(shard)}.jsonl").read_text(encoding="utf-8").splitlines()
            rows += [{"shard": shard, **json.loads(line)} for line in lines]
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise UsageError(
                f"{folder / shard_name(shard)}.jsonl is missing or damaged; delete the shard and go on"
            ) from error
    atomic_write(folder / INDEX, json_lines(rows))


def json_lines(rows: list[dict[str, Any]]) -> str:
    """One JSON object a line."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def shard_name(shard: int) -> str:
    """Name of a shard's files, without their ends."""
    return f"shard-{shard:05d}"


def tensor_name(layer: int) -> str:
    """Name of a layer's rows in a shard."""
    return f"after_layer_{layer}"


def _check(header: dict[str, Any]) -> None:
    """Check what is read of a header; the errors raised are those of any damaged file."""
    layers, model = header["layers"], header["model"]
    sizes = [header["width"], header["n_shards"], *(layer + 1 for layer in layers)]
    texts = [model[name] for name in ("name", "digest", "dtype")]
    if not all(type(size) is int and 0 < size < _MOST for size in sizes) or not all(type(t) is str for t in texts):
        raise ValueError("sizes or names are none")


def _row(row: dict[str, Any], n_shards: int) -> dict[str, Any]:
    """Return a line of the index, checked; the errors raised are those of any damaged file."""
    shard, counts = row["shard"], (row["offset"], row["tokens"])
    if type(shard) is not int or not 0 <= shard < n_shards:
        raise ValueError("there is no such shard")
    if not all(type(count) is int and 0 <= count < _MOST for count in counts):
        raise ValueError("counts are none")
    if type(row["clip"]) is not str or not all(type(label) is str for label in row["labels"]):
        raise ValueError("names are no texts")
    return row
