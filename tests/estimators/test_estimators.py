"""Estimators: axioms on games with known answers, intervals that cover, and draws that nothing else changes."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sgpa_kernels import exact_shapley_reference

from sgpa_jax.errors import BudgetError, UsageError
from sgpa_jax.estimators import Exact, Permutation, choose_estimator, estimate
from sgpa_jax.games import Evaluations, Game
from sgpa_jax.players import all_coalitions

N_PLAYERS = 6
BUDGETS = {"exact": 64, "permutation": 500}


def table_game(table_nk: np.ndarray, **settings) -> Game:
    """Return the game whose coalition values are looked up in a table, by the mask's bits."""
    n_players = len(table_nk).bit_length() - 1
    bits_p = 1 << np.arange(n_players)
    return Game(lambda masks_cp: table_nk[masks_cp @ bits_p], n_players, jit=False, **settings)


def random_table(n_players: int = N_PLAYERS, n_outputs: int = 2, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((2**n_players, n_outputs)).astype(np.float32)


def solved(table_nk: np.ndarray, name: str, key: jax.Array, **settings):
    return estimate(table_game(table_nk, **settings), name, budget=BUDGETS[name], key=key)


@pytest.mark.parametrize("name", BUDGETS)
def test_efficiency(name, key):
    table_nk = random_table() * 50
    result = solved(table_nk, name, key)
    assert (abs(result.efficiency_gap_k) < 1e-12).all()
    np.testing.assert_array_equal(result.empty_value_k, table_nk[0])
    np.testing.assert_array_equal(result.full_value_k, table_nk[-1])


@pytest.mark.parametrize("name", BUDGETS)
def test_a_dummy_gets_what_it_brings_alone(name, key):
    masks_np = all_coalitions(N_PLAYERS)
    table_nk = random_table(N_PLAYERS - 1)[masks_np[:, 1:] @ (1 << np.arange(N_PLAYERS - 1))] + 0.5 * masks_np[:, :1]
    result = solved(table_nk, name, key)
    np.testing.assert_allclose(result.values_pk[0], 0.5, atol=1e-6)
    errors_pk = result.standard_errors_pk
    if name == "permutation":
        # A few orders that agree do not tell a dummy from a player who is seldom a pivot: its error is the least.
        assert (errors_pk[0] <= errors_pk.min(axis=0)).all()
    else:
        np.testing.assert_allclose(errors_pk[0], 0.0, atol=1e-6)


@pytest.mark.parametrize("name", BUDGETS)
def test_symmetry(name, key):
    size_n1 = all_coalitions(N_PLAYERS).sum(axis=1, keepdims=True)
    result = solved(np.sqrt(size_n1), name, key)
    tolerance = 1e-7 + 5 * result.standard_errors_pk.max()
    np.testing.assert_allclose(result.values_pk, np.sqrt(N_PLAYERS) / N_PLAYERS, atol=tolerance)


@pytest.mark.parametrize("name", BUDGETS)
def test_linearity(name, key):
    one_nk, two_nk = random_table(seed=1), random_table(seed=2)
    one, two, both = (solved(table_nk, name, key).values_pk for table_nk in (one_nk, two_nk, 2 * one_nk - two_nk))
    np.testing.assert_allclose(both, 2 * one - two, atol=1e-6)


@pytest.mark.parametrize("name", BUDGETS)
def test_the_glove_game(name, key):
    """One left glove, two right ones: a pair is worth 1, and the left one gets two thirds of it."""
    masks_np = all_coalitions(3)
    table_nk = (masks_np[:, :1] & (masks_np[:, 1:2] | masks_np[:, 2:])).astype(np.float32)
    result = solved(table_nk, name, key)
    tolerance = 1e-12 + 4 * result.standard_errors_pk.max()
    np.testing.assert_allclose(result.values_pk[:, 0], [2 / 3, 1 / 6, 1 / 6], atol=tolerance)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5), st.integers(1, 3), st.integers(0, 10**6))
def test_exact_equals_brute_force(n_players, n_outputs, seed):
    table_nk = random_table(n_players, n_outputs, seed)
    result = estimate(table_game(table_nk), "exact", budget=2**n_players, key=jax.random.key(0))
    np.testing.assert_allclose(result.values_pk, exact_shapley_reference(table_nk), atol=1e-12)
    assert not result.standard_errors_pk.any() and result.values_pk.dtype == np.float64
    assert result.evaluations.unique == 2**n_players and result.estimator == "exact"


