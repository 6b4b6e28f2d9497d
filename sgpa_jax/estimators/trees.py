"""Boosted oblivious trees on coalitions, and the parities that they are made of.

A tree of depth D asks the same D players of every coalition whether they are there (Prokhorenkova et al. 2018,
"CatBoost", §2), so it is a table of 2^D leaves, and a Walsh–Hadamard transform of the table gives its terms. Each level
asks the player who explains most in all leaves at once, which takes nothing but matrix products; trees follow each
other in a scan, each fitted to what those before it left (Friedman 2001, "Greedy function approximation").
Axes: `N` coalitions, `P` players, `T` trees, `D` levels, `E` = 2^D leaves, `F` = T · E terms.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from sgpa_jax.estimators.spectrum import Spectrum, merged

RATE = 0.1
"""How much of what a tree says is believed."""

DAMPING = 1.0
"""Coalitions of no worth that each leaf has besides its own."""


class Forest(NamedTuple):
    """Trees whose sum is the fit.

    Attributes:
        players_td: int32[T, D], whom each level asks for; all of a tree are different.
        leaves_te: float[T, E], what a tree says; the first level's answer is the highest bit of a leaf's index.
    """

    players_td: Int[Array, "T D"]
    leaves_te: Float[Array, "T E"]


def grow_forest(
    present_np: Float[Array, "N P"],
    target_n: Float[Array, " N"],
    weight_n: Float[Array, " N"],
    *,
    n_trees: int,
    depth: int,
) -> Forest:
    """Fit trees of `depth` levels, at most P, to what coalitions are worth.

    Args:
        present_np: 1 where the player is in the coalition, else 0.
        target_n: what they are worth, around zero.
        weight_n: how much each counts; those of weight zero are not looked at.
        n_trees: T.
        depth: D.
    """

    def grow(left_n, _):
        players_d, leaf_n = [], jnp.zeros(len(target_n), jnp.int32)
        untaken_p = jnp.ones(present_np.shape[1], bool)
        for level in range(depth):
            gain_p = _gain(present_np, left_n, weight_n, leaf_n, 2**level)
            player = jnp.argmax(jnp.where(untaken_p, gain_p, -1)).astype(jnp.int32)
            untaken_p = untaken_p.at[player].set(False)
            leaf_n = 2 * leaf_n + present_np[:, player].astype(jnp.int32)
            players_d.append(player)
        sum_e, count_e = (jax.ops.segment_sum(rows_n, leaf_n, 2**depth) for rows_n in (weight_n * left_n, weight_n))
        says_e = RATE * sum_e / (count_e + DAMPING)
        return left_n - says_e[leaf_n], Forest(jnp.stack(players_d), says_e)

    return jax.lax.scan(grow, target_n, length=n_trees)[1]


def spectrum_of(forest: Forest, n_players: int) -> Spectrum:
    """Return the terms of the trees' sum, F rows of which none is a term twice."""
    n_trees, depth = forest.players_td.shape
    table = forest.leaves_te.reshape(n_trees, *(2,) * depth)
    for axis in range(1, depth + 1):
        without, given = jnp.split(table, 2, axis)
        table = jnp.concatenate([(without + given) / 2, (given - without) / 2], axis)
    asked_ed = jnp.arange(2**depth)[:, None] >> jnp.arange(depth)[::-1][None] & 1
    # Sorted with those who are not asked last.
    players_ted = jnp.where(asked_ed[None] == 1, forest.players_td[:, None, :], n_players)
    players_fd = jnp.sort(players_ted, axis=2).reshape(-1, depth)
    return merged(Spectrum(jnp.where(players_fd < n_players, players_fd, -1), table.reshape(-1)))


def _gain(present_np, left_n, weight_n, leaf_n, n_leaves: int) -> Float[Array, " P"]:
    """Return how much squared error a split of all leaves by each player takes away, up to a constant."""
    leaf_nl = jax.nn.one_hot(leaf_n, n_leaves, dtype=left_n.dtype)
    weighted = leaf_nl * weight_n[:, None]
    rows_ns = jnp.concatenate([weighted * left_n[:, None], weighted], axis=1)
    all_s, with_sp = rows_ns.sum(axis=0), rows_ns.T @ present_np
    without_sp = all_s[:, None] - with_sp
    with_p, without_p = (
        (jnp.square(half_sp[:n_leaves]) / (half_sp[n_leaves:] + DAMPING)).sum(axis=0)
        for half_sp in (with_sp, without_sp)
    )
    return with_p + without_p
