"""Complementary contributions with Neyman's allocation as the code of SGPA's authors has them (mllm-shap 0.1.12, class
`LimitedComplementaryNeymanShapExplainer`), kept for comparison with their results; `neyman.py` is the method to take.

The first phase goes through the cells (player i, size j) until each has seen some coalitions, two where the
budget is the code's own, or the budget is spent: a
coalition of j players, i among them, and its complement; (∅, N) comes first, twice. Where budget is left, the second
phase shares it among the sizes from ⌈P / 2⌉ to P - 1 as the spreads of two columns call for, of which the second is one
off: sizes k and P - k - 1 instead of k and P - k. Rounded up for each size, it may spend some pairs more than there
are. A player's value is the mean over sizes of its cells' means, where a cell without a coalition counts as zero: the
values need not sum to v(N) - v(∅). Coalitions may be drawn twice.
Axes: `M` pairs, `R` rows of coalitions, `J` sizes from 0 to P, `Z` sizes of the second phase, `P` players, `K` outputs.
"""

import math
from collections.abc import Generator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from sgpa_jax.errors import BudgetError
from sgpa_jax.estimators.base import Estimate, too_small
from sgpa_jax.estimators.solve import seed_of
from sgpa_jax.games import Evaluations
from sgpa_jax.typing import MaskCP, PRNGKeyArray, ValueCK

AUTHORS = "neyman_authors"
"""Name of the method."""


def authors_budget(n_players: int) -> int:
    """Return the evaluations that the code grants so many players: 3 P², rounded up to even, and at most 2^P - 2.

    The answer to the untouched recording, with which it compares, is not among them.
    """
    return min(3 * n_players**2 + n_players % 2, 2**n_players - 2)


def check_authors_budget(n_players: int, budget: int) -> None:
    """Refuse less than the code asks for: two evaluations a player, or all but two coalitions.

    Raises:
        BudgetError: the budget is too small, as any is for a single player.
    """
    if n_players == 1:
        raise BudgetError(
            f"the {AUTHORS} estimator spends at most 2^P - 2 evaluations, and so none on a single player: expected at "
            "least two; choose exact"
        )
    least = min(2 * n_players, 2**n_players - 2)
    if budget < least:
        raise too_small(budget, least, AUTHORS, n_players)


def first_phase(n_players: int, budget: int, *, key: PRNGKeyArray) -> Bool[np.ndarray, "R P"]:
    """Return the coalitions that the first phase asks for."""
    return _first_phase(n_players, _spent(n_players, budget), np.random.default_rng(seed_of(key)))[0]


