"""Interaction indices: their definitions, the axioms that each has, other people's numbers, and other array types."""

import sys
from itertools import combinations
from math import comb, factorial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sgpa_kernels import co_moebius, exact_banzhaf, exact_shapley, moebius

from sgpa_jax.errors import UsageError
from sgpa_jax.estimators import INDICES, interactions
from sgpa_jax.estimators.interactions import interaction_values, subsets_up_to
from sgpa_jax.players import all_coalitions

EFFICIENT = ("k-SII", "STII", "FSII")
games = st.tuples(st.integers(2, 5), st.integers(0, 10**6))
orders = st.integers(1, 3)


def random_table(n_players: int, n_outputs: int = 2, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((2**n_players, n_outputs)) * 3 - 8


def bits(players) -> int:
    return sum(1 << player for player in players)


def derivatives(values_nk: np.ndarray, subset: tuple[int, ...]) -> dict[int, np.ndarray]:
    """Discrete derivatives along `subset` at each coalition of the others, summed up by their size."""
    n_players = len(values_nk).bit_length() - 1
    sums = {}
    for coalition in range(len(values_nk)):
        if coalition & bits(subset):
            continue
        derivative = sum(
            (-1) ** (len(subset) - size) * values_nk[coalition | bits(inside)]
            for size in range(len(subset) + 1)
            for inside in combinations(subset, size)
        )
        size = coalition.bit_count()
        sums[size] = sums.get(size, 0) + derivative
    assert len(sums) == n_players - len(subset) + 1
    return sums


def by_definition(values_nk: np.ndarray, subset: tuple[int, ...], index: str, order: int) -> np.ndarray:
    n, s = len(values_nk).bit_length() - 1, len(subset)
    weight = {
        "SII": lambda t: factorial(n - t - s) * factorial(t) / factorial(n - s + 1),
        "BII": lambda t: 2.0 ** (s - n),
        "Moebius": lambda t: float(t == 0),
        "Co-Moebius": lambda t: float(t == n - s),
        "STII": lambda t: order / (n * comb(n - 1, t)) if s == order else float(t == 0),
    }[index]
    return np.sum([weight(t) * sum_k for t, sum_k in derivatives(values_nk, subset).items()], axis=0)


@pytest.mark.parametrize("index", ["SII", "BII", "STII", "Moebius", "Co-Moebius"])
@settings(max_examples=10)
@given(games, orders)
def test_equals_the_definition(index, game, order):
    (n_players, seed), order = game, min(order, game[0])
    values_nk = random_table(n_players, seed=seed)
    found = interactions(values_nk, index, order)
    for subset in found.subsets:
        np.testing.assert_allclose(found[subset], by_definition(values_nk, subset, index, order), atol=1e-11)


def fitted(values_nk: np.ndarray, order: int, weight_n: np.ndarray, *, exact_at_ends: bool) -> np.ndarray:
    """Coefficients of the best polynomial of degree `order`, by least squares, [I, K]."""
    n_players = len(values_nk).bit_length() - 1
    masks_np = all_coalitions(n_players)
    products_ni = np.stack(
        [masks_np[:, list(subset)].all(axis=1) for subset in subsets_up_to(n_players, order)], axis=1
    ).astype(float)
    normal_ii = products_ni.T @ (weight_n[:, None] * products_ni)
    right_ik = products_ni.T @ (weight_n[:, None] * values_nk)
    ends_ei = products_ni[[0, -1]] if exact_at_ends else products_ni[:0]
    held_ek = values_nk[[0, -1]] if exact_at_ends else values_nk[:0]
    system = np.block([[normal_ii, ends_ei.T], [ends_ei, np.zeros((len(ends_ei),) * 2)]])
    # Of a full order few coalitions are left to weigh, and the fit through all of them is found all the same.
    solved = np.linalg.lstsq(system, np.concatenate([right_ik, held_ek]), rcond=None)[0]
    return solved[: len(normal_ii)]


@settings(max_examples=15)
@given(games, orders)
def test_faithful_indices_are_least_squares(game, order):
    (n_players, seed), order = game, min(order, game[0])
    values_nk = random_table(n_players, seed=seed)
    size_n = np.bitwise_count(np.arange(len(values_nk)))
    inner_n = (size_n > 0) & (size_n < n_players)
    chosen_n = np.array([comb(n_players - 2, max(size - 1, 0)) for size in size_n.tolist()])
    kernel_n = np.where(inner_n, 1 / np.maximum(chosen_n, 1), 0.0)
    shapley_ik = fitted(values_nk, order, kernel_n, exact_at_ends=True)
    np.testing.assert_allclose(interactions(values_nk, "FSII", order).values_ik, shapley_ik, atol=1e-9)
    banzhaf_ik = fitted(values_nk, order, np.ones(len(values_nk)), exact_at_ends=False)
    np.testing.assert_allclose(interactions(values_nk, "FBII", order).values_ik, banzhaf_ik, atol=1e-9)


@pytest.mark.parametrize("index", EFFICIENT)
@settings(max_examples=25)
@given(games, st.integers(1, 5))
def test_efficiency(index, game, order):
    (n_players, seed), order = game, min(order, game[0])
    values_nk = random_table(n_players, seed=seed)
    found = interactions(values_nk, index, order)
    np.testing.assert_allclose(found.values_ik.sum(axis=0), values_nk[-1], atol=1e-10)
    np.testing.assert_array_equal(found[()], values_nk[0])
    np.testing.assert_array_equal(found.empty_value_k, values_nk[0])


@pytest.mark.parametrize("index", INDICES)
@settings(max_examples=15)
@given(games, orders, st.randoms())
def test_symmetry(index, game, order, random):
    """Renamed players have the same interactions."""
    (n_players, seed), order = game, min(order, game[0])
    new_name = [*range(n_players)]
    random.shuffle(new_name)
    values_nk = random_table(n_players, seed=seed)
    renamed_nk = np.empty_like(values_nk)
    renamed_nk[all_coalitions(n_players) @ (1 << np.array(new_name))] = values_nk
    ours, renamed = interactions(values_nk, index, order), interactions(renamed_nk, index, order)
    for subset in ours.subsets:
        other = tuple(sorted(new_name[player] for player in subset))
        np.testing.assert_allclose(ours[subset], renamed[other], atol=1e-10)


@pytest.mark.parametrize("index", INDICES)
@settings(max_examples=15)
@given(games, orders, st.integers(0, 5))
def test_a_dummy_interacts_with_nobody(index, game, order, dummy):
    (n_others, seed), dummy = game, min(dummy, game[0])
    masks_np = all_coalitions(n_others + 1)
    values_nk = random_table(n_others, seed=seed)[np.delete(masks_np, dummy, axis=1) @ (1 << np.arange(n_others))]
    found = interactions(values_nk + 0.75 * masks_np[:, [dummy]], index, min(order, n_others))
    for subset in found.subsets:
        if dummy in subset:
            np.testing.assert_allclose(found[subset], 0.75 * (len(subset) == 1), atol=1e-10)


@pytest.mark.parametrize("index", INDICES)
@settings(max_examples=15)
@given(games, orders)
def test_linearity(index, game, order):
    (n_players, seed), order = game, min(order, game[0])
    one_nk, two_nk = random_table(n_players, seed=seed), random_table(n_players, seed=seed + 1)
    one, two, both = (interactions(v, index, order).values_ik for v in (one_nk, two_nk, 2 * one_nk - two_nk))
    np.testing.assert_allclose(both, 2 * one - two, atol=1e-10)


@settings(max_examples=25)
@given(games)
def test_order_one_is_the_value_of_players(game):
    values_nk = random_table(game[0], seed=game[1])
    for index, solve in {
        **dict.fromkeys(("SII", *EFFICIENT), exact_shapley),
        **dict.fromkeys(("BII", "FBII"), exact_banzhaf),
    }.items():
        np.testing.assert_allclose(interactions(values_nk, index, 1).values_ik[1:], solve(values_nk), atol=1e-11)


@settings(max_examples=25)
@given(games)
def test_full_order_is_the_moebius_transform(game):
    n_players, seed = game
    values_nk = random_table(n_players, seed=seed)
    rows_i = [bits(subset) for subset in subsets_up_to(n_players, n_players)]
    for index in ("Moebius", "FBII", *EFFICIENT):
        found_ik = interactions(values_nk, index, n_players).values_ik
        np.testing.assert_allclose(found_ik, moebius(values_nk)[rows_i], atol=1e-10)
    found_ik = interactions(values_nk, "Co-Moebius", n_players).values_ik
    np.testing.assert_allclose(found_ik, co_moebius(values_nk)[rows_i], atol=1e-11)


@settings(max_examples=25)
@given(games)
def test_indices_tell_the_same_of_the_largest_groups(game):
    """k-SII leaves SII of its order as it is, and so does FBII with BII's; a smaller order never sees a larger."""
    values_nk = random_table(game[0], seed=game[1])
    top_i = [len(subset) == 2 for subset in subsets_up_to(game[0], 2)]
    for adjusted, plain in (("k-SII", "SII"), ("FBII", "BII")):
        found_ik, plain_ik = (interactions(values_nk, index, 2).values_ik for index in (adjusted, plain))
        np.testing.assert_allclose(found_ik[top_i], plain_ik[top_i], atol=1e-12)
    lower_ik, higher_ik = (interactions(values_nk, "SII", order).values_ik for order in (1, 2))
    np.testing.assert_allclose(lower_ik, higher_ik[: len(lower_ik)], atol=1e-12)


@pytest.mark.parametrize(
    ("index", "n_players", "order"),
    # shapiq computes Möbius coefficients of all orders, and slowly.
    [
        (index, *size)
        for index in INDICES
        for size in ((8, 2), (8, 3), (10, 2))
        if (index, size) != ("Moebius", (10, 2))
    ],
)
def test_equals_shapiq(index, n_players, order):
    shapiq = pytest.importorskip("shapiq", reason="shapiq is not installed")
    values_n = random_table(n_players, 1)[:, 0]
    computer = shapiq.ExactComputer(lambda masks: values_n[masks @ (1 << np.arange(n_players))], n_players=n_players)
    theirs = computer(index, order)
    found = interactions(values_n, index, order)
    # shapiq asks FSII to fit at ∅ and N by a large weight, not exactly.
    tolerance = 1e-7 if index == "FSII" else 1e-10
    for subset in found.subsets:
        expected = values_n[-1] if (index, subset) == ("Co-Moebius", ()) else theirs[subset]
        np.testing.assert_allclose(found[subset][0], expected, atol=tolerance)


@pytest.mark.parametrize("index", INDICES)
def test_inside_of_jit_and_vmap_in_float32(index):
    values_nk = random_table(5, 3)
    expected_ik = interaction_values(values_nk, index, 3)
    device_nk = jnp.asarray(values_nk, jnp.float32)
    solve = jax.jit(lambda values_nk: interaction_values(values_nk, index, 3))
    found_ik = solve(device_nk)
    assert found_ik.dtype == jnp.float32
    np.testing.assert_allclose(found_ik, expected_ik, atol=1e-4)
    batched_ik = jax.vmap(solve, 1, 1)(device_nk)
    np.testing.assert_allclose(batched_ik, expected_ik, atol=1e-4)


def test_nothing_cancels_in_float32():
    """Interactions are as sharp as the values themselves; sums of Möbius coefficients are off by 2e-5 here."""
    values_n = random_table(12, 1)[:, 0]
    found_i = interaction_values(jnp.asarray(values_n, jnp.float32), "SII", 2)
    np.testing.assert_allclose(found_i, interaction_values(values_n, "SII", 2), atol=3e-6)


def test_many_outputs_are_solved_in_blocks(monkeypatch):
    values_nk = random_table(4, 7)
    whole_ik = interaction_values(values_nk, "k-SII", 2)
    monkeypatch.setattr(sys.modules[interactions.__module__], "_HOST_BLOCK", 32)
    np.testing.assert_allclose(interaction_values(values_nk, "k-SII", 2), whole_ik, atol=1e-12)
    for k in range(7):
        alone_i = interaction_values(values_nk[:, k], "k-SII", 2)
        np.testing.assert_allclose(alone_i, whole_ik[:, k], atol=1e-12)


def test_subsets_come_by_size_and_players():
    assert subsets_up_to(3, 2) == ((), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2))
    found = interactions(random_table(3, 1)[:, 0])
    assert (found.index, found.order, found.n_players, found.values_ik.shape) == ("k-SII", 2, 3, (7, 1))
    with pytest.raises(ValueError, match="not in tuple"):
        found[(2, 1)]


@pytest.mark.parametrize(
    ("shape", "index", "order", "match"),
    [
        ((8,), "SI", 2, "SII"),
        ((8,), "SII", 0, "1 to 3"),
        ((8,), "SII", 4, "1 to 3"),
        ((6,), "SII", 1, "row for every coalition"),
        ((1,), "SII", 1, "row for every coalition"),
        ((2, 2, 2), "SII", 1, "row for every coalition"),
        ((), "SII", 1, "row for every coalition"),
    ],
)
def test_refuses(shape, index, order, match):
    with pytest.raises(UsageError, match=match):
        interactions(np.zeros(shape), index, order)
