"""One game's coalitions and what the model made of them, in a file that a stopped run goes on from.

The file is a safetensors file: the game's key, the coalitions as packed bits, their outputs (numbers, or the token ids
of responses), and, once an estimate is finished, the coalitions that it rests on with their values.
Axes: `C` coalitions, `P` players, `K` outputs.
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from sgpa_jax.errors import UsageError
from sgpa_jax.files import atomic_write
from sgpa_jax.games import Game

SCHEMA = "sgpa-jax/coalitions/1"
SAVE_EVERY_S = 10.0
"""What a killed run loses at most, in seconds of work."""


class Sample(NamedTuple):
    """The coalitions that a finished estimate rests on: bool[C, P], and their values, float64[C, K]."""

    masks_cp: Bool[np.ndarray, "C P"]
    values_ck: Float[np.ndarray, "C K"]


def game_key(facts: Mapping[str, Any]) -> str:
    """Return the sha256 of what makes a game this one and no other: plain values that JSON can hold."""
    told = json.dumps({"schema": SCHEMA, **facts}, sort_keys=True, ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(told.encode()).hexdigest()


class CoalitionFile:
    """The file `path` of the game called `key`; what it holds of another game is not used, and overwritten.

    Args:
        path: the file; it need not exist.
        key: the game's, from `game_key`.
        decode: makes outputs of token ids, where the outputs are responses.

    Raises:
        UsageError: the file is there and cannot be read as one.
    """

    def __init__(self, path: Path, key: str, *, decode: Callable[[Sequence[int]], Any] | None = None) -> None:
        self.path, self.key = path, key
        self._decode = decode
        self._saved_s = time.monotonic()

    def restore(self, game: Game) -> int:
        """Tell a game what is known about its coalitions, and return how many those are."""
        if not self.path.exists():
            return 0
        told, arrays = read_file(self.path)
        if told["key"] != self.key:
            return 0
        masks_cp = _unpacked(arrays["coalitions"], game.n_players)
        outputs = arrays.get("outputs")
        if outputs is None:
            assert self._decode is not None
            ids = np.split(arrays["ids"], np.cumsum(arrays["lengths"])[:-1])
            outputs = [self._decode(row.tolist()) for row in ids]
        game.remember(masks_cp, outputs)
        return len(masks_cp)

    def save(self, game: Game, sample: Sample | None = None) -> None:
        """Write what a game knows by now, and the sample of a finished estimate.

        Raises:
            UsageError: the file cannot be written.
        """
        masks_cp, outputs = game.known()
        if len(masks_cp) == 0:
            return
        arrays: dict[str, Any] = {"coalitions": np.packbits(masks_cp, axis=1)}
        if isinstance(outputs, np.ndarray):
            arrays["outputs"] = outputs
        else:
            arrays["lengths"] = np.array([len(response.ids) for response in outputs], np.int64)
            arrays["ids"] = np.array([token for response in outputs for token in response.ids], np.int32)
        if sample is not None:
            arrays |= {"sample": np.packbits(sample.masks_cp, axis=1), "values": sample.values_ck}
        told = {"schema": SCHEMA, "key": self.key, "players": str(game.n_players)}
        atomic_write(self.path, save({name: np.ascontiguousarray(array) for name, array in arrays.items()}, told))
        self._saved_s = time.monotonic()

    def save_now_and_then(self, game: Game) -> None:
        """Write what a game knows, if the last time is long enough ago."""
        if time.monotonic() - self._saved_s > SAVE_EVERY_S:
            self.save(game)


def read_sample(path: Path, key: str) -> Sample:
    """Return the sample of a finished estimate.

    Raises:
        UsageError: the file is missing or damaged, is of another game than `key`, or of a run that did not finish.
    """
    if not path.exists():
        raise UsageError(f"there is no {path}: expected the coalitions of a finished run; explain again with --out")
    told, arrays = read_file(path)
    if told["key"] != key:
        raise UsageError(f"{path} is of another game than the explanation beside it: explain again")
    if "values" not in arrays:
        raise UsageError(f"{path} is of a run that did not finish: run it again, it goes on from there")
    return Sample(_unpacked(arrays["sample"], int(told["players"])), arrays["values"])


def read_file(path: Path) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """Return what a coalition file tells of its game, and its arrays.

    Raises:
        UsageError: it is not one, or damaged.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            told = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
    except (OSError, SafetensorError, ValueError, TypeError, KeyError) as error:
        raise UsageError(
            f"{path} cannot be read as coalitions ({str(error)[:80]}): delete it and explain again"
        ) from error
    if told.get("schema") != SCHEMA or "key" not in told or not _fit(arrays, told.get("players", "")):
        raise UsageError(f"{path} holds no coalitions of the schema {SCHEMA!r}: delete it and explain again")
    return told, arrays


def _fit(arrays: Mapping[str, np.ndarray], players: str) -> bool:
    """Whether shapes and types are those that `save` writes."""
    names = set(arrays)
    if not (
        players.isascii() and players.isdigit() and len(players) < 7 and int(players) > 0 and "coalitions" in names
    ):
        return False
    coalitions, n_players = arrays["coalitions"], int(players)
    if not _are_masks(coalitions, n_players) or not ({"outputs"} <= names or {"ids", "lengths"} <= names):
        return False
    if "outputs" in names:
        fits = _are_numbers(arrays["outputs"], len(coalitions))
    else:
        ids, lengths = arrays["ids"], arrays["lengths"]
        are_whole = all(array.ndim == 1 and np.issubdtype(array.dtype, np.integer) for array in (ids, lengths))
        fits = are_whole and len(lengths) == len(coalitions) and (lengths >= 0).all() and lengths.sum() == len(ids)
    if fits and "values" in names:
        fits = "sample" in names and _are_masks(arrays["sample"], n_players)
        fits = fits and _are_numbers(arrays["values"], len(arrays["sample"]))
    return bool(fits)


def _are_masks(array: np.ndarray, n_players: int) -> bool:
    return array.dtype == np.uint8 and array.ndim == 2 and len(array) > 0 and array.shape[1] == -(-n_players // 8)


def _are_numbers(array: np.ndarray, n_rows: int) -> bool:
    return (
        np.issubdtype(array.dtype, np.floating)
        and array.ndim == 2
        and array.shape[0] == n_rows
        and array.shape[1] > 0
        and bool(np.isfinite(array).all())
    )


def _unpacked(packed: np.ndarray, n_players: int) -> Bool[np.ndarray, "C P"]:
    return np.unpackbits(packed, axis=1, count=n_players).astype(bool)
