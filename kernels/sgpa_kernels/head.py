"""The log-probabilities of given tokens, without holding the logits of all rows over the vocabulary at once.

A teacher-forced response needs one number a token, but its logits are N × V: 20 GB in float32 for a thousand coalitions
of 32 tokens over Qwen2's vocabulary. `xla` takes one tile of rows after the other, so the table is never sliced and may
lie cut by tokens over a mesh (a tile then costs three sums of a number a row). `pallas`, for TPU, goes over tiles of
the vocabulary as well and keeps each row's running maximum, sum and target on the chip: logits never reach the memory.
Axes: `N` rows, `D` width, `V` vocabulary.
"""

import functools
from typing import Literal

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float, Int

_LANES = 128
_LOWEST = float(jnp.finfo(jnp.float32).min)


def target_log_probs(
    hidden_nd: Float[Array, "N D"],
    table_vd: Float[Array, "V D"],
    targets_n: Int[Array, " N"],
    *,
    impl: Literal["xla", "pallas"] = "xla",
    tile_logits: int = 2**26,
    interpret: bool = False,
) -> Float[Array, " N"]:
    """Return log softmax(hidden @ table.T) at each row's target, float32[N].

    Logits are computed in the dtype of `hidden_nd`, accumulated and normalised in float32. `xla` holds about
    `tile_logits` of them (or 16 rows') and computes them again for a gradient; `pallas` has no gradient, and with
    `interpret` runs anywhere, slowly.

    Raises:
        ValueError: `impl` is neither.
    """
    table_vd = table_vd.astype(hidden_nd.dtype)
    if impl == "xla":
        return _by_rows(hidden_nd, table_vd, targets_n, max(1, tile_logits // table_vd.shape[0]))
    if impl == "pallas":
        return _on_tpu(hidden_nd, table_vd, targets_n, interpret=interpret)
    raise ValueError(f"impl is {impl!r}: expected 'xla' or 'pallas'")


def _by_rows(hidden_nd: Array, table_vd: Array, targets_n: Array, most_rows: int) -> Array:
    n_rows = hidden_nd.shape[0]
    if n_rows <= most_rows:
        return _of_tile(hidden_nd, table_vd, targets_n)
    # Tiles of about the same size, so that few rows are added, and of 16 rows or a multiple, as accelerators lay them.
    tile = _round_up(-(-n_rows // -(-n_rows // most_rows)), 16)
    n_tiles = -(-n_rows // tile)
    added = n_tiles * tile - n_rows
    hidden = jnp.pad(hidden_nd, ((0, added), (0, 0))).reshape(n_tiles, tile, -1)
    targets = jnp.pad(targets_n, (0, added)).reshape(n_tiles, tile)
    # A gradient must not keep what this loop exists not to hold.
    body = jax.checkpoint(lambda pair: _of_tile(pair[0], table_vd, pair[1]))
    return jax.lax.map(body, (hidden, targets)).reshape(-1)[:n_rows]


def _of_tile(hidden_nd: Array, table_vd: Array, targets_n: Array) -> Array:
    logits_nv = _logits(hidden_nd, table_vd)
    target_n = jnp.take_along_axis(logits_nv, targets_n[:, None], axis=1)[:, 0]
    return target_n - jax.nn.logsumexp(logits_nv, axis=1)


def _logits(hidden_nd: Array, table_vd: Array) -> Array:
    return jax.lax.dot_general(hidden_nd, table_vd, (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32)


def _on_tpu(hidden_nd: Array, table_vd: Array, targets_n: Array, *, interpret: bool) -> Array:
    (n_rows, width), n_tokens = hidden_nd.shape, table_vd.shape[0]
    # The table is read once a tile of rows, so tiles are as tall as the chip's memory bears.
    rows, tokens = min(1024, _round_up(n_rows, 16)), min(512, _round_up(n_tokens, _LANES))
    grid = (pl.cdiv(n_rows, rows), pl.cdiv(n_tokens, tokens))
    item = hidden_nd.dtype.itemsize
    log_probs_n1 = pl.pallas_call(
        functools.partial(_kernel, n_tokens=n_tokens),
        grid=grid,
        in_specs=[
            pl.BlockSpec((rows, 1), lambda i, j: (i, 0)),
            pl.BlockSpec((rows, width), lambda i, j: (i, 0)),
            pl.BlockSpec((tokens, width), lambda i, j: (j, 0)),
        ],
        out_specs=pl.BlockSpec((rows, 1), lambda i, j: (i, 0)),
        out_shape=jax.ShapeDtypeStruct((n_rows, 1), jnp.float32),
        scratch_shapes=[pltpu.VMEM((rows, _LANES), jnp.float32)] * 3,
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "arbitrary"), vmem_limit_bytes=64 * 2**20
        ),
        cost_estimate=pl.CostEstimate(
            flops=2 * n_rows * n_tokens * width,
            transcendentals=n_rows * n_tokens,
            bytes_accessed=item * width * (n_rows + grid[0] * n_tokens) + 8 * n_rows,
        ),
        interpret=interpret,
        name="target_log_probs",
    )(targets_n.astype(jnp.int32)[:, None], hidden_nd, table_vd)
    return log_probs_n1[:, 0]


def _kernel(targets_ref, hidden_ref, table_ref, out_ref, highest_ref, sum_ref, target_ref, *, n_tokens: int):
    """One tile of the vocabulary for one tile of rows; the three scratches hold a number a row, in every lane."""
    tile = pl.program_id(1)

    @pl.when(tile == 0)
    def _():
        highest_ref[...] = jnp.full_like(highest_ref, _LOWEST)
        sum_ref[...] = jnp.zeros_like(sum_ref)
        target_ref[...] = jnp.zeros_like(target_ref)

    logits = _logits(hidden_ref[...], table_ref[...])
    tokens = tile * logits.shape[1] + jax.lax.broadcasted_iota(jnp.int32, logits.shape, 1)
    # The last tile reaches behind the table, where anything may lie.
    logits = jnp.where(tokens < n_tokens, logits, _LOWEST)
    before = highest_ref[...]
    highest = jnp.maximum(before, logits.max(axis=1, keepdims=True))
    grown = jnp.exp(logits - highest[:, :1]).sum(axis=1, keepdims=True)
    sum_ref[...] = sum_ref[...] * jnp.exp(before - highest) + grown
    highest_ref[...] = highest
    target_ref[...] += jnp.where(tokens == targets_ref[...], logits, 0.0).sum(axis=1, keepdims=True)

    @pl.when(tile == pl.num_programs(1) - 1)
    def _():
        out_ref[...] = (target_ref[...] - highest_ref[...] - jnp.log(sum_ref[...]))[:, :1]


def _round_up(length: int, step: int) -> int:
    return -(-length // step) * step
