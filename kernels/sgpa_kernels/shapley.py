"""Exact Shapley and Banzhaf values from the values of all 2^P coalitions, without a gather.

Both are means of what a player adds, v(S ∪ i) - v(S), weighted by the size of S alone and symmetrically: Shapley by
w(s) = s! (P-1-s)! / P!, Banzhaf by w(s) = 2^(1-P). Hence only the differences d(S) = v(S) - v(N∖S) count, half as many
as coalitions, and a constant game is exactly zero:

    φ_i = Σ_{S∋i} w(|S|-1) d(S)  -  Σ_{S∌i} w(|S|) d(S),      over the coalitions S without the last player.

Two ways to sum. Few outputs: with the table (w(|S|-1) + w(|S|)) d(S), folded along its last player it halves each time;
what is in the upper half belongs to that player, and both halves together go on. Many outputs: a product of the P
weights of every coalition with a block of differences at a time, small enough to stay in the cache.
Axes: `N` = 2^P coalitions (bit `i` of the row's index = player `i`), `H` = N / 2, `P` players, `K` outputs.
"""

from functools import lru_cache, partial
from math import comb
from typing import Any, overload

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

_HOST_BLOCK = 2**16
_DEVICE_BLOCK = 2**20
_WEIGHED_ROWS = 2**12


@overload
def exact_shapley(values: Float[np.ndarray, "N *K"]) -> Float[np.ndarray, "P *K"]: ...
@overload
def exact_shapley(values: Float[Array, "N *K"]) -> Float[Array, "P *K"]: ...
def exact_shapley(values):
    """Return the Shapley values of the game whose coalition values are `values`, float[2^P] or float[2^P, K].

    A NumPy array is solved on the host in float64; a JAX array where it lives, in its own floating dtype, also inside
    of `jit`, `vmap` and `grad`.

    Raises:
        ValueError: the number of rows is not 2^P with P at least 1.
    """
    n_players = players_of(values)
    return _semivalue(values, tuple(1.0 / (n_players * comb(n_players - 1, size)) for size in range(n_players)))


@overload
def exact_banzhaf(values: Float[np.ndarray, "N *K"]) -> Float[np.ndarray, "P *K"]: ...
@overload
def exact_banzhaf(values: Float[Array, "N *K"]) -> Float[Array, "P *K"]: ...
def exact_banzhaf(values):
    """Return the Banzhaf values: the mean, over all coalitions of the others, of what each player adds.

    Arguments, dtypes and errors are those of `exact_shapley`.
    """
    n_players = players_of(values)
    return _semivalue(values, (2.0 ** (1 - n_players),) * n_players)


def players_of(values: Float[np.ndarray, "N *K"] | Float[Array, "N *K"]) -> int:
    """Return P of a table with a row for each of the 2^P coalitions.

    Raises:
        ValueError: the number of rows is not 2^P with P at least 1.
    """
    n_rows = values.shape[0] if values.ndim in (1, 2) else 0
    if n_rows < 2 or n_rows & (n_rows - 1):
        raise ValueError(f"values have shape {values.shape}: expected [2^P] or [2^P, K], a row for every coalition")
    return n_rows.bit_length() - 1


def _semivalue(values: Any, weight_by_size: tuple[float, ...]) -> Any:
    table_nk = values.reshape(values.shape[0], -1)
    many = table_nk.shape[1] >= len(weight_by_size)
    if isinstance(values, np.ndarray):
        solved_pk = (_multiply_on_host if many else _fold_on_host)(table_nk, weight_by_size)
    else:
        solved_pk = _solve(table_nk, weight_by_size, many)
    return solved_pk.reshape(-1, *values.shape[1:])


@partial(jax.jit, static_argnums=(1, 2))
def _solve(table_nk: Float[Array, "N K"], weight_by_size: tuple[float, ...], many: bool) -> Float[Array, "P K"]:
    if many:
        return _multiply_on_device(table_nk, weight_by_size)
    without_nk, with_nk = jnp.split(table_nk, 2)
    differences_hk = without_nk - with_nk[::-1]
    size_h = jnp.bitwise_count(jnp.arange(len(differences_hk), dtype=jnp.uint32))
    having, lacking = (
        _by_size(size_h, weights, table_nk.dtype)[:, None] for weights in _fold_weights_by_size(weight_by_size)
    )
    return _fold(jnp, differences_hk, having, lacking)


def _fold_on_host(table_nk: np.ndarray, weight_by_size: tuple[float, ...]) -> np.ndarray:
    half = len(table_nk) // 2
    differences_hk = np.subtract(table_nk[:half], table_nk[: half - 1 : -1], dtype=np.float64)
    return _fold(np, differences_hk, *_fold_weights_on_host(weight_by_size))


