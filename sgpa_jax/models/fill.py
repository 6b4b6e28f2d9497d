"""Filling a network with a checkpoint, tensor by tensor, each straight onto its devices in its own dtype.

The network's tree comes from `nnx.eval_shape`, so nothing is computed and nothing is there twice. Beside the parameters
on their devices the host holds one tensor at a time; what it reads are pages of the mapped file, which the system may
drop at any moment. Matrices are laid out as ours on the way to the device.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import sgpa_checkpoints
from flax import nnx
from jax.sharding import Mesh
from sgpa_checkpoints import AnyRule

from sgpa_jax.errors import CheckpointError, unknown_name
from sgpa_jax.models import orbax_cache
from sgpa_jax.models.sharding import parameter_sharding

_LOGGER = logging.getLogger(__name__)
DTYPES = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(jnp.bfloat16)}

Slots = Mapping[str, jax.ShapeDtypeStruct]


class Target(NamedTuple):
    """A network without values: its graph, its state, and the shape, dtype and place of each parameter by its path."""

    graphdef: nnx.GraphDef
    state: nnx.State
    slots: Slots


def fill(
    build: Callable[[], nnx.Module],
    folder: Path,
    rules: tuple[AnyRule, ...],
    *,
    normalise: Callable[[str], str] = str,
    dtype: str = "float32",
    mesh: Mesh | None = None,
) -> tuple[nnx.GraphDef, nnx.State]:
    """Return the graph and the filled state of the network that `build` makes.

    Args:
        build: makes the network; called under `nnx.eval_shape`, so nothing is computed.
        folder: a Hugging Face folder, or one that `sgpa convert` has written.
        rules: which tensor becomes which parameter.
        normalise: brings the names of other layouts to the rules'.
        dtype: `float32` or `bfloat16`, of parameters with two axes and more; vectors (norms, biases, statistics) are
            always float32.
        mesh: devices to spread the parameters over, as `sharding.py` says; by default the first device holds all.

    Raises:
        sgpa_checkpoints.FormatError: the folder is incomplete, damaged or of another architecture.
        CheckpointError: a converted folder is damaged, and what it was converted from is gone.
        UsageError: an unknown dtype.
    """
    graphdef, state, slots = target(build, dtype=dtype, mesh=mesh)
    leaves = {".".join(map(str, path)): leaf for path, leaf in nnx.to_flat_state(state)}
    if orbax_cache.is_converted(folder):
        parameters = _restored(folder, slots, rules, normalise, dtype).items()
    else:
        parameters = stream(folder, slots, rules, normalise)
    for path, array in parameters:
        leaves[path].set_value(array)
    return graphdef, state


def target(build: Callable[[], nnx.Module], *, dtype: str = "float32", mesh: Mesh | None = None) -> Target:
    """Return the network without values that is to be filled; arguments are those of `fill`.

    Raises:
        CheckpointError: its configuration contradicts itself.
        UsageError: an unknown dtype.
    """
    if dtype not in DTYPES:
        raise unknown_name("dtype", dtype, DTYPES)
    try:
        graphdef, state = nnx.split(nnx.eval_shape(build))
    except (ArithmeticError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"config.json describes a network that cannot be built ({str(error)[:80]}); fetch the file again"
        ) from error
    slots = {}
    for keys, leaf in nnx.to_flat_state(state):
        path, shape = ".".join(map(str, keys)), tuple(leaf.get_value().shape)
        slots[path] = jax.ShapeDtypeStruct(
            shape,
            DTYPES[dtype] if len(shape) > 1 else DTYPES["float32"],
            sharding=None if mesh is None else parameter_sharding(path, shape, mesh),
        )
    return Target(graphdef, state, slots)


def shape_rngs() -> nnx.Rngs:
    """Return random keys for a network that is built for its shapes alone: always the same one.

    Counting keys is nine tenths of what tracing a large network costs (measured: 4.3 s against 0.5 s for LFM2-Audio).
    """
    return cast(nnx.Rngs, _OneKey(jax.random.key(0)))


class _OneKey(NamedTuple):
    key: jax.Array

    def params(self) -> jax.Array:
        return self.key


def stream(
    folder: Path, slots: Slots, rules: tuple[AnyRule, ...], normalise: Callable[[str], str]
) -> Iterator[tuple[str, jax.Array]]:
    """Yield every parameter of a Hugging Face folder by its path, on its devices.

    Raises:
        sgpa_checkpoints.FormatError: the folder is incomplete, damaged or of another architecture.
    """
    config = sgpa_checkpoints.read_json(folder / "config.json")
    shapes = {path: slot.shape for path, slot in slots.items()}
    tensors = sgpa_checkpoints.read_tensors(folder)
    for path, array in sgpa_checkpoints.convert(tensors, rules, shapes, normalise=normalise, config=config):
        yield path, _placed(array, slots[path])


def _restored(
    folder: Path, slots: Slots, rules: tuple[AnyRule, ...], normalise: Callable[[str], str], dtype: str
) -> Mapping[str, jax.Array]:
    try:
        return orbax_cache.restore(folder, slots, rules, dtype)
    except orbax_cache.StaleError as stale:
        source = orbax_cache.source_of(folder)
        if not source.is_dir():
            raise CheckpointError(
                f"the parameters in {folder} cannot be used ({stale}) and {source}, which they were converted from, is "
                "gone; convert again"
            ) from stale
        _LOGGER.warning("the parameters in %s cannot be used (%s): converting %s again", folder, stale, source)
    parameters = dict(stream(source, slots, rules, normalise))
    orbax_cache.save(folder, source, parameters, rules, dtype)
    return parameters


def _placed(array: np.ndarray, slot: jax.ShapeDtypeStruct) -> jax.Array:
    def own(piece: np.ndarray) -> np.ndarray:
        # JAX may use the memory of a contiguous host array as it is, which must never be the mapped file; one whose
        # axes were exchanged is always written anew, once, by XLA. `astype` copies and keeps the order in memory.
        return piece if piece.dtype == slot.dtype and not piece.flags.c_contiguous else piece.astype(slot.dtype)

    if slot.sharding is None:
        return jax.device_put(own(array))
    return jax.make_array_from_callback(slot.shape, slot.sharding, lambda index: own(array[index]))