def test_permutation_approaches_exact(key):
    table_nk = random_table()
    exact = solved(table_nk, "exact", key).values_pk
    result = estimate(table_game(table_nk), "permutation", budget=20_002, key=key)
    assert result.standard_errors_pk.max() < 0.03
    assert (abs(result.values_pk - exact) < 4 * result.standard_errors_pk).all()


def test_intervals_cover_the_truth():
    """95 % intervals of 40 pairs, over 6000 repetitions; the t quantile of 39 degrees is 2.023.

    Few pairs of a skewed game cover a little less: 94.4 to 95.0 % here, with a standard deviation of 0.3 %.
    """
    table_nk = jnp.asarray(random_table(5, 1, seed=3))
    truth_p = exact_shapley_reference(np.asarray(table_nk))[:, 0]
    method = Permutation(5, n_pairs=40)
    bits_p1 = jnp.asarray(1 << np.arange(5))[:, None]

    @jax.jit
    @jax.vmap
    def repeat(key):
        state = method.init(key)
        masks_cp = method.propose(state)
        rows_c = (masks_cp.astype(jnp.int32) @ bits_p1)[:, 0]
        found = method.estimate(method.update(state, masks_cp, table_nk[rows_c]))
        return found.values_pk[:, 0], found.standard_errors_pk[:, 0]

    values_rp, errors_rp = map(np.asarray, repeat(jax.random.split(jax.random.key(7), 6000)))
    covered_p = (abs(values_rp - truth_p[None]) <= 2.023 * errors_rp).mean(axis=0)
    assert (covered_p > 0.93).all() and (covered_p < 0.965).all(), covered_p
    bias_p = abs(values_rp.mean(axis=0) - truth_p) / (values_rp.std(axis=0) / np.sqrt(6000))
    assert (bias_p < 4).all(), bias_p


def test_pairs_vary_less_than_independent_orders(key):
    """A reversed order mirrors its sizes, so that a game of sizes alone is nearly solved by one pair."""
    size_n1 = all_coalitions(N_PLAYERS).sum(axis=1, keepdims=True).astype(np.float32)
    result = estimate(table_game(size_n1**2), "permutation", budget=22, key=key)
    np.testing.assert_allclose(result.values_pk[:, 0], 6.0, atol=1e-6)


def test_draws_do_not_depend_on_the_microbatch(key):
    table_nk = random_table()
    results = [solved(table_nk, "permutation", key, microbatch=microbatch) for microbatch in (1, 7, 64)]
    for result in results[1:]:
        np.testing.assert_array_equal(result.values_pk, results[0].values_pk)
        np.testing.assert_array_equal(result.standard_errors_pk, results[0].standard_errors_pk)


def test_draws_are_keyed_by_their_index(key):
    """Two proposals of three pairs are one of six, draw by draw, and give the same estimate."""
    table_nk = random_table()
    value = table_game(table_nk).values
    short, long = Permutation(N_PLAYERS, 2, n_pairs=3), Permutation(N_PLAYERS, 2, n_pairs=6)
    state, drawn = short.init(key), []
    for _ in range(2):
        masks_cp = np.asarray(short.propose(state))
        drawn.append(masks_cp[2:])
        state = short.update(state, masks_cp, value(masks_cp).astype(np.float64))
    whole = long.init(key)
    masks_cp = np.asarray(long.propose(whole))
    np.testing.assert_array_equal(np.concatenate(drawn), masks_cp[2:])
    whole = long.update(whole, masks_cp, value(masks_cp).astype(np.float64))
    for ours, theirs in zip(short.estimate(state), long.estimate(whole), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-12)


def test_proposed_coalitions_are_antithetic_chains(key):
    method = Permutation(N_PLAYERS, n_pairs=4)
    masks_cp = np.asarray(method.propose(method.init(key)))
    assert masks_cp.shape == (2 + 4 * 2 * 5, N_PLAYERS) and not masks_cp[0].any() and masks_cp[1].all()
    for forth_cp, back_cp in masks_cp[2:].reshape(4, 2, 5, N_PLAYERS):
        assert forth_cp.sum(axis=1).tolist() == back_cp.sum(axis=1).tolist() == [1, 2, 3, 4, 5]
        assert (forth_cp[1:] >= forth_cp[:-1]).all()
        np.testing.assert_array_equal(back_cp, ~forth_cp[::-1])


