"""Which player fires which concept, and what these carry: as the two games say, for the concepts that matter most."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgpa_jax.audio import Clip
from sgpa_jax.concepts import (
    Concept,
    ConceptBank,
    ablation_game,
    autoencoder_of,
    check_firing,
    concept_values,
    describe_sae,
    fired_concepts,
    firing,
    latent_readout,
    names_in,
)
from sgpa_jax.errors import BudgetError, UsageError
from sgpa_jax.games import speech_game
from sgpa_jax.models import Model, ModelInputs, load_model
from sgpa_jax.players import Player, Players, all_coalitions
from sgpa_jax.sae import Normalisation, Recipe, SAEConfig, SAEState, TrainedSAE, recommended


@pytest.fixture(scope="module")
def model(tiny_folder) -> Model:
    return load_model(tiny_folder("qwen2_audio"), dtype="float32")


@pytest.fixture(scope="module")
def inputs(model: Model) -> ModelInputs:
    clip = Clip(0.1 * np.random.default_rng(0).standard_normal(12_800).astype(np.float32), 16_000)
    return model.prepare(clip, "which colour?", response="red")


@pytest.fixture(scope="module")
def trained(model: Model) -> TrainedSAE:
    rng, config = np.random.default_rng(1), SAEConfig(width=32, n_latents=48, k=6)
    shapes = [(48, 32), (48,), (48, 32), (32,), (48,)]
    sae = SAEState(*(jnp.asarray(0.4 * rng.standard_normal(shape), jnp.float32) for shape in shapes), config=config)
    told = {"name": model.name, "digest": model.digest, "dtype": model.dtype}
    as_is = Normalisation(jnp.zeros(32), jnp.ones(()))
    return TrainedSAE(sae, as_is, Recipe(config, recommended(32, k=6).training), 0, told, 1, np.zeros(48, np.int64))


SPANS = {"a": (0.05, 0.25), "dog": (0.25, 0.45), "is": (0.5, 0.7), "here": (0.7, 0.8)}
PLAYERS = Players(tuple(Player(name, "word", *span) for name, span in SPANS.items()), 12_800, 16_000)


def test_concepts_are_those_that_a_player_does_most_about(model: Model, inputs: ModelInputs, trained: TrainedSAE):
    asked: dict[str, Any] = {"absence": "attention", "top": 4, "names": {7: "a dog"}, "key": jax.random.key(0)}
    told = fired_concepts(model, inputs, PLAYERS, trained, **asked)
    game = speech_game(model, inputs, PLAYERS, absence="attention", readout=latent_readout(trained.folded, 0))
    expected = concept_values(game)
    norm_k = np.linalg.norm(np.asarray(trained.sae.w_dec_md), axis=1)
    effect_k = np.abs(expected.values_pk).max(axis=0) * norm_k * (expected.full_value_k > expected.empty_value_k)
    latents = [entry["latent"] for entry in told["concepts"]]
    assert latents == np.argsort(-effect_k, kind="stable")[:4].tolist()
    for entry in told["concepts"]:
        np.testing.assert_allclose(entry["values"], expected.values_pk[:, entry["latent"]], atol=1e-4)
        assert sum(entry["values"]) == pytest.approx(entry["full_value"] - entry["empty_value"], abs=1e-4)
        assert entry["full_value"] > entry["empty_value"] and entry["standard_errors"] == [0, 0, 0, 0]
        assert entry["name"] == ("a dog" if entry["latent"] == 7 else None)
    carried = concept_values(ablation_game(model, inputs, trained.folded, 0, latents))
    np.testing.assert_allclose([entry["carries"] for entry in told["concepts"]], carried.values_pk[:, 0], atol=1e-5)
    ends = told["answer"]
    assert ends["full_value"] - ends["empty_value"] == pytest.approx(
        sum(e["carries"] for e in told["concepts"]), abs=1e-5
    )
    assert (told["estimator"], told["considered"], told["latents"], told["positions"]) == ("exact", 48, 48, "audio")

    # A budget below all coalitions: permutations of the same game, within their errors.
    some = fired_concepts(model, inputs, PLAYERS, trained, budget=15, **asked)
    assert some["estimator"] == "permutation"
    for entry in some["concepts"]:
        off_p = np.array(entry["values"]) - expected.values_pk[:, entry["latent"]]
        assert np.abs(off_p).max() <= np.abs(expected.values_pk).max()


def test_of_too_many_latents_those_are_taken_that_change_most(
    model: Model, inputs: ModelInputs, trained: TrainedSAE, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(firing, "MOST_LATENTS", 5)
    told = fired_concepts(model, inputs, PLAYERS, trained, absence="attention", top=40, key=jax.random.key(0))
    game = speech_game(model, inputs, PLAYERS, absence="attention", readout=latent_readout(trained.folded, 0))
    empty_m, full_m = game.values(all_coalitions(4)[[0, -1]])
    most = set(np.argsort(-np.abs(full_m - empty_m), kind="stable")[:5].tolist())
    assert told["considered"] == 5 and {entry["latent"] for entry in told["concepts"]} <= most


def test_names_come_from_the_folders_bank(trained: TrainedSAE, tmp_path):
    assert names_in(tmp_path, trained) == {}
    ConceptBank(dict(trained.model), describe_sae(trained), (Concept(3, name="dog"), Concept(5))).save(tmp_path)
    assert names_in(tmp_path, trained) == {3: "dog"}


def test_an_autoencoder_of_another_model_is_refused(model: Model, trained: TrainedSAE, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(firing, "load_sae", lambda folder: trained)
    assert autoencoder_of(model, "folder") is trained
    with pytest.raises(UsageError, match="expected at least one"):
        autoencoder_of(model, "folder", 0)
    trained.model["digest"] = "00"
    with pytest.raises(UsageError, match="give one that was trained on this one"):
        autoencoder_of(model, "folder")


def test_what_cannot_be_read_is_told_before_it_is_tried(inputs: ModelInputs):
    check_firing(inputs, PLAYERS, absence="silence", budget=14)
    with pytest.raises(BudgetError, match="too small for the permutation estimator"):
        check_firing(inputs, PLAYERS, absence="silence", budget=13)
    windows = replace(inputs, starts_s=(0.0,))
    check_firing(windows, PLAYERS, absence="drop", budget=16)
    with pytest.raises(UsageError, match="a recording in windows cannot be read under the absence 'silence'"):
        check_firing(windows, PLAYERS, absence="silence", budget=16)
