"""Archives: a stopped run goes on from where it was, other values need no model, and damage is told in a sentence."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sgpa_checkpoints

import sgpa_jax
from sgpa_jax.archive import COALITIONS, CoalitionFile, Sample, game_key, refold_explanation
from sgpa_jax.archive.coalitions import read_file, read_sample
from sgpa_jax.errors import SgpaError, UsageError
from sgpa_jax.estimators import estimate, refold
from sgpa_jax.games import Game

KEY = game_key({"clip": "00"})


def game(calls: list[int] | None = None, n_players: int = 6) -> Game:
    worth = np.arange(1.0, n_players + 1)

    def fn(masks):
        if calls is not None:
            calls.append(len(masks))
        total = masks @ worth
        return np.stack([total + 0.1 * total**2, total], axis=1)

    return Game(fn, n_players, jit=False, microbatch=8)


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> tuple[Path, sgpa_jax.Explanation]:
    """The folder of a finished run over the recording that ships."""
    folder = tmp_path_factory.mktemp("run")
    shipped = sgpa_checkpoints.shipped_folder("demo")
    told = json.loads((shipped / "demo.json").read_text())
    found = sgpa_jax.explain(
        shipped / "demo.wav", transcript=told["transcript"], prompt=told["prompt"], archive=folder / COALITIONS
    )
    found.save(folder / "explanation.json")
    return folder, found


def test_keys_tell_games_apart():
    assert game_key({"a": 1, "b": [2]}) == game_key({"b": [2], "a": 1})
    assert len({game_key({"a": 1}), game_key({"a": 2}), game_key({"a": "1"})}) == 3


def test_what_was_evaluated_is_not_evaluated_again(tmp_path, key):
    file = CoalitionFile(tmp_path / "c.safetensors", KEY)
    first = game()
    estimate(first, "permutation", budget=30, key=key)
    file.save(first)
    calls: list[int] = []
    second = game(calls)
    assert file.restore(second) == len(first.known()[0])
    result = estimate(second, "permutation", budget=30, key=key)
    assert not calls and result.evaluations.unique == 0 and result.evaluations.requested > 0
    np.testing.assert_array_equal(result.values_pk, estimate(game(), "permutation", budget=30, key=key).values_pk)


def test_another_game_is_not_restored(tmp_path):
    known = game()
    known.values(np.eye(6, dtype=bool))
    CoalitionFile(tmp_path / "c.safetensors", KEY).save(known)
    assert CoalitionFile(tmp_path / "c.safetensors", game_key({"clip": "01"})).restore(game()) == 0


def test_a_game_that_knows_nothing_leaves_no_file(tmp_path):
    CoalitionFile(tmp_path / "c.safetensors", KEY).save(game())
    assert not list(tmp_path.iterdir())


def test_a_run_that_breaks_off_keeps_what_it_has(tmp_path):
    """The interrupted run evaluated some coalitions; the next one evaluates the others alone."""
    shipped = sgpa_checkpoints.shipped_folder("demo")
    told = json.loads((shipped / "demo.json").read_text())
    archive = tmp_path / "c.safetensors"
    asked: dict[str, Any] = {"transcript": told["transcript"], "prompt": told["prompt"], "response": "blue"}

    def interrupt(done: int, planned: int) -> None:
        if done >= planned // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sgpa_jax.explain(shipped / "demo.wav", **asked, archive=archive, progress=interrupt)
    kept = len(read_file(archive)[1]["coalitions"])
    resumed = sgpa_jax.explain(shipped / "demo.wav", **asked, archive=archive)
    whole = sgpa_jax.explain(shipped / "demo.wav", **asked)
    assert 0 < resumed.evaluations["unique"] == whole.evaluations["unique"] - kept
    np.testing.assert_allclose(resumed.values, whole.values, atol=1e-4)


def test_interactions_of_too_many_players_are_refused_before_anything_is_evaluated():
    shipped = sgpa_checkpoints.shipped_folder("demo")

    def evaluated(done: int, planned: int) -> None:
        raise AssertionError("coalitions were evaluated")

    with pytest.raises(UsageError, match="of order 99 among 4 players"):
        sgpa_jax.explain(
            shipped / "demo.wav", players="windows:0.8", response="blue", interactions="k-SII:99", progress=evaluated
        )


def test_responses_are_kept_as_token_ids(tmp_path):
    shipped = sgpa_checkpoints.shipped_folder("demo")
    told = json.loads((shipped / "demo.json").read_text())
    asked: dict[str, Any] = {
        "transcript": told["transcript"], "prompt": told["prompt"], "players": "windows:1.0", "value": "tfidf",
        "max_new_tokens": 8, "archive": tmp_path / "c.safetensors",
    }  # fmt: skip
    first = sgpa_jax.explain(shipped / "demo.wav", **asked)
    again = sgpa_jax.explain(shipped / "demo.wav", **asked)
    assert first.evaluations["unique"] > 0 and again.evaluations["unique"] == 0
    np.testing.assert_array_equal(again.values, first.values)


def test_exact_values_from_a_finished_run(demo):
    folder, found = demo
    again = refold_explanation(folder, interactions="k-SII:2")
    np.testing.assert_allclose(again.values, found.values, atol=1e-12)
    assert {len(entry["players"]) for entry in again.interactions} == {1, 2}
    banzhaf = refold_explanation(folder, estimand="banzhaf")
    assert banzhaf.estimand == "banzhaf" and abs(banzhaf.values - found.values).max() > 1e-3
    owen = refold_explanation(folder, estimand="owen", groups="phrases")
    np.testing.assert_allclose(owen.values.sum(axis=0), found.values.sum(axis=0), atol=1e-9)
    for name, estimator in (("permutation", "permutation"), ("leverage", "leverage")):
        sampled = refold_explanation(folder, estimator=estimator)
        assert sampled.estimator["name"] == name
        assert abs(sampled.values - found.values).max() < 1e-1 + 5 * sampled.standard_errors.max()


def test_a_sample_serves_other_estimators(key):
    truth = estimate(game(n_players=8), "exact", budget=256, key=key)
    sample = estimate(game(n_players=8), "permutation", budget=120, key=key)
    found = refold(sample.masks_cp, sample.coalition_values_ck, "leverage", key=key)
    assert found.estimator == "leverage" and found.evaluations.requested == 0
    np.testing.assert_allclose(found.values_pk, truth.values_pk, atol=1e-1 + 5 * found.standard_errors_pk.max())
    with pytest.raises(UsageError, match="its own drawing"):
        refold(sample.masks_cp, sample.coalition_values_ck, "permutation", key=key)
    with pytest.raises(UsageError, match="empty one"):
        refold(sample.masks_cp[2:], sample.coalition_values_ck[2:], "leverage", key=key)


def test_folders_that_cannot_be_refolded(demo, tmp_path):
    folder, found = demo
    with pytest.raises(SgpaError):
        refold_explanation(tmp_path)
    (tmp_path / "explanation.json").write_bytes((folder / "explanation.json").read_bytes())
    with pytest.raises(UsageError, match="there is no"):
        refold_explanation(tmp_path)
    other = game()
    other.values(np.eye(6, dtype=bool))
    CoalitionFile(tmp_path / COALITIONS, KEY).save(other)
    with pytest.raises(UsageError, match="another game"):
        refold_explanation(tmp_path)
    CoalitionFile(tmp_path / COALITIONS, found.game["key"]).save(other)
    with pytest.raises(UsageError, match="did not finish"):
        refold_explanation(tmp_path)
    CoalitionFile(tmp_path / COALITIONS, found.game["key"]).save(other, Sample(np.eye(6, dtype=bool), np.ones((6, 1))))
    with pytest.raises(UsageError, match="does not fit"):
        refold_explanation(tmp_path)
    with pytest.raises(UsageError, match="interaction"):
        refold_explanation(folder, interactions="k-SIII:2")
    with pytest.raises(UsageError, match="order"):
        refold_explanation(folder, interactions="k-SII:0")


def test_damaged_files_are_refused_in_a_sentence(tmp_path):
    known = game()
    known.values(np.eye(6, dtype=bool))
    path = tmp_path / "c.safetensors"
    CoalitionFile(path, KEY).save(known, Sample(np.eye(6, dtype=bool), np.ones((6, 2))))
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(200):
        data = bytearray(whole)
        if rng.random() < 0.3:
            del data[rng.integers(len(data)) :]
        for _ in range(rng.integers(1, 20)):
            if data:
                data[rng.integers(len(data))] = rng.integers(256)
        path.write_bytes(data)
        try:
            read_sample(path, KEY)
        except UsageError as error:
            assert str(path) in str(error)
            refused += 1
    assert refused > 100
