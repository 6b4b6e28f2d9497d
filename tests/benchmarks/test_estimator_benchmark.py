"""The games of the estimators' benchmark are what they are called, and the peers find their values."""

import importlib
from pathlib import Path

import numpy as np
import pytest
from sgpa_kernels import exact_shapley

from sgpa_jax.players import all_coalitions

FOLDER = Path(__file__).parents[2] / "benchmarks"
N_PLAYERS = 6


@pytest.fixture
def load(monkeypatch):
    """Import a benchmark as it is when it runs as a script."""
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module


@pytest.mark.parametrize("family", ["unanimity", "airport", "voting", "forest"])
def test_games_are_keyed_by_their_seed_and_differ(family, load):
    games = load("_value_games")
    table_n = games.FAMILIES[family](N_PLAYERS, 3)
    assert table_n.shape == (2**N_PLAYERS,) and table_n.std() > 0
    np.testing.assert_array_equal(table_n, games.FAMILIES[family](N_PLAYERS, 3))
    assert (table_n != games.FAMILIES[family](N_PLAYERS, 4)).any()
    masks_cp = all_coalitions(N_PLAYERS)
    np.testing.assert_array_equal(games.lookup(table_n)(masks_cp), table_n)
    assert games.lookup(table_n)(masks_cp[5]).tolist() == [table_n[5]]


def test_airports_are_those_of_the_textbook(load):
    """The cheapest player pays its share of the cost that all need: the n-th part."""
    table_n = load("_value_games").airport(N_PLAYERS, 0)
    costs_p = table_n[1 << np.arange(N_PLAYERS)]
    share_p, order_p = exact_shapley(table_n), np.argsort(costs_p)
    steps = np.diff(costs_p[order_p], prepend=0) / np.arange(N_PLAYERS, 0, -1)
    np.testing.assert_allclose(share_p[order_p], np.cumsum(steps), atol=1e-12)


def test_a_vote_is_won_by_one_side_at_most(load):
    table_n = load("_value_games").voting(N_PLAYERS, 0)
    assert set(table_n) == {0.0, 1.0} and (table_n + table_n[::-1] <= 1).all() and table_n[-1] == 1


def test_a_forest_is_what_its_trees_say(load, monkeypatch):
    """At both ends it is the forest's own prediction of the two points."""
    games, fitted = load("_value_games"), []
    original = games.RandomForestRegressor.fit
    monkeypatch.setattr(games.RandomForestRegressor, "fit", lambda self, *a: fitted.append(original(self, *a)) or self)
    drawn = []
    add = games._add_tree
    monkeypatch.setattr(games, "_add_tree", lambda tree, *rest: drawn.append(rest[:2]) or add(tree, *rest))
    table_n = games.forest(N_PLAYERS, 1)
    point_p, other_p = drawn[0]
    np.testing.assert_allclose(table_n[[-1, 0]], fitted[0].predict(np.stack([point_p, other_p])), atol=1e-9)


def test_peers_stay_within_the_budget_and_find_the_values(load):
    games, module = load("_value_games"), load("_value_peers")
    table_n = games.forest(N_PLAYERS, 2)
    exact_p = exact_shapley(table_n)
    for name, peer in module.quick_peers().items():
        asked = 0

        def counted(masks_cp):
            nonlocal asked
            masks_cp = np.atleast_2d(masks_cp)
            asked += len(masks_cp)
            return games.lookup(table_n)(masks_cp)

        budget = 62 if name in ("KernelSHAP", "kADD-SHAP", "RegressionFSII") else 3000
        value_p = peer(counted, N_PLAYERS, budget, 0)
        assert asked <= budget + 2, name
        assert np.square(value_p - exact_p).mean() < 0.1 * np.square(exact_p).mean(), name


def test_the_papers_estimator_is_exact_where_sizes_alone_count(load):
    """Cells hold one value each then; off by what v(∅) and v(N) add where every cell saw something."""
    size_n = all_coalitions(N_PLAYERS).sum(axis=1)
    table_n = np.sqrt(size_n)
    found_p = load("_paper_neyman").paper_neyman(load("_value_games").lookup(table_n), N_PLAYERS, 108, 0)
    np.testing.assert_allclose(found_p, np.sqrt(N_PLAYERS) / N_PLAYERS, atol=1e-12)


def test_rows_tell_ours_and_the_best_peer(load):
    estimators = load("estimators")
    errors = {"gaussian": [0.1, 0.3], "permutation": [0.5, 0.5], "leverage": [0.3, 0.2], "SVARM": [0.6, 0.4]}
    errors[estimators.choose_estimator("auto", 12, 144)] = [0.1, 0.3]
    row = estimators._row("case", 144, 12, errors, {"SVARM": None})
    assert row["peer"] == "SVARM" and row["ratio"] == pytest.approx(2.5)
    assert row["ours_mse"] == pytest.approx(0.2) and row["best_mse"] == pytest.approx(0.2)
