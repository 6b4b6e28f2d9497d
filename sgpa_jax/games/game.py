"""A game around any callable: coalitions in, values out, in batches of one fixed size and each coalition once.

The callable may be anything from a JAX model to a web service; estimators see nothing but this class.
Axes: `C` coalitions, `P` players, `K` outputs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

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


class Game:
    """The cooperative game of a callable bool[C, P] -> float[C] or float[C, K].

    Args:
        fn: what a batch of coalitions is worth. A function that JAX can trace is compiled once, and arrays that it
            closes over are handed to the program instead of being copied into it. Any other function is noticed at the
            first call and gets NumPy masks from then on (`jit` tells which).
        n_players: P, at least 1.
        microbatch: coalitions per call; the last batch repeats its last coalition to be as long as the others.
        mesh: devices that share every batch along the mesh axis "data"; `microbatch` is a multiple of its size.
        outputs: names of the K outputs, if they have any.
        jit: false calls `fn` as it is, with NumPy masks or with masks on the `mesh`: it may compile itself.
        progress: called with (coalitions evaluated, coalitions to evaluate) after every batch of a call of `values`.

    Raises:
        UsageError: an argument outside of what is offered.
    """

    def __init__(
        self,
        fn: Callable[[Any], Any],
        n_players: int,
        *,
        microbatch: int = 64,
        mesh: Mesh | None = None,
        outputs: Sequence[str] | None = None,
        jit: bool = True,
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
        self._progress = progress
        self._mesh = mesh
        # A small game never fills a batch: do not make the model pay for more coalitions than there are.
        self._rows = min(microbatch, round_up(2**n_players, devices))
        self._n_outputs = None if self.outputs is None else len(self.outputs)
        self._call: Callable[[Any], Any] | None = None
        self._values: dict[bytes, np.ndarray] = {}
        self._evaluations = Evaluations()

    @property
    def evaluations(self) -> Evaluations:
        """How often this game was asked so far, in whatever phase."""
        return self._evaluations

    @property
    def n_outputs(self) -> int:
        """K; a game whose outputs have no names is asked for its empty coalition to find out."""
        if self._n_outputs is None:
            self.values(np.zeros((1, self.n_players), bool))
        assert self._n_outputs is not None
        return self._n_outputs

    def values(self, masks_cp: MaskCP) -> Float[np.ndarray, "C K"]:
        """Return what each coalition is worth, float32[C, K]; a coalition asked for before is not evaluated again.

        Raises:
            UsageError: the masks are not bool[C, P] with C at least 1, or the callable's values have the wrong shape or
                are not finite.
        """
        masks_cp = self._checked_masks(masks_cp)
        keys = [row.tobytes() for row in np.packbits(masks_cp, axis=1)]
        new: dict[bytes, int] = {}
        for row, key in enumerate(keys):
            if key not in self._values:
                new.setdefault(key, row)
        self._evaluations += Evaluations(requested=len(keys))
        new_keys, new_rows = list(new), list(new.values())
        for first in range(0, len(new), self._rows):
            batch = slice(first, first + self._rows)
            values_ck = self._evaluate(masks_cp[new_rows[batch]])
            self._values.update(zip(new_keys[batch], values_ck, strict=True))
            if self._progress is not None:
                self._progress(min(batch.stop, len(new)), len(new))
        return np.stack([self._values[key] for key in keys])

    def _checked_masks(self, masks_cp: Any) -> Bool[np.ndarray, "C P"]:
        masks = np.asarray(masks_cp)
        if masks.dtype != bool or masks.ndim != 2 or masks.shape[1] != self.n_players or len(masks) == 0:
            raise UsageError(
                f"masks are {masks.dtype}{list(masks.shape)}: expected bool[C, {self.n_players}] with at least one row"
            )
        return masks

    def _evaluate(self, masks_cp: Bool[np.ndarray, "C P"]) -> Float[np.ndarray, "C K"]:
        """Call the function on at most one batch of new coalitions, and count it."""
        if self._call is None:
            self._call = self._compiled() if self.jit else self._fn
        padding = np.repeat(masks_cp[-1:], self._rows - len(masks_cp), axis=0)
        placed = self._place(np.concatenate([masks_cp, padding]), PartitionSpec("data", None))
        returned = self._call(placed)
        self._evaluations += Evaluations(unique=len(masks_cp), model_forwards=self._rows)
        values_ck = self._checked_values(returned)[: len(masks_cp)]
        finite_ck = np.isfinite(values_ck)
        if not finite_ck.all():
            row, output = np.argwhere(~finite_ck)[0]
            raise UsageError(
                f"the game is worth {values_ck[row, output]} to the coalition {np.flatnonzero(masks_cp[row]).tolist()} "
                f"(output {output}): expected finite values of every coalition; check the function"
            )
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

    def _checked_values(self, returned: Any) -> Float[np.ndarray, "C K"]:
        array = np.asarray(returned)
        if array.shape == (self._rows,):
            array = array[:, None]
        right = array.ndim == 2 and len(array) == self._rows and array.size > 0 and _is_real(array)
        if not right or array.shape[1] != (self._n_outputs or array.shape[1]):
            raise UsageError(
                f"the function returned {array.dtype}{list(np.shape(returned))} for {self._rows} coalitions: "
                f"expected float[{self._rows}] or float[{self._rows}, {self._n_outputs or 'K'}]"
            )
        self._n_outputs = array.shape[1]
        # Too large for float32 becomes infinite here and is refused by the caller.
        with np.errstate(over="ignore"):
            return array.astype(np.float32)


def _is_real(array: np.ndarray) -> bool:
    return jnp.issubdtype(array.dtype, jnp.floating) or jnp.issubdtype(array.dtype, jnp.integer)


def _data_size(mesh: Mesh) -> int:
    if "data" not in mesh.shape:
        raise UsageError(f"the mesh has axes {mesh.axis_names}: expected one called 'data' to share coalitions along")
    return mesh.shape["data"]
