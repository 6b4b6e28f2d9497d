"""The tree proxy: axioms, games that it learns wholly, exactness when nothing is left to sample, and its spectrum."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sgpa_kernels import exact_banzhaf, exact_shapley

from sgpa_jax.errors import BudgetError, UsageError
from sgpa_jax.estimators import interactions
from sgpa_jax.estimators.covariances import from_covariances
from sgpa_jax.estimators.proxy import TreeProxy
from sgpa_jax.estimators.regression import LeverageShap
from sgpa_jax.estimators.sampling import Sample, draw_pairs, pairs_of
from sgpa_jax.estimators.spectrum import Spectrum, characters, merged
from sgpa_jax.estimators.trees import Forest, grow_forest, spectrum_of
from sgpa_jax.players import all_coalitions

N_PLAYERS = 30
TERMS = {(0,): 2.0, (3,): -1.0, (11,): 0.5, (29,): 1.0, (0, 3): 1.5, (11, 29): -1.0, (0, 11, 29): 2.0}
"""Who is worth what together: dividends."""


def signs_of(masks_cp: np.ndarray) -> np.ndarray:
    return np.where(masks_cp, 1.0, -1.0)


def sparse_game(masks_cp: np.ndarray) -> np.ndarray:
    return np.stack([worth * masks_cp[:, list(team)].all(axis=1) for team, worth in TERMS.items()]).sum(axis=0)


def sparse_shapley(n_players: int = N_PLAYERS) -> np.ndarray:
    shapley_p = np.zeros(n_players)
    for team, worth in TERMS.items():
        shapley_p[list(team)] += worth / len(team)
    return shapley_p


def proposed(method: Any, key: jax.Array) -> np.ndarray:
    return np.asarray(method.propose(method.init(key)))


@partial(jax.jit, static_argnums=0)
def solve(method: Any, masks_cp: Any, values_ck: Any) -> Any:
    return method.estimate(method.update(method.init(jax.random.key(0)), masks_cp, values_ck))


solve_pairs = jax.jit(from_covariances, static_argnums=3)


def random_spectrum(seed: int, n_terms: int = 12, n_players: int = 6) -> Spectrum:
    rng = np.random.default_rng(seed)
    subsets_fd = np.full((n_terms, 4), -1, np.int32)
    for row in subsets_fd:
        size = rng.integers(0, 5)
        row[:size] = np.sort(rng.choice(n_players, size, replace=False))
    return Spectrum(jnp.asarray(subsets_fd), jnp.asarray(rng.standard_normal(n_terms), jnp.float32))


@settings(max_examples=20)
@given(st.integers(0, 10**6))
def test_closed_forms_of_a_spectrum_equal_those_of_the_whole_table(seed):
    terms = random_spectrum(seed)
    table_n = np.asarray(terms.predict(jnp.asarray(signs_of(all_coalitions(6)), jnp.float32)), np.float64)
    np.testing.assert_allclose(terms.shapley(6), exact_shapley(table_n), atol=1e-5)
    np.testing.assert_allclose(terms.banzhaf(6), exact_banzhaf(table_n), atol=1e-5)
    for index, found_pp in (("SII", terms.shapley_interactions(6)), ("BII", terms.banzhaf_interactions(6))):
        truth = interactions(table_n, index, 2)
        for i in range(6):
            for j in range(i + 1, 6):
                np.testing.assert_allclose(found_pp[i, j], truth[i, j], atol=1e-5)
                assert found_pp[j, i] == found_pp[i, j]
        assert not np.diag(found_pp).any()


def test_merging_leaves_the_game_as_it_is_and_no_term_twice():
    terms = random_spectrum(3, n_terms=60, n_players=4)
    once = merged(terms)
    signs_mp = jnp.asarray(signs_of(all_coalitions(4)), jnp.float32)
    np.testing.assert_allclose(once.predict(signs_mp), terms.predict(signs_mp), atol=1e-5)
    used = [tuple(row) for row, value in zip(*map(np.asarray, once), strict=True) if value]
    assert len(set(used)) == len(used) < 17


def test_a_forest_is_the_sum_of_its_terms():
    rng = np.random.default_rng(0)
    masks_np = rng.random((200, 9)) < 0.5
    present_np = jnp.asarray(masks_np, jnp.float32)
    target_n = present_np[:, 2] * present_np[:, 5] - present_np[:, 7] + 0.1 * present_np[:, 1] - 0.2
    forest = grow_forest(present_np, target_n, jnp.ones(200), n_trees=60, depth=3)
    bits_td = masks_np[:, np.asarray(forest.players_td)].astype(int)
    leaf_nt = bits_td @ np.array([4, 2, 1])
    says_n = np.take_along_axis(np.asarray(forest.leaves_te)[None], leaf_nt[..., None], 2)[..., 0].sum(axis=1)
    terms = spectrum_of(forest, 9)
    np.testing.assert_allclose(terms.predict(2 * present_np - 1), says_n, atol=1e-5)
    assert np.mean(np.square(says_n - np.asarray(target_n))) < 0.01 * np.var(target_n)
    assert all(len(set(players)) == 3 for players in np.asarray(forest.players_td).tolist())


def test_a_forest_does_not_look_at_what_weighs_nothing():
    rng = np.random.default_rng(1)
    present_np = jnp.asarray(rng.random((60, 5)) < 0.5, jnp.float32)
    target_n, weight_n = present_np[:, 0] - present_np[:, 3] * 0.5, jnp.asarray(rng.random(60) < 0.7, jnp.float32)
    one, two = (
        grow_forest(present_np, target, weight_n, n_trees=5, depth=2)
        for target in (target_n, jnp.where(weight_n > 0, target_n, 99.0))
    )
    assert isinstance(one, Forest)
    jax.tree.map(np.testing.assert_array_equal, one, two)


@settings(max_examples=6)
@given(st.sampled_from([2, 5]), st.integers(0, 10**6))
def test_covariances_of_all_pairs_are_exact(n_players, seed):
    table_n = np.random.default_rng(seed).standard_normal(2**n_players).astype(np.float32)
    method = LeverageShap(n_players, n_pairs=2**n_players)
    masks_cp = proposed(method, jax.random.key(seed))
    values_ck = table_n[masks_cp @ (1 << np.arange(n_players))][:, None]
    pairs = pairs_of(masks_cp, values_ck)
    for estimand, transform in (("shapley", exact_shapley), ("banzhaf", exact_banzhaf)):
        found = solve_pairs(pairs, pairs.differences_mk[:, 0], jnp.float32(table_n[-1] - table_n[0]), estimand)
        np.testing.assert_allclose(found.values_p, transform(table_n.astype(np.float64)), atol=1e-5)
        np.testing.assert_allclose(found.variance_p, 0, atol=1e-6)


@pytest.mark.parametrize(
    ("pairs_by_size", "estimand"), [((3, 5, 6), "shapley"), ((3, 5, 6), "banzhaf"), ((0, 4, 6), "shapley")]
)
def test_covariances_are_unbiased_and_know_their_variance(pairs_by_size, estimand):
    """Sizes without pairs lean on their neighbours, which is no bias where the game looks the same at every size."""
    table_n = np.random.default_rng(2).standard_normal(64).astype(np.float32)
    if not all(pairs_by_size):
        table_n = (signs_of(all_coalitions(6)) @ np.arange(6.0)).astype(np.float32)
    truth_p = (exact_shapley if estimand == "shapley" else exact_banzhaf)(table_n.astype(np.float64))

    @jax.jit
    @jax.vmap
    def repeat(key):
        masks_cp = draw_pairs(key, 6, pairs_by_size)
        values_c = jnp.asarray(table_n)[masks_cp.astype(jnp.int32) @ (1 << jnp.arange(6, dtype=jnp.int32))]
        pairs = pairs_of(masks_cp, values_c[:, None])
        return from_covariances(pairs, pairs.differences_mk[:, 0], values_c[1] - values_c[0], estimand)[:2]

    values_rp, variance_rp = map(np.asarray, repeat(jax.random.split(jax.random.key(3), 4000)))
    deviation_p = values_rp.std(axis=0)
    assert (abs(values_rp.mean(axis=0) - truth_p) < 4 * deviation_p / 4000**0.5).all()
    if all(pairs_by_size):
        # Three pairs of a size tell less spread than there is, since their mean follows them.
        np.testing.assert_allclose(variance_rp.mean(axis=0) ** 0.5, deviation_p, rtol=0.25)


@pytest.mark.parametrize("estimand", ["shapley", "banzhaf"])
def test_nothing_left_to_sample_is_exact(estimand, key):
    table_nk = np.random.default_rng(4).standard_normal((128, 2)).astype(np.float32)
    method = TreeProxy.for_budget(7, 128, estimand=estimand)
    masks_cp = proposed(method, key)
    games_bck = table_nk[masks_cp @ (1 << np.arange(7))].T[:, :, None]
    found = jax.jit(jax.vmap(lambda values_ck: solve(method, masks_cp, values_ck)))(games_bck)
    transform = exact_shapley if estimand == "shapley" else exact_banzhaf
    np.testing.assert_allclose(found.values_pk[..., 0].T, transform(table_nk), atol=1e-4)
    np.testing.assert_allclose(found.standard_errors_pk, 0, atol=1e-4)


def test_a_sparse_game_is_learnt(key):
    """Outputs, shifts and scales of them: each is solved for itself, and sums to what there is to share."""
    method = TreeProxy.for_budget(N_PLAYERS, 602, n_outputs=3)
    masks_cp = proposed(method, key)
    value_c = sparse_game(masks_cp)
    values_ck = np.stack([value_c, 5 - 10 * value_c, np.zeros(len(value_c))], axis=1).astype(np.float32)
    found = solve(method, masks_cp, values_ck)
    truth_p = sparse_shapley()
    error = np.square(np.asarray(found.values_pk[:, 0]) - truth_p).sum() / np.square(truth_p).sum()
    peer = solve(LeverageShap.for_budget(N_PLAYERS, 602), masks_cp, values_ck[:, :1])
    assert error < 1e-3 and error < 0.1 * np.square(peer.values_pk[:, 0] - truth_p).sum() / np.square(truth_p).sum()
    np.testing.assert_allclose(found.values_pk[:, 1], -10 * found.values_pk[:, 0], atol=0.02)
    np.testing.assert_array_equal(found.values_pk[:, 2], 0)
    np.testing.assert_allclose(found.values_pk.sum(axis=0), values_ck[1] - values_ck[0], atol=1e-4)
    dummies_p = truth_p == 0
    assert abs(np.asarray(found.values_pk[:, 0]))[dummies_p].max() < 0.05
    np.testing.assert_array_equal(solve(method, masks_cp, values_ck).values_pk, found.values_pk)


def test_the_spectrum_tells_interactions_of_many_players(key):
    method = TreeProxy.for_budget(N_PLAYERS, 602)
    masks_cp = proposed(method, key)
    values_ck = sparse_game(masks_cp).astype(np.float32)[:, None]
    terms = jax.jit(method.spectrum)(Sample(key, masks_cp, values_ck))
    (found_pp,) = jax.vmap(lambda one: one.shapley_interactions(N_PLAYERS))(terms)
    truth_pp = np.zeros((N_PLAYERS, N_PLAYERS))
    for team, worth in TERMS.items():
        for i in team:
            for j in team:
                truth_pp[i, j] += (i != j) * worth / max(len(team) - 1, 1)
    np.testing.assert_allclose(found_pp, truth_pp, atol=0.15)
    (found_p,) = jax.vmap(lambda one: one.shapley(N_PLAYERS))(terms)
    np.testing.assert_allclose(found_p, sparse_shapley(), atol=0.1)
    fresh_mp = np.random.default_rng(9).random((500, N_PLAYERS)) < 0.5
    one = jax.tree.map(lambda array: array[0], terms)
    predicted_m = characters(one.subsets_fd, jnp.asarray(signs_of(fresh_mp), jnp.float32)) @ one.coefficients_f
    assert np.square(predicted_m - sparse_game(fresh_mp)).mean() < 0.02 * sparse_game(fresh_mp).var()


def test_two_hundred_players(key):
    method = TreeProxy.for_budget(200, 998)
    masks_cp = proposed(method, key)
    found = solve(method, masks_cp, sparse_game(masks_cp).astype(np.float32)[:, None])
    truth_p = sparse_shapley(200)
    assert np.square(np.asarray(found.values_pk)[:, 0] - truth_p).sum() < 0.03 * np.square(truth_p).sum()


def test_one_player_gets_all(key):
    method = TreeProxy.for_budget(1, 2)
    found = solve(method, proposed(method, key), np.array([[1.0], [3.5]], np.float32))
    np.testing.assert_array_equal(found.values_pk, [[2.5]])


def test_what_cannot_be_is_refused():
    with pytest.raises(BudgetError, match="proxy estimator with 200 players: expected at least 802"):
        TreeProxy.for_budget(200, 801)
    with pytest.raises(UsageError, match="unknown estimand 'owen'"):
        TreeProxy(5, estimand="owen")
