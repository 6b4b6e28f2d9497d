"""How the T tokens of a row follow one another: what a decoder's layer needs to know besides the embeddings.

A layer is `layer(x_btd, order) -> (x_btd, written)`: it asks its order for positions, attends and convolves through
it, and returns what it wrote (keys and values, or a convolution's inputs). So the same layer runs over rows as they
stand, behind a cache, or over the many branches of a tree of coalitions, and a token may be absent in each of the ways
that a coalition game defines.
"""

from typing import NamedTuple, Protocol

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from sgpa_jax.models.layers import attention


class TokenOrder(Protocol):
    """What layers ask of an order."""

    @property
    def positions_bt(self) -> Int[Array, "B T"]:
        """Rotary positions of all tokens."""
        ...

    def wanted(self, rows_bt: Array) -> Array:
        """Of `[B, T, …]`, the W rows that a layer goes on with: all but where nobody reads the others."""
        ...

    def attend(
        self, query: Float[Array, "B W H D"], key: Float[Array, "B T G D"], value: Float[Array, "B T G D"]
    ) -> Float[Array, "B W E"]:
        """Let the wanted tokens attend, E = H * D."""
        ...

    def earlier(self, inputs: Float[Array, "B T D"], k: int) -> Float[Array, "B W D"]:
        """Inputs of the token k places (1, 2, …) before each wanted one, zeros where there is none."""
        ...


class Order(NamedTuple):
    """Rows of tokens as they stand.

    Attributes:
        positions_bt: rotary positions.
        mask_btu: whether token t may look at token u.
        before_btk: for causal convolutions, the index of the token k + 1 places before t, -1 for none, which is heard
            as zeros; None for the neighbours in the row.
    """

    positions_bt: Int[Array, "B T"]
    mask_btu: Bool[Array, "B T U"]
    before_btk: Int[Array, "B T K"] | None = None

    def wanted(self, rows_bt: Array) -> Array:
        """All rows."""
        return rows_bt

    def attend(self, query: Array, key: Array, value: Array) -> Array:
        """Attend under the mask."""
        return attention(query, key, value, self.mask_btu)

    def earlier(self, inputs: Float[Array, "B T D"], k: int) -> Float[Array, "B T D"]:
        """Follow the pointers, or shift the row."""
        if self.before_btk is None:
            return jnp.pad(inputs, ((0, 0), (k, 0), (0, 0)))[:, : inputs.shape[1]]
        return rows_at(inputs, self.before_btk[:, :, k - 1])


def causal_order(exists_bt: Bool[Array, "B T"]) -> Order:
    """Each token looks at itself and at the tokens before it that exist; only those count as positions.

    Convolutions follow the row, so tokens that do not exist must stand behind all others where a decoder has them.
    """
    n_tokens = exists_bt.shape[1]
    mask = jnp.tril(jnp.ones((n_tokens, n_tokens), bool))[None] & exists_bt[:, None, :]
    return Order(jnp.maximum(jnp.cumsum(exists_bt, axis=1) - 1, 0), mask)


def rows_at(rows_btd: Float[Array, "B T D"], places_bn: Int[Array, "B N"]) -> Float[Array, "B N D"]:
    """Rows by index, zeros where it is negative."""
    found = jnp.take_along_axis(rows_btd, jnp.maximum(places_bn, 0)[:, :, None], axis=1)
    return jnp.where(places_bn[:, :, None] >= 0, found, jnp.zeros((), rows_btd.dtype))
