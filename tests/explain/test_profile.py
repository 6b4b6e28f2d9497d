"""Cumulative profiles: curves by hand, distances, and a null that errs as often as it says."""

from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from sgpa_jax.errors import UsageError
from sgpa_jax.explain.profile import (
    area_between,
    compare_profiles,
    cumulative_profile,
    ks_distance,
    paper_profile,
)

# SciPy's results have names that type checkers do not see.
stats: Any = scipy_stats

SHARES = st.lists(st.floats(-10, 10).map(lambda value: round(value, 6)), min_size=1, max_size=12).map(np.array)


def curves(rng, n, tilt=0.0):
    values = rng.exponential(size=(n, 8)) + tilt * np.arange(8)
    return np.array([cumulative_profile(values_p, n_points=33) for values_p in values])


def test_positions_by_hand():
    np.testing.assert_allclose(
        cumulative_profile(np.array([1.0, -3.0]), n_points=5), [0, 0.125, 0.25, 0.625, 1], atol=1e-12
    )


def test_times_by_hand():
    spans_pe = np.array([[1.0, 2.0], [2.0, 4.0]])
    found_g = cumulative_profile(np.array([1.0, 1.0]), spans_pe, duration_s=5.0, n_points=6)
    np.testing.assert_allclose(found_g, [0, 0, 0.5, 0.75, 1, 1], atol=1e-12)


def test_splitting_players_changes_no_curve():
    """What words hold is in the native tokens that they are made of: one time axis for both."""
    words_pe = np.array([[0.0, 0.4], [0.4, 1.0]])
    edges = np.linspace(0, 1, 11)
    tokens_pe = np.stack([edges[:-1], edges[1:]], axis=1)
    by_words = cumulative_profile(np.array([2.0, 6.0]), words_pe, duration_s=1.0)
    by_tokens = cumulative_profile(np.repeat([0.5, 1.0], [4, 6]), tokens_pe, duration_s=1.0)
    np.testing.assert_allclose(by_words, by_tokens, atol=1e-12)


@given(SHARES, st.integers(2, 40))
def test_curves_rise_from_nothing_to_all(values_p, n_points):
    found_g = cumulative_profile(values_p, n_points=n_points)
    assert found_g[0] == 0 and found_g[-1] == pytest.approx(1)
    assert (np.diff(found_g) >= -1e-12).all()
    np.testing.assert_allclose(cumulative_profile(-3 * values_p, n_points=n_points), found_g, atol=1e-9)
    backwards_g = cumulative_profile(values_p[::-1], n_points=n_points)
    np.testing.assert_allclose(1 - backwards_g[::-1], found_g, atol=1e-9)


def test_equal_or_no_values_make_a_straight_line():
    np.testing.assert_allclose(cumulative_profile(np.zeros(7)), np.linspace(0, 1, 101), atol=1e-12)


def test_curves_of_the_paper_by_hand():
    np.testing.assert_allclose(paper_profile(np.array([1.0, 0, 3]), 5), [0.25, 0.25, 0.25, 0.625, 1])
    np.testing.assert_allclose(paper_profile(np.array([-2.0]), 3), np.ones(3))


def test_distances_by_hand():
    first_g, second_g = np.array([0.0, 0.5, 1.0]), np.array([0.0, 0.1, 1.0])
    assert ks_distance(first_g, second_g) == pytest.approx(0.4)
    assert area_between(first_g, second_g) == pytest.approx(0.2)


def test_ks_distance_is_that_of_scipy():
    first, second = np.random.default_rng(0).integers(1, 20, (2, 15))
    one_g, other_g = (np.searchsorted(np.sort(s), np.arange(21), side="right") / 15 for s in (first, second))
    assert ks_distance(one_g, other_g) == pytest.approx(stats.ks_2samp(first, second).statistic)


