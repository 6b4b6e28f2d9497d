"""Attention in a tree of coalitions, whose mask follows from a few integers a token.

The leaves of the tree are coalitions, in order. A token of the tree serves the leaves from its first on and before its
last, and has a place in the sequence; it looks at the tokens before it on its own branch:

    query q sees key k   if and only if   first_k <= first_q < last_k  and  place_k <= place_q.

`xla` holds the scores of all pairs. `pallas`, for TPU, goes over tiles of keys with a running softmax, makes a tile's
mask from the integers on the chip, and neither fetches nor computes tiles that hold no visible pair. `cudnn`, for
NVIDIA, gives cuDNN's attention the mask of all pairs, the same for all heads, in 16-bit floats.
Axes: `B` rows, `T` queries, `U` keys, `H` query heads, `G` key heads (H a multiple of G), `D` width of a head.
"""

import functools
from typing import Literal

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Bool, Float, Int

_LANES = 128
_LOWEST = float(jnp.finfo(jnp.float32).min)
_MOST_LANES = 2048
"""Of a tile's query heads side by side: what a core's memory holds along with keys, values and the running sums."""


def tree_attention(
    query: Float[Array, "B T H D"],
    key: Float[Array, "B U G D"],
    value: Float[Array, "B U G D"],
    query_first_bt: Int[Array, "B T"],
    query_place_bt: Int[Array, "B T"],
    key_first_bu: Int[Array, "B U"],
    key_last_bu: Int[Array, "B U"],
    key_place_bu: Int[Array, "B U"],
    *,
    impl: Literal["xla", "pallas", "cudnn"] = "xla",
    interpret: bool = False,
) -> Float[Array, "B T W"]:
    """Attend with scores over the root of D and softmax in float32, W = H * D, in the dtype of `value`.

    A query that sees nothing gets something finite that nobody may read. `pallas` has no gradient, and with `interpret`
    runs anywhere, slowly; `cudnn` takes bfloat16 and float16 alone.

    Raises:
        ValueError: `impl` is neither.
    """
    query_ints = (query_first_bt, query_place_bt)
    key_ints = (key_first_bu, key_last_bu, key_place_bu)
    if impl == "pallas":
        return _on_tpu(query, key, value, query_ints, key_ints, interpret=interpret)
    visible = _visible(*(a[:, :, None] for a in query_ints), *(a[:, None, :] for a in key_ints))
    if impl == "xla":
        return _dense(query, key, value, visible)
    if impl == "cudnn":
        return _by_cudnn(query, key, value, visible)
    raise ValueError(f"impl is {impl!r}: expected 'xla', 'pallas' or 'cudnn'")


def _visible(query_first: Array, query_place: Array, key_first: Array, key_last: Array, key_place: Array) -> Array:
    return (key_first <= query_first) & (query_first < key_last) & (key_place <= query_place)


def _dense(query: Array, key: Array, value: Array, visible: Bool[Array, "B T U"]) -> Array:
    n_batch, n_query, n_heads, width = query.shape
    query = query.reshape(n_batch, n_query, key.shape[2], -1, width)
    scores = jnp.einsum("btghd,bugd->bghtu", query, key, preferred_element_type=jnp.float32) * width**-0.5
    weights = jax.nn.softmax(jnp.where(visible[:, None, None], scores, _LOWEST), axis=-1).astype(value.dtype)
    return jnp.einsum("bghtu,bugd->btghd", weights, value).reshape(n_batch, n_query, n_heads * width)


def _by_cudnn(query: Array, key: Array, value: Array, visible: Bool[Array, "B T U"]) -> Array:
    found = jax.nn.dot_product_attention(query, key, value, mask=visible[:, None], implementation="cudnn")
    return found.reshape(*query.shape[:2], -1)


def _on_tpu(
    query: Array,
    key: Array,
    value: Array,
    query_ints: tuple[Array, ...],
    key_ints: tuple[Array, ...],
    *,
    interpret: bool,
) -> Array:
    n_batch, n_query, n_heads, width = query.shape
    n_keys, n_key_heads = key.shape[1:3]
    group = n_heads // n_key_heads
    together = _heads_together(n_key_heads, group, width)
    rows, columns = min(_LANES, _round_up(n_query, 16)), min(_LANES, _round_up(n_keys, 16))
    grid = (n_batch, n_key_heads // together, pl.cdiv(n_query, rows), pl.cdiv(n_keys, columns))
    # What is added belongs to no leaf: no query, for its first leaf is before all, and no key, for its last one is.
    query_ints = tuple(_padded(ints, rows, -1) for ints in query_ints)
    key_ints = tuple(_padded(ints, columns, -1) for ints in key_ints)
    live, fetched = _tiles(query_ints, key_ints, rows, columns)

    def of_query(b, h, i, j, live, fetched):
        return b, i, h

    def of_key(b, h, i, j, live, fetched):
        return b, fetched[b, i, j], h

    lanes, key_lanes = together * group * width, together * width
    pairs, item = n_batch * n_query * n_keys, query.dtype.itemsize
    return pl.pallas_call(
        functools.partial(_kernel, n_keys=n_keys, n_key_heads=together, group=group, width=width),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=2,
            grid=grid,
            in_specs=[
                pl.BlockSpec((1, rows, 2), lambda b, h, i, j, live, fetched: (b, i, 0)),
                pl.BlockSpec((1, 3, columns), lambda b, h, i, j, live, fetched: (b, 0, fetched[b, i, j])),
                pl.BlockSpec((1, rows, lanes), of_query),
                pl.BlockSpec((1, columns, key_lanes), of_key),
                pl.BlockSpec((1, columns, key_lanes), of_key),
            ],
            out_specs=pl.BlockSpec((1, rows, lanes), of_query),
            scratch_shapes=[
                pltpu.VMEM((together * group, rows, _LANES), jnp.float32),
                pltpu.VMEM((together * group, rows, _LANES), jnp.float32),
                pltpu.VMEM((rows, lanes), jnp.float32),
            ],
        ),
        out_shape=jax.ShapeDtypeStruct((n_batch, n_query, n_heads * width), value.dtype),
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "parallel", "parallel", "arbitrary")),
        # As if every tile were visible: which are is not known before the run.
        cost_estimate=pl.CostEstimate(
            flops=4 * pairs * n_heads * width,
            transcendentals=pairs * n_heads,
            bytes_accessed=2 * item * (query.size + grid[2] * key.size),
        ),
        interpret=interpret,
        name="tree_attention",
    )(
        live,
        fetched,
        jnp.stack(query_ints, axis=2).astype(jnp.int32),
        jnp.stack(key_ints, axis=1).astype(jnp.int32),
        query.reshape(n_batch, n_query, -1),
        key.reshape(n_batch, n_keys, -1),
        value.reshape(n_batch, n_keys, -1),
    )


