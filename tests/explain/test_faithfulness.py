"""Faithfulness: games whose answers are known, rivals of the same duration, and another game as the judge."""

import itertools
import math

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import auc

from sgpa_jax.errors import UsageError
from sgpa_jax.explain.faithfulness import erasure, evidence_hit, rank_curves, ranking
from sgpa_jax.explain.fidelity import infidelity, monotonicity
from sgpa_jax.games import Game
from sgpa_jax.players import all_coalitions

WORTH_P = np.array([4.0, -1.0, 2.0, 0.5, 1.0])


def additive(worth, base=0.25) -> Game:
    """v(S) = base + Σ_{i∈S} worth_i; a column for each output."""
    worth_pk = np.asarray(worth, float).reshape(len(worth), -1)
    return Game(lambda masks_cp: base + masks_cp @ worth_pk, len(worth_pk), jit=False)


def test_curves_of_an_additive_game_by_hand(key):
    found = rank_curves(additive(WORTH_P), WORTH_P, key=key)
    np.testing.assert_allclose(found.share_n, [0, 0.2, 0.4, 0.6, 0.8, 1])
    np.testing.assert_allclose(found.insertion_nk[:, 0], 0.25 + np.array([0, 4, 6, 7, 7.5, 6.5]))
    np.testing.assert_allclose(found.deletion_nk[:, 0], 0.25 + np.array([6.5, 2.5, 0.5, -0.5, -1, 0]))
    assert found.insertion_area_k[0] == pytest.approx(auc(found.share_n, found.insertion_nk[:, 0]))
    assert found.deletion_area_k[0] == pytest.approx(auc(found.share_n, found.deletion_nk[:, 0]))
    assert found.random_deletion_area_dk.shape == found.random_insertion_area_dk.shape == (20, 1)


def test_the_right_ranking_of_an_additive_game_is_extremal(key):
    game = additive(WORTH_P)
    best = rank_curves(game, WORTH_P, n_draws=0, key=key)
    for order in itertools.permutations(range(5)):
        other = rank_curves(game, -np.argsort(order).astype(float), n_draws=0, key=key)
        assert best.deletion_area_k[0] <= other.deletion_area_k[0] + 1e-6
        assert best.insertion_area_k[0] >= other.insertion_area_k[0] - 1e-6


@given(st.lists(st.floats(-5, 5, width=16), min_size=1, max_size=6).map(np.array))
def test_no_random_order_beats_it_and_none_is_worse_than_its_reverse(worth_p):
    game, key = additive(worth_p), jax.random.key(1)
    best, worst = (rank_curves(game, values_p, n_draws=5, key=key) for values_p in (worth_p, -worth_p))
    assert (best.random_deletion_area_dk >= best.deletion_area_k - 1e-4).all()
    assert (best.random_insertion_area_dk <= best.insertion_area_k + 1e-4).all()
    assert (best.random_deletion_area_dk <= worst.deletion_area_k + 1e-4).all()
    np.testing.assert_array_equal(best.random_deletion_area_dk, worst.random_deletion_area_dk)


def test_what_only_duration_is_worth_is_worth_the_same_in_any_order(key):
    """Long players first would look faithful beside as many rivals; beside rivals as long, they do not."""
    durations_p = np.array([0.1, 0.9, 0.3, 0.5, 0.05])
    game = additive(durations_p)
    found = rank_curves(game, durations_p, durations_p, key=key)
    np.testing.assert_allclose(found.random_deletion_area_dk, found.deletion_area_k[0], rtol=1e-5)
    np.testing.assert_allclose(found.random_insertion_area_dk, found.insertion_area_k[0], rtol=1e-5)
    counted = rank_curves(game, durations_p, key=key)
    assert counted.random_deletion_area_dk.mean() > counted.deletion_area_k[0] + 0.1


def test_shares_are_of_the_duration_in_the_order_of_the_ranking(key):
    found = rank_curves(additive([1.0, 3.0, 2.0]), np.array([1.0, 3.0, 2.0]), np.array([1.0, 2.0, 5.0]), key=key)
    np.testing.assert_allclose(found.share_n, [0, 0.25, 0.875, 1])


def test_one_ranking_is_followed_along_all_outputs(key):
    worth_pk = np.stack([WORTH_P, WORTH_P[::-1]], axis=1)
    together = rank_curves(additive(worth_pk), WORTH_P, key=key)
    for k in range(2):
        alone = rank_curves(additive(worth_pk[:, k]), WORTH_P, key=key)
        np.testing.assert_allclose(together.deletion_nk[:, k], alone.deletion_nk[:, 0])
        np.testing.assert_allclose(together.random_insertion_area_dk[:, k], alone.random_insertion_area_dk[:, 0])


