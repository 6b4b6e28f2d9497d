"""Generation of text under `jax.jit` with static shapes and an explicit cache, for a batch of prompts."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from sgpa_jax.models.audio_lm import Placed
from sgpa_jax.models.cache import Reading, read, read_on
from sgpa_jax.models.order import Order, causal_order
from sgpa_jax.models.sampling import Sampling, choose, row_keys


class _Written(NamedTuple):
    """Where a generation stands: N tokens of room, `ids_b` chosen but not yet written."""

    count: Int[Array, ""]
    ids_b: Int[Array, " B"]
    ids_bn: Int[Array, "B N"]
    reading: Reading


@functools.partial(jax.jit, static_argnums=0, static_argnames=("room", "end_ids", "n_shared", "sampling"))
def generate_text(
    graphdef: nnx.GraphDef,
    state: nnx.State,
    placed: Placed,
    n_new: Int[Array, ""],
    *,
    room: int,
    end_ids: tuple[int, ...],
    order: Order | None = None,
    n_shared: int = 0,
    sampling: Sampling | None = None,
    key: PRNGKeyArray | None = None,
) -> Int[Array, "B N"]:
    """Return every row's next ids, one after another, until all rows ended or there are `n_new`.

    Greedily without `sampling`, else drawn from `key`: a draw depends on its row and its place, not on the batch. The
    result has N = `room` columns (at least `n_new`), the first of `end_ids` behind a row's end, whichever of them
    ended it; without `end_ids` nothing ends. The prompt's tokens follow each other in `order`, without it as they
    stand; the first `n_shared` are the same in every row. The decoder is `(graphdef, state)`.
    """
    decoder = nnx.merge(graphdef, state)
    size = len(placed.n_b)
    order = causal_order(placed.exists_bt) if order is None else order
    hidden, reading = read(decoder, placed.x, order, placed.n_b - 1, room=room, n_shared=n_shared)
    end_id = end_ids[0] if end_ids else -1

    def following(hidden_bd: Float[Array, "B D"], place: Int[Array, ""]) -> Int[Array, " B"]:
        keys = None if key is None else row_keys(key, size, place)
        chosen = choose(decoder.logits(hidden_bd), sampling, keys)
        return jnp.where(_is_in(chosen, end_ids), end_id, chosen)

    def is_unfinished(written: _Written) -> Bool[Array, ""]:
        return (written.count < n_new) & ~jnp.all(_is_in(written.ids_b, end_ids))

    def step(written: _Written) -> _Written:
        count, ids = written.count, written.ids_b
        x = decoder.embedding(ids).astype(placed.x.dtype)
        hidden, reading = read_on(decoder, x, written.reading, count)
        chosen = jnp.where(_is_in(ids, end_ids), end_id, following(hidden, count + 1))
        return _Written(count + 1, chosen, written.ids_bn.at[:, count].set(ids), reading)

    first = following(hidden, jnp.zeros((), jnp.int32))
    empty = jnp.full((size, room), end_id, jnp.int32)
    begun = _Written(jnp.zeros((), jnp.int32), first, empty, reading)
    return jax.lax.while_loop(is_unfinished, step, begun).ids_bn


def _is_in(ids_b: Int[Array, " B"], members: tuple[int, ...]) -> Bool[Array, " B"]:
    found = jnp.zeros(ids_b.shape, bool)
    for member in members:
        found = found | (ids_b == member)
    return found