def _heads_together(n_key_heads: int, group: int, width: int) -> int:
    """Key heads of a tile: as many as fit, whose lanes make up whole registers."""
    for n in range(n_key_heads, 0, -1):
        if n_key_heads % n == 0 and n * group * width <= _MOST_LANES and n * width % _LANES == 0:
            return n
    return n_key_heads


def _tiles(
    query_ints: tuple[Array, ...], key_ints: tuple[Array, ...], rows: int, columns: int
) -> tuple[Int[Array, "B I J"], Int[Array, "B I J"]]:
    """Return which tiles hold a visible pair, and which tile of keys to have at hand: a dead one's predecessor."""
    query = [ints.reshape(len(ints), -1, 1, rows, 1) for ints in query_ints]
    keys = [ints.reshape(len(ints), 1, -1, 1, columns) for ints in key_ints]
    live = _visible(*query, *keys).any(axis=(3, 4))
    tile = jax.lax.broadcasted_iota(jnp.int32, live.shape, 2)
    fetched = jnp.maximum(jax.lax.cummax(jnp.where(live, tile, -1), axis=2), 0)
    return live.astype(jnp.int32), fetched


def _padded(ints_bn: Array, step: int, filler: int) -> Array:
    length = ints_bn.shape[1]
    return jnp.pad(ints_bn, ((0, 0), (0, _round_up(length, step) - length)), constant_values=filler)


def _kernel(
    live_ref, fetched_ref, query_ints_ref, key_ints_ref, query_ref, key_ref, value_ref, out_ref,
    highest_ref, sum_ref, total_ref, *, n_keys: int, n_key_heads: int, group: int, width: int,
):  # fmt: skip
    """One tile of keys for one tile of queries; the scratches hold each head's running maximum, sum and output."""
    b, i, j = pl.program_id(0), pl.program_id(2), pl.program_id(3)

    @pl.when(j == 0)
    def _():
        highest_ref[...] = jnp.full_like(highest_ref, _LOWEST)
        sum_ref[...] = jnp.zeros_like(sum_ref)
        total_ref[...] = jnp.zeros_like(total_ref)

    @pl.when(live_ref[b, i, j] == 1)
    def _():
        query_ints, key_ints = query_ints_ref[0], key_ints_ref[0]
        columns = key_ints.shape[1]
        visible = _visible(query_ints[:, 0:1], query_ints[:, 1:2], key_ints[0:1], key_ints[1:2], key_ints[2:3])
        there = j * columns + jax.lax.broadcasted_iota(jnp.int32, (columns, 1), 0) < n_keys
        for g in range(n_key_heads):
            key_lanes = slice(g * width, (g + 1) * width)
            key = key_ref[0, :, key_lanes]
            value = value_ref[0, :, key_lanes]
            if n_keys % columns:
                # Behind the keys anything may lie, and what is not a number stays so at weight zero.
                value = jnp.where(there, value, jnp.zeros_like(value))
            for head in range(g * group, (g + 1) * group):
                lanes = slice(head * width, (head + 1) * width)
                scores = jax.lax.dot_general(
                    query_ref[0, :, lanes], key, (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32
                )
                scores = jnp.where(visible, scores * width**-0.5, _LOWEST)
                before = highest_ref[head]
                highest = jnp.maximum(before, scores.max(axis=1, keepdims=True))
                shrunk = jnp.exp(before - highest)
                weights = jnp.exp(scores - highest[:, :1])
                sum_ref[head] = sum_ref[head] * shrunk + weights.sum(axis=1, keepdims=True)
                highest_ref[head] = highest
                grown = jnp.dot(weights.astype(value.dtype), value, preferred_element_type=jnp.float32)
                total_ref[:, lanes] = total_ref[:, lanes] * shrunk[:, :1] + grown

    @pl.when(j == pl.num_programs(3) - 1)
    def _():
        for head in range(n_key_heads * group):
            lanes = slice(head * width, (head + 1) * width)
            # Without a visible tile the sum is zero.
            over = jnp.maximum(sum_ref[head][:, :1], jnp.finfo(jnp.float32).tiny)
            out_ref[0, :, lanes] = (total_ref[:, lanes] / over).astype(out_ref.dtype)


def _round_up(length: int, step: int) -> int:
    return -(-length // step) * step
