"""A game around any callable: coalitions in, values out, in batches of one fixed size and each coalition once.

The callable may be anything from a JAX model to a web service; estimators see nothing but this class. What it gives for
a coalition is an output, kept for good; a score turns outputs into values, and another score needs no model.
Axes: `C` coalitions, `P` players, `K` values of each.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Bool, Float

from sgpa_jax.audio import round_up
from sgpa_jax.errors import UsageError
from sgpa_jax.typing import MaskCP


@dataclass(frozen=True)
class Evaluations:
    """How often a game was asked.

    Attributes:
        requested: coalitions that were asked for.
        unique: coalitions among them that had not been asked for before.
        model_forwards: coalitions that the callable computed; more than `unique` by the padding of the last batch.
    """

    requested: int = 0
    unique: int = 0
    model_forwards: int = 0

    def __add__(self, more: "Evaluations") -> "Evaluations":
        return Evaluations(
            self.requested + more.requested, self.unique + more.unique, self.model_forwards + more.model_forwards
        )

    def __sub__(self, earlier: "Evaluations") -> "Evaluations":
        return Evaluations(
            self.requested - earlier.requested,
            self.unique - earlier.unique,
            self.model_forwards - earlier.model_forwards,
        )


class Reference(NamedTuple):
    """What scores compare the outputs of coalitions with.

    Attributes:
        full: the output of all players together, through the same function as every other.
        corpus: the outputs of all distinct coalitions known when the game was scored first, and the same from then on:
            values of a later call stay comparable with those of an earlier one.
    """

    full: Any
    corpus: Any


Score = Callable[[Any, Reference], Any]
"""Pure: outputs of C coalitions, as `Game.evaluate` returns them, and the reference -> float[C] or float[C, K]."""


class Game:
    """The cooperative game of a callable bool[C, P] -> float[C] or float[C, K], or any outputs and a score of them.

    Args:
        fn: what a batch of coalitions is worth; with a `score`, what it makes of them: an array with a row for each, or
            a list. A function that JAX can trace is compiled once, and arrays that it closes over are handed to the
            program instead of being copied into it. Any other function is noticed at the first call and gets NumPy
            masks from then on (`jit` tells which).
        n_players: P, at least 1.
        score: turns outputs into values; None: they are the values.
        microbatch: coalitions per call; the last batch repeats its last coalition to be as long as the others.
        mesh: devices that share every batch along the mesh axis "data"; `microbatch` is a multiple of its size.
        outputs: names of the K values, if they have any.
        jit: false calls `fn` as it is, with NumPy masks or with masks on the `mesh`: it may compile itself.
        length: what bool[C, P] masks cost, float[C]; batches are filled in this order, so that their rows are alike.
        matters_p: bool[P], players whose presence can change anything; coalitions that differ in the others alone are
            one, and `fn` gets it without these. None: all players.
        progress: called with (coalitions evaluated, coalitions to evaluate) after every batch of one request.

    Raises:
        UsageError: an argument outside of what is offered.
    """

    def __init__(
        self,
        fn: Callable[[Any], Any],
        n_players: int,
        *,
        score: Score | None = None,
        microbatch: int = 64,
        mesh: Mesh | None = None,
        outputs: Sequence[str] | None = None,
        jit: bool = True,
        length: Callable[[Bool[np.ndarray, "C P"]], Any] | None = None,
        matters_p: Bool[np.ndarray, " P"] | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        if n_players < 1 or microbatch < 1:
            raise UsageError(f"a game with {n_players} players in batches of {microbatch}: expected at least 1 of each")
        devices = 1 if mesh is None else _data_size(mesh)
        if microbatch % devices:
            raise UsageError(f"a microbatch of {microbatch} on {devices} devices: expected a multiple of their number")
        self.n_players = n_players
        self.outputs = tuple(outputs) if outputs else None
        self.jit = jit
        self._fn = fn
        self._score = score
        self._gives_values = score is None
        self._length = length
        self._matters_p = np.ones(n_players, bool) if matters_p is None else np.asarray(matters_p, bool)
        self._progress = progress
        self._mesh = mesh
        # A small game never fills a batch: do not make the model pay for more coalitions than there are.
        self._rows = min(microbatch, round_up(2**n_players, devices))
        self._n_outputs = None if self.outputs is None else len(self.outputs)
        self._call: Callable[[Any], Any] | None = None
        self._archive: dict[bytes, Any] = {}
        self._reference: Reference | None = None
        self._evaluations = Evaluations()

    @property
    def evaluations(self) -> Evaluations:
        """How often this game was asked so far, in whatever phase."""
        return self._evaluations

    @property
    def n_outputs(self) -> int:
        """K; a game whose values have no names is asked for its empty coalition to find out."""
        if self._n_outputs is None:
            self.values(np.zeros((1, self.n_players), bool))
        assert self._n_outputs is not None
        return self._n_outputs

    def values(self, masks_cp: MaskCP) -> Float[np.ndarray, "C K"]:
        """Return what each coalition is worth, float32[C, K]; a coalition asked for before is not evaluated again.

        Raises:
            UsageError: the masks are not bool[C, P] with C at least 1, or the values have the wrong shape or are not
                finite.
        """
        if self._score is None:
            return self.evaluate(masks_cp)
        masks_cp = self._checked_masks(masks_cp)
        self._evaluations += Evaluations(requested=len(masks_cp))
        # Scores refer to the full coalition: evaluated beside the others, it costs no batch of its own.
        outputs = self._outputs(np.concatenate([np.ones_like(masks_cp[:1]), masks_cp]))
        values_ck = self.score(outputs[1:])
        _refuse_infinite(values_ck, masks_cp)
        return values_ck

    def __call__(self, coalitions: Bool[np.ndarray, "C P"]) -> Float[np.ndarray, " C"]:
        """Return the first of each coalition's values, float64[C]: what shapiq's methods call a game for."""
        return self.values(np.atleast_2d(coalitions))[:, 0].astype(np.float64)

    def evaluate(self, masks_cp: MaskCP) -> Any:
        """Return the output of each coalition: an array with a row for each, or a list where the function gives lists.

        Raises:
            UsageError: the masks are not bool[C, P] with C at least 1, or the function returned something else.
        """
        masks_cp = self._checked_masks(masks_cp)
        self._evaluations += Evaluations(requested=len(masks_cp))
        return self._outputs(masks_cp)

    def score(self, outputs: Any) -> Float[np.ndarray, "C K"]:
        """Turn outputs into values, float32[C, K], comparing them with what was known when this was done first.

        Raises:
            UsageError: the score's values have the wrong shape.
        """
        values = outputs
        if self._score is not None:
            if self._reference is None:
                (full,) = self._outputs(np.ones((1, self.n_players), bool))
                self._reference = Reference(full, _rows(list(self._archive.values())))
            values = self._score(outputs, self._reference)
        values_ck = _checked_values(values, len(outputs), self._n_outputs, "score")
        self._n_outputs = values_ck.shape[1]
        return values_ck

    def known(self) -> tuple[Bool[np.ndarray, "C P"], Any]:
        """Return the coalitions that were evaluated so far, and their outputs."""
        packed = np.frombuffer(b"".join(self._archive), np.uint8).reshape(len(self._archive), -(-self.n_players // 8))
        masks_cp = np.unpackbits(packed, axis=1, count=self.n_players).astype(bool)
        return masks_cp, _rows(list(self._archive.values())) if self._archive else []

    def unknown(self, masks_cp: MaskCP) -> Bool[np.ndarray, "C P"]:
        """Return the different coalitions among these that would have to be evaluated; none of them may be left.

        Raises:
            UsageError: the masks are not bool[C, P].
        """
        masks_cp = self._checked_masks(masks_cp) & self._matters_p[None]
        keys = [row.tobytes() for row in np.packbits(masks_cp, axis=1)]
        return masks_cp[list({key: row for row, key in enumerate(keys) if key not in self._archive}.values())]

    def remember(self, masks_cp: MaskCP, outputs: Any, *, model_forwards: int | None = None) -> None:
        """Take outputs over that `known` told of the same game, or that were found elsewhere: none is evaluated again.

        Args:
            masks_cp: the coalitions, as `known` or `unknown` gave them.
            outputs: what `evaluate` would return.
            model_forwards: what the model computed for this game to find them; None: they are not this run's.

        Raises:
            UsageError: the masks are not bool[C, P], or there is no output for each.
        """
        masks_cp = self._checked_masks(masks_cp)
        outputs = _checked_outputs(outputs, len(masks_cp))
        if model_forwards is not None:
            self._evaluations += Evaluations(unique=len(masks_cp), model_forwards=model_forwards)
            if self._gives_values:
                _refuse_infinite(outputs, masks_cp)
        self._archive.update(zip((row.tobytes() for row in np.packbits(masks_cp, axis=1)), outputs, strict=True))

    def forget(self) -> None:
        """Drop all outputs, those of games that share them too, where they are too many to be held together."""
        self._archive.clear()
        self._reference = None

    def rescore(self, score: Score, *, outputs: Sequence[str] | None = None) -> "Game":
        """Return the game of another score, its values named `outputs`, on the outputs of this one.

        Both share what they evaluate from now on as well, and each counts its own requests.
        """
        game = copy.copy(self)
        game._score, game._reference = score, None
        game.outputs = tuple(outputs) if outputs else None
        game._n_outputs = None if game.outputs is None else len(game.outputs)
        return game

    def _checked_masks(self, masks_cp: Any) -> Bool[np.ndarray, "C P"]:
        masks = np.asarray(masks_cp)
        if masks.dtype != bool or masks.ndim != 2 or masks.shape[1] != self.n_players or len(masks) == 0:
            raise UsageError(
                f"masks are {masks.dtype}{list(masks.shape)}: expected bool[C, {self.n_players}] with at least one row"
            )
        return masks

    def _outputs(self, masks_cp: Bool[np.ndarray, "C P"]) -> Any:
        """Evaluate what is not archived yet, and return the outputs of all."""
        masks_cp = masks_cp & self._matters_p[None]
        keys = [row.tobytes() for row in np.packbits(masks_cp, axis=1)]
        new: dict[bytes, int] = {}
        for row, key in enumerate(keys):
            if key not in self._archive:
                new.setdefault(key, row)
        new_keys, new_rows = list(new), list(new.values())
        if self._length is not None and new:
            by_length = np.argsort(np.asarray(self._length(masks_cp[new_rows])), kind="stable").tolist()
            new_keys, new_rows = [new_keys[i] for i in by_length], [new_rows[i] for i in by_length]
        for first in range(0, len(new), self._rows):
            batch = slice(first, first + self._rows)
            self._archive.update(zip(new_keys[batch], self._evaluate(masks_cp[new_rows[batch]]), strict=True))
            if self._progress is not None:
                self._progress(min(batch.stop, len(new)), len(new))
        return _rows([self._archive[key] for key in keys])

    def _evaluate(self, masks_cp: Bool[np.ndarray, "C P"]) -> Any:
        """Call the function on at most one batch of new coalitions, and count it."""
        if self._call is None:
            self._call = self._compiled() if self.jit else self._fn
        padding = np.repeat(masks_cp[-1:], self._rows - len(masks_cp), axis=0)
        placed = self._place(np.concatenate([masks_cp, padding]), PartitionSpec("data", None))
        returned = self._call(placed)
        self._evaluations += Evaluations(unique=len(masks_cp), model_forwards=self._rows)
        if not self._gives_values:
            return _checked_outputs(returned, self._rows)[: len(masks_cp)]
        is_scored = self._score is not None
        values_ck = _checked_values(returned, self._rows, None if is_scored else self._n_outputs, "function")
        if not is_scored:
            self._n_outputs = values_ck.shape[1]
        values_ck = values_ck[: len(masks_cp)]
        _refuse_infinite(values_ck, masks_cp)
        return values_ck

    def _compiled(self) -> Callable[[Any], Any]:
        masks = jax.ShapeDtypeStruct((self._rows, self.n_players), jnp.bool_)
        try:
            traced = jax.make_jaxpr(lambda masks_cp: jnp.asarray(self._fn(masks_cp)))(masks)
        except (jax.errors.JAXTypeError, jax.errors.JAXIndexError):
            self.jit = False
            return self._fn
        # Closed-over weights become arguments: constants would be copied into the program and slow the compiler.
        constants = [self._place(constant, PartitionSpec()) for constant in traced.consts]
        run = jax.jit(lambda consts, masks_cp: jaxpr_as_fun(ClosedJaxpr(traced.jaxpr, consts))(masks_cp)[0])
        return partial(run, constants)

    def _place(self, array: Any, spec: PartitionSpec) -> Any:
        """Put an array on the mesh, if there is one and the array's owner has not placed it already."""
        if self._mesh is None or getattr(array, "committed", False):
            return array
        return jax.device_put(array, NamedSharding(self._mesh, spec))


