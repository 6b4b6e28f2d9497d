"""The fixed columns of a data set's tables, and how outcomes become rows of them: nothing here touches a file.

`items` has a row an item, `players` a row a player (numbers of the first output), and `coalitions` a row an item's
game. What a failed item lacks is null. Axes: `C` coalitions, `P` players, `K` outputs, `S` rows of a sample.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from sgpa_jax.batch.outcome import Coalitions, Outcome
from sgpa_jax.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa

TABLES = ("coalitions", "players", "items")
"""In the order in which they are written: where the last is, the others are."""

_COLUMNS: dict[str, dict[str, str]] = {
    "items": {
        "id": "text", "audio": "text", "sha256": "text", "duration_s": "float64", "transcript": "text",
        "prompt": "text", "response": "text", "in_domain": "flag", "players": "int32", "estimand": "text",
        "estimator": "text", "budget": "int64", "seed": "int64", "value": "text", "absence": "text",
        "empty_value": "float64", "full_value": "float64", "efficiency_gap": "float64", "requested": "int64",
        "unique": "int64", "model_forwards": "int64", "model": "text", "model_digest": "text", "dtype": "text",
        "aligner": "text", "game_key": "text", "error": "text", "seconds": "float64", "explanation": "long text",
    },
    "players": {
        "id": "text", "player": "int32", "label": "text", "kind": "text", "start_s": "float64", "end_s": "float64",
        "confidence": "float64", "boundary_refined": "flag", "value": "float64", "standard_error": "float64",
    },
    "coalitions": {
        "id": "text", "game_key": "text", "n_players": "int32", "masks": "bytes", "n_outputs": "int32",
        "outputs": "numbers", "response_ids": "id lists", "sample": "ids", "values": "long numbers",
    },
}  # fmt: skip


def arrow() -> Any:
    """Return the module `pyarrow`, which the tables alone need.

    Raises:
        UsageError: it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UsageError("tables of a data set need pyarrow: pip install 'sgpa-jax[data]'") from error
    return pyarrow


@cache
def schema_of(name: str) -> "pa.Schema":
    """Return the columns of one of `TABLES`.

    `masks` are the coalitions' bits, each packed into whole bytes; `outputs` (float32[C, K]) and `values` (float64
    [S, K]) are flat. `sample` are rows of `masks` in the order of the estimator. `values` are null where they are the
    `outputs` of the sample themselves; `outputs` are null where there are `response_ids`.
    """
    pa = arrow()
    types = {
        "text": pa.string(), "long text": pa.large_string(), "flag": pa.bool_(), "int32": pa.int32(),
        "int64": pa.int64(), "float64": pa.float64(), "bytes": pa.large_binary(), "ids": pa.list_(pa.int32()),
        "id lists": pa.list_(pa.list_(pa.int32())), "numbers": pa.large_list(pa.float32()),
        "long numbers": pa.large_list(pa.float64()),
    }  # fmt: skip
    return pa.schema([pa.field(column, types[kind]) for column, kind in _COLUMNS[name].items()])


def items_table(outcomes: Sequence[Outcome]) -> "pa.Table":
    """Return a row for each item; what was explained is told without its timings."""
    return _table("items", [_item(outcome) for outcome in outcomes])


def players_table(outcomes: Sequence[Outcome]) -> "pa.Table":
    """Return a row for each player of the items that did not fail."""
    return _table("players", [row for outcome in outcomes for row in _players(outcome)])


def coalitions_table(outcomes: Sequence[Outcome]) -> "pa.Table":
    """Return a row for each item with coalitions."""
    pa = arrow()
    known = [(outcome.id, outcome.coalitions) for outcome in outcomes if outcome.coalitions is not None]
    games = [coalitions for _, coalitions in known]
    heard = [None if isinstance(game.outputs, np.ndarray) else game.outputs for game in games]
    columns = {
        "id": pa.array([_text(id) for id, _ in known], pa.string()),
        "game_key": pa.array([game.game_key for game in games], pa.string()),
        "n_players": pa.array([game.masks_cp.shape[1] for game in games], pa.int32()),
        "masks": pa.array([np.packbits(game.masks_cp, axis=1).tobytes() for game in games], pa.large_binary()),
        "n_outputs": pa.array([_n_outputs(game) for game in games], pa.int32()),
        "outputs": _lists([game.outputs if isinstance(game.outputs, np.ndarray) else None for game in games], "f4"),
        "response_ids": pa.array(heard, pa.list_(pa.list_(pa.int32()))),
        "sample": pa.array([game.sample_s.astype(np.int32) for game in games], pa.list_(pa.int32())),
        "values": _lists([None if _are_outputs(game) else game.values_sk for game in games], "f8"),
    }
    return pa.table(columns, schema=schema_of("coalitions"))


def coalitions_of(table: "pa.Table") -> dict[str, Coalitions]:
    """Return what `coalitions_table` made, by the key of the game.

    Raises:
        ValueError: the rows contradict themselves.
    """
    found = (_coalitions({name: table[name][row] for name in table.column_names}) for row in range(len(table)))
    return {game.game_key: game for game in found}


