"""The authors' method: its budget, its two phases, its values worked out cell by cell, and what it is on average."""

import itertools
import math

import jax
import numpy as np
import pytest
from sgpa_kernels import exact_shapley

from sgpa_jax.errors import BudgetError, UsageError
from sgpa_jax.estimators import AUTHORS, Tolerance, authors_budget, estimate, first_coalitions, refold
from sgpa_jax.games import Game


class Requests:
    """A random game of so many players that remembers what it was asked for."""

    def __init__(self, n_players: int, *, seed: int = 0, scale: float = 1.0) -> None:
        self.values_n = scale * np.random.default_rng(seed).standard_normal(2**n_players).astype(np.float32)
        self.asked: list[np.ndarray] = []
        self.game = Game(self, n_players, jit=False)
        self._values = self.game.values
        self.game.values = self._told  # pyright: ignore[reportAttributeAccessIssue]

    def __call__(self, masks_cp: np.ndarray) -> np.ndarray:
        return self.values_n[np.asarray(masks_cp) @ (1 << np.arange(self.game.n_players))]

    def _told(self, masks_cp: np.ndarray) -> np.ndarray:
        self.asked.append(masks_cp)
        return self._values(masks_cp)


def cells_of(masks_cp: np.ndarray, values_c: np.ndarray) -> dict[tuple[int, int], list[float]]:
    """Contributions by player and size, one at a time; of the empty coalition to everybody's size 0."""
    n_players = masks_cp.shape[1]
    cells: dict[tuple[int, int], list[float]] = {
        (player, size): [] for player, size in itertools.product(range(n_players), range(n_players + 1))
    }
    for row in range(0, len(masks_cp), 2):
        difference = float(values_c[row] - values_c[row + 1])
        for mask_p, contribution in ((masks_cp[row], difference), (masks_cp[row + 1], -difference)):
            for player in range(n_players):
                if mask_p[player] or not mask_p.any():
                    cells[player, int(mask_p.sum())].append(contribution)
    return cells


def test_budgets():
    budgets = {2: 2, 3: 6, 4: 14, 5: 30, 6: 62, 7: 126, 8: 192, 9: 244, 10: 300, 11: 364}
    assert {n_players: authors_budget(n_players) for n_players in budgets} == budgets


@pytest.mark.parametrize("n_players", [2, 3, 5])
def test_few_players_have_one_phase_and_unseen_cells_count_as_zero(n_players):
    requests = Requests(n_players)
    found = estimate(requests.game, AUTHORS, budget=authors_budget(requests.game.n_players), key=jax.random.key(1))
    (masks_cp,) = requests.asked
    assert (found.estimator, found.budget, len(masks_cp)) == (AUTHORS, authors_budget(n_players), found.budget)
    assert (masks_cp[::2] == ~masks_cp[1::2]).all() and not masks_cp[0].any()
    cells = cells_of(masks_cp, found.coalition_values_ck[:, 0])
    expected = [
        sum(np.mean(cells[player, size]) for size in range(1, n_players + 1) if cells[player, size]) / n_players
        for player in range(n_players)
    ]
    np.testing.assert_allclose(found.values_pk[:, 0], expected, atol=1e-7)
    assert found.empty_value_k[0] == requests.values_n[0] and found.full_value_k[0] == requests.values_n[-1]