def _checked_outputs(returned: Any, n_rows: int) -> Any:
    outputs = returned if isinstance(returned, list) else np.asarray(returned)
    shape = (len(outputs),) if isinstance(outputs, list) else outputs.shape
    if shape[:1] != (n_rows,):
        raise UsageError(
            f"the function returned {type(returned).__name__}{list(shape)} for {n_rows} coalitions: expected an array "
            "or a list with a row for each"
        )
    return outputs


def _checked_values(returned: Any, n_rows: int, n_outputs: int | None, who: str) -> Float[np.ndarray, "C K"]:
    array = np.asarray(returned)
    if array.shape == (n_rows,):
        array = array[:, None]
    right = array.ndim == 2 and len(array) == n_rows and array.size > 0 and _is_real(array)
    if not right or array.shape[1] != (n_outputs or array.shape[1]):
        raise UsageError(
            f"the {who} returned {array.dtype}{list(np.shape(returned))} for {n_rows} coalitions: "
            f"expected float[{n_rows}] or float[{n_rows}, {n_outputs or 'K'}]"
        )
    # Too large for float32 becomes infinite here and is refused by the caller.
    with np.errstate(over="ignore"):
        return array.astype(np.float32)


def _rows(outputs: list[Any]) -> Any:
    """Stack the outputs of several coalitions where they are arrays."""
    return np.stack(outputs) if isinstance(outputs[0], np.ndarray | np.generic) else outputs


def _refuse_infinite(values_ck: Float[np.ndarray, "C K"], masks_cp: Bool[np.ndarray, "C P"]) -> None:
    finite_ck = np.isfinite(values_ck)
    if not finite_ck.all():
        row, output = np.argwhere(~finite_ck)[0]
        raise UsageError(
            f"the game is worth {values_ck[row, output]} to the coalition {np.flatnonzero(masks_cp[row]).tolist()} "
            f"(output {output}): expected finite values of every coalition; check the function"
        )


def _is_real(array: np.ndarray) -> bool:
    return jnp.issubdtype(array.dtype, jnp.floating) or jnp.issubdtype(array.dtype, jnp.integer)


def _data_size(mesh: Mesh) -> int:
    if "data" not in mesh.shape:
        raise UsageError(f"the mesh has axes {mesh.axis_names}: expected one called 'data' to share coalitions along")
    return mesh.shape["data"]
