"""Every estimator through `estimate`: axioms, counts, estimands, and draws that nothing else changes."""

import jax
import numpy as np
import pytest
from jax.sharding import Mesh
from sgpa_kernels import exact_banzhaf, exact_shapley

from sgpa_jax.errors import BudgetError, UsageError
from sgpa_jax.estimators import ESTIMANDS, ESTIMATORS, choose_estimator, estimate, exact_owen, first_coalitions
from sgpa_jax.estimators.methods import METHODS
from sgpa_jax.games import Game
from sgpa_jax.players import all_coalitions

N_PLAYERS, BUDGET = 8, 130
SAMPLED = tuple(name for name in ESTIMATORS if name != "exact")
EFFICIENT = tuple(name for name in SAMPLED if name != "svarm")


def table(n_outputs: int = 1, seed: int = 0) -> np.ndarray:
    """Sums of what up to three players do together, so that every method has something to find."""
    rng = np.random.default_rng(seed)
    masks = all_coalitions(N_PLAYERS)
    teams = [rng.choice(N_PLAYERS, rng.integers(1, 4), replace=False) for _ in range(14)]
    together = np.stack([masks[:, team].all(axis=1) for team in teams], axis=1)
    return (together @ rng.standard_normal((len(teams), n_outputs)) + 1.5).astype(np.float32)


def game_of(values: np.ndarray, **settings) -> Game:
    bits = 1 << np.arange(N_PLAYERS)
    return Game(lambda masks: values[np.asarray(masks) @ bits], N_PLAYERS, jit=False, **settings)


@pytest.fixture(scope="module")
def found():
    """What every sampling method says of one game of two outputs."""
    return {name: estimate(game_of(table(2)), name, budget=BUDGET, key=jax.random.key(3)) for name in SAMPLED}


@pytest.mark.parametrize("name", SAMPLED)
def test_is_near_the_truth_as_its_errors_say(found, name):
    truth = exact_shapley(table(2))
    off = abs(found[name].values_pk - truth)
    assert (off <= 6 * found[name].standard_errors_pk + 2e-3).all()
    assert off.max() < 0.5 and found[name].standard_errors_pk.max() < 0.5
    assert 0 < found[name].degrees_of_freedom < np.inf
    low, high = found[name].interval_pk(0.95)
    assert (low <= found[name].values_pk).all() and (high - low >= 3.9 * found[name].standard_errors_pk - 1e-12).all()


@pytest.mark.parametrize("name", SAMPLED)
def test_counts_what_it_asks_for(found, name):
    result = found[name]
    assert result.estimator == name and result.estimand == "shapley"
    assert result.evaluations.requested == len(result.masks_cp) == len(result.coalition_values_ck) <= BUDGET
    np.testing.assert_array_equal(
        result.coalition_values_ck, table(2)[result.masks_cp @ (1 << np.arange(N_PLAYERS))].astype(np.float64)
    )


@pytest.mark.parametrize("name", EFFICIENT)
def test_efficiency(found, name):
    assert abs(found[name].efficiency_gap_k).max() < 1e-4


@pytest.mark.parametrize("name", SAMPLED)
def test_a_null_player_and_equal_players(name, key):
    """Player 0 does nothing, 1 and 2 are alike; a game of three players is nearly known by then."""
    masks = all_coalitions(N_PLAYERS)
    values = 2.0 * (masks[:, 1] & masks[:, 2]) + masks[:, 3]
    # As many outputs as elsewhere, so that nothing new is compiled.
    result = estimate(game_of(np.stack([values, values], axis=1)), name, budget=BUDGET, key=key)
    slack = 5 * result.standard_errors_pk.max() + 1e-3
    np.testing.assert_allclose(result.values_pk[[0, 4, 5, 6, 7], 0], 0.0, atol=slack)
    np.testing.assert_allclose(result.values_pk[1, 0], result.values_pk[2, 0], atol=2 * slack)


@pytest.mark.parametrize("name", SAMPLED)
def test_neither_the_microbatch_nor_the_devices_change_a_draw(found, name):
    mesh = Mesh(np.array(jax.devices()[:4]), ("data",))
    for settings in ({"microbatch": 7}, {"microbatch": 8, "mesh": mesh}):
        again = estimate(game_of(table(2), **settings), name, budget=BUDGET, key=jax.random.key(3))
        np.testing.assert_array_equal(again.masks_cp, found[name].masks_cp)
        np.testing.assert_array_equal(again.values_pk, found[name].values_pk)


@pytest.mark.parametrize("estimand", ESTIMANDS)
@pytest.mark.parametrize("name", ESTIMATORS)
def test_estimands(name, estimand, key):
    groups = (0, 0, 1, 1, 1, 2, 2, 2) if estimand == "owen" else None
    budget = 2**N_PLAYERS + 8
    if not any(estimand in kind.estimands for kind in METHODS[name]):
        with pytest.raises(UsageError, match=f"offers no {estimand} values"):
            choose_estimator(name, N_PLAYERS, budget, estimand=estimand, groups=groups)
        return
    values = table()
    truth = {"shapley": exact_shapley, "banzhaf": exact_banzhaf}.get(estimand, lambda v: exact_owen(v, groups or ()))
    result = estimate(game_of(values), name, estimand=estimand, groups=groups, budget=budget, key=key)
    assert result.estimand == estimand
    # With room for every coalition, all but those that draw with repetition are exact.
    slack = 5 * result.standard_errors_pk.max() if name in ("permutation", "svarm") else 0.0
    np.testing.assert_allclose(result.values_pk, truth(values), atol=1e-5 + slack)
    masks = first_coalitions(name, N_PLAYERS, budget, estimand=estimand, groups=groups, key=key)
    np.testing.assert_array_equal(masks, result.masks_cp[: len(masks)])


def test_auto():
    groups = tuple(range(5)) * 5
    assert choose_estimator("auto", 20, 8194) == "gaussian"
    assert choose_estimator("auto", 20, 8195) == "proxy"
    assert choose_estimator("auto", 20, 8195, estimand="banzhaf") == "proxy"
    assert choose_estimator("auto", 25, 4096, estimand="owen", groups=groups) == "exact"
    assert choose_estimator("auto", 25, 1024, estimand="owen", groups=groups) == "permutation"
    with pytest.raises(BudgetError):
        choose_estimator("auto", 100, 50)


@pytest.mark.parametrize(("estimand", "groups"), [("owen", None), ("shapley", (0,) * 4), ("owen", (0, 1))])
def test_groups_belong_to_owen_values(estimand, groups):
    with pytest.raises(UsageError, match="groups"):
        choose_estimator("exact", 4, 16, estimand=estimand, groups=groups)


def test_unknown_names_name_the_nearest():
    with pytest.raises(UsageError, match="leverage"):
        choose_estimator("leverag", 4, 16)
    with pytest.raises(UsageError, match="banzhaf"):
        choose_estimator("auto", 4, 16, estimand="banzaf")
