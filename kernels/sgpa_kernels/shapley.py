"""Exact Shapley values from the values of all 2^P coalitions, in O(2^P) additions and without a gather.

Write w(s) = s! (P-1-s)! / P! for the weight of a coalition of size s that lacks the player. Then

    φ_i = Σ_{S∋i} (w(|S|-1) + w(|S|)) v(S)  -  Σ_S w(|S|) v(S),      with w(P) = 0,

so one weighted table has to be summed over the coalitions with player i, for every i. Folding the table along its last
player halves it each time: what is in the upper half belongs to that player, and both halves together go on.
Axes: `N` = 2^P coalitions (bit `i` of the row's index = player `i`), `P` players, `K` outputs.
"""

from functools import lru_cache, partial
from math import comb
from typing import overload

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


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
    n_rows = values.shape[0] if values.ndim in (1, 2) else 0
    if n_rows < 2 or n_rows & (n_rows - 1):
        raise ValueError(f"values have shape {values.shape}: expected [2^P] or [2^P, K], a row for every coalition")
    table_nk = values.reshape(n_rows, -1)
    if isinstance(values, np.ndarray):
        with_nk, all_nk = _weights_on_host(n_rows.bit_length() - 1)
        shapley_pk = _fold(np, table_nk.astype(np.float64), with_nk, all_nk)
    else:
        shapley_pk = _solve(table_nk)
    return shapley_pk.reshape(-1, *values.shape[1:])


@jax.jit
def _solve(table_nk: Float[Array, "N K"]) -> Float[Array, "P K"]:
    n_players = table_nk.shape[0].bit_length() - 1
    size_n1 = jnp.bitwise_count(jnp.arange(table_nk.shape[0], dtype=jnp.uint32))[:, None]
    weigh = partial(_weigh_on_device, size_n1, dtype=table_nk.dtype)
    with_s, all_s = _weights_by_size(n_players)
    return _fold(jnp, table_nk, weigh(with_s), weigh(all_s))


def _fold(xp, table_nk, with_n1, all_n1):
    # Only differences count: with v(∅) taken off, a constant game is exactly zero and rounding stays small.
    table_nk = table_nk - table_nk[:1]
    everyone_k = xp.sum(all_n1 * table_nk, axis=0)
    table_nk = with_n1 * table_nk
    sums = []
    while table_nk.shape[0] > 1:
        lower_nk, upper_nk = xp.split(table_nk, 2)
        sums.append(xp.sum(upper_nk, axis=0))
        table_nk = lower_nk + upper_nk
    return xp.stack(sums[::-1]) - everyone_k[None, :]


def _weights_by_size(n_players: int) -> tuple[list[float], list[float]]:
    """Return, for each size of a coalition, its weight in a member's sum and its weight in everyone's."""
    lacking = [1.0 / (n_players * comb(n_players - 1, size)) for size in range(n_players)] + [0.0]
    having = [0.0] + [lacking[size - 1] + lacking[size] for size in range(1, n_players + 1)]
    return having, lacking


@lru_cache(maxsize=4)
def _weights_on_host(n_players: int) -> tuple[np.ndarray, np.ndarray]:
    size_n = np.bitwise_count(np.arange(2**n_players, dtype=np.uint32))
    having, lacking = (np.array(weights)[size_n][:, None] for weights in _weights_by_size(n_players))
    return having, lacking


def _weigh_on_device(size_n1: Array, by_size: list[float], *, dtype: jnp.dtype) -> Array:
    # A chain of selections and not a look-up: accelerators gather slowly.
    weight_n1 = jnp.zeros(size_n1.shape, dtype)
    for size, weight in enumerate(by_size):
        weight_n1 = jnp.where(size_n1 == size, jnp.asarray(weight, dtype), weight_n1)
    return weight_n1
