"""The k largest of every row, exactly, and as sparse autoencoders want them: by place, not by size.

All ways return the same numbers, bit for bit: of equal values the first ones are taken, and zeros of either sign are
one value. `lax` is `jax.lax.top_k`. `buckets` looks at the largest of every 32 neighbours first: the k largest lie in
the k buckets with the largest maxima, so that only those are searched. `bisect` finds the k-th largest bit by bit and
its last place likewise; it only counts, so that it needs no sort (XLA sorts whole rows on NVIDIA's cards for k above
16) and nothing but sums of a number a row where rows are cut over a mesh. Axes: `N` rows, `M` columns, `K` chosen.
"""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

Impl = Literal["lax", "buckets", "bisect"]
IMPLS: tuple[Impl, ...] = ("lax", "buckets", "bisect")
"""The ways, by name."""

_BUCKET = 32


def top_k(values_nm: Float[Array, "N M"], k: int, *, impl: Impl = "lax") -> tuple[Array, Array]:
    """Return the k largest of every row in the order of their places, and these: `[N, K]` and int32`[N, K]`.

    No value may be NaN. There is no gradient: pick with the places what needs one.

    Raises:
        ValueError: `impl` is unknown, or k is not from 1 to M.
    """
    values_nm = _plain(values_nm, k)
    if impl == "lax":
        index_nk = jnp.sort(jax.lax.top_k(values_nm, k)[1], axis=1)
    elif impl == "buckets":
        index_nk = _by_buckets(values_nm, k)
    elif impl == "bisect":
        index_nk = _places(_chosen(_ordered(values_nm), k), k)
    else:
        raise ValueError(f"impl is {impl!r}: expected one of {IMPLS}")
    return jnp.take_along_axis(values_nm, index_nk, axis=1), index_nk


def top_k_mask(values_nm: Float[Array, "N M"], k: int, *, impl: Impl = "lax") -> Bool[Array, "N M"]:
    """Return where the k largest of every row stand: those that `top_k` returns.

    Raises:
        ValueError: as `top_k`.
    """
    if impl == "bisect":
        return _chosen(_ordered(_plain(values_nm, k)), k)
    chosen_nk, index_nk = top_k(values_nm, k, impl=impl)
    least_n1 = chosen_nk.min(axis=1, keepdims=True)
    # Of what equals the least, the first places were chosen: all up to the last of them.
    last_n1 = jnp.where(chosen_nk == least_n1, index_nk, -1).max(axis=1, keepdims=True)
    return (values_nm > least_n1) | ((values_nm == least_n1) & (_columns(values_nm) <= last_n1))


def _plain(values_nm: Array, k: int) -> Array:
    if not 1 <= k <= values_nm.shape[1]:
        raise ValueError(f"k is {k}: expected 1 to {values_nm.shape[1]}, the length of a row")
    return jax.lax.stop_gradient(jnp.where(values_nm == 0, jnp.zeros((), values_nm.dtype), values_nm))


def _by_buckets(values_nm: Array, k: int) -> Array:
    n_rows, n_columns = values_nm.shape
    n_buckets = -(-n_columns // _BUCKET)
    if n_buckets <= k:
        return jnp.sort(jax.lax.top_k(values_nm, k)[1], axis=1)
    added = n_buckets * _BUCKET - n_columns
    padded = jnp.pad(values_nm, ((0, 0), (0, added)), constant_values=-jnp.inf).reshape(n_rows, n_buckets, _BUCKET)
    # Buckets in the order of their places keep equal values in theirs; so do the padded ones, which come last.
    bucket_nk = jnp.sort(jax.lax.top_k(padded.max(axis=2), k)[1], axis=1)
    candidates = jnp.take_along_axis(padded, bucket_nk[:, :, None], axis=1).reshape(n_rows, k * _BUCKET)
    found_nk = jnp.sort(jax.lax.top_k(candidates, k)[1], axis=1)
    return jnp.take_along_axis(bucket_nk, found_nk // _BUCKET, axis=1) * _BUCKET + found_nk % _BUCKET


def _ordered(values_nm: Array) -> Array:
    """Unsigned integers in the order of the values."""
    bits = jax.lax.bitcast_convert_type(values_nm.astype(jnp.float32), jnp.uint32)
    return jnp.where(bits >> 31 == 0, bits | jnp.uint32(1 << 31), ~bits)


def _chosen(ordered_nm: Array, k: int) -> Array:
    """Where the k largest are: the k-th's bits one after the other, and then those of its last place."""

    def has_enough(found_n: Array, bit: Array) -> Array:
        trial_n = found_n | (jnp.uint32(1) << bit)
        return jnp.where((ordered_nm >= trial_n[:, None]).sum(axis=1) >= k, trial_n, found_n)

    none_n = jnp.zeros_like(ordered_nm[:, 0])
    kth_n1 = _bits_down(has_enough, none_n, 32)[:, None]
    above, equal = ordered_nm > kth_n1, ordered_nm == kth_n1
    wanted_n, columns = k - above.sum(axis=1), _columns(ordered_nm).astype(jnp.uint32)

    def has_few(end_n: Array, bit: Array) -> Array:
        trial_n = end_n | (jnp.uint32(1) << bit)
        return jnp.where((equal & (columns < trial_n[:, None])).sum(axis=1) <= wanted_n, trial_n, end_n)

    end_n1 = _bits_down(has_few, none_n, ordered_nm.shape[1].bit_length())[:, None]
    return above | (equal & (columns < end_n1))


def _bits_down(step: Callable[[Array, Array], Array], start_n: Array, n_bits: int) -> Array:
    return jax.lax.fori_loop(
        0, n_bits, lambda i, found: step(found, jnp.uint32(n_bits - 1) - i.astype(jnp.uint32)), start_n
    )


def _places(chosen_nm: Bool[Array, "N M"], k: int) -> Int[Array, "N K"]:
    """The places of the k true ones of every row: where the count of them reaches 1, 2 …"""
    reached_nm = jnp.cumsum(chosen_nm, axis=1, dtype=jnp.int32)
    search = jax.vmap(lambda row: jnp.searchsorted(row, jnp.arange(1, k + 1, dtype=jnp.int32)))
    return search(reached_nm).astype(jnp.int32)


def _columns(values_nm: Array) -> Int[Array, "1 M"]:
    return jnp.arange(values_nm.shape[1], dtype=jnp.int32)[None]
