"""Owen values, exact and sampled: their definition, their axioms, and how groups share among themselves."""

from itertools import chain, permutations, product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sgpa_kernels import exact_shapley

from sgpa_jax.errors import BudgetError, UsageError
from sgpa_jax.estimators import Exact, Permutation
from sgpa_jax.estimators.owen import OwenPermutation, exact_owen
from sgpa_jax.players import all_coalitions

GROUPS = (1, 0, 1, 5, 0, 1)
groupings = st.lists(st.integers(0, 3), min_size=1, max_size=5).map(tuple)


def random_table(n_players: int, n_outputs: int = 2, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((2**n_players, n_outputs))


def rows(masks_cp):
    return masks_cp @ (1 << np.arange(masks_cp.shape[1]))


def by_orders(values_nk: np.ndarray, groups: tuple[int, ...]) -> np.ndarray:
    """The mean of what players add over all orders that keep groups together."""
    players = [[player for player, group in enumerate(groups) if group == name] for name in sorted(set(groups))]
    added, n_orders = np.zeros((len(groups), values_nk.shape[1])), 0
    for order_of_groups in permutations(players):
        for order in product(*(permutations(group) for group in order_of_groups)):
            before = 0
            for player in chain(*order):
                added[player] += values_nk[before | 1 << player] - values_nk[before]
                before |= 1 << player
            n_orders += 1
    return added / n_orders


@settings(max_examples=25)
@given(groupings, st.integers(0, 10**6))
def test_equals_the_mean_over_orders(groups, seed):
    values_nk = random_table(len(groups), seed=seed)
    np.testing.assert_allclose(exact_owen(values_nk, groups), by_orders(values_nk, groups), atol=1e-12)
    np.testing.assert_allclose(exact_owen(values_nk[:, 0], groups), exact_owen(values_nk, groups)[:, 0], atol=1e-12)


@settings(max_examples=25)
@given(groupings, st.integers(0, 10**6))
def test_groups_get_what_they_would_as_single_players(groups, seed):
    values_nk = random_table(len(groups), seed=seed)
    names = sorted(set(groups))
    member_gp = np.array([[group == name for group in groups] for name in names])
    quotient_nk = values_nk[rows(all_coalitions(len(names)) @ member_gp)]
    totals_gk = member_gp.astype(float) @ exact_owen(values_nk, groups)
    np.testing.assert_allclose(totals_gk, exact_shapley(quotient_nk), atol=1e-12)


@settings(max_examples=25)
@given(st.integers(1, 7), st.integers(0, 10**6))
def test_trivial_groups_give_shapley_values(n_players, seed):
    values_nk = random_table(n_players, seed=seed)
    for groups in (tuple(range(n_players)), (4,) * n_players):
        np.testing.assert_allclose(exact_owen(values_nk, groups), exact_shapley(values_nk), atol=1e-12)


def test_groups_that_are_alike_get_the_same():
    """Two groups of two that the game cannot tell apart."""
    masks_np = all_coalitions(4)
    values_n = np.random.default_rng(0).standard_normal(16)
    values_n = values_n + values_n[rows(masks_np[:, [2, 3, 0, 1]])]
    shares_p = exact_owen(values_n, (0, 0, 1, 1))
    np.testing.assert_allclose(shares_p[:2], shares_p[2:], atol=1e-12)


def test_the_glove_game_with_a_union():
    """One left glove, two right ones: without the third player, who owns the other right one, the union takes all."""
    masks_np = all_coalitions(3)
    values_n = (masks_np[:, 0] & (masks_np[:, 1] | masks_np[:, 2])).astype(float)
    np.testing.assert_allclose(exact_owen(values_n, (0, 0, 1)), [0.75, 0.25, 0.0], atol=1e-12)


def test_exact_inside_of_jit_and_vmap():
    values_nk = random_table(6)
    device_nk = jnp.asarray(values_nk, jnp.float32)
    solve = jax.jit(lambda values: exact_owen(values, GROUPS))
    found_pk = solve(device_nk)
    assert found_pk.dtype == jnp.float32
    np.testing.assert_allclose(found_pk, exact_owen(values_nk, GROUPS), atol=1e-5)
    np.testing.assert_allclose(jax.vmap(solve, 1, 1)(device_nk), found_pk, atol=1e-6)


def proposed(method: Permutation, key: jax.Array) -> np.ndarray:
    return np.asarray(jax.jit(lambda key: method.propose(method.init(key)))(key))


def run(method: Permutation, table_nk: jax.Array, key: jax.Array):
    """Propose and update once, on the device."""
    state = method.init(key)
    masks_cp = method.propose(state)
    bits_p = jnp.asarray(1 << np.arange(method.n_players), jnp.int32)
    return method.estimate(
        method.update(state, masks_cp, table_nk[(masks_cp.astype(jnp.int32) * bits_p[None]).sum(axis=1)])
    )


def test_sampled_orders_keep_groups_together(key):
    method = OwenPermutation(6, n_pairs=20, groups=GROUPS)
    masks_cp = proposed(method, key)
    assert masks_cp.shape == (2 + 20 * 2 * 5, 6) and not masks_cp[0].any() and masks_cp[1].all()
    seen = set()
    for forth_cp, back_cp in masks_cp[2:].reshape(20, 2, 5, 6):
        assert forth_cp.sum(axis=1).tolist() == [1, 2, 3, 4, 5]
        np.testing.assert_array_equal(back_cp, ~forth_cp[::-1])
        order = np.argsort(-forth_cp.sum(axis=0))
        groups = [GROUPS[player] for player in order]
        assert [*dict.fromkeys(groups)] == [
            group for group, before in zip(groups, [None, *groups], strict=False) if group != before
        ]
        seen.add(tuple(order.tolist()))
    assert len(seen) > 15


def test_sampled_values_are_unbiased_and_their_intervals_cover(key):
    """95 % intervals of 40 pairs, over 3000 repetitions; the t quantile of 39 degrees is 2.023."""
    table_nk = random_table(6, 1, seed=3)
    truth_p = exact_owen(table_nk, GROUPS)[:, 0]
    method = OwenPermutation(6, n_pairs=40, groups=GROUPS)
    found = jax.jit(jax.vmap(lambda key: run(method, jnp.asarray(table_nk, jnp.float32), key)))(
        jax.random.split(key, 3000)
    )
    values_rp, errors_rp = np.asarray(found.values_pk)[..., 0], np.asarray(found.standard_errors_pk)[..., 0]
    bias_p = abs(values_rp.mean(axis=0) - truth_p) / (values_rp.std(axis=0) / np.sqrt(3000))
    assert (bias_p < 4).all(), bias_p
    covered_p = (abs(values_rp - truth_p[None]) <= 2.023 * errors_rp).mean(axis=0)
    assert (covered_p > 0.93).all() and (covered_p < 0.97).all(), covered_p
    np.testing.assert_allclose(values_rp.sum(axis=1), table_nk[-1, 0] - table_nk[0, 0], atol=1e-5)
    assert (np.asarray(found.degrees_of_freedom) == 39).all()


def test_totals_of_sampled_groups_approach_the_quotient_game(key):
    table_nk = random_table(6, 1)
    method = OwenPermutation(6, n_pairs=4000, groups=GROUPS)
    found = jax.jit(lambda key: run(method, jnp.asarray(table_nk, jnp.float32), key))(key)
    member_gp = np.array([[group == name for group in GROUPS] for name in sorted(set(GROUPS))])
    quotient_n = table_nk[rows(all_coalitions(3) @ member_gp), 0]
    totals_g = member_gp.astype(float) @ np.asarray(found.values_pk)[:, 0]
    np.testing.assert_allclose(totals_g, exact_shapley(quotient_n), atol=0.05)


def test_draws_are_keyed_by_their_index(key):
    short, long = (OwenPermutation(6, n_pairs=n_pairs, groups=GROUPS) for n_pairs in (3, 6))
    few_cp, many_cp = (proposed(method, key) for method in (short, long))
    np.testing.assert_array_equal(few_cp, many_cp[: len(few_cp)])


def test_budgets():
    method = OwenPermutation.for_budget(6, 100, groups=GROUPS)
    assert (method.n_pairs, method.groups, method.n_outputs) == (9, GROUPS, 1)
    assert 2 + method.n_pairs * 2 * 5 <= 100
    assert OwenPermutation.for_budget(1, 2, groups=(3,)).n_pairs == 2
    with pytest.raises(BudgetError, match="at least 22"):
        OwenPermutation.for_budget(6, 21, groups=GROUPS)


def test_refuses_groups_of_others():
    with pytest.raises(UsageError, match="6 groups came for 5 players"):
        OwenPermutation.for_budget(5, 100, groups=GROUPS)
    with pytest.raises(UsageError, match="0 groups came for 5 players"):
        OwenPermutation(5)
    with pytest.raises(UsageError, match="expected 64 values"):
        exact_owen(np.zeros(32), GROUPS)
    assert Exact.estimands == ("shapley", "banzhaf", "owen") and OwenPermutation.estimands == ("owen",)
