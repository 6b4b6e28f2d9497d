"""Subsets of one size in a pseudo-random order: ask for the first, the second, … and none comes twice.

Subsets are numbered (the combinatorial number system), and a keyed permutation shuffles the numbers: a Feistel network
over a rectangle just large enough, entered again wherever it ends outside of the range (Black and Rogaway 2002,
"Ciphers with arbitrary finite domains"). Each subset depends on the key, its size and its place in the order alone, so
that drawing more of them changes none. Of a size that has 2^32 subsets or more, draws are independent instead: `m` of
them hold a repetition with a probability below m² / 2^33, which does no harm.
Axes: `M` draws, `P` players, `R` rounds, `Z` sizes.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, UInt32

from sgpa_jax.typing import PRNGKeyArray

LIMIT = 2**32
"""Populations below it can be numbered in 32 bits."""
_ROUNDS = 12
"""Of the network: over few numbers a round mixes little, and rounds cost next to nothing."""


def nth_subsets(
    key: PRNGKeyArray, n_players: int, size_m: Int[Array, " M"], index_m: Int[Array, " M"], populations: Sequence[int]
) -> Bool[Array, "M P"]:
    """Return the subset of size `size_m` (at least 1) that comes at place `index_m` in the order, bool[M, P].

    Args:
        key: a typed key.
        n_players: P.
        size_m: players in each subset, 1 to the number of populations.
        index_m: places below the population.
        populations: static; for size 1, 2 and so on, how many of its subsets there are to draw from: all of them, or
            the first in number. Half of those with P / 2 players are the ones with player 0.
    """
    can_number_z = np.array([population < LIMIT for population in populations])
    drawn_mp = jnp.zeros((len(size_m), n_players), bool)
    if can_number_z.any():
        drawn_mp = subset_of_number(shuffled(key, size_m, index_m, populations), size_m, n_players)
    if not can_number_z.all():
        by_number_m = jnp.asarray(can_number_z)[size_m - 1]
        drawn_mp = jnp.where(by_number_m[:, None], drawn_mp, _independent(key, size_m, index_m, n_players))
    return drawn_mp


def shuffled(
    key: PRNGKeyArray, size_m: Int[Array, " M"], index_m: Int[Array, " M"], populations: Sequence[int]
) -> UInt32[Array, " M"]:
    """Return where its size's permutation of the numbers below `populations[size - 1]` sends each index."""
    known = [min(population, LIMIT - 1) for population in populations]
    heights = [math.isqrt(population - 1) + 1 for population in known]
    widths = [-(-population // height) for population, height in zip(known, heights, strict=True)]
    population_m, height_m, width_m = (
        jnp.asarray(np.array(numbers, np.uint32))[size_m - 1] for numbers in (known, heights, widths)
    )
    keys_z = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(1, len(known) + 1))
    words_zr2 = jax.vmap(lambda key: jax.random.bits(key, (_ROUNDS, 2), jnp.uint32))(keys_z)
    words_r2m = jnp.moveaxis(words_zr2[size_m - 1], 0, -1)

    def mix(place, words):
        (row_m, column_m), (first_m, second_m) = place, words
        row_m = (row_m + _hash(column_m ^ first_m, second_m) % height_m) % height_m
        return (row_m, (column_m + _hash(row_m ^ second_m, first_m) % width_m) % width_m), None

    def permute(number_m):
        start = number_m // width_m, number_m % width_m
        (row_m, column_m), _ = jax.lax.scan(mix, start, (words_r2m[:, 0], words_r2m[:, 1]))
        return row_m * width_m + column_m

    def again(number_m):
        return jnp.where(number_m >= population_m, permute(number_m), number_m)

    return jax.lax.while_loop(lambda number_m: jnp.any(number_m >= population_m), again, permute(jnp.uint32(index_m)))


def subset_of_number(number_m: UInt32[Array, " M"], size_m: Int[Array, " M"], n_players: int) -> Bool[Array, "M P"]:
    """Return the subset with that number among those of its size; those with player 0 come before the others."""

    def take(carry, ways_k):
        number_m, wanted_m = carry
        with_m = ways_k[wanted_m]
        taken_m = number_m < with_m
        return (jnp.where(taken_m, number_m, number_m - with_m), wanted_m - taken_m.astype(wanted_m.dtype)), taken_m

    return jax.lax.scan(take, (number_m, size_m), _ways(n_players))[1].T


def number_of_subset(masks_mp: Bool[Array, "M P"]) -> UInt32[Array, " M"]:
    """Return each subset's number among those of its size; of no use where there are 2^32 of them or more."""
    n_players = masks_mp.shape[1]
    wanted_mp = jnp.cumsum(masks_mp[:, ::-1], axis=1, dtype=jnp.int32)[:, ::-1]
    with_mp = _ways(n_players)[jnp.arange(n_players)[None, :], wanted_mp]
    return jnp.where(masks_mp, jnp.uint32(0), with_mp).sum(axis=1, dtype=jnp.uint32)


def _ways(n_players: int) -> UInt32[Array, "P K"]:
    """Entry [p, k]: in how many ways player `p` and k - 1 of those after it can be taken, capped."""
    rows = [
        [0, *(min(math.comb(rest, k), LIMIT - 1) for k in range(n_players))] for rest in range(n_players - 1, -1, -1)
    ]
    return jnp.asarray(np.array(rows, np.uint32))


def _hash(word_m: UInt32[Array, " M"], salt_m: UInt32[Array, " M"]) -> UInt32[Array, " M"]:
    """Return 32 bits that look random, each depending on all of the word's (the finalizer of MurmurHash3)."""
    word_m = (word_m ^ (word_m >> jnp.uint32(16))) * jnp.uint32(0x85EBCA6B) + salt_m
    word_m = (word_m ^ (word_m >> jnp.uint32(13))) * jnp.uint32(0xC2B2AE35)
    return word_m ^ (word_m >> jnp.uint32(16))


def _independent(key: PRNGKeyArray, size_m, index_m, n_players: int) -> Bool[Array, "M P"]:
    """Return a subset of each size, drawn player after player (selection sampling, Fan et al. 1962)."""

    def bits(size, index):
        return jax.random.bits(jax.random.fold_in(jax.random.fold_in(key, size), index), (n_players,), jnp.uint32)

    def take(wanted_m, player):
        bits_m, left = player
        taken_m = bits_m % left < wanted_m
        return wanted_m - taken_m.astype(jnp.uint32), taken_m

    left_p = jnp.arange(n_players, 0, -1, dtype=jnp.uint32)
    return jax.lax.scan(take, jnp.uint32(size_m), (jax.vmap(bits)(size_m, index_m).T, left_p))[1].T
