"""The estimator of the paper that the segments come from: Neyman-allocated complementary contributions.

Written from its definition, to be compared with, and kept as that is. Pairs (S, N∖S) first fill every cell (player,
size) twice or more, then go to the sizes by the spread that the cells saw. Where those spreads are looked up it is off
by one: for coalitions of `k` players it takes cells of k and P - k - 1 players, weighed by 1 / (k + 1) and 1 / (P - k).
Coalitions are drawn with replacement and may come again, the pair (∅, N) among them; cells that saw nothing count as
zero; shares need not sum to v(N) - v(∅). Both phases count, and the second ends where the budget does.
Axes: `M` pairs, `P` players, `J` sizes from 0 to P.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float

Values = Callable[[Bool[np.ndarray, "C P"]], Float[np.ndarray, " C"]]


def paper_neyman(values: Values, n_players: int, budget: int, seed: int) -> Float[np.ndarray, " P"]:
    """Return its Shapley values from at most `budget` evaluations.

    Args:
        values: bool[C, P] → float[C].
        n_players: P, at least 2.
        budget: evaluations allowed; the last one is left if they are odd.
        seed: decides every draw.
    """
    rng = np.random.default_rng(seed)
    most = min(budget, 2**n_players - 2) // 2
    first_mp = _cover(rng, n_players, max(2, -(-2 * most // (2 * n_players**2))), most)
    first_m = values(first_mp) - values(~first_mp)
    sizes = np.arange(-(-n_players // 2), n_players)
    spread = _spreads(first_mp, first_m, sizes)
    share = spread / spread.sum() if spread.sum() > 0 else np.full(len(sizes), 1 / len(sizes))
    wanted = np.ceil((most - len(first_mp)) * share).astype(int)
    drawn = [_subset(rng, n_players, size) for size in np.repeat(sizes, wanted).tolist()][: most - len(first_mp)]
    second_mp = np.array(drawn, bool).reshape(-1, n_players)
    second_m = values(second_mp) - values(~second_mp)
    count_pj, total_pj, _ = _cells(np.concatenate([first_mp, second_mp]), np.concatenate([first_m, second_m]))
    return (total_pj / np.maximum(count_pj, 1))[:, 1:].sum(axis=1) / n_players


def _cover(rng: np.random.Generator, n_players: int, at_least: int, most: int) -> Bool[np.ndarray, "M P"]:
    """Draw pairs until every cell has seen so many, player by player and size by size, or until there are `most`."""
    count_pj, drawn = np.zeros((n_players, n_players + 1), int), []
    players = np.arange(n_players)
    for player in range(n_players):
        for size in range(1, n_players + 1):
            while count_pj[player, size] < at_least and len(drawn) < most:
                mask_p = _subset(rng, n_players, size, player)
                count_pj[players, np.where(mask_p, size, n_players - size)] += 1
                drawn.append(mask_p)
    return np.array(drawn)


def _subset(rng: np.random.Generator, n_players: int, size: int, player: int | None = None) -> Bool[np.ndarray, " P"]:
    mask_p = np.zeros(n_players, bool)
    others = np.delete(np.arange(n_players), [] if player is None else player)
    mask_p[rng.choice(others, size - (player is not None), replace=False)] = True
    if player is not None:
        mask_p[player] = True
    return mask_p


def _cells(mask_mp: np.ndarray, difference_m: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return, for each player and size, how many contributions there were, their sum and that of their squares."""
    n_players = mask_mp.shape[1]
    size_m1 = mask_mp.sum(axis=1, keepdims=True)
    cell_mp = np.where(mask_mp, size_m1, n_players - size_m1)
    added_mp = np.where(mask_mp, 1, -1) * difference_m[:, None]
    sums = np.zeros((3, n_players, n_players + 1))
    for total_pj, part_mp in zip(sums, (np.ones(mask_mp.shape), added_mp, added_mp**2), strict=True):
        np.add.at(total_pj, (np.arange(n_players)[None, :], cell_mp), part_mp)
    return sums[0], sums[1], sums[2]


def _spreads(mask_mp: np.ndarray, difference_m: np.ndarray, sizes: np.ndarray) -> Float[np.ndarray, " J"]:
    """Return what the second phase is shared out by, looked up off by one."""
    count_pj, total_pj, square_pj = _cells(mask_mp, difference_m)
    n_players = mask_mp.shape[1]
    around_pj = np.maximum(square_pj - total_pj**2 / np.maximum(count_pj, 1), 0) / np.maximum(count_pj - 1, 1)
    variance_j = around_pj.sum(axis=0)
    return np.sqrt(variance_j[sizes] / (sizes + 1) + variance_j[n_players - sizes - 1] / (n_players - sizes))
