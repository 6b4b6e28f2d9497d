"""Adaptive stopping: what is settled, and that looking again costs nothing that was known already."""

import itertools

import jax
import numpy as np
import pytest

from sgpa_jax.errors import UsageError
from sgpa_jax.estimators import Attribution, Tolerance, estimate
from sgpa_jax.estimators.stopping import growing_budgets
from sgpa_jax.games import Game


def found(values, errors, degrees: float = 50.0) -> Attribution:
    values_p1, errors_p1 = (np.asarray(array, float)[:, None] for array in (values, errors))
    return Attribution(values_p1, errors_p1, np.zeros(1), np.ones(1), np.float64(degrees))


def additive(worth: np.ndarray) -> Game:
    """A game with a little curvature, so that sampling has something to err about."""
    return Game(lambda masks: masks @ worth + 0.05 * (masks @ worth) ** 2, len(worth), jit=False)


@pytest.mark.parametrize(
    ("text", "values", "errors", "met"),
    [
        ("0.1", [3, 2, 1], [0.1, 0.05, 0.0], True),
        ("0.1", [3, 2, 1], [0.1, 0.11, 0.0], False),
        ("0.1", [3, 2, 1], [0.1, np.nan, 0.0], False),
        ("top:1", [3, 2, 1.9], [0.2, 0.2, 5.0], True),
        ("top:1", [3, 2.3, 1], [0.2, 0.2, 0.0], False),
        ("top:2", [3, 2, 1.9], [0.2, 0.2, 0.2], False),
        ("top:2", [1.0, 3, 2], [0.1, 0.1, 0.1], True),
        ("top:9", [1.0, 3, 2], [0.1, 0.1, 0.1], True),
        ("top:1", [3, 2], [np.nan, 0.1], False),
    ],
)
def test_what_is_settled(text, values, errors, met):
    assert Tolerance.parse(text).is_met(found(values, errors)) is met


def test_few_degrees_of_freedom_settle_less():
    values, errors = [3.0, 2.0], [0.2, 0.2]
    assert Tolerance(top=1).is_met(found(values, errors, 50.0))
    assert not Tolerance(top=1).is_met(found(values, errors, 2.0))


@pytest.mark.parametrize("text", ["", "x", "0", "-1", "top:", "top:0", "top:1.5", "nan", "top:-2"])
def test_what_is_no_tolerance(text):
    with pytest.raises(UsageError, match="tolerance"):
        Tolerance.parse(text)


def test_budgets_grow_up_to_the_last():
    budgets = list(growing_budgets(10, 100))
    assert budgets[0] == 10 and budgets[-1] == 100
    assert all(1 < later / earlier <= 1.6 for earlier, later in itertools.pairwise(budgets))
    assert list(growing_budgets(100, 100)) == [100]


def test_stops_as_soon_as_it_is_sure_and_evaluates_nothing_twice():
    worth = np.array([5.0, 3.0, 1.0, 0.1, 0.2, 0.3, 0.4, 0.1, 0.2, 0.1])
    game = additive(worth)
    result = estimate(game, "permutation", budget=900, tolerance=Tolerance(top=3), key=jax.random.key(0))
    assert result.settled and result.evaluations.unique < 600
    assert result.evaluations.unique <= len(result.masks_cp)
    assert np.argsort(-result.values_pk[:, 0])[:3].tolist() == [0, 1, 2]
    again = estimate(additive(worth), "permutation", budget=len(result.masks_cp), key=jax.random.key(0))
    np.testing.assert_array_equal(again.values_pk, result.values_pk)


def test_a_tolerance_out_of_reach_spends_the_budget_and_says_so():
    game = additive(np.arange(1.0, 9.0))
    result = estimate(game, "permutation", budget=100, tolerance=Tolerance(error=1e-9), key=jax.random.key(0))
    assert result.settled is False and len(result.masks_cp) > 80


def test_exact_values_are_settled_at_once():
    result = estimate(additive(np.ones(4)), "auto", budget=16, tolerance=Tolerance(error=1e-9), key=jax.random.key(0))
    assert result.settled and result.evaluations.requested == 16