@pytest.mark.parametrize("n_players", [8, 9])
def test_more_players_have_a_second_phase_that_follows_the_spreads(n_players):
    requests = Requests(n_players)
    found = estimate(requests.game, AUTHORS, budget=authors_budget(requests.game.n_players), key=jax.random.key(2))
    first_cp, second_cp = requests.asked
    n_first = len(first_cp)
    values_c = found.coalition_values_ck[:, 0]
    early = cells_of(first_cp, values_c[:n_first])
    assert min(map(len, early.values())) == 2
    assert min(map(len, cells_of(first_cp[:-2], values_c).values())) < 2, "the first phase goes on for nothing"
    sizes = range(math.ceil(n_players / 2), n_players)
    spread = {
        size: math.sqrt(
            sum(
                np.var(early[player, column], ddof=1) / (column + 1)
                for player in range(n_players)
                for column in (size, n_players - size - 1)
            )
        )
        for size in sizes
    }
    left = (authors_budget(n_players) - n_first) / 2
    wanted = {size: math.ceil(left * spread[size] / sum(spread.values())) for size in sizes}
    drawn = second_cp[::2].sum(axis=1).tolist()
    assert {size: drawn.count(size) for size in sizes} == wanted and len(drawn) == sum(wanted.values()) >= left
    cells = cells_of(np.concatenate([first_cp, second_cp]), values_c)
    expected = [
        np.mean([np.mean(cells[player, size]) for size in range(1, n_players + 1)]) for player in range(n_players)
    ]
    np.testing.assert_allclose(found.values_pk[:, 0], expected, atol=1e-6)
    errors = [
        math.sqrt(sum(np.var(cell, ddof=1) / len(cell) for cell in (cells[player, j] for j in range(1, n_players + 1))))
        / n_players
        for player in range(n_players)
    ]
    np.testing.assert_allclose(found.standard_errors_pk[:, 0], errors, atol=1e-6)
    assert found.evaluations.requested == len(values_c) > found.evaluations.unique


def test_on_average_it_finds_shapley_values():
    requests = Requests(8)
    runs = [
        estimate(requests.game, AUTHORS, budget=authors_budget(requests.game.n_players), key=jax.random.key(seed))
        for seed in range(60)
    ]
    mean_p = np.mean([run.values_pk[:, 0] for run in runs], axis=0)
    error_p = np.std([run.values_pk[:, 0] for run in runs], axis=0) / math.sqrt(len(runs))
    exact_p = exact_shapley(requests.values_n)
    assert (np.abs(mean_p - exact_p) < 4 * error_p + 1e-6).all()
    assert any(abs(run.efficiency_gap_k[0]) > 1e-3 for run in runs), "it does not force the sum"


def test_where_nothing_changes_anything_no_second_phase_is_drawn():
    requests = Requests(8, scale=0)
    found = estimate(requests.game, AUTHORS, budget=authors_budget(requests.game.n_players), key=jax.random.key(0))
    assert len(requests.asked) == 1 and not found.values_pk.any() and not found.standard_errors_pk.any()


def test_draws_depend_on_the_key_alone():
    first, again, other = (
        estimate(Requests(6).game, AUTHORS, budget=62, key=jax.random.key(seed)).masks_cp.tolist() for seed in (1, 1, 2)
    )
    assert first == again != other


def test_a_budget_of_ones_own():
    # An odd one leaves an evaluation over; a large one asks for more of each cell, and is cut to 2^P - 2.
    found = estimate(Requests(4).game, AUTHORS, budget=9, key=jax.random.key(0))
    assert len(found.masks_cp) == found.evaluations.requested == 8 and found.budget == 9
    requests = Requests(6)
    estimate(requests.game, AUTHORS, budget=1000, key=jax.random.key(0))
    assert 62 <= sum(map(len, requests.asked)) <= 62 + 2 * 3
    requests = Requests(9)
    estimate(requests.game, AUTHORS, budget=500, key=jax.random.key(0))
    assert min(map(len, cells_of(requests.asked[0], np.zeros(len(requests.asked[0]))).values())) == 4


def test_a_plan_tells_the_first_phase():
    requests, key = Requests(8), jax.random.key(5)
    estimate(requests.game, AUTHORS, budget=192, key=key)
    np.testing.assert_array_equal(first_coalitions(AUTHORS, 8, 192, key=key), requests.asked[0])


def test_refusals():
    key = jax.random.key(0)
    with pytest.raises(BudgetError, match="at least two"):
        estimate(Requests(1).game, AUTHORS, budget=10, key=key)
    with pytest.raises(BudgetError, match="expected at least 12"):
        estimate(Requests(6).game, AUTHORS, budget=11, key=key)
    with pytest.raises(UsageError, match="leave tolerance out"):
        estimate(Requests(6).game, AUTHORS, budget=62, tolerance=Tolerance.parse("0.1"), key=key)
    with pytest.raises(UsageError, match="offers no banzhaf"):
        estimate(Requests(6).game, AUTHORS, estimand="banzhaf", budget=62, key=key)
    sample = first_coalitions("complementary", 6, 40, key=key)
    with pytest.raises(UsageError, match="of its own drawing"):
        refold(sample, np.zeros((len(sample), 1)), AUTHORS, key=key)
