"""Greedy generation under `jax.jit` with static shapes and an explicit cache, for a batch of prompts."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from sgpa_jax.models.audio_lm import Placed, causal_mask
from sgpa_jax.models.qwen2 import KVCache, Qwen2


class _Written(NamedTuple):
    """Where a generation stands: N tokens of room, U slots of cache, `ids_b` chosen but not yet written."""

    count: Int[Array, ""]
    ids_b: Int[Array, " B"]
    ids_bn: Int[Array, "B N"]
    visible_bu: Bool[Array, "B U"]
    cache: KVCache


@functools.partial(jax.jit, static_argnums=0, static_argnames=("room", "end_id"))
def generate_greedily(
    graphdef: nnx.GraphDef, state: nnx.State, placed: Placed, n_new: Int[Array, ""], *, room: int, end_id: int
) -> Int[Array, "B N"]:
    """Return the likeliest next ids of every row, one after another, until all rows ended or there are `n_new`.

    The result has N = `room` columns (at least `n_new`), `end_id` behind a row's end. Rows may hold tokens that do not
    exist anywhere before their last one. The decoder is `(graphdef, state)`.
    """
    decoder: Qwen2 = nnx.merge(graphdef, state)
    size, n_prompt = placed.exists_bt.shape
    hidden, cache = decoder.prefill(placed.x, placed.positions_bt, causal_mask(placed.exists_bt), n_prompt + room)
    last = jnp.max(jnp.where(placed.exists_bt, jnp.arange(n_prompt)[None, :], 0), axis=1)
    first = _best(decoder, jnp.take_along_axis(hidden, last[:, None, None], axis=1))
    n_real = placed.exists_bt.sum(axis=1)
    visible = jnp.concatenate([placed.exists_bt, jnp.zeros((size, room), bool)], axis=1)

    def is_unfinished(written: _Written) -> Bool[Array, ""]:
        return (written.count < n_new) & jnp.any(written.ids_b != end_id)

    def step(written: _Written) -> _Written:
        count, ids = written.count, written.ids_b
        visible = written.visible_bu.at[:, n_prompt + count].set(True)
        x = decoder.embedding(ids[:, None]).astype(placed.x.dtype)
        positions = (n_real + count)[:, None]
        hidden, cache = decoder.step(x, positions, visible[:, None, :], written.cache, n_prompt + count)
        following = jnp.where(ids == end_id, end_id, _best(decoder, hidden))
        return _Written(count + 1, following, written.ids_bn.at[:, count].set(ids), visible, cache)

    empty = jnp.full((size, room), end_id, jnp.int32)
    begun = _Written(jnp.zeros((), jnp.int32), first, empty, visible, cache)
    return jax.lax.while_loop(is_unfinished, step, begun).ids_bn


def _best(decoder: Qwen2, hidden: Float[Array, "B 1 D"]) -> Int[Array, " B"]:
    return jnp.argmax(decoder.logits(hidden)[:, 0], axis=-1).astype(jnp.int32)
