"""To shapiq and shap and back: the same values under the right names, and games that either side can ask."""

import importlib
from typing import Any

import jax
import numpy as np
import pytest

from sgpa_jax.errors import UsageError
from sgpa_jax.estimators import INDICES, estimate, interactions
from sgpa_jax.explain import ClipInfo, Explanation, Transcript
from sgpa_jax.games import Game
from sgpa_jax.interop import as_shapiq_game, from_shapiq_game, from_shapiq_values, to_shap, to_shapiq
from sgpa_jax.players import Player

shapiq = pytest.importorskip("shapiq", reason="shapiq is not installed")
# What shap does with newer libraries is not ours to answer for.
pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning", "ignore::DeprecationWarning")

N_PLAYERS = 5
BUDGETS = {"KernelSHAP": 32, "PermutationSamplingSV": 1000, "StratifiedSamplingSV": 1000}


def random_table(n_outputs: int = 2, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((2**N_PLAYERS, n_outputs)).astype(np.float32) - 4


def table_game(table_nk: np.ndarray) -> Game:
    bits_p = 1 << np.arange(N_PLAYERS)
    return Game(lambda masks_cp: table_nk[masks_cp @ bits_p], N_PLAYERS, jit=False)


def explanation() -> Explanation:
    found = estimate(table_game(random_table()), "exact", budget=32, key=jax.random.key(0))
    labels = ("turn", "the", "beep", "light", "on")
    return Explanation(
        clip=ClipInfo(path="speech.wav", sha256="0" * 64, duration_s=2.0, rate_hz=16000),
        transcript=Transcript("turn the light on", "given"),
        messages=({"role": "user", "content": "what?"},),
        response="on",
        in_domain=True,
        model={"name": "m", "digest": "d", "dtype": "float32"},
        aligner={"name": "a", "digest": "d", "rules": "sgpa", "emission": "phone", "notes": []},
        game={"value": "logprob", "readout": "response log-probability", "absence": "silence"},
        estimand="shapley",
        estimator={"name": "exact", "budget": 32, "seed": 0},
        engine="waveform",
        outputs=({"name": "response", "kind": "response"}, {"name": "on", "kind": "token"}),
        players=tuple(Player(label, "word", 0.1 * i, 0.1 * i + 0.1) for i, label in enumerate(labels)),
        values=found.values_pk,
        standard_errors=found.standard_errors_pk,
        empty_value=found.empty_value_k,
        full_value=found.full_value_k,
        efficiency_gap=found.efficiency_gap_k,
        evaluations={"requested": 32, "unique": 32, "model_forwards": 32},
        timings={},
        versions={},
    )


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("index", INDICES)
def test_interactions_are_those_of_shapiq(index, order):
    """What we hand over is what ExactComputer gives, names and the empty set included."""
    table_nk = random_table()
    ours = to_shapiq(interactions(table_nk, index, order), output=1)
    theirs = shapiq.ExactComputer(as_shapiq_game(table_game(table_nk), 1))(index, order)
    assert (ours.index, ours.n_players, ours.min_order) == (theirs.index, N_PLAYERS, theirs.min_order)
    assert ours.max_order == order and not ours.estimated
    assert ours.baseline_value == table_nk[0, 1]
    tolerance = 1e-7 if index == "FSII" else 1e-10
    for subset, value in ours.interactions.items():
        assert value == pytest.approx(theirs[subset], abs=tolerance), subset


@pytest.mark.parametrize("index", ["SII", "k-SII", "STII", "FSII", "BII", "FBII", "Moebius"])
def test_interactions_come_back(index):
    ours = interactions(random_table(1), index, 2)
    back = from_shapiq_values(to_shapiq(ours))
    assert (back.index, back.order, back.n_players, back.subsets) == (index, 2, N_PLAYERS, ours.subsets)
    np.testing.assert_array_equal(back.values_ik, ours.values_ik)
    np.testing.assert_array_equal(back.empty_value_k, ours.empty_value_k)


def test_what_shapiq_found_becomes_ours():
    values = shapiq.KernelSHAPIQ(N_PLAYERS, index="k-SII", max_order=2, random_state=0).approximate(
        32, as_shapiq_game(table_game(random_table()))
    )
    ours = from_shapiq_values(values)
    exact = interactions(random_table()[:, 0], "k-SII", 2)
    assert ours.subsets == exact.subsets and ours.index == "k-SII"
    np.testing.assert_allclose(ours.values_ik, exact.values_ik, atol=1e-5)


@pytest.mark.parametrize(("estimand", "index"), [("shapley", "SV"), ("banzhaf", "BV")])
def test_estimates_have_their_names(estimand, index):
    table_nk = random_table()
    found = estimate(table_game(table_nk), "exact", estimand=estimand, budget=32, key=jax.random.key(0))
    ours = to_shapiq(found, output=1)
    theirs = shapiq.ExactComputer(as_shapiq_game(table_game(table_nk), 1))(index)
    assert ours.index == theirs.index == index and ours.max_order == 1 and not ours.estimated
    for player in range(N_PLAYERS):
        assert ours[(player,)] == pytest.approx(theirs[(player,)], abs=1e-10)
    assert ours[()] == ours.baseline_value == found.empty_value_k[1]


def test_a_sampled_estimate_says_so():
    found = estimate(table_game(random_table()), "permutation", budget=30, key=jax.random.key(0))
    ours = to_shapiq(found)
    assert ours.estimated and ours.estimation_budget == found.evaluations.requested > 0


def test_owen_values_have_no_name_there():
    found = estimate(
        table_game(random_table()), "exact", estimand="owen", groups=(0, 0, 1, 1, 1), budget=32, key=jax.random.key(0)
    )
    with pytest.raises(UsageError, match="no index for owen"):
        to_shapiq(found)
    np.testing.assert_array_equal(to_shap(found, 0).values, found.values_pk[:, 0])


def test_an_explanation_goes_to_both():
    found = explanation()
    values = to_shapiq(found, output=1)
    assert [values[(player,)] for player in range(N_PLAYERS)] == found.values[:, 1].tolist()
    assert values.index == "SV" and values[()] == found.empty_value[1] and values.estimation_budget is None
    one, both = to_shap(found, 1), to_shap(found)
    np.testing.assert_array_equal(one.values, found.values[:, 1])
    assert one.base_values == found.empty_value[1]
    assert list(one.data) == list(one.feature_names) == [p.label for p in found.players]
    np.testing.assert_array_equal(both.values, found.values)
    np.testing.assert_array_equal(both.base_values, found.empty_value)
    assert list(both.output_names) == ["response", "on"] and np.shape(both.error_std) == (N_PLAYERS, 2)
    assert one.base_values + np.sum(one.values) == pytest.approx(found.full_value[1])


def test_a_single_output_has_no_axis_of_its_own():
    found = estimate(table_game(random_table(1)), "exact", budget=32, key=jax.random.key(0))
    given = to_shap(found)
    np.testing.assert_array_equal(given.values, found.values_pk[:, 0])
    assert given.base_values == found.empty_value_k[0] and list(given.feature_names)[4] == "player 4"


def test_shap_draws_it():
    plt = pytest.importorskip("matplotlib.pyplot", reason="matplotlib is not installed")
    import shap

    plt.switch_backend("agg")
    plots: Any = shap.plots
    axes = plots.waterfall(to_shap(explanation(), 0), show=False)
    ticks = [text.get_text() for text in axes.get_yticklabels()]
    plt.close("all")
    assert any("beep" in tick for tick in ticks), ticks


@pytest.mark.parametrize("approximator", BUDGETS)
def test_shapiqs_approximators_ask_our_game(approximator):
    game = table_game(random_table())
    values = getattr(shapiq, approximator)(N_PLAYERS, random_state=0).approximate(
        BUDGETS[approximator], as_shapiq_game(game)
    )
    exact = estimate(game, "exact", budget=32, key=jax.random.key(0))
    for player in range(N_PLAYERS):
        assert values[(player,)] == pytest.approx(exact.values_pk[player, 0], abs=0.2)
    assert game.evaluations.unique <= 32 < game.evaluations.requested


def test_a_game_is_a_shapiq_game_by_itself():
    game = table_game(random_table())
    values = shapiq.KernelSHAP(N_PLAYERS, random_state=0).approximate(32, game)
    theirs = shapiq.ExactComputer(game, n_players=N_PLAYERS)("SV")
    exact = estimate(game, "exact", budget=32, key=jax.random.key(0))
    for player in range(N_PLAYERS):
        assert theirs[(player,)] == pytest.approx(exact.values_pk[player, 0], abs=1e-10)
        assert values[(player,)] == pytest.approx(exact.values_pk[player, 0], abs=1e-5)


@pytest.mark.parametrize("centred", [False, True])
def test_a_shapiq_game_becomes_ours(centred):
    table_n = random_table(1)[:, 0]

    class Table(shapiq.Game):
        def value_function(self, coalitions):
            return table_n[coalitions @ (1 << np.arange(N_PLAYERS))].astype(float)

    theirs = Table(N_PLAYERS, normalize=centred, normalization_value=float(table_n[0]))
    game = from_shapiq_game(theirs, microbatch=7)
    found = estimate(game, "exact", budget=32, key=jax.random.key(0))
    assert game.n_players == N_PLAYERS and game.n_outputs == 1
    assert found.empty_value_k[0] == pytest.approx(0 if centred else table_n[0])
    expected = shapiq.ExactComputer(theirs)("SV")
    for player in range(N_PLAYERS):
        assert found.values_pk[player, 0] == pytest.approx(expected[(player,)], abs=1e-5)


def test_refuses_an_output_that_is_not_there():
    found, game = explanation(), table_game(random_table())
    for refused in (
        lambda: to_shapiq(found, 2),
        lambda: to_shapiq(interactions(random_table()), -1),
        lambda: to_shap(found, 2),
        lambda: as_shapiq_game(game, 2),
    ):
        with pytest.raises(UsageError, match="expected 0 to 1"):
            refused()


def test_a_missing_library_is_one_sentence(monkeypatch):
    def missing(name, *args):
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", missing)
    for name, call in {
        "shapiq": lambda: to_shapiq(interactions(random_table())),
        "shap": lambda: to_shap(explanation()),
    }.items():
        with pytest.raises(UsageError, match=rf"^{name} is not installed: .*pip install sgpa-jax\[interop\]"):
            call()
