"""Games that are told by the table of all their values, so that every answer is known.

A table is float64[2^P]; bit `i` of a row's index is player `i`. Axes: `N` = 2^P coalitions, `P` players, `M` trees.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float
from sklearn.ensemble import RandomForestRegressor

Table = Float[np.ndarray, " N"]


def unanimity(n_players: int, seed: int) -> Table:
    """Sum 50 unanimity games: a coalition gets what belongs to every subset that is wholly in it, of any size."""
    rng, row_n, worth_n = *_rows(n_players, seed), np.zeros(2**n_players)
    for size in rng.integers(1, n_players + 1, 50):
        subset = _bits(rng.choice(n_players, size, replace=False))
        worth_n += rng.standard_normal() * (row_n & subset == subset)
    return worth_n


def airport(n_players: int, seed: int) -> Table:
    """Build a runway as long as the largest member needs it (Littlechild and Owen 1973)."""
    rng, row_n, worth_n = *_rows(n_players, seed), np.zeros(2**n_players)
    for player, cost in enumerate(rng.gamma(2.0, size=n_players)):
        worth_n = np.maximum(worth_n, np.where(row_n >> player & 1, cost, 0.0))
    return worth_n


def voting(n_players: int, seed: int) -> Table:
    """Win with more than half of all votes; a player has between 1 and 20 of them."""
    rng, row_n = _rows(n_players, seed)
    votes_p = rng.integers(1, 21, n_players)
    votes_n = sum((row_n >> player & 1) * votes for player, votes in enumerate(votes_p.tolist()))
    return (votes_n > votes_p.sum() / 2).astype(np.float64)


def forest(n_players: int, seed: int) -> Table:
    """Predict a point by a random forest whose absent features are those of another point."""
    rng, row_n = _rows(n_players, seed)
    x = rng.random((400, n_players))
    a, b, c, d, e, f = (x[:, i] for i in rng.choice(n_players, 6, replace=False))
    y = 10 * np.sin(np.pi * a * b) + 20 * (c - 0.5) ** 2 + 10 * d + 5 * e * (f > 0.4) + rng.standard_normal(len(x))
    y += x @ rng.normal(0, 1.5, n_players)
    trees = RandomForestRegressor(30, max_depth=7, random_state=seed).fit(x, y)
    point_p, other_p = rng.random((2, n_players)).astype(np.float32)
    worth_n = np.zeros(2**n_players)
    for fitted in trees.estimators_:
        _add_tree(fitted.tree_, point_p, other_p, row_n, worth_n)
    return worth_n / len(trees.estimators_)


FAMILIES: dict[str, Callable[[int, int], Table]] = {
    "unanimity": unanimity, "airport": airport, "voting": voting, "forest": forest,
}  # fmt: skip


def lookup(table_n: Table) -> Callable[[Bool[np.ndarray, "C P"]], Float[np.ndarray, " C"]]:
    """Return the game of a table: bool[C, P] → float64[C]; one coalition alone, bool[P], is a batch of one."""
    bits_p = 1 << np.arange(len(table_n).bit_length() - 1)
    return lambda masks_cp: table_n[np.atleast_2d(masks_cp).astype(np.int64) @ bits_p]


def _rows(n_players: int, seed: int) -> tuple[np.random.Generator, np.ndarray]:
    return np.random.default_rng([seed, n_players]), np.arange(2**n_players, dtype=np.int64)


def _bits(players: np.ndarray) -> int:
    return sum(1 << int(player) for player in players)


def _add_tree(tree, point_p, other_p, row_n, worth_n) -> None:
    """Add what the tree predicts: each leaf to the coalitions that get there, told by who is in and who is out."""
    open_nodes = [(0, 0, 0)]
    while open_nodes:
        node, inside, outside = open_nodes.pop()
        if tree.children_left[node] < 0:
            worth_n += tree.value[node].item() * ((row_n & inside == inside) & (row_n & outside == 0))
            continue
        feature, bit = tree.feature[node], 1 << int(tree.feature[node])
        ways = [
            tree.children_left[node] if values_p[feature] <= tree.threshold[node] else tree.children_right[node]
            for values_p in (point_p, other_p)
        ]
        if ways[0] == ways[1]:
            open_nodes.append((ways[0], inside, outside))
            continue
        if not outside & bit:
            open_nodes.append((ways[0], inside | bit, outside))
        if not inside & bit:
            open_nodes.append((ways[1], inside, outside | bit))