def test_everything_is_asked_for_at_once(key):
    requests = []

    class Counted(Game):
        def values(self, masks_cp):
            requests.append(len(masks_cp))
            return super().values(masks_cp)

    game = Counted(lambda masks_cp: masks_cp @ WORTH_P, 5, outputs=("sum",), jit=False)
    rank_curves(game, WORTH_P, key=key)
    erasure(game, WORTH_P, key=key)
    infidelity(game, WORTH_P[:, None], n_draws=30, key=key)
    monotonicity(game, WORTH_P[:, None])
    assert requests == [2 * 21 * 6, 1 + 2 * 21 * 3, 31, 6 + 6]
    assert game.evaluations.unique <= 32


def test_another_game_may_judge(key):
    """An attribution that is right about its own game, and wrong about the judge's."""
    explained, judge = additive(WORTH_P), additive(-WORTH_P)
    own, other = (rank_curves(game, WORTH_P, key=key) for game in (explained, judge))
    assert own.deletion_area_k[0] < own.random_deletion_area_dk.min()
    assert other.deletion_area_k[0] > other.random_deletion_area_dk.max()
    assert erasure(judge, WORTH_P, key=key).comprehensiveness_qk[0, 0] == pytest.approx(-4)
    assert monotonicity(judge, WORTH_P[:, None]).correlation_k[0] == pytest.approx(-1)


def test_more_draws_begin_with_the_same_ones(key):
    few, many = (rank_curves(additive(WORTH_P), WORTH_P, n_draws=n, key=key) for n in (3, 9))
    np.testing.assert_array_equal(few.random_deletion_area_dk, many.random_deletion_area_dk[:3])
    others = rank_curves(additive(WORTH_P), WORTH_P, n_draws=9, key=jax.random.key(7))
    assert (others.random_deletion_area_dk != many.random_deletion_area_dk).any()


def test_erasure_of_an_additive_game_by_hand(key):
    found = erasure(additive(WORTH_P), WORTH_P, fractions=(0.2, 0.21, 1.0), key=key)
    assert found.n_taken_q.tolist() == [1, 2, 5]
    np.testing.assert_allclose(found.comprehensiveness_qk[:, 0], [4, 6, 6.5])
    np.testing.assert_allclose(found.sufficiency_qk[:, 0], [2.5, 0.5, 0])
    assert found.random_comprehensiveness_dqk.shape == (20, 3, 1)
    # One of five players, taken at random as often as any other.
    assert set(found.random_comprehensiveness_dqk[:, 0, 0]) <= set(WORTH_P)
    np.testing.assert_allclose(found.random_comprehensiveness_dqk[:, 2, 0], 6.5)


def test_rivals_of_an_erasure_are_as_long(key):
    durations_p = np.array([0.4, 0.1, 0.1, 0.1, 0.1, 0.2])
    found = erasure(additive(durations_p), np.array([9.0, 1, 1, 1, 1, 1]), durations_p, fractions=(0.1,), key=key)
    assert found.comprehensiveness_qk[0, 0] == pytest.approx(0.4)
    taken_d = found.random_comprehensiveness_dqk[:, 0, 0]
    # No two orders fit exactly; none is further off than half of the longest player that it could end on.
    assert (np.abs(taken_d - 0.4) <= 0.2 + 1e-6).all() and np.abs(taken_d.mean() - 0.4) < 0.05


@pytest.mark.parametrize(
    ("values", "evidence", "hit"),
    [
        ([1, 3, 2], [1], True),
        ([1, 3, 2], [2], False),
        ([1, 3, 2], [2, 1], True),
        ([1, 3, 2], [0, 1], False),
        ([3, 3, 2], [0], False),
        ([3, 3, 2], [0, 1], True),
        ([0, 0, 0], [0], False),
        ([0, 0, 0], [0, 1, 2], True),
        ([-3, -1, -2], [1], True),
    ],
)
def test_evidence_that_ranks_first(values, evidence, hit):
    assert evidence_hit(np.array(values, float), evidence) is hit


def test_rankings_are_by_value_and_then_by_place():
    assert ranking(np.array([0.0, 2.0, -5.0, 2.0])).tolist() == [1, 3, 0, 2]


def test_an_additive_game_is_foretold_by_its_values(key):
    worth_pk = np.stack([WORTH_P, WORTH_P[::-1]], axis=1)
    found = infidelity(additive(worth_pk), worth_pk, key=key)
    np.testing.assert_allclose(found.squared_error_k, 0, atol=1e-9)
    np.testing.assert_allclose(found.unexplained_k, 0, atol=1e-9)


