"""Pairs: shared among sizes, drawn without replacement, and the same ones whatever else is drawn."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgpa_jax.estimators.sampling import (
    allocate,
    draw_pairs,
    pair_population,
    pairs_of,
    populations_by_size,
    share,
    strata_of,
    stratified_variance,
)
from sgpa_jax.estimators.subsets import nth_subsets, number_of_subset, subset_of_number

draw = jax.jit(draw_pairs, static_argnums=(1, 2))


def rows_of(masks_cp) -> set[bytes]:
    return {row.tobytes() for row in np.packbits(np.asarray(masks_cp), axis=1)}


def sizes_of(masks_cp) -> list[int]:
    return np.asarray(masks_cp).sum(axis=1).tolist()


@settings(max_examples=60)
@given(st.integers(1, 14), st.integers(0, 300), st.integers(0, 50), st.integers(0, 10**6))
def test_another_pair_takes_none_from_any_size(n_players, n_pairs, more, seed):
    weights_z = np.random.default_rng(seed).random(n_players // 2)
    few, many = (allocate(n_players, count, weights_z) for count in (n_pairs, n_pairs + more))
    population_z = pair_population(n_players)
    assert sum(few) == min(n_pairs, population_z.sum())
    assert all(less <= most <= there for less, most, there in zip(few, many, population_z, strict=True))
    if n_pairs >= 2 * len(few):
        assert all(count >= min(2, there) for count, there in zip(few, population_z, strict=True))


def test_shares_follow_the_weights():
    assert allocate(30, 15 * 100, np.arange(1, 16))[4:] == tuple(
        pytest.approx(size * 100 / 8, abs=5) for size in range(5, 16)
    )
    assert share(10, [0, 3, 100], [1.0, 1.0, 1.0]) == (0, 3, 7)


@pytest.mark.parametrize("n_players", [1, 2, 5, 8])
def test_all_pairs_are_all_coalitions(n_players, key):
    populations = populations_by_size(n_players)
    assert 2 * sum(populations) + 2 == 2**n_players == 2 * pair_population(n_players).sum() + 2
    masks_cp = np.asarray(draw(key, n_players, tuple(populations)))
    assert len(rows_of(masks_cp)) == len(masks_cp) == 2**n_players


@pytest.mark.parametrize("n_players", [11, 300])
def test_layout(n_players, key):
    """The empty and the full coalition, then pairs by size; of few and of more subsets than 32 bits can number."""
    counts = allocate(n_players, 3 * n_players, np.ones(n_players // 2))
    masks_cp = np.asarray(draw(key, n_players, counts))
    assert not masks_cp[0].any() and masks_cp[1].all()
    np.testing.assert_array_equal(masks_cp[2::2], ~masks_cp[3::2])
    assert sizes_of(masks_cp[2::2]) == [size for size, count in enumerate(counts, start=1) for _ in range(count)]
    assert len(rows_of(masks_cp)) == len(masks_cp)


@pytest.mark.parametrize("n_players", [12, 38])
def test_a_larger_budget_only_adds(n_players, key):
    ones_z = np.ones(n_players // 2)
    few, many = (draw(key, n_players, allocate(n_players, n_pairs, ones_z)) for n_pairs in (60, 200))
    assert rows_of(few) < rows_of(many)


def test_the_key_alone_decides(key):
    counts = (9, 20, 30, 40)
    keys = jax.random.split(key, 2)
    together_rcp = jax.jit(jax.vmap(lambda key: draw_pairs(key, 9, counts)))(keys)
    for one, drawn_cp in zip(keys, together_rcp, strict=True):
        np.testing.assert_array_equal(draw(one, 9, counts), drawn_cp)
    with jax.enable_x64(True):
        np.testing.assert_array_equal(draw_pairs(keys[0], 9, counts), together_rcp[0])
    assert rows_of(together_rcp[0]) != rows_of(together_rcp[1])


@pytest.mark.parametrize(("n_players", "size"), [(7, 1), (5, 2), (6, 3), (9, 2)])
def test_pairs_are_drawn_evenly(n_players, size):
    """Which pair comes first, and which two come first: chi-squared over 40,000 keys, no more than 5 σ off."""
    population = populations_by_size(n_players)[size - 1]
    counts = tuple(2 if other == size else 0 for other in range(1, n_players // 2 + 1))
    draw_many = jax.jit(jax.vmap(lambda key: draw_pairs(key, n_players, counts)[2::2]))
    masks_rmp = np.asarray(draw_many(jax.random.split(jax.random.key(1), 40_000)))
    _, index_rm = np.unique(masks_rmp @ (1 << np.arange(n_players)), return_inverse=True)
    first_r, second_r = index_rm.reshape(-1, 2).T
    assert (first_r != second_r).all()
    single = np.bincount(first_r, minlength=population)
    both = np.bincount(first_r * population + second_r, minlength=population**2).reshape(population, population)
    for seen in (single, both[~np.eye(population, dtype=bool)]):
        expected, degrees = len(first_r) / len(seen), len(seen) - 1
        assert abs((np.square(seen - expected) / expected).sum() - degrees) < 5 * math.sqrt(2 * degrees)


def test_many_players_are_drawn_evenly(key):
    """Of 40 players 20 are drawn independently, and 2 by number: every player as often as any other."""
    size_m, index_m = jnp.repeat(jnp.array([2, 20]), 780), jnp.tile(jnp.arange(780), 2)
    nth = jax.jit(lambda key: nth_subsets(key, 40, size_m, index_m, populations_by_size(40)))
    drawn_mp = np.asarray(nth(key))
    assert sizes_of(drawn_mp) == size_m.tolist() and len(rows_of(drawn_mp)) == 2 * 780
    assert (drawn_mp[:780].sum(axis=0) == 39).all()
    assert abs(drawn_mp[780:].mean(axis=0) - 0.5).max() < 5 * 0.5 / math.sqrt(780)


@pytest.mark.parametrize(("n_players", "size"), [(5, 1), (8, 4), (9, 5), (9, 9)])
def test_numbers_are_subsets(n_players, size):
    count = math.comb(n_players, size)
    number_m = jnp.arange(count, dtype=jnp.uint32)
    masks_mp = subset_of_number(number_m, jnp.full(count, size), n_players)
    assert set(sizes_of(masks_mp)) == {size} and len(rows_of(masks_mp)) == count
    np.testing.assert_array_equal(number_of_subset(masks_mp), number_m)
    if 2 * size == n_players:
        np.testing.assert_array_equal(masks_mp[:, 0], np.arange(count) < count // 2)


def test_pairs_of_a_sample(key):
    masks_cp = draw(key, 5, (3, 4))
    values_ck = jax.random.normal(key, (len(masks_cp), 2))
    pairs = pairs_of(masks_cp, values_ck)
    assert pairs.size_m.tolist() == [1] * 3 + [2] * 4
    np.testing.assert_array_equal(pairs.signs_mp > 0, masks_cp[2::2])
    np.testing.assert_array_equal(pairs.differences_mk, values_ck[2::2] - values_ck[3::2])
    np.testing.assert_array_equal([pairs.empty_value_k, pairs.full_value_k], values_ck[:2])
    with jax.enable_x64(True):
        assert pairs_of(np.asarray(masks_cp), np.asarray(values_ck, np.float64)).signs_mp.dtype == jnp.float64


def test_variance_of_a_stratified_mean():
    """By hand: two of three pairs of size 1 seen, and a size that is wholly seen adds nothing."""
    strata = strata_of(jnp.array([1, 2, 2, 1]), 3, jnp.float32)
    assert strata.count_z.tolist() == [4.0] and strata.unseen_z.tolist() == [0.0]
    strata = strata_of(jnp.array([1, 2, 0]), 3, jnp.float32)
    assert strata.of_m.tolist() == [0, 0, 1] and strata.unseen_z.tolist() == pytest.approx([1 / 3])
    variance_zp = stratified_variance(jnp.array([[1.0], [4.0], [9.0]]), strata)
    np.testing.assert_allclose(variance_zp, [[1 / 3 * 2 * 4.5]], rtol=1e-6)
