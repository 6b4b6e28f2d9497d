"""Reading on: what a decoder keeps of the tokens it has read, layer by layer, and the next token behind them.

Works on any decoder whose layers are `layer(x, order) -> (x, written)`: attention writes keys and values, a convolution
its inputs. Prompts may begin with tokens that are the same in all rows: those are read once, whatever the batch.
Axes: `U` slots, one for each token of the prompt and then one for each that follows; `G` key heads; `K` inputs that a
convolution looks back on.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from sgpa_jax.models.layers import attention
from sgpa_jax.models.lfm2 import Lfm2
from sgpa_jax.models.order import Order, TokenOrder
from sgpa_jax.models.qwen2 import Qwen2


class Reading(NamedTuple):
    """How far a batch was read.

    Attributes:
        layers: of each layer, keys and values `[B, G, U, D]`, in this order of axes because a single query then reads
            them as they lie; or the last K inputs `[B, K, E]`, the latest last.
        positions_b: rotary position of the first token behind the prompt.
        visible_bt: slots of the prompt that those behind it may look at.
    """

    layers: tuple[Any, ...]
    positions_b: Int[Array, " B"]
    visible_bt: Bool[Array, "B T"]


def read(
    decoder: Qwen2 | Lfm2,
    x_btd: Float[Array, "B T D"],
    order: Order,
    last_b: Int[Array, " B"],
    *,
    room: int,
    n_shared: int = 0,
) -> tuple[Float[Array, "B D"], Reading]:
    """Read prompts that end at `last_b`, whose first `n_shared` tokens, fewer than any prompt's, are all the same.

    Returns:
        The final hidden state of each row's last token, and the reading with `room` for so many tokens more.
    """
    n_before = decoder.config.n_before
    shared_order: Order = jax.tree.map(lambda rows: rows[:1, :n_shared], order)
    shared_order = shared_order._replace(mask_btu=shared_order.mask_btu[:, :, :n_shared])
    shared, x = x_btd[:1, :n_shared], x_btd[:, n_shared:]
    stored, n_layers = [], len(decoder.layers)
    for i, layer in enumerate(decoder.layers):
        shared, before = layer(shared, shared_order) if n_shared else (shared, None)
        x, written = layer(x, _Prompt(order, n_shared, before, last_b if i == n_layers - 1 else None))
        stored.append(_stored(_behind(before, written), order, last_b, room=room, n_before=n_before))
    visible_b1t = jnp.take_along_axis(order.mask_btu, last_b[:, None, None], axis=1)
    position_b1 = jnp.take_along_axis(order.positions_bt, last_b[:, None], axis=1)
    return decoder.norm(x)[:, 0], Reading(tuple(stored), position_b1[:, 0] + 1, visible_b1t[:, 0])


def read_on(
    decoder: Qwen2 | Lfm2, x_bd: Float[Array, "B D"], reading: Reading, count: Int[Array, ""]
) -> tuple[Float[Array, "B D"], Reading]:
    """Read one token more a row, with `count` others between it and the prompt; return its final hidden state."""
    positions_b1, slot = (reading.positions_b + count)[:, None], reading.visible_bt.shape[1] + count
    x, layers = x_bd[:, None], []
    for layer, stored in zip(decoder.layers, reading.layers, strict=True):
        x, written = layer(x, _Next(positions_b1, reading.visible_bt, slot, stored))
        layers.append(_added(stored, written, slot))
    return decoder.norm(x)[:, 0], reading._replace(layers=tuple(layers))


class _Prompt(NamedTuple):
    """Order of the rows of prompts behind their shared tokens, in one layer.

    Attributes:
        whole: order of the whole prompts.
        n_shared: how many tokens are not in the rows.
        before: what the layer wrote for these, in one row.
        last_b: the only token of each row that is wanted, counted from the shared ones on; None: all.
    """

    whole: Order
    n_shared: int
    before: Any
    last_b: Int[Array, " B"] | None

    @property
    def positions_bt(self) -> Int[Array, "B T"]:
        return self.whole.positions_bt[:, self.n_shared :]

    def wanted(self, rows_bt: Array) -> Array:
        return rows_bt if self.last_b is None else _row_at(rows_bt, self.last_b - self.n_shared)

    def attend(self, query: Array, key: Array, value: Array) -> Array:
        key, value = _behind(self.before, (key, value))
        return attention(query, key, value, self.wanted(self.whole.mask_btu[:, self.n_shared :]))

    def earlier(self, inputs: Float[Array, "B T E"], k: int) -> Float[Array, "B W E"]:
        return self.wanted(self.whole.earlier(_behind(self.before, inputs), k)[:, self.n_shared :])


class _Next(NamedTuple):
    """Order of one token a row, behind what one layer stored."""

    positions_bt: Int[Array, "B 1"]
    visible_bt: Bool[Array, "B T"]
    slot: Int[Array, ""]
    stored: Any

    def wanted(self, rows_bt: Array) -> Array:
        return rows_bt

    def attend(self, query: Array, key: Array, value: Array) -> Array:
        n_rows, _, n_heads, width = query.shape
        keys, values = _added(self.stored, (key, value), self.slot)
        query = query.reshape(n_rows, keys.shape[1], -1, width)
        scores = jnp.einsum("bghd,bgud->bghu", query, keys, preferred_element_type=jnp.float32) * width**-0.5
        n_prompt, n_slots = self.visible_bt.shape[1], keys.shape[2]
        own = jnp.broadcast_to(jnp.arange(n_prompt, n_slots)[None] <= self.slot, (n_rows, n_slots - n_prompt))
        visible = jnp.concatenate([self.visible_bt, own], axis=1)[:, None, None]
        weights = jax.nn.softmax(jnp.where(visible, scores, jnp.finfo(jnp.float32).min), axis=-1)
        attended = jnp.einsum("bghu,bgud->bghd", weights.astype(values.dtype), values)
        return attended.reshape(n_rows, 1, n_heads * width)

    def earlier(self, inputs: Float[Array, "B 1 E"], k: int) -> Float[Array, "B 1 E"]:
        n_stored = self.stored.shape[1]
        return self.stored[:, n_stored - k : n_stored - k + 1]


def _behind(before: Any, written: Any) -> Any:
    """What was written for whole prompts: for the shared tokens, the same in every row, and for the rows' own."""
    if before is None:
        return written
    return jax.tree.map(
        lambda one, rows: jnp.concatenate([jnp.broadcast_to(one, (len(rows), *one.shape[1:])), rows], axis=1),
        before,
        written,
    )


def _stored(written: Any, order: TokenOrder, last_b: Int[Array, " B"], *, room: int, n_before: int) -> Any:
    if isinstance(written, tuple):
        return tuple(jnp.pad(rows.transpose(0, 2, 1, 3), ((0, 0), (0, 0), (0, room), (0, 0))) for rows in written)
    # The token k + 1 places before the next one is k places before the last one.
    earlier = [_row_at(order.earlier(written, k) if k else written, last_b) for k in reversed(range(n_before))]
    return jnp.concatenate(earlier, axis=1)


def _added(stored: Any, written: Any, slot: Int[Array, ""]) -> Any:
    if isinstance(written, tuple):
        return tuple(
            jax.lax.dynamic_update_slice_in_dim(slots, rows.transpose(0, 2, 1, 3), slot, axis=2)
            for slots, rows in zip(stored, written, strict=True)
        )
    return jnp.concatenate([stored[:, 1:], written], axis=1)


def _row_at(rows_bt: Array, place_b: Int[Array, " B"]) -> Array:
    """One row each of `[B, T, …]`."""
    return jnp.take_along_axis(rows_bt, place_b.reshape(-1, *[1] * (rows_bt.ndim - 1)), axis=1)