def test_another_unit_is_an_error_that_a_factor_explains(key):
    game = additive(WORTH_P)
    found = infidelity(game, 3 * WORTH_P[:, None], key=key)
    assert found.squared_error_k[0] > 1 and found.unexplained_k[0] == pytest.approx(0, abs=1e-9)
    nothing = infidelity(game, np.zeros((5, 1)), key=key)
    assert found.squared_error_k[0] == pytest.approx(4 * nothing.squared_error_k[0], rel=1e-5)
    assert nothing.unexplained_k[0] == 1


def test_infidelity_is_a_mean_over_sizes_and_then_over_coalitions(key):
    worth_p = np.array([1.0, 2.0, -1.0])
    masks_cp = all_coalitions(3)[:-1]
    game = Game(lambda masks_cp: (masks_cp @ worth_p) ** 2, 3, jit=False)
    values_pk = np.array([[0.5], [3.0], [1.0]])
    loss_c = 4.0 - (masks_cp @ worth_p) ** 2
    weight_c = np.array([1 / 3 / math.comb(3, int(n)) for n in masks_cp.sum(axis=1)])
    expected = weight_c @ ((~masks_cp) @ values_pk[:, 0] - loss_c) ** 2
    found = infidelity(game, values_pk, n_draws=20_000, key=key)
    assert weight_c.sum() == pytest.approx(1)
    assert found.squared_error_k[0] == pytest.approx(expected, rel=0.03)


def test_a_game_without_any_loss_leaves_nothing_to_explain(key):
    found = infidelity(additive(np.zeros(4)), np.ones((4, 1)), key=key)
    assert np.isnan(found.unexplained_k[0]) and found.squared_error_k[0] > 0


def test_monotonicity_of_additive_games():
    right = monotonicity(additive(WORTH_P), WORTH_P[:, None])
    assert right.correlation_k[0] == pytest.approx(1) and right.agreeing_k[0] == 1
    wrong = monotonicity(additive(WORTH_P), -WORTH_P[:, None])
    assert wrong.correlation_k[0] == pytest.approx(-1) and wrong.agreeing_k[0] == 0
    half = monotonicity(additive(WORTH_P), np.abs(WORTH_P)[:, None])
    assert half.agreeing_k[0] == pytest.approx(0.8)
    assert np.isnan(monotonicity(additive(WORTH_P), np.ones((5, 1))).correlation_k[0])


def test_players_come_back_from_the_least_to_the_most_important():
    worth_p = np.array([3.0, -1.0, 2.0, -4.0])
    seen = []

    def play(masks_cp):
        seen.extend(masks_cp[5:].tolist())
        return masks_cp @ worth_p

    found = monotonicity(Game(play, 4, outputs=("sum",), jit=False, microbatch=16), worth_p[:, None])
    assert found.agreeing_k[0] == 1
    assert [False, True, False, False] in seen and [False, True, True, False] in seen


def test_each_output_has_a_path_of_its_own():
    rng = np.random.default_rng(0)
    worth_pk, values_pk = rng.normal(size=(2, 6, 3))

    def play(masks_cp, columns):
        return np.tanh(masks_cp @ worth_pk[:, columns]) * masks_cp.sum(axis=1, keepdims=True)

    together = monotonicity(Game(lambda m: play(m, slice(None)), 6, jit=False), values_pk)
    for k in range(3):
        alone = monotonicity(Game(lambda m, k=k: play(m, [k]), 6, jit=False), values_pk[:, [k]])
        assert together.correlation_k[k] == pytest.approx(alone.correlation_k[0])
        assert together.agreeing_k[k] == alone.agreeing_k[0]


@pytest.mark.parametrize(
    "call",
    [
        lambda game, key: rank_curves(game, np.ones(4), key=key),
        lambda game, key: rank_curves(game, np.full(5, np.nan), key=key),
        lambda game, key: rank_curves(game, WORTH_P, np.zeros(5), key=key),
        lambda game, key: rank_curves(game, WORTH_P, np.ones(4), key=key),
        lambda game, key: rank_curves(game, WORTH_P, n_draws=-1, key=key),
        lambda game, key: erasure(game, WORTH_P, fractions=(0.0,), key=key),
        lambda game, key: erasure(game, WORTH_P, fractions=(), key=key),
        lambda game, key: evidence_hit(WORTH_P, []),
        lambda game, key: evidence_hit(WORTH_P, [5]),
        lambda game, key: infidelity(game, WORTH_P, key=key),
        lambda game, key: infidelity(game, WORTH_P[:, None], n_draws=0, key=key),
        lambda game, key: monotonicity(game, np.ones((5, 2))),
    ],
)
def test_what_is_refused(call, key):
    with pytest.raises(UsageError, match="expected"):
        call(additive(WORTH_P), key)
