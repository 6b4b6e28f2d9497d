"""Which axis of which parameter is spread over a mesh: tensor parallelism over the axis "model", by parameter path.

The specs stand outside of the modules, so that a module knows nothing of meshes. Projections that widen are cut by
their outputs and those that narrow by their inputs, so that a layer's attention heads and hidden units stay on their
device; tables of embeddings are cut by tokens, those of a codebook, of which there are oddly many, by width. Everything
else, and a parameter whose axis the mesh does not divide (a few key heads, an odd vocabulary), is held by every device.
The axis "data" spreads coalitions and never a parameter. A mesh may reach over the devices of several processes, which
then all run the same; `gathered` lets each of them read what came out.
"""

import math
import re
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sgpa_jax.errors import UsageError

AXES = ("data", "model")
Arrays = TypeVar("Arrays")

_SPECS = (
    (
        r"(.*\.)?(query|key|value|relative|gate|up|input_gate|output_gate|content|depth_input)\.kernel",
        PartitionSpec(None, "model"),
    ),
    (r"(.*\.)?(query|key|value|gate|up|depth_input)\.bias", PartitionSpec("model")),
    (r"(.*\.)?(out|down)\.kernel", PartitionSpec("model", None)),
    (r"(decoder\.(embedding|head)|audio_out\.codes)\.table", PartitionSpec("model", None)),
    (r"audio_out\.codebooks\.\d+\.embedding\.table", PartitionSpec(None, "model")),
)


def parse_mesh(text: str) -> Mesh:
    """Return the mesh that text such as `data=4,model=2` describes, on the first devices of this machine.

    An axis that is not named has size 1. Several processes that were joined need all their devices on it.

    Raises:
        UsageError: no such text, more devices than there are, or fewer than several processes have.
    """
    shape = mesh_shape(text)
    n_devices, devices = math.prod(shape), jax.devices()
    if n_devices > len(devices):
        raise UsageError(f"the mesh {text!r} needs {n_devices} devices, but there are {len(devices)}; ask for fewer")
    if n_devices < len(devices) and jax.process_count() > 1:
        raise UsageError(
            f"the mesh {text!r} leaves out some of the {len(devices)} devices of {jax.process_count()} processes: "
            "expected all of them; ask for more"
        )
    # A plain Mesh has automatic axes; jax.make_mesh gives explicit ones, which ordinary matrix products refuse.
    return Mesh(np.array(devices[:n_devices]).reshape(shape), AXES)


def mesh_shape(text: str) -> tuple[int, ...]:
    """Return the sizes of `AXES` in text that `parse_mesh` takes, without looking for devices.

    Raises:
        UsageError: no such text.
    """
    pairs = [part.partition("=") for part in text.replace(" ", "").split(",")]
    sizes = {name: int(size) for name, _, size in pairs if size.isascii() and size.isdigit() and int(size) > 0}
    if len(sizes) != len(pairs) or not sizes.keys() <= set(AXES):
        raise UsageError(f"{text!r} describes no mesh: expected axes data and model with sizes, like data=4,model=2")
    return tuple(sizes.get(name, 1) for name in AXES)


def parameter_spec(path: str, shape: tuple[int, ...], model_size: int) -> PartitionSpec:
    """Return how a parameter is spread over `model_size` devices."""
    for pattern, spec in _SPECS:
        if re.fullmatch(pattern, path):
            fits = all(axis is None or n % model_size == 0 for n, axis in zip(shape, spec, strict=True))
            return spec if fits else PartitionSpec()
    return PartitionSpec()


def parameter_sharding(path: str, shape: tuple[int, ...], mesh: Mesh) -> NamedSharding:
    """Return where a parameter lies on a mesh with an axis "model"."""
    return NamedSharding(mesh, parameter_spec(path, shape, mesh.shape["model"]))


def gathered(arrays: Arrays) -> Arrays:
    """Return an array, or a tree of them, so that `np.asarray` can read it in this process.

    What is cut over devices of several processes is sent to all of them, without waiting for it: each process has to
    ask for the same arrays in the same order. Everything else is returned as it is.
    """
    return jax.tree.map(_whole, arrays)


def _whole(array: Any) -> Any:
    if not isinstance(array, jax.Array) or array.is_fully_addressable or array.is_fully_replicated:
        return array
    assert isinstance(array.sharding, NamedSharding)
    return jax.jit(_same, out_shardings=NamedSharding(array.sharding.mesh, PartitionSpec()))(array)


def _same(array: jax.Array) -> jax.Array:
    return array
