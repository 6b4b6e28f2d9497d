"""The Gaussian process: exact where all is known, near elsewhere, and honest about how near."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import stdtrit
from sgpa_kernels import exact_banzhaf, exact_shapley

from sgpa_jax.errors import BudgetError, UsageError
from sgpa_jax.estimators.gaussian import MOST_PAIRS, GaussianProcess
from sgpa_jax.estimators.regression import LeverageShap
from sgpa_jax.estimators.sampling import draw_pairs
from sgpa_jax.players import all_coalitions

EXACT = {"shapley": exact_shapley, "banzhaf": exact_banzhaf}


def network(n_players: int, n_outputs: int = 1, seed: int = 0) -> np.ndarray:
    """Return the table of a random network of one layer, float64[2^P, K]."""
    rng = np.random.default_rng(seed)
    x_np = 2.0 * all_coalitions(n_players) - 1
    hidden_nh = np.tanh(x_np @ rng.normal(size=(n_players, 12)) / np.sqrt(n_players) + 0.5 * rng.normal(size=12))
    return hidden_nh @ rng.normal(size=(12, n_outputs))


def rows_of(masks_cp):
    bits_p1 = jnp.asarray(1 << np.arange(masks_cp.shape[1]), jnp.int32)[:, None]
    return (masks_cp.astype(jnp.int32) @ bits_p1)[:, 0]


@partial(jax.jit, static_argnums=0)
def solved(method, key, table_nk):
    state = method.init(key)
    masks_cp = method.propose(state)
    return method.estimate(method.update(state, masks_cp, table_nk[rows_of(masks_cp)]))


@partial(jax.jit, static_argnums=0)
def estimated_often(method, keys, table_nk):
    return jax.lax.map(lambda key: solved(method, key, table_nk), keys)


@pytest.mark.parametrize(("n_players", "estimand"), [(1, "shapley"), (6, "shapley"), (7, "banzhaf")])
def test_all_pairs_are_exact(n_players, estimand, key):
    table_nk = np.random.default_rng(1).normal(size=(2**n_players, 2)) * 100
    method = GaussianProcess.for_budget(n_players, 2**n_players, n_outputs=2, estimand=estimand)
    with jax.enable_x64(True):
        found = solved(method, key, jnp.asarray(table_nk))
        assert found.values_pk.dtype == jnp.float64
        np.testing.assert_allclose(found.values_pk, EXACT[estimand](table_nk), atol=1e-9)
        np.testing.assert_allclose(found.standard_errors_pk, 0, atol=1e-9)


def test_shares_sum_to_what_there_is_and_scale_with_the_game(key):
    table_nk, method = network(8, 2), GaussianProcess.for_budget(8, 50, n_outputs=2)
    with jax.enable_x64(True):
        found = solved(method, key, jnp.asarray(table_nk))
        larger = solved(method, key, jnp.asarray(1000 * table_nk + 5))
        np.testing.assert_allclose(found.values_pk.sum(axis=0), table_nk[-1] - table_nk[0], atol=1e-9)
        np.testing.assert_allclose(larger.values_pk, 1000 * found.values_pk, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(larger.standard_errors_pk, 1000 * found.standard_errors_pk, rtol=1e-5)


def test_an_output_that_never_changes_is_worth_nothing(key):
    table_nk = np.concatenate([network(6), np.full((64, 1), 3.0)], axis=1)
    with jax.enable_x64(True):
        found = solved(GaussianProcess.for_budget(6, 40, n_outputs=2), key, jnp.asarray(table_nk))
        assert np.isfinite(np.asarray(found.values_pk)).all()
        np.testing.assert_array_equal(found.values_pk[:, 1], 0)
        np.testing.assert_array_equal(found.standard_errors_pk[:, 1], 0)


def test_is_nearer_than_a_regression():
    """On the same pairs: less than half of its mean square."""
    table_nk, squares = network(9), {}
    keys = jax.random.split(jax.random.key(5), 12)
    with jax.enable_x64(True):
        for kind in (GaussianProcess, LeverageShap):
            found = estimated_often(kind.for_budget(9, 202), keys, jnp.asarray(table_nk))
            squares[kind.name] = float(np.square(np.asarray(found.values_pk) - exact_shapley(table_nk)[None]).mean())
    assert squares["gaussian"] < 0.5 * squares["leverage"], squares


def test_float32_is_as_near_as_float64(key):
    table_nk, method = network(8), GaussianProcess.for_budget(8, 64)
    narrow = solved(method, key, jnp.asarray(table_nk, jnp.float32))
    assert narrow.values_pk.dtype == jnp.float32
    with jax.enable_x64(True):
        wide = solved(method, key, jnp.asarray(table_nk))
        np.testing.assert_allclose(narrow.values_pk, wide.values_pk, atol=0.5 * float(wide.standard_errors_pk.max()))


def test_takes_samples_that_it_did_not_propose(key):
    """More pairs of one size, none of another."""
    table_nk, method = network(8), GaussianProcess.for_budget(8, 64)
    masks_cp = draw_pairs(key, 8, (8, 0, 25, 5))
    with jax.enable_x64(True):
        state = method.update(method.init(key), masks_cp, jnp.asarray(table_nk)[rows_of(masks_cp)])
        found = jax.jit(method.estimate)(state)
        truth_pk = exact_shapley(table_nk)
        assert np.square(np.asarray(found.values_pk) - truth_pk).mean() < 0.02 * np.square(truth_pk).mean()
        assert (np.asarray(found.standard_errors_pk) > 0).all()


def majority(n_players: int) -> np.ndarray:
    """Return the table of a weighted majority: a step that single players decide, and all small coalitions lose."""
    votes_n = all_coalitions(n_players) @ np.random.default_rng(4).integers(1, 6, n_players)
    return (votes_n > votes_n[-1] / 2).astype(np.float64)[:, None]


@pytest.mark.parametrize(
    ("table", "estimand"),
    [
        (lambda n_players: np.tanh(2 * network(n_players, seed=3)), "shapley"),
        (majority, "shapley"),
        (majority, "banzhaf"),
    ],
)
def test_intervals_cover_the_truth(table, estimand):
    """95 % intervals of 10 evaluations a player, on 150 draws and 12 players."""
    n_players, n_draws = 12, 150
    table_nk = table(n_players)
    with jax.enable_x64(True):
        method, keys = (
            GaussianProcess.for_budget(n_players, 10 * n_players, estimand=estimand),
            jax.random.split(jax.random.key(11), n_draws),
        )
        found = estimated_often(method, keys, jnp.asarray(table_nk))
        off_rp = np.asarray(found.values_pk[..., 0]) - EXACT[estimand](table_nk)[None, :, 0]
        reach_rp = np.asarray(found.standard_errors_pk[..., 0])
        quantile = stdtrit(float(found.degrees_of_freedom[0]), 0.975)
    covered = (abs(off_rp) <= quantile * reach_rp).mean()
    assert 0.905 < covered < 0.985, covered


@pytest.mark.parametrize("estimand", ["shapley", "banzhaf"])
def test_what_depends_on_the_size_alone_is_found_at_once(estimand, key):
    """A random walk of the coalition's size beside shares for each player: from a tenth of all coalitions."""
    n_players, rng = 9, np.random.default_rng(6)
    masks_np = all_coalitions(n_players)
    walk_s = rng.normal(size=n_players + 1).cumsum()
    table_nk = (walk_s[masks_np.sum(axis=1)] + masks_np @ rng.normal(size=n_players))[:, None]
    with jax.enable_x64(True):
        method = GaussianProcess.for_budget(n_players, 52, estimand=estimand)
        found = solved(method, key, jnp.asarray(table_nk))
        np.testing.assert_allclose(found.values_pk, EXACT[estimand](table_nk), atol=1e-3)


def test_refuses_what_it_cannot_do(key):
    with pytest.raises(BudgetError, match="expected at least"):
        GaussianProcess.for_budget(10, 20)
    with pytest.raises(BudgetError, match=f"at most {2 + 2 * MOST_PAIRS}"):
        GaussianProcess.for_budget(30, 10_000)
    assert GaussianProcess.for_budget(10, 10_000).n_pairs <= MOST_PAIRS + 1000
    with pytest.raises(UsageError, match="shapley"):
        GaussianProcess(5, estimand="shaply")
