"""Choosing the next token from logits: the likeliest, or a draw that depends on its row and place, not on the batch."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray


class Sampling(NamedTuple):
    """How tokens are drawn: logits over `temperature`, among the `top_k` likeliest (None: among all)."""

    temperature: float = 1.0
    top_k: int | None = None


def row_keys(key: PRNGKeyArray, n_rows: int, place: Int[Array, ""]) -> PRNGKeyArray:
    """Return a key for every row of a batch at the `place`-th token."""
    rows = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(n_rows))
    return jax.vmap(jax.random.fold_in, (0, None))(rows, place)


def choose(
    logits_bv: Float[Array, "B V"], sampling: Sampling | None = None, keys_b: PRNGKeyArray | None = None
) -> Int[Array, " B"]:
    """Return the likeliest id of every row, or with `sampling` a draw, each row's from its own key.

    Ids as likely as the last of the `top_k` stay among the candidates, as in liquid-audio.
    """
    if sampling is None:
        return jnp.argmax(logits_bv, axis=-1).astype(jnp.int32)
    assert keys_b is not None, "sampling needs keys"
    if sampling.top_k is not None:
        least_b1 = jax.lax.top_k(logits_bv, sampling.top_k)[0][:, -1:]
        logits_bv = jnp.where(logits_bv < least_b1, -jnp.inf, logits_bv)
    return jax.vmap(jax.random.categorical)(keys_b, logits_bv / sampling.temperature).astype(jnp.int32)
