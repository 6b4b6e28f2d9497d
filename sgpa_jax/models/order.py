"""How the T tokens of a row follow one another: what a decoder needs to know besides the embeddings.

Given explicitly rather than assumed causal, so that several questions or coalitions may share one pass over the tokens
before them, and so that a token may be absent in each of the ways that a coalition game defines.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int


class Order(NamedTuple):
    """Positions, attention and predecessors of every token.

    Attributes:
        positions_bt: rotary positions.
        mask_btu: whether token t may look at token u.
        before_btk: for causal convolutions, the index of the token k + 1 places before t, -1 for none, which is heard
            as zeros; None for the neighbours in the row.
    """

    positions_bt: Int[Array, "B T"]
    mask_btu: Bool[Array, "B T U"]
    before_btk: Int[Array, "B T K"] | None = None


def causal_order(exists_bt: Bool[Array, "B T"]) -> Order:
    """Each token looks at itself and at the tokens before it that exist; only those count as positions.

    Convolutions follow the row, so tokens that do not exist must stand behind all others where a decoder has them.
    """
    n_tokens = exists_bt.shape[1]
    mask = jnp.tril(jnp.ones((n_tokens, n_tokens), bool))[None] & exists_bt[:, None, :]
    return Order(jnp.maximum(jnp.cumsum(exists_bt, axis=1) - 1, 0), mask)
