"""Generation of text under `jax.jit` with static shapes and an explicit cache, for a batch of prompts."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from sgpa_jax.models.audio_lm import Placed
from sgpa_jax.models.order import causal_order
from sgpa_jax.models.sampling import Sampling, choose, row_keys


class _Written(NamedTuple):
    """Where a generation stands: N tokens of room, `ids_b` chosen but not yet written."""

    count: Int[Array, ""]
    ids_b: Int[Array, " B"]
    ids_bn: Int[Array, "B N"]
    cache: NamedTuple


@functools.partial(jax.jit, static_argnums=0, static_argnames=("room", "end_ids", "sampling"))
def generate_text(
    graphdef: nnx.GraphDef,
    state: nnx.State,
    placed: Placed,
    n_new: Int[Array, ""],
    *,
    room: int,
    end_ids: tuple[int, ...],
    sampling: Sampling | None = None,
    key: PRNGKeyArray | None = None,
) -> Int[Array, "B N"]:
    """Return every row's next ids, one after another, until all rows ended or there are `n_new`.

    Greedily without `sampling`, else drawn from `key`: a draw depends on its row and its place, not on the batch. The
    result has N = `room` columns (at least `n_new`), the first of `end_ids` behind a row's end, whichever of them
    ended it; without `end_ids` nothing ends. The decoder is `(graphdef, state)`.
    """
    decoder = nnx.merge(graphdef, state)
    size, n_prompt = placed.exists_bt.shape
    last = placed.n_b - 1
    hidden, cache = decoder.prefill(placed.x, causal_order(placed.exists_bt), last, n_prompt + room)
    end_id = end_ids[0] if end_ids else -1

    def following(hidden_b1d: Float[Array, "B 1 D"], place: Int[Array, ""]) -> Int[Array, " B"]:
        keys = None if key is None else row_keys(key, size, place)
        chosen = choose(decoder.logits(hidden_b1d)[:, 0], sampling, keys)
        return jnp.where(_is_in(chosen, end_ids), end_id, chosen)

    def is_unfinished(written: _Written) -> Bool[Array, ""]:
        return (written.count < n_new) & ~jnp.all(_is_in(written.ids_b, end_ids))

    def step(written: _Written) -> _Written:
        count, ids = written.count, written.ids_b
        slots = jnp.arange(n_prompt + room)[None, :]
        visible = (slots < placed.n_b[:, None]) | ((slots >= n_prompt) & (slots <= n_prompt + count))
        x = decoder.embedding(ids[:, None]).astype(placed.x.dtype)
        positions = (placed.n_b + count)[:, None]
        hidden, cache = decoder.step(x, positions, visible[:, None, :], written.cache, n_prompt + count)
        chosen = jnp.where(_is_in(ids, end_ids), end_id, following(hidden, count + 1))
        return _Written(count + 1, chosen, written.ids_bn.at[:, count].set(ids), cache)

    first = following(jnp.take_along_axis(hidden, last[:, None, None], axis=1), jnp.zeros((), jnp.int32))
    empty = jnp.full((size, room), end_id, jnp.int32)
    return jax.lax.while_loop(is_unfinished, step, _Written(jnp.zeros((), jnp.int32), first, empty, cache)).ids_bn


def _is_in(ids_b: Int[Array, " B"], members: tuple[int, ...]) -> Bool[Array, " B"]:
    found = jnp.zeros(ids_b.shape, bool)
    for member in members:
        found = found | (ids_b == member)
    return found
