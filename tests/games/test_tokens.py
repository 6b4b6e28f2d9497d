"""Games of absences at the decoder's input: who owns which audio position, and what the whole is worth."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgpa_jax.audio import Clip
from sgpa_jax.errors import PlayerError, UsageError
from sgpa_jax.games.flat import evaluate_flat
from sgpa_jax.games.hearing import hearing_of
from sgpa_jax.games.passage import TOKEN_ABSENCES
from sgpa_jax.games.speech import speech_game
from sgpa_jax.games.tokens import BASELINES, native_players, position_centres_s, speech_passage, token_owners
from sgpa_jax.models import explained_in, load_model
from sgpa_jax.players import Player, Players, all_coalitions

RATE_HZ = 16000


@pytest.fixture(scope="module", params=["pocket", "pocket-lfm2"])
def model(request):
    return load_model(request.param)


@pytest.fixture(scope="module")
def clip():
    return Clip((0.1 * np.random.default_rng(0).standard_normal(2 * RATE_HZ)).astype(np.float32), RATE_HZ)


def _players(*edges_s):
    spans = [Player(f"word {i}", "word", *edges) for i, edges in enumerate(edges_s)]
    return Players(tuple(spans), 2 * RATE_HZ, RATE_HZ)


THREE = ((0.2, 0.6), (0.6, 1.1), (1.3, 1.9))


def _inputs(model, clip):
    return model.prepare(clip, "colour of the lamp ?", response="blue red")


def test_positions_belong_to_the_player_in_whose_time_they_lie(model, clip):
    inputs = _inputs(model, clip)
    passage = speech_passage(model, inputs, _players(*THREE), absence="attention")
    is_audio = inputs.clip_t[:-1] >= 0
    assert (passage.owner_t[~is_audio] == -1).all()
    centres_s = position_centres_s(model.config, np.arange(is_audio.sum()))
    assert np.allclose(np.diff(centres_s), 0.08) and 0 <= centres_s[0] < 0.04
    for centre_s, owner in zip(centres_s, passage.owner_t[is_audio], strict=True):
        inside = [i for i, (start_s, end_s) in enumerate(THREE) if start_s <= centre_s < end_s]
        assert inside == ([] if owner < 0 else [owner])


@pytest.mark.parametrize("absence", TOKEN_ABSENCES)
def test_values_are_those_of_the_flat_engine_and_of_the_model_itself(model, clip, absence):
    inputs, players, masks = _inputs(model, clip), _players(*THREE), all_coalitions(3)
    game = speech_game(model, inputs, players, absence=absence)
    found = game.values(masks)
    assert game.outputs is not None and len(game.outputs) == found.shape[1] == 3
    passage = speech_passage(model, inputs, players, absence=absence)
    expected = np.asarray(jax.jit(lambda masks: evaluate_flat(model.decoder, passage, masks))(jnp.asarray(masks)))
    np.testing.assert_allclose(found[:, 1:], expected, atol=2e-5)
    np.testing.assert_allclose(found[:, 0], expected.sum(axis=1), atol=2e-5)
    assert np.ptp(found[:, 0]) > 0.1
    logits = np.asarray(model.logits(inputs))[0]
    rows = logits[inputs.response_start - 1 : len(inputs.ids_t) - 1]
    log_probs = np.asarray(jax.nn.log_softmax(jnp.asarray(rows), axis=-1))
    whole = log_probs[np.arange(len(rows)), inputs.ids_t[inputs.response_start :]]
    np.testing.assert_allclose(found[-1, 1:], whole, atol=2e-5)


def test_baselines_are_different_games(model, clip):
    inputs, players = _inputs(model, clip), _players(*THREE)
    nobody = [
        speech_game(model, inputs, players, absence="embedding", baseline=baseline).values(np.zeros((1, 3), bool))[0, 0]
        for baseline in BASELINES
    ]
    assert len({round(float(value), 3) for value in nobody}) == len(BASELINES)


def test_mean_log_probability_is_the_mean(model, clip):
    inputs, players, masks = _inputs(model, clip), _players(*THREE), all_coalitions(3)[-1:]
    total, mean = (
        speech_game(model, inputs, players, absence="drop", value=value).values(masks)[0, 0]
        for value in ("logprob", "mean_logprob")
    )
    np.testing.assert_allclose(mean, total / 2, rtol=1e-5)


def test_a_word_between_two_positions_takes_the_nearer_one(model, clip):
    centre_s = float(position_centres_s(model.config, np.array([10]))[0])
    short = (centre_s + 0.01, centre_s + 0.03)
    passage = speech_passage(
        model, _inputs(model, clip), _players((0.2, short[0]), short, (short[1], 1.9)), absence="attention"
    )
    assert (passage.owner_t == 1).sum() == 1
    with pytest.raises(PlayerError, match="share one audio position"):
        speech_passage(model, _inputs(model, clip), _players((centre_s - 0.01, short[0]), short), absence="attention")


@pytest.mark.parametrize(
    ("options", "says"),
    [({"absence": "atention"}, "attention"), ({"absence": "embedding", "baseline": "means"}, "mean")],
)
def test_unknown_names_are_told_with_the_nearest(model, clip, options, says):
    with pytest.raises(UsageError, match=says):
        speech_passage(model, _inputs(model, clip), _players(*THREE), **options)


def test_a_native_player_is_one_position_and_its_time(model, clip):
    inputs = _inputs(model, clip)
    players = native_players(model, inputs)
    owner = token_owners(model, inputs, players)
    is_audio = inputs.clip_t[:-1] >= 0
    np.testing.assert_array_equal(owner[is_audio], np.arange(len(players)))
    assert (owner[~is_audio] == -1).all() and players.labels[:2] == ("1", "2")
    spans_s = np.array([player.span_s for player in players])
    np.testing.assert_allclose(np.diff(spans_s)[1:-1, 0], 0.08, atol=1e-9)
    assert (players.owner_s() >= 0).all() and spans_s[0, 0] == 0 and spans_s[-1, 1] == clip.duration_s


def test_native_players_of_one_recording_of_a_conversation(model, clip):
    asked = [{"type": "audio", "audio": Clip(clip.wave_s[::-1][:9000], RATE_HZ)}, {"type": "audio", "audio": clip}]
    inputs = model.prepare([{"role": "user", "content": asked}], response="red")
    players = native_players(model, explained_in(inputs, 1))
    assert [*players] == [*native_players(model, _inputs(model, clip))]
    owner = token_owners(model, explained_in(inputs, 1), players)
    np.testing.assert_array_equal(owner[inputs.clip_t[:-1] == 1], np.arange(len(players)))
    assert (owner[inputs.clip_t[:-1] != 1] == -1).all()


@pytest.mark.parametrize(("family", "step_s"), [("qwen2_audio", 0.04), ("lfm2_audio", 0.08), ("voxtral", 0.08)])
def test_native_players_of_every_family_and_length(tiny_folder, family, step_s):
    tiny = load_model(tiny_folder(family), dtype="float32")
    for n_samples in (8000, 9600, 12801, 12960, 15999):
        inputs = tiny.prepare(Clip(np.full(n_samples, 0.1, np.float32), RATE_HZ), "lamp", response="red")
        players = native_players(tiny, inputs)
        owner = token_owners(tiny, inputs, players)[inputs.clip_t[:-1] >= 0]
        # Voxtral hears its whole window: positions behind the clip are nobody's.
        np.testing.assert_array_equal(owner[: len(players)], np.arange(len(players)))
        assert (owner[len(players) :] == -1).all() and (len(owner) == len(players) or family == "voxtral")
        assert (players.owner_s() >= 0).all()
        if family == "lfm2_audio":  # each of them is eight mel frames to cut
            assert hearing_of(tiny, inputs.clips[0], players, "mel_delete").is_audible_p.all()
        starts_s = [player.span_s[0] for player in players]
        np.testing.assert_allclose(np.diff(starts_s)[1:], step_s, atol=1e-9)
