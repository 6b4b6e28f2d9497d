"""Measures of multi-label scores against scikit-learn's, and against predictors of which everything is known."""

import jax
import numpy as np
import pytest
from sklearn import metrics

from sgpa_jax.concepts import (
    Predictions,
    average_precision,
    average_precisions,
    best_threshold,
    drawn_measures,
    measured,
)
from sgpa_jax.concepts.measures import weighted_measures


@pytest.fixture(scope="module")
def made() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    true_nj = rng.uniform(size=(300, 12)) < np.linspace(0.03, 0.5, 12)
    score_nj = np.round(true_nj * 0.5 + rng.uniform(size=true_nj.shape), 2)
    return score_nj, true_nj


def all_of(score_nj: np.ndarray, true_nj: np.ndarray, predicted_nj: np.ndarray | None = None) -> Predictions:
    predicted_nj = score_nj > 0.5 if predicted_nj is None else predicted_nj
    return Predictions(score_nj, predicted_nj, true_nj, np.ones(true_nj.shape[1], bool))


def test_as_scikit_learn(made):
    """Scores are rounded, so that there are ties."""
    score_nj, true_nj = made
    predicted_nj, found = score_nj > 0.7, measured(all_of(score_nj, true_nj, score_nj > 0.7))
    mean = metrics.average_precision_score(true_nj, score_nj, average="macro")
    for name, value in (
        ("mAP", mean),
        ("mAP_covered", mean),
        ("precision", metrics.precision_score(true_nj, predicted_nj, average="macro")),
        ("recall", metrics.recall_score(true_nj, predicted_nj, average="macro")),
        ("f1_macro", metrics.f1_score(true_nj, predicted_nj, average="macro")),
        ("precision_micro", metrics.precision_score(true_nj, predicted_nj, average="micro")),
        ("recall_micro", metrics.recall_score(true_nj, predicted_nj, average="micro")),
        ("f1_micro", metrics.f1_score(true_nj, predicted_nj, average="micro")),
    ):
        assert abs(found[name] - value) <= 1e-12, name
    known_n = true_nj.any(axis=1)
    lwlrap = metrics.label_ranking_average_precision_score(
        true_nj[known_n], score_nj[known_n], sample_weight=true_nj[known_n].sum(axis=1)
    )
    assert abs(found["lwlrap"] - lwlrap) <= 1e-12
    from scipy.stats import norm

    auc = metrics.roc_auc_score(true_nj, score_nj, average="macro")
    assert abs(found["d_prime"] - 2**0.5 * norm.ppf(auc)) <= 1e-9
    assert found["f1"] == pytest.approx(
        2 * found["precision"] * found["recall"] / (found["precision"] + found["recall"]), abs=1e-15
    )
    ap_mj = average_precisions(score_nj, true_nj)
    for m in range(0, 12, 4):
        for j in range(0, 12, 3):
            value = metrics.average_precision_score(true_nj[:, j], score_nj[:, m])
            assert abs(average_precision(score_nj[:, m], true_nj[:, j]) - value) <= 1e-12
            assert abs(ap_mj[m, j] - value) <= 1e-5


def test_predictors_of_which_everything_is_known(made):
    _, true_nj = made
    prevalence = true_nj.mean(axis=0).mean()
    perfect = measured(all_of(true_nj.astype(float), true_nj))
    for name in ("precision", "recall", "f1", "f1_macro", "f1_micro", "mAP", "lwlrap"):
        assert perfect[name] == pytest.approx(1, abs=1e-12), name
    assert perfect["d_prime"] == np.inf
    constant = measured(all_of(np.ones(true_nj.shape), true_nj, np.ones(true_nj.shape, bool)))
    assert constant["mAP"] == pytest.approx(prevalence, abs=1e-12) and constant["d_prime"] == pytest.approx(
        0, abs=1e-12
    )
    assert (constant["recall"], constant["precision"]) == pytest.approx((1, prevalence))
    rng = np.random.default_rng(1)
    inverted = measured(all_of(rng.uniform(0, 0.5, size=true_nj.shape) - true_nj, true_nj, ~true_nj))
    assert inverted["mAP"] < 0.8 * prevalence and inverted["f1"] == 0 and inverted["d_prime"] == -np.inf
    silent = measured(all_of(np.zeros(true_nj.shape), true_nj, np.zeros(true_nj.shape, bool)))
    assert silent["precision"] == silent["recall"] == silent["f1"] == 0
    drawn = [measured(all_of(rng.uniform(size=true_nj.shape), true_nj))["mAP"] for _ in range(40)]
    # Average precision of a random order exceeds the prevalence by a little, the more the fewer positives there are.
    expected = np.mean([_random_precision(len(true_nj), int(n)) for n in true_nj.sum(axis=0)])
    assert abs(np.mean(drawn) - expected) < 3 * np.std(drawn, ddof=1) / 40**0.5
    assert expected - prevalence < 0.02


def _random_precision(n: int, positives: int) -> float:
    """Expected average precision of a random order of n clips (Bestgen, 2015)."""
    harmonic = (1 / np.arange(1, n + 1)).sum()
    return (positives - 1) / (n - 1) + harmonic / n * (1 - (positives - 1) / (n - 1))


def test_drawing_clips_again(made):
    score_nj, true_nj = made
    predictions = all_of(score_nj, true_nj)
    counts_n = np.random.default_rng(2).integers(0, 3, size=300)
    weighted = weighted_measures(predictions, counts_n[None].astype(float))
    repeated = measured(all_of(np.repeat(score_nj, counts_n, axis=0), np.repeat(true_nj, counts_n, axis=0)))
    for name, value in repeated.items():
        assert weighted[name][0] == pytest.approx(value, abs=1e-12), name
    drawn = drawn_measures(predictions, n_resamples=120, key=jax.random.key(0))
    low, high = np.quantile(drawn["mAP"], [0.025, 0.975])
    assert low < measured(predictions)["mAP"] < high and drawn["mAP"].shape == (120,)
    np.testing.assert_array_equal(
        drawn["f1"], drawn_measures(predictions, n_resamples=120, key=jax.random.key(0))["f1"]
    )


def test_thresholds_are_where_f1_is_largest(made):
    score_nj, true_nj = made
    for score_n, true_n in zip(score_nj.T, true_nj.T, strict=True):
        f1 = {at: 2 * (true_n & (score_n >= at)).sum() / (true_n.sum() + (score_n >= at).sum()) for at in {*score_n}}
        assert f1[best_threshold(score_n, true_n)] == max(f1.values())
    assert best_threshold(score_nj[:, 0], np.zeros(300, bool)) == np.inf
    assert np.isnan(average_precision(score_nj[:, 0], np.zeros(300, bool)))