@pytest.mark.parametrize("method", [Exact(4, 2), Permutation(4, 2, n_pairs=5)], ids=["exact", "permutation"])
def test_works_in_anybodys_jit_and_scan(method, key):
    table_nk = random_table(4)

    @partial(jax.jit, static_argnums=0)
    def run(method, key):
        def step(state, _):
            masks_cp = method.propose(state)
            rows_c = (masks_cp.astype(jnp.int32) @ jnp.asarray(1 << np.arange(4))[:, None])[:, 0]
            return method.update(state, masks_cp, jnp.asarray(table_nk)[rows_c]), None

        return method.estimate(jax.lax.scan(step, method.init(key), length=40)[0])

    found = run(method, key)
    tolerance = 1e-5 + 4 * np.asarray(found.standard_errors_pk)
    assert (abs(np.asarray(found.values_pk) - exact_shapley_reference(table_nk)) < tolerance).all()


@pytest.mark.parametrize("method", [Exact(4), Permutation(4)], ids=["exact", "permutation"])
def test_lowers_for_tpu(method):
    def run(words):
        state = method.init(jax.random.wrap_key_data(words))
        masks_cp = method.propose(state)
        return method.estimate(method.update(state, masks_cp, masks_cp.sum(axis=1, keepdims=True).astype(jnp.float32)))

    words = jax.ShapeDtypeStruct((2,), jnp.uint32)
    assert jax.export.export(jax.jit(run), platforms=["tpu"])(words).platforms == ("tpu",)


@pytest.mark.parametrize(
    ("estimator", "n_players", "budget", "expected"),
    [
        ("auto", 6, 64, "exact"),
        ("auto", 6, 63, "gaussian"),
        ("exact", 6, 64, "exact"),
        ("permutation", 6, 22, "permutation"),
        ("auto", 1, 2, "exact"),
    ],
)
def test_chooses(estimator, n_players, budget, expected, key):
    assert choose_estimator(estimator, n_players, budget) == expected
    result = estimate(table_game(random_table(n_players)), estimator, budget=budget, key=key)
    assert result.estimator == expected and result.budget == budget and result.estimand == "shapley"
    assert result.evaluations.requested <= budget


@pytest.mark.parametrize(
    ("estimator", "budget"), [("exact", 63), ("permutation", 21), ("auto", 25), ("auto", 0), ("exact", -1)]
)
def test_a_budget_that_is_too_small_is_refused(estimator, budget, key):
    game = table_game(random_table())
    with pytest.raises(BudgetError, match="expected at least"):
        estimate(game, estimator, budget=budget, key=key)
    assert game.evaluations == Evaluations()


def test_every_evaluation_is_counted(key):
    game = table_game(random_table(10), microbatch=16)
    result = estimate(game, "permutation", budget=100, key=key)
    assert result.evaluations == game.evaluations and result.evaluations.requested == 2 + 5 * 2 * 9
    assert result.evaluations.unique <= 92 and result.evaluations.model_forwards % 16 == 0
    again = estimate(game, "permutation", budget=100, key=key)
    assert again.evaluations == Evaluations(requested=92)


def test_one_player_takes_all(key):
    for name in BUDGETS:
        result = estimate(table_game(np.array([[1.0], [3.5]])), name, budget=4, key=key)
        assert result.values_pk.tolist() == [[2.5]] and result.standard_errors_pk.tolist() == [[0.0]]


def test_refuses_unknown_names_and_other_keys(key):
    game = table_game(random_table())
    with pytest.raises(UsageError, match="permutation"):
        estimate(game, "permutations", key=key)
    other_keys: list[Any] = [0, jnp.zeros(2, jnp.uint32), jax.random.split(key, 2), None]
    for wrong in other_keys:
        with pytest.raises(UsageError, match="typed key"):
            estimate(game, key=wrong)
    assert estimate(game, key=jax.random.key(123)).seed == 123
