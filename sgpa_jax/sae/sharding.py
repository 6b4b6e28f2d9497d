"""Where the parts of training lie on a mesh: latents along its axis `model`, tokens along `data`.

The rules stand outside of what they place. Everything with a row for each latent is cut by latents, if the mesh divides
them, Adam's moments with it; the rest is everywhere. A product with the latents then costs one sum over `model`, the
largest are found by counting (`bisect`), and gradients are summed over `data`: XLA puts all of that in.
"""

from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

_BY_LATENT = ("w_enc_md", "b_enc_m", "w_dec_md", "threshold_m", "silent_m")


def state_sharding(state: Any, mesh: Mesh) -> Any:
    """Return the sharding of every array of a `TrainState` or `SAEState`, or of their shapes."""
    n_cuts = mesh.shape["model"]

    def of(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        name = getattr(path[-1], "name", None) if path else None
        cut = name in _BY_LATENT and leaf.shape[0] % n_cuts == 0
        return NamedSharding(mesh, PartitionSpec("model") if cut else PartitionSpec())

    return jax.tree_util.tree_map_with_path(of, state)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Return the sharding of a batch of tokens."""
    return NamedSharding(mesh, PartitionSpec("data"))
