"""Control games: each is the game it says it is, and an explanation that uses one is nearer to the exact one."""

import json

import jax
import numpy as np
import pytest
import sgpa_checkpoints
from flax import nnx

import sgpa_jax
from sgpa_jax.errors import UsageError
from sgpa_jax.estimators import estimate
from sgpa_jax.games import control_game, speech_game
from sgpa_jax.models import AudioLM, Model, ModelInputs, first_layers, first_response_tokens
from sgpa_jax.players import Players, all_coalitions, window_players

MODELS = ("pocket", "pocket-lfm2")


@pytest.fixture(scope="module", params=MODELS)
def asked(request) -> tuple[Model, ModelInputs, Players]:
    """The recording that ships, cut into six windows, with its answer."""
    folder = sgpa_checkpoints.shipped_folder("demo")
    told = json.loads((folder / "demo.json").read_text())
    model = sgpa_jax.load_model(request.param)
    clip = sgpa_jax.read_clip(folder / "demo.wav")
    return (
        model,
        model.prepare(clip, told["prompt"], response=told["answer"]),
        window_players(clip, clip.duration_s / 6),
    )


def refuse(name: str):
    raise AssertionError(f"{name} was asked for")


def test_fewer_layers_say_what_the_head_reads_there(asked):
    model, inputs, _ = asked
    network: AudioLM = nnx.merge(model.graphdef, model.state)
    shallow = first_layers(model, 2)
    assert shallow.config.decoder.n_layers == 2 and model.config.decoder.n_layers > 2
    expected = network.decoder.logits(network.decoder.norm(model.residuals(inputs, [1])))
    np.testing.assert_allclose(shallow.logits(inputs), expected, atol=1e-4)
    for n_layers in (0, model.config.decoder.n_layers):
        with pytest.raises(UsageError, match="layers"):
            first_layers(model, n_layers)


def test_fewer_tokens_are_the_first_ones(asked):
    model, inputs, players = asked
    masks = all_coalitions(len(players))[::7]
    whole = speech_game(model, inputs, players, absence="attention").values(masks)
    first = control_game("tokens:1", model, inputs, players, other=refuse, absence="attention").values(masks)
    np.testing.assert_allclose(first[:, 0], whole[:, 1], atol=1e-4)
    for n_tokens in (0, len(inputs.ids_t) - inputs.response_start):
        with pytest.raises(UsageError, match="tokens"):
            first_response_tokens(inputs, n_tokens)


def test_another_model_is_asked_the_same(asked):
    model, inputs, players = asked
    names = []

    def other(name: str) -> tuple[Model, ModelInputs]:
        names.append(name)
        return model, inputs

    game = control_game("model:some-name", model, inputs, players, other=other, absence="attention")
    masks = all_coalitions(len(players))[:5]
    same = speech_game(model, inputs, players, absence="attention")
    np.testing.assert_array_equal(game.values(masks), same.values(masks))
    assert names == ["some-name"]


@pytest.mark.parametrize("control", ["", "tokens", "tokens:", "tokens:x", "layers:-1", "words:2", "model:"])
def test_what_is_no_control(asked, control):
    with pytest.raises(UsageError, match="control"):
        control_game(control, *asked, other=refuse)


def test_a_control_brings_an_estimate_nearer(asked, key):
    """The game itself as its control leaves nothing to estimate; its first layers leave less than there was."""
    model, inputs, players = asked
    game = speech_game(model, inputs, players, absence="attention")
    exact = estimate(game, "exact", key=key)
    plain = estimate(game, "leverage", budget=40, key=key)
    itself = estimate(game, "leverage", budget=40, control=game, key=key)
    np.testing.assert_allclose(itself.values_pk[:, 0], exact.values_pk[:, 0], atol=1e-6)
    assert itself.control is not None and plain.control is None
    np.testing.assert_allclose(itself.control.beta_k[0], 1.0, atol=1e-6)
    cheap = control_game("layers:2", model, inputs, players, other=refuse, absence="attention")
    errors = {"plain": [], "controlled": []}
    for seed in range(8):
        for name, control in (("plain", None), ("controlled", cheap)):
            found = estimate(game, "leverage", budget=40, control=control, key=jax.random.key(seed))
            errors[name].append(np.square(found.values_pk - exact.values_pk)[:, 0].mean())
    assert np.mean(errors["controlled"]) < np.mean(errors["plain"])
    assert found.control is not None and found.control.evaluations.requested == 2 ** len(players)


def test_controls_that_cannot_serve(asked, key):
    model, inputs, players = asked
    game = speech_game(model, inputs, players, absence="attention")
    other = sgpa_jax.Game(lambda masks: masks.sum(axis=1).astype(float), 3, jit=False)
    with pytest.raises(UsageError, match="same players"):
        estimate(game, "leverage", budget=40, control=other, key=key)
    with pytest.raises(UsageError, match="exact"):
        estimate(game, "exact", budget=64, control=game, key=key)


def test_an_explanation_tells_what_its_control_did():
    folder = sgpa_checkpoints.shipped_folder("demo")
    told = json.loads((folder / "demo.json").read_text())
    found = sgpa_jax.explain(
        folder / "demo.wav", transcript=told["transcript"], prompt=told["prompt"], absence="attention",
        estimator="leverage", budget=100, control="model:pocket-lfm2",
    )  # fmt: skip
    assert found.estimator["control"] == "model:pocket-lfm2"
    assert found.estimator["control_evaluations"] == 2 ** len(found.players)
    assert found.estimator["control_variance_reduction"] > 1.0