@pytest.mark.parametrize("paired", [True, False])
def test_p_values_are_those_of_scipy(paired, key):
    rng = np.random.default_rng(2)
    first_ig, second_ig = curves(rng, 6, 0.1), curves(rng, 6)

    # SciPy permutes samples of numbers: beside a point where all curves agree, the distance is one mean difference.
    g = 16
    kind = "samples" if paired else "independent"
    exact = stats.permutation_test(
        (first_ig[:, g], second_ig[:, g]),
        lambda x, y, axis: np.abs(x.mean(axis=axis) - y.mean(axis=axis)),
        permutation_type=kind, alternative="greater", vectorized=True,
    )  # fmt: skip
    flat = np.zeros((6, 1))
    one, other = (np.concatenate([flat, curve_ig[:, g : g + 1]], axis=1) for curve_ig in (first_ig, second_ig))
    found = compare_profiles(one, other, paired=paired, key=key)
    assert found.ks == pytest.approx(exact.statistic)
    assert found.ks_p == found.area_p == pytest.approx(exact.pvalue, abs=0.02)


@pytest.mark.parametrize("paired", [True, False])
def test_p_is_uniform_where_there_is_nothing_to_find(paired):
    rng = np.random.default_rng(0)
    found = [
        compare_profiles(curves(rng, 8), curves(rng, 8), paired=paired, n_permutations=99, key=jax.random.key(i))
        for i in range(300)
    ]
    for p_values in ([one.area_p for one in found], [one.ks_p for one in found]):
        assert stats.kstest(p_values, "uniform").statistic < 0.1
        assert np.mean(np.array(p_values) <= 0.05) < 0.1


@pytest.mark.parametrize("paired", [True, False])
def test_a_clear_difference_is_found(paired, key):
    rng = np.random.default_rng(1)
    found = compare_profiles(curves(rng, 20, 1.0), curves(rng, 20), paired=paired, n_permutations=199, key=key)
    assert found.area_p == found.ks_p == pytest.approx(1 / 200)
    assert found.ks > found.area > 0.05
    assert (found.n_first, found.n_second, found.paired, found.n_permutations) == (20, 20, paired, 199)


def test_pairs_see_what_a_spread_between_items_hides(key):
    rng = np.random.default_rng(5)
    first_ig = np.concatenate([curves(rng, 1, tilt) for tilt in np.geomspace(0.01, 10, 12)])
    second_ig = first_ig - 0.02 * np.sin(np.pi * np.linspace(0, 1, 33))[None]
    assert compare_profiles(first_ig, second_ig, n_permutations=999, key=key).area_p < 0.01
    assert compare_profiles(first_ig, second_ig, paired=False, n_permutations=999, key=key).area_p > 0.1


def test_the_same_curves_are_no_distance_apart(key):
    first_ig = curves(np.random.default_rng(3), 5)
    found = compare_profiles(first_ig, first_ig, key=key, n_permutations=9)
    assert (found.area, found.ks, found.area_p, found.ks_p) == (0, 0, 1, 1)


def test_sets_of_different_sizes_need_not_be_pairs(key):
    rng = np.random.default_rng(4)
    found = compare_profiles(curves(rng, 5), curves(rng, 9), paired=False, n_permutations=9, key=key)
    assert (found.n_first, found.n_second) == (5, 9)


@pytest.mark.parametrize(
    "call",
    [
        lambda key: cumulative_profile(np.zeros((2, 2))),
        lambda key: cumulative_profile(np.zeros(0)),
        lambda key: cumulative_profile(np.ones(2), n_points=1),
        lambda key: cumulative_profile(np.ones(2), duration_s=1.0),
        lambda key: cumulative_profile(np.ones(2), np.array([[0.0, 1.0]]), duration_s=1.0),
        lambda key: cumulative_profile(np.ones(1), np.array([[0.5, 0.5]]), duration_s=1.0),
        lambda key: cumulative_profile(np.ones(1), np.array([[0.5, 1.5]]), duration_s=1.0),
        lambda key: compare_profiles(np.zeros((2, 5)), np.zeros((3, 5)), key=key),
        lambda key: compare_profiles(np.zeros((2, 5)), np.zeros((2, 6)), paired=False, key=key),
        lambda key: compare_profiles(np.full((2, 5), np.nan), np.zeros((2, 5)), key=key),
        lambda key: compare_profiles(np.zeros((2, 5)), np.zeros((2, 5)), n_permutations=0, key=key),
    ],
)
def test_what_is_refused(call, key):
    with pytest.raises(UsageError, match=r"expected|leave"):
        call(key)
