"""Greedy generation under `jax.jit` with static shapes and an explicit cache, for a batch of prompts."""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from sgpa_jax.models.audio_lm import Placed, causal_mask
from sgpa_jax.models.qwen2 import KVCache, Qwen2


@functools.partial(jax.jit, static_argnums=0, static_argnames=("n_new", "end_id"))
def generate_greedily(
    graphdef: nnx.GraphDef, state: nnx.State, placed: Placed, *, n_new: int, end_id: int
) -> Int[Array, "B N"]:
    """Return the N likeliest next ids of every row, one after another; after `end_id` a row repeats it.

    Rows may hold tokens that do not exist anywhere before their last one; the decoder is `(graphdef, state)`.
    """
    decoder: Qwen2 = nnx.merge(graphdef, state)
    n_prompt = placed.x.shape[1]
    hidden, cache = decoder.prefill(placed.x, placed.positions_bt, causal_mask(placed.exists_bt), n_prompt + n_new)
    last = jnp.max(jnp.where(placed.exists_bt, jnp.arange(n_prompt)[None, :], 0), axis=1)
    first = _best(decoder, jnp.take_along_axis(hidden, last[:, None, None], axis=1))
    n_real = placed.exists_bt.sum(axis=1)
    room = jnp.zeros((placed.x.shape[0], n_new), bool)
    visible = jnp.concatenate([placed.exists_bt, room], axis=1)

    def step(carry: tuple[Array, Array, KVCache], i: Array) -> tuple[tuple[Array, Array, KVCache], Array]:
        ids, visible, cache = carry
        visible = visible.at[:, n_prompt + i].set(True)
        x = decoder.embedding(ids[:, None]).astype(placed.x.dtype)
        hidden, cache = decoder.step(x, (n_real + i)[:, None], visible[:, None, :], cache, n_prompt + i)
        following = jnp.where(ids == end_id, end_id, _best(decoder, hidden))
        return (following, visible, cache), ids

    _, ids_nb = jax.lax.scan(step, (first, visible, cache), jnp.arange(n_new))
    return ids_nb.T


def _best(decoder: Qwen2, hidden: Float[Array, "B 1 D"]) -> Int[Array, " B"]:
    return jnp.argmax(decoder.logits(hidden)[:, 0], axis=-1).astype(jnp.int32)
