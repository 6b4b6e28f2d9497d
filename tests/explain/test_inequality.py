"""Concentration: the paper's formulas by hand, their bounds, and what they ignore."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sgpa_jax.errors import UsageError
from sgpa_jax.explain.inequality import (
    ENTROPIES,
    NORMALISERS,
    ROUNDINGS,
    concentration,
    entropy,
    gini,
    normalise,
    shares_of,
    top_mass,
)

# Far from the smallest numbers there are, where a share has few digits.
VALUES = st.lists(st.floats(-100, 100).map(lambda value: round(value, 6)), min_size=1, max_size=30).map(np.array)
MEASURES = [
    gini,
    *(lambda values, rounding=rounding: top_mass(values, rounding=rounding) for rounding in ROUNDINGS),
    *(lambda values, per=per: entropy(values, per=per) for per in ENTROPIES),
]


def test_values_by_hand():
    found = concentration(np.array([1.0, -4.0, 3.0, -2.0]))
    assert found.n_players == 4
    assert found.gini == pytest.approx(0.25)
    assert found.top_fifth == found.top_fifth_down == pytest.approx(0.4)
    assert found.top_fifth_exact == pytest.approx(0.8 * 0.4)
    nats = -(0.1 * math.log(0.1) + 0.2 * math.log(0.2) + 0.3 * math.log(0.3) + 0.4 * math.log(0.4))
    assert found.entropy == pytest.approx(nats)
    assert found.entropy_log == pytest.approx(nats / math.log(4))
    assert found.entropy_root == pytest.approx(nats / 2)


@pytest.mark.parametrize(
    ("normaliser", "expected"),
    [
        ("identity", [-1.0, 0.0, 3.0]),
        ("abs_sum", [-0.25, 0.0, 0.75]),
        ("power_shift", [0.0, 0.2, 0.8]),
        ("min_max", [0.0, 0.2, 0.8]),
    ],
)
def test_normalisers_by_hand(normaliser, expected):
    np.testing.assert_allclose(normalise(np.array([-1.0, 0.0, 3.0]), normaliser), expected)


@pytest.mark.parametrize(
    ("normaliser", "twos", "zeros"),
    [("identity", 2, 0), ("abs_sum", 0.25, 0), ("power_shift", 2, 0), ("min_max", 0.25, 0.25)],
)
def test_normalisers_of_equal_values(normaliser, twos, zeros):
    np.testing.assert_allclose(normalise(np.full(4, 2.0), normaliser), np.full(4, twos))
    np.testing.assert_allclose(normalise(np.zeros(4), normaliser), np.full(4, zeros))


def test_the_minimum_of_the_paper_changes_the_story():
    """Two negative players that matter as much as the positive one."""
    values_p = np.array([-1.0, -1.0, 1.0])
    assert gini(values_p) == pytest.approx(0)
    assert concentration(values_p, "min_max").gini == pytest.approx(2 / 3)


@pytest.mark.parametrize("n_players", [1, 2, 7, 40])
@pytest.mark.parametrize("value", [0.0, 1e-300, -3.0])
def test_equal_values_are_spread_as_far_as_can_be(n_players, value):
    values_p = np.full(n_players, value)
    assert gini(values_p) == pytest.approx(0, abs=1e-12)
    assert top_mass(values_p, rounding="none") == pytest.approx(min(0.2, n_players))
    assert top_mass(values_p) == pytest.approx(math.ceil(n_players / 5) / n_players)
    assert entropy(values_p) == pytest.approx(math.log(n_players))
    assert entropy(values_p, per="log") == pytest.approx(1 if n_players > 1 else 0)


@pytest.mark.parametrize("n_players", [1, 2, 7, 40])
def test_one_player_that_has_all(n_players):
    values_p = -2.0 * np.eye(n_players)[n_players // 2]
    assert gini(values_p) == pytest.approx(1 - 1 / n_players)
    assert top_mass(values_p) == top_mass(values_p, rounding="down") == pytest.approx(1)
    assert all(entropy(values_p, per=per) == pytest.approx(0) for per in ENTROPIES)


def test_how_many_players_a_fifth_are():
    for n_players in range(1, 301):
        values_p = np.ones(n_players)
        up, down, exact = (top_mass(values_p, rounding=rounding) * n_players for rounding in ROUNDINGS)
        assert round(up) == max(1, int(np.ceil(0.2 * n_players)))
        assert round(down) == max(1, n_players // 5)
        assert exact == pytest.approx(0.2 * n_players)
    # 0.28 · 25 is 7.000000000000001.
    assert top_mass(np.ones(25), 0.28) == pytest.approx(7 / 25)
    assert top_mass(np.array([3.0, 1, 1]), 1.0) == pytest.approx(1)


@settings(max_examples=40)
@given(VALUES)
def test_agreement_with_other_definitions(values_p):
    shares_p = shares_of(values_p)
    differences = np.abs(shares_p[:, None] - shares_p[None]).sum()
    assert gini(values_p) == pytest.approx(differences / (2 * len(values_p)), abs=1e-9)
    assert entropy(values_p) == pytest.approx(stats.entropy(shares_p), abs=1e-9)
    assert -1e-12 <= gini(values_p) <= 1 - 1 / len(values_p) + 1e-9
    assert entropy(values_p, per="log") <= 1 + 1e-9


@settings(max_examples=40)
@given(VALUES, st.floats(0.01, 100), st.randoms())
def test_scale_sign_and_order_are_ignored(values_p, factor, random):
    changed_p = -factor * values_p[random.sample(range(len(values_p)), len(values_p))]
    for measure in MEASURES:
        assert measure(changed_p) == pytest.approx(measure(values_p), abs=1e-9)


@settings(max_examples=40)
@given(VALUES)
def test_four_normalisers_tell_two_stories(values_p):
    raw, abs_sum, power_shift, min_max = (concentration(values_p, name) for name in NORMALISERS)
    assert abs_sum == pytest.approx(raw, abs=1e-9)
    assert power_shift == pytest.approx(min_max, abs=1e-9)


def test_outputs_are_judged_each_for_itself():
    values_pk = np.random.default_rng(0).normal(size=(9, 3))
    values_pk[:, 2] = 0
    for normaliser in NORMALISERS:
        together = concentration(values_pk, normaliser)
        for k in range(3):
            alone = concentration(values_pk[:, k], normaliser)
            for name in together._fields[1:]:
                assert getattr(together, name)[k] == pytest.approx(getattr(alone, name))


@pytest.mark.parametrize(
    "call",
    [
        lambda: gini(np.zeros(0)),
        lambda: entropy(np.array([1.0, np.nan])),
        lambda: normalise(np.zeros((2, 2, 2)), "identity"),
        lambda: normalise(np.ones(2), "minmax"),
        lambda: entropy(np.ones(2), per="bits"),
        lambda: top_mass(np.ones(2), rounding="nearest"),
        lambda: top_mass(np.ones(2), 0.0),
    ],
)
def test_what_is_refused(call):
    with pytest.raises(UsageError, match="expected"):
        call()
