"""Stability: SciPy's correlations, with ties and without, overlaps by hand and by lot, and the longest move."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from sgpa_jax.errors import UsageError
from sgpa_jax.explain.stability import agreement, sensitivity_max, spearman, top_overlap

# Few different numbers, so that there are ties.
RUNS = st.tuples(st.integers(2, 4), st.integers(2, 8), st.integers(0, 2**32 - 1)).map(
    lambda drawn: np.random.default_rng(drawn[2]).integers(-1, 3, drawn[:2]).astype(float)
)

# SciPy's results have names that type checkers do not see.
stats: Any = scipy_stats


@given(RUNS)
def test_correlations_are_those_of_scipy(values_rp):
    found = agreement(values_rp, top=2)
    for i, j in np.ndindex(found.spearman_rr.shape):
        if np.ptp(values_rp[i]) and np.ptp(values_rp[j]):
            assert found.spearman_rr[i, j] == pytest.approx(stats.spearmanr(values_rp[i], values_rp[j]).statistic)
            assert found.kendall_rr[i, j] == pytest.approx(stats.kendalltau(values_rp[i], values_rp[j]).statistic)
        else:
            assert np.isnan(found.spearman_rr[i, j]) and np.isnan(found.kendall_rr[i, j])
    np.testing.assert_allclose(found.overlap_rr, found.overlap_rr.T)
    assert ((found.overlap_rr >= 0) & (found.overlap_rr <= 1 + 1e-12)).all()


def test_only_the_order_counts():
    values_rp = np.random.default_rng(0).normal(size=(1, 9))
    found = agreement(np.concatenate([values_rp, np.exp(3 * values_rp), -values_rp]))
    np.testing.assert_allclose(found.spearman_rr[0], [1, 1, -1])
    np.testing.assert_allclose(found.kendall_rr[0], [1, 1, -1])
    np.testing.assert_allclose(found.overlap_rr[0], [1, 1, 0])
    np.testing.assert_allclose(found.pairs("spearman"), [1, -1, -1])
    assert (found.n_runs, found.n_players, found.top) == (3, 9, 3)


@pytest.mark.parametrize(
    ("first", "second", "top", "overlap"),
    [
        ([3, 2, 1, 0], [0, 1, 2, 3], 2, 0),
        ([3, 2, 1, 0], [3, 0, 2, 1], 2, 1 / 2),
        ([3, 2, 1, 0], [3, 0, 2, 1], 1, 1),
        ([3, 2, 1, 0], [9, 8, 7, -1], 3, 1),
        ([3, 2, 1, 0], [0, 1, 2, 3], 4, 1),
        ([1, 1, 1, 1], [1, 1, 1, 1], 1, 1 / 4),
        ([5, 1, 1, 0], [5, 1, 1, 0], 2, (1 + 2 / 4) / 2),
    ],
)
def test_overlap_by_hand(first, second, top, overlap):
    assert top_overlap(np.array(first, float), np.array(second, float), top) == pytest.approx(overlap)


def test_ties_are_broken_by_lot():
    rng = np.random.default_rng(1)
    first_p, second_p = rng.integers(0, 3, (2, 7)).astype(float)
    noise_rp, other_rp = rng.uniform(0, 0.5, (2, 20_000, 7))
    by_lot = top_overlap(first_p[None] + noise_rp, second_p[None] + other_rp, 3)
    assert top_overlap(first_p, second_p, 3) == pytest.approx(by_lot.mean(), abs=0.01)


def test_unrelated_runs_agree_as_chance_does():
    values_rp = np.random.default_rng(2).normal(size=(60, 12))
    found = agreement(values_rp)
    assert np.abs(found.pairs("spearman").mean()) < 0.03
    assert found.pairs("overlap").mean() == pytest.approx(3 / 12, abs=0.02)


def test_a_top_beyond_the_players_is_all_of_them():
    assert agreement(np.eye(2), top=5).top == 2


def test_spearman_along_the_last_axis():
    first, second = np.random.default_rng(3).normal(size=(2, 4, 6))
    expected = [stats.spearmanr(x, y).statistic for x, y in zip(first, second, strict=True)]
    np.testing.assert_allclose(spearman(first, second), expected)


def test_sensitivity_by_hand():
    values_pk = np.array([[3.0, 0.0, 0.0], [4.0, 0.0, 0.0]])
    still, moved = values_pk.copy(), values_pk.copy()
    moved[1] = [7.0, 1.0, 0.0]
    np.testing.assert_allclose(sensitivity_max(values_pk, np.stack([still, moved])), [3 / 5, math.inf, 0])
    np.testing.assert_allclose(sensitivity_max(10 * values_pk, 10 * np.stack([still, moved])), [3 / 5, math.inf, 0])
    np.testing.assert_array_equal(sensitivity_max(values_pk, still[None]), [0, 0, 0])


@pytest.mark.parametrize(
    "call",
    [
        lambda: agreement(np.zeros((1, 5))),
        lambda: agreement(np.zeros(5)),
        lambda: agreement(np.full((2, 5), np.inf)),
        lambda: agreement(np.zeros((2, 5)), top=0),
        lambda: top_overlap(np.zeros(3), np.zeros(3), 4),
        lambda: sensitivity_max(np.zeros((2, 1)), np.zeros((3, 2))),
        lambda: sensitivity_max(np.zeros((2, 1)), np.zeros((0, 2, 1))),
        lambda: sensitivity_max(np.zeros((2, 1)), np.full((1, 2, 1), np.nan)),
    ],
)
def test_what_is_refused(call):
    with pytest.raises(UsageError, match=r"expected|leave"):
        call()
