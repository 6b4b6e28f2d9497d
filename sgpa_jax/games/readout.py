"""What a game reads inside of the decoder: hidden states of any layer, at the response's positions or at the audio's.

A readout is arrays in and arrays out: a sparse autoencoder's latents, a probe, anything; the engines know none of them.
With the audio before the question, what is read at audio positions never saw the question.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from sgpa_jax.errors import UsageError
from sgpa_jax.models import Decoder


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Readout:
    """K numbers of a coalition.

    Attributes:
        after_layer: whose residual stream is read, counted from 0; layers behind it are not run.
        positions: `response`, those that predict its tokens, or `audio`, those that belong to a player and are run.
        read: `read(params, hidden[..., D]) -> float[..., K]`; hashable, as jit wants it.
        params: its arrays.
        reduce: over positions: `mean`, `sum` or `max`; of no positions, as when nobody is there, it is 0.
    """

    after_layer: int = field(metadata={"static": True})
    positions: Literal["response", "audio"] = field(metadata={"static": True})
    read: Callable[[Any, Array], Array] = field(metadata={"static": True})
    params: Any = None
    reduce: Literal["mean", "sum", "max"] = field(default="mean", metadata={"static": True})

    def check(self, decoder: Decoder) -> None:
        """Raise a UsageError if the decoder has no such layer."""
        if not 0 <= self.after_layer < decoder.n_layers:
            raise UsageError(
                f"the readout is after layer {self.after_layer}, but the decoder has {decoder.n_layers}: expected "
                f"0 to {decoder.n_layers - 1}"
            )

    def n_values(self, width: int) -> int:
        """K, of a residual stream of some width."""
        return jax.eval_shape(self.read, self.params, jax.ShapeDtypeStruct((1, width), jnp.float32)).shape[-1]

    def __call__(self, hidden_btd: Float[Array, "B T D"], there_blt: Bool[Array, "B L T"]) -> Float[Array, "B L K"]:
        """Read all positions once, and reduce them for each of L sets of them."""
        values_btk = self.read(self.params, hidden_btd).astype(jnp.float32)
        if self.reduce == "max":
            return jax.lax.map(lambda there_bt: _largest(values_btk, there_bt), there_blt.swapaxes(0, 1)).swapaxes(0, 1)
        sums_blk = jnp.einsum("blt,btk->blk", there_blt.astype(jnp.float32), values_btk)
        if self.reduce == "sum":
            return sums_blk
        return sums_blk / jnp.maximum(there_blt.sum(axis=2), 1)[:, :, None].astype(jnp.float32)


def _largest(values_btk: Float[Array, "B T K"], there_bt: Bool[Array, "B T"]) -> Float[Array, "B K"]:
    largest_bk = jnp.where(there_bt[:, :, None], values_btk, -jnp.inf).max(axis=1)
    return jnp.where(there_bt.any(axis=1)[:, None], largest_bk, 0.0)
