"""Paired comparisons: SciPy's numbers, sizes by hand, corrections, and intervals that cover what they should."""

import math
from dataclasses import asdict
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from sgpa_jax.errors import UsageError
from sgpa_jax.explain.statistics import (
    bonferroni,
    bootstrap_interval,
    generator,
    holm,
    matched,
    paired_comparison,
    ratio_of_means,
)

# SciPy's results have names that type checkers do not see.
stats: Any = scipy_stats


def compare(first_i, second_i, key, n_resamples=199):
    return paired_comparison(np.array(first_i, float), np.array(second_i, float), n_resamples=n_resamples, key=key)


def test_sizes_by_hand(key):
    found = compare([3, 5, 7, 1], [2, 3, 3, 2], key)  # differences 1, 2, 4, −1
    assert (found.n, found.first_mean, found.second_mean, found.mean_difference) == (4, 4, 2.5, 1.5)
    assert found.d_z == pytest.approx(1.5 / math.sqrt(13 / 3))
    assert found.t == pytest.approx(2 * found.d_z)
    # Ranks 1.5, 3, 4 above and 1.5 below.
    assert found.signed_rank == 8.5 and found.rank_biserial == pytest.approx(0.7)
    assert found.low <= 1.5 <= found.high


@pytest.mark.parametrize("n", [2, 5, 10, 60])
def test_tests_are_those_of_scipy(n, key):
    rng = np.random.default_rng(n)
    first_i, second_i = rng.normal(0.5, 1, n), rng.normal(0, 2, n)
    found, t = compare(first_i, second_i, key), stats.ttest_rel(first_i, second_i)
    assert (found.t, found.t_p) == pytest.approx((t.statistic, t.pvalue))
    wilcoxon = stats.wilcoxon(first_i, second_i)
    assert found.signed_rank_p == pytest.approx(wilcoxon.pvalue)
    assert min(found.signed_rank, n * (n + 1) / 2 - found.signed_rank) == pytest.approx(wilcoxon.statistic)


def test_pairs_without_a_difference_are_left_out_of_ranks(key):
    found = compare([1, 2, 3, 4, 9], [0, 0, 0, 4, 9], key)
    assert found.signed_rank == 6 and found.rank_biserial == 1
    assert found.signed_rank_p == pytest.approx(0.25)
    assert found.n == 5


def test_the_other_way_round_is_the_same_with_other_signs(key):
    first_i, second_i = np.random.default_rng(1).normal(size=(2, 12))
    one, other = compare(first_i, second_i, key), compare(second_i, first_i, key)
    assert (one.t, one.d_z, one.rank_biserial) == pytest.approx((-other.t, -other.d_z, -other.rank_biserial))
    assert (one.t_p, one.signed_rank_p) == pytest.approx((other.t_p, other.signed_rank_p))


def test_items_that_never_differ(key):
    found = compare([0.1, 0.2, 0.3], [0.1, 0.2, 0.3], key)
    assert (found.t, found.d_z, found.signed_rank, found.rank_biserial) == (0, 0, 0, 0)
    assert (found.t_p, found.signed_rank_p, found.low, found.high) == (1, 1, 0, 0)


@pytest.mark.parametrize("sign", [1, -1])
def test_items_that_all_differ_by_the_same(sign, key):
    found = compare(sign * np.array([0.1, 0.2, 0.3]), np.zeros(3) + sign * np.array([0.0, 0.1, 0.2]), key)
    assert (found.t, found.d_z, found.t_p) == (sign * math.inf, sign * math.inf, 0)
    assert found.low == pytest.approx(sign * 0.1) and found.high == pytest.approx(sign * 0.1)


def test_only_matched_items_count():
    names, first_i, second_i = matched({"a": 1, "b": 2, "c": 3}, {"c": 30, "x": 0, "a": 10})
    assert names == ("a", "c")
    np.testing.assert_array_equal([first_i, second_i], [[1, 3], [10, 30]])
    with pytest.raises(UsageError, match="have 1 in common"):
        matched({"a": 1, "b": 2}, {"b": 2, "c": 3})


def test_intervals_are_those_of_scipy():
    sample_i = np.random.default_rng(2).exponential(size=30)
    expected = stats.bootstrap((sample_i,), np.mean, rng=np.random.default_rng(0)).confidence_interval
    assert bootstrap_interval(np.mean, sample_i, key=jax.random.key(5)) == pytest.approx(tuple(expected), rel=0.02)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    rng, covered = np.random.default_rng(3), 0
    for i in range(200):
        first_i = rng.exponential(6.0, 25)
        second_i = first_i / 3 * rng.uniform(0.7, 1.3, 25)
        low, high = bootstrap_interval(
            ratio_of_means, first_i, second_i, n_resamples=299, level=0.9, key=jax.random.key(i)
        )
        covered += low <= 3 <= high
    assert 0.82 <= covered / 200 <= 0.96


def test_a_ratio_that_is_the_same_for_all_items_has_no_width():
    second_i = np.array([1.0, 7, 3, 5])
    low, high = bootstrap_interval(ratio_of_means, 54 * second_i, second_i, n_resamples=99, key=jax.random.key(0))
    assert low == high == pytest.approx(54)


def test_draws_depend_on_the_key_alone(key):
    first_i, second_i = np.random.default_rng(1).normal(size=(2, 12))
    assert asdict(compare(first_i, second_i, key)) == asdict(compare(first_i, second_i, key))
    other = compare(first_i, second_i, jax.random.key(1))
    assert other.low != compare(first_i, second_i, key).low
    assert generator(key).random() != generator(jax.random.fold_in(key, 1)).random()


def test_corrections_by_hand():
    p_h = np.array([0.01, 0.04, 0.03, 0.005])
    np.testing.assert_allclose(bonferroni(p_h), [0.04, 0.16, 0.12, 0.02])
    np.testing.assert_allclose(holm(p_h), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm(np.array([0.9, 0.8])), [1, 1])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20).map(np.array))
def test_holm_lies_between_the_raw_and_bonferroni(p_h):
    adjusted_h = holm(p_h)
    assert (p_h <= adjusted_h).all() and (adjusted_h <= bonferroni(p_h)).all() and (adjusted_h <= 1).all()
    assert adjusted_h[p_h.argmin()] == bonferroni(p_h)[p_h.argmin()]
    assert (np.diff(adjusted_h[np.argsort(p_h, kind="stable")]) >= 0).all()


def test_holm_keeps_the_error_of_the_family():
    """Nine true hypotheses and a false one: any true one falls in at most 5 % of families."""
    p_rh = np.random.default_rng(4).random((2000, 9))
    fell = [(holm(np.append(p_h, 1e-6))[:9] <= 0.05).any() for p_h in p_rh]
    assert 0.03 < np.mean(fell) < 0.065


@pytest.mark.parametrize(
    "call",
    [
        lambda key: compare([1], [2], key),
        lambda key: compare([1, 2], [1, 2, 3], key),
        lambda key: compare([1, np.nan], [1, 2], key),
        lambda key: bonferroni(np.array([0.5, 1.1])),
        lambda key: holm(np.array([0.5, np.nan])),
    ],
)
def test_what_is_refused(call, key):
    with pytest.raises(UsageError):
        call(key)