def _coalitions(cells: Mapping[str, Any]) -> Coalitions:
    n_players, n_outputs, key = (cells[name].as_py() for name in ("n_players", "n_outputs", "game_key"))
    if key is None or n_players is None or n_outputs is None or n_players < 1 or n_outputs < 1:
        raise ValueError("a game without a key, players or outputs")
    packed = np.frombuffer(cells["masks"].as_py() or b"", np.uint8).reshape(-1, -(-n_players // 8))
    masks_cp = np.unpackbits(packed, axis=1, count=n_players).astype(bool)
    sample_s = _numbers(cells["sample"])
    if len(sample_s) and not (sample_s.min() >= 0 and sample_s.max() < len(masks_cp)):
        raise ValueError("a sample of other coalitions than those that there are")
    if cells["response_ids"].is_valid:
        outputs: Any = tuple(tuple(ids) for ids in cells["response_ids"].as_py())
    else:
        outputs = _numbers(cells["outputs"]).reshape(-1, n_outputs)
    if len(outputs) != len(masks_cp):
        raise ValueError(f"{len(outputs)} outputs of {len(masks_cp)} coalitions")
    if cells["values"].is_valid:
        values_sk = _numbers(cells["values"]).reshape(len(sample_s), -1 if len(sample_s) else n_outputs)
    else:
        values_sk = outputs[sample_s].astype(np.float64)
    if not all(np.isfinite(array).all() for array in (outputs, values_sk) if isinstance(array, np.ndarray)):
        raise ValueError("numbers that are not finite")
    return Coalitions(key, masks_cp, outputs, sample_s, values_sk)


def _numbers(cell: Any) -> np.ndarray:
    if not cell.is_valid or cell.values.null_count:
        raise ValueError("a list without its numbers")
    return cell.values.to_numpy(zero_copy_only=False)


def _item(outcome: Outcome) -> dict[str, Any]:
    x, game = outcome.explanation, outcome.coalitions
    told = {"id": outcome.id, "audio": outcome.name, "error": outcome.error, "seconds": outcome.seconds}
    told["game_key"] = None if game is None else game.game_key
    if x is None:
        return told
    return told | {
        "sha256": x.clip.sha256,
        "duration_s": x.clip.duration_s,
        "transcript": x.transcript.text,
        "prompt": x.question,
        "response": x.response,
        "in_domain": x.in_domain,
        "players": len(x.players),
        "estimand": x.estimand,
        "estimator": x.estimator["name"],
        "budget": x.estimator["budget"],
        "seed": x.estimator["seed"],
        "value": x.game["value"],
        "absence": x.game["absence"],
        "empty_value": float(x.empty_value[0]),
        "full_value": float(x.full_value[0]),
        "efficiency_gap": float(x.efficiency_gap[0]),
        **{name: x.evaluations[name] for name in ("requested", "unique", "model_forwards")},
        "model": x.model["name"],
        "model_digest": x.model["digest"],
        "dtype": x.model["dtype"],
        "aligner": x.aligner["name"],
        "game_key": x.game.get("key", told["game_key"]),
        # Timings differ from run to run, and tables must not.
        "explanation": replace(x, timings={}).to_json(),
    }


def _players(outcome: Outcome) -> Iterable[dict[str, Any]]:
    x = outcome.explanation
    for p, player in enumerate(() if x is None else x.players):
        assert x is not None
        yield {
            "id": outcome.id,
            "player": p,
            "label": player.label,
            "kind": player.kind,
            "start_s": player.start_s,
            "end_s": player.end_s,
            "confidence": player.confidence,
            "boundary_refined": player.boundary_refined,
            "value": float(x.values[p, 0]),
            "standard_error": float(x.standard_errors[p, 0]),
        }


def _table(name: str, rows: Sequence[Mapping[str, Any]]) -> "pa.Table":
    clean = [{key: _text(cell) if isinstance(cell, str) else cell for key, cell in row.items()} for row in rows]
    return arrow().Table.from_pylist(clean, schema=schema_of(name))


def _text(text: str) -> str:
    # A file name may hold bytes that no text encoding knows; a table cannot.
    return text.encode("utf-8", "replace").decode("utf-8")


def _n_outputs(game: Coalitions) -> int:
    return (game.outputs if isinstance(game.outputs, np.ndarray) else game.values_sk).shape[1]


def _are_outputs(game: Coalitions) -> bool:
    return isinstance(game.outputs, np.ndarray) and np.array_equal(game.outputs[game.sample_s], game.values_sk)


def _lists(arrays: Sequence[np.ndarray | None], dtype: str) -> "pa.Array":
    """A column of flat numbers, without a Python object for each of them."""
    pa = arrow()
    flat = [np.zeros(0, dtype) if array is None else array.astype(dtype).ravel() for array in arrays]
    offsets = pa.array(np.cumsum([0, *map(len, flat)]), pa.int64())
    missing = pa.array([array is None for array in arrays], pa.bool_())
    return pa.LargeListArray.from_arrays(offsets, pa.array(np.concatenate([*flat, np.zeros(0, dtype)])), mask=missing)