def authors_neyman(n_players: int, *, budget: int, key: PRNGKeyArray) -> Generator[MaskCP, ValueCK, Estimate]:
    """Yield the coalitions of each phase, take what they are worth, and return the estimate, as `estimating` does.

    They are drawn as the code draws them, not by its own random numbers. The code tells no errors; those given here are
    of its cells' means, from the spread inside of cells, repeated coalitions counted as if they were new.

    Raises:
        BudgetError: as `check_authors_budget`.
        UsageError: the key is no single typed key.
    """
    seed, spent = seed_of(key), _spent(n_players, budget)
    rng = np.random.default_rng(seed)
    masks_cp, is_spent = _first_phase(n_players, spent, rng)
    values_ck = np.asarray((yield masks_cp), np.float64)
    cells = _cells(masks_cp, values_ck)
    if not is_spent:
        more_cp = _second_phase(cells, (spent - len(masks_cp)) // 2, rng)
        if len(more_cp):
            values_ck = np.concatenate([values_ck, np.asarray((yield more_cp), np.float64)])
            masks_cp = np.concatenate([masks_cp, more_cp])
            cells = _cells(masks_cp, values_ck)
    return Estimate(
        values_pk=cells.mean_pjk[:, 1:].sum(axis=1) / n_players,
        standard_errors_pk=_standard_errors(cells),
        # The first pair is that of nobody and everybody.
        empty_value_k=values_ck[0],
        full_value_k=values_ck[1],
        degrees_of_freedom=float(len(masks_cp) // 2),
        estimand="shapley",
        estimator=AUTHORS,
        budget=budget,
        seed=seed,
        evaluations=Evaluations(),
        masks_cp=masks_cp,
        coalition_values_ck=values_ck,
    )


class _Cells(NamedTuple):
    """What was seen of each player in coalitions of each size: how many, their mean, and their variance.

    In the column of size 0 is every player; a variance of less than two is zero.
    """

    count_pj: Float[np.ndarray, "P J"]
    mean_pjk: Float[np.ndarray, "P J K"]
    variance_pjk: Float[np.ndarray, "P J K"]


def _spent(n_players: int, budget: int) -> int:
    """Whole pairs, and no more than the code allows."""
    return min(budget - budget % 2, 2**n_players - 2)


def _first_phase(n_players: int, budget: int, rng: np.random.Generator) -> tuple[Bool[np.ndarray, "R P"], bool]:
    """Go through the cells row by row, always on to the next one that lacks a coalition; and was the budget spent?"""
    count_pj, wanted = np.zeros((n_players, n_players + 1), np.int64), max(2, math.ceil(budget / (2 * n_players**2)))
    rows, at = [], 0
    while len(rows) < budget:
        player, size = divmod(at, n_players + 1)
        mask_p = _drawn(n_players, size, rng, player)
        rows += [mask_p, ~mask_p]
        for row_p in rows[-2:]:
            count_pj[row_p if row_p.any() else slice(None), row_p.sum()] += 1
        lacking = np.flatnonzero(count_pj.ravel() < wanted)
        if not len(lacking):
            return np.array(rows), len(rows) >= budget
        behind = lacking[lacking > at]
        at = int(behind[0] if len(behind) else lacking[0])
    return np.array(rows), True


def _second_phase(cells: _Cells, n_pairs: int, rng: np.random.Generator) -> Bool[np.ndarray, "R P"]:
    """Draw the pairs that are left where the code expects most of them."""
    n_players = len(cells.count_pj)
    sizes = np.arange(-(-n_players // 2), n_players)
    others = n_players - sizes - 1
    variance_pj = cells.variance_pjk.sum(axis=2)
    spread_z = np.sqrt(sum((variance_pj[:, column] / (column + 1)).sum(axis=0) for column in (sizes, others)))
    shares = np.ceil(n_pairs / spread_z.sum() * spread_z).astype(int) if spread_z.any() else np.zeros(len(sizes), int)
    rows = []
    for size in np.repeat(sizes, shares).tolist():
        mask_p = _drawn(n_players, size, rng)
        rows += [mask_p, ~mask_p]
    return np.array(rows, bool).reshape(-1, n_players)


def _drawn(n_players: int, size: int, rng: np.random.Generator, player: int | None = None) -> Bool[np.ndarray, " P"]:
    """Draw a coalition of a size, with a player in it unless it is empty."""
    mask_p = np.zeros(n_players, bool)
    if player is not None and size:
        mask_p[rng.permutation(np.delete(np.arange(n_players), player))[: size - 1]] = True
        mask_p[player] = True
    else:
        mask_p[rng.permutation(n_players)[:size]] = True
    return mask_p


def _cells(masks_rp: Bool[np.ndarray, "R P"], values_rk: Float[np.ndarray, "R K"]) -> _Cells:
    """Sort the contributions of coalitions, each followed by its complement, into cells."""
    n_players = masks_rp.shape[1]
    difference_mk = values_rk[::2] - values_rk[1::2]
    contribution_rk = np.stack([difference_mk, -difference_mk], axis=1).reshape(values_rk.shape)
    size_r = masks_rp.sum(axis=1)
    inside_rp = (masks_rp | (size_r == 0)[:, None]).astype(np.float64)
    is_size_rj = (size_r[:, None] == np.arange(n_players + 1)[None]).astype(np.float64)

    def summed(rows_rk: np.ndarray) -> np.ndarray:
        return np.einsum("rp,rj,rk->pjk", inside_rp, is_size_rj, rows_rk)

    count_pj1 = summed(np.ones((len(size_r), 1)))
    sum_pjk, squares_pjk = summed(contribution_rk), summed(contribution_rk**2)
    mean_pjk = sum_pjk / np.maximum(count_pj1, 1)
    variance_pjk = (squares_pjk - sum_pjk * mean_pjk) / np.maximum(count_pj1 - 1, 1)
    return _Cells(count_pj1[:, :, 0], mean_pjk, np.where(count_pj1 > 1, np.maximum(variance_pjk, 0), 0))


def _standard_errors(cells: _Cells) -> Float[np.ndarray, "P K"]:
    """Of the mean over sizes; a cell of fewer than two coalitions has the mean variance of the others."""
    count_pj1, variance_pjk = cells.count_pj[:, 1:, None], cells.variance_pjk[:, 1:]
    is_known = np.broadcast_to(count_pj1 > 1, variance_pjk.shape)
    usual_k = variance_pjk.sum(axis=(0, 1)) / np.maximum(is_known.sum(axis=(0, 1)), 1)
    variance_pjk = np.where(is_known, variance_pjk, usual_k) / np.maximum(count_pj1, 1)
    return np.sqrt(variance_pjk.sum(axis=1)) / variance_pjk.shape[1]