def _fold(xp: Any, table_hk: Any, having_h1: Any, lacking_h1: Any) -> Any:
    everyone_k = xp.sum(lacking_h1 * table_hk, axis=0)
    table_hk = having_h1 * table_hk
    sums = [xp.zeros_like(everyone_k)]
    while table_hk.shape[0] > 1:
        lower_hk, upper_hk = xp.split(table_hk, 2)
        sums.append(xp.sum(upper_hk, axis=0))
        table_hk = lower_hk + upper_hk
    return xp.stack(sums[::-1]) - everyone_k[None, :]


def _multiply_on_host(table_nk: np.ndarray, weight_by_size: tuple[float, ...]) -> np.ndarray:
    (n_rows, n_outputs), n_players = table_nk.shape, len(weight_by_size)
    n_block = _block_rows(n_rows // 2, n_outputs, _HOST_BLOCK)
    solved_pk = np.zeros((n_players, n_outputs))
    n_stripe = min(max(n_block, _WEIGHED_ROWS), n_rows // 2)
    block_bk = np.empty((n_block, n_outputs))
    for stripe in range(0, n_rows // 2, n_stripe):
        weights_pb = _block_weights(np, stripe, n_stripe, weight_by_size, np.float64)
        for first in range(stripe, stripe + n_stripe, n_block):
            block_bk[:] = table_nk[first : first + n_block]
            block_bk -= table_nk[n_rows - first - n_block : n_rows - first][::-1]
            solved_pk += weights_pb[:, first - stripe : first - stripe + n_block] @ block_bk
    return solved_pk


def _multiply_on_device(table_nk: Float[Array, "N K"], weight_by_size: tuple[float, ...]) -> Float[Array, "P K"]:
    (n_rows, n_outputs), dtype = table_nk.shape, table_nk.dtype
    n_block = _block_rows(n_rows // 2, n_outputs, _DEVICE_BLOCK)

    def step(solved_pk, first):
        without_bk = jax.lax.dynamic_slice_in_dim(table_nk, first, n_block)
        with_bk = jax.lax.dynamic_slice_in_dim(table_nk, n_rows - first - n_block, n_block)[::-1]
        weights_pb = _block_weights(jnp, first, n_block, weight_by_size, dtype)
        # The default precision is that of the hardware's fast products: bfloat16 or TF32.
        return solved_pk + jnp.matmul(weights_pb, without_bk - with_bk, precision="highest"), None

    starts = jnp.arange(0, n_rows // 2, n_block, dtype=jnp.int32)
    return jax.lax.scan(step, jnp.zeros((len(weight_by_size), n_outputs), dtype), starts)[0]


def _block_rows(n_half: int, n_outputs: int, n_numbers: int) -> int:
    """Return how many rows of `n_outputs` make a block: a power of two, as is the number of all."""
    return min(n_half, 1 << max(n_numbers // n_outputs, 1).bit_length() - 1)


def _block_weights(xp: Any, first: Any, n_block: int, weight_by_size: tuple[float, ...], dtype: Any) -> Any:
    """Return [P, B]: the weight of the differences of coalitions `first` … in the value of each player."""
    row_b = first + xp.arange(n_block, dtype=xp.int32)
    there_pb = (row_b[None, :] >> xp.arange(len(weight_by_size), dtype=xp.int32)[:, None]) % 2 == 1
    size_b = xp.bitwise_count(row_b)
    member_b = _by_size(size_b, (0.0, *weight_by_size), dtype)
    other_b = _by_size(size_b, (*weight_by_size, 0.0), dtype)
    return xp.where(there_pb, member_b[None, :], -other_b[None, :])


def _by_size(size_b: Any, weights: tuple[float, ...], dtype: Any) -> Any:
    if isinstance(size_b, np.ndarray):
        return np.array(weights, dtype)[size_b]
    # A chain of selections and not a look-up: accelerators gather slowly.
    weight_b = jnp.zeros(size_b.shape, dtype)
    for size, weight in enumerate(weights):
        weight_b = jnp.where(size_b == size, jnp.asarray(weight, dtype), weight_b)
    return weight_b


def _fold_weights_by_size(weight_by_size: tuple[float, ...]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return, for each size of a coalition without the last player, its weight in a member's and in everyone's sum."""
    having = (before + at for before, at in zip((0.0, *weight_by_size), weight_by_size, strict=False))
    return tuple(having), weight_by_size


@lru_cache(maxsize=4)
def _fold_weights_on_host(weight_by_size: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    size_h = np.bitwise_count(np.arange(2 ** (len(weight_by_size) - 1), dtype=np.uint32))
    having, lacking = (_by_size(size_h, weights, np.float64) for weights in _fold_weights_by_size(weight_by_size))
    return having[:, None], lacking[:, None]
