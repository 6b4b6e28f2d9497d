"""Games of several utterances in common batches, against each by itself."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sgpa_checkpoints

from sgpa_jax.audio import Clip, read_clip
from sgpa_jax.errors import UsageError
from sgpa_jax.games import (
    answers_cost,
    answers_together,
    cost,
    evaluate_together,
    prompts_heard,
    response_game,
    responses,
    speech,
    speech_game,
    tries_together,
)
from sgpa_jax.games.trie import run_chunks
from sgpa_jax.games.waveform_programs import hear, read
from sgpa_jax.models import load_model, parse_mesh
from sgpa_jax.players import Player, Players, all_coalitions, join_players, text_players

RATE_HZ = 16000
LENGTHS_S = (0.9, 1.3, 1.31)
RESPONSES = ("red", "red blue kitchen", "unknown")
PROMPTS = ("what to do ?", "which lamp ?", "what to do ?")


@pytest.fixture(scope="module")
def model():
    return load_model("pocket")


def utterance(number, *, n_players):
    """Noise of some length, cut into players that have something between them."""
    rng = np.random.default_rng(number)
    clip = Clip((0.1 * rng.standard_normal(int(LENGTHS_S[number] * RATE_HZ))).astype(np.float32), RATE_HZ)
    edges = np.linspace(0.05, clip.duration_s - 0.05, n_players + 1)
    named = [Player(f"w{i}", "word", a, b - 0.02) for i, (a, b) in enumerate(itertools.pairwise(edges.tolist()))]
    return clip, Players(tuple(named), len(clip.wave_s), RATE_HZ)


def answering_games(model, absence, *, text):
    """Pieces of a recording that the models understand: without some of their words, they answer something else."""
    demo, games = read_clip(Path(sgpa_checkpoints.__file__).parent / "demo" / "demo.wav"), []
    for first_s, last_s in ((0.0, 3.2), (0.1, demo.duration_s), (0.0, 2.1)):
        wave_s = demo.wave_s[round(first_s * demo.rate_hz) : round(last_s * demo.rate_hz)]
        spans_s = [(0.2, 1.2), (1.3, 1.9), (2.0, 3.0)][: 2 if last_s < 3 else 3]
        named = tuple(Player(f"span {i}", "word", *span_s) for i, span_s in enumerate(spans_s))
        clip, players = Clip(wave_s, demo.rate_hz), Players(named, len(wave_s), demo.rate_hz)
        inputs = model.prepare(clip, "what to do ?")
        if text:
            players = join_players(players, text_players(model, inputs, unit="words"), inputs)
        games.append(response_game(model, inputs, players, absence=absence, max_new_tokens=4))
    return games


def games_of(model, absence, *, text=False):
    games = []
    for number, n_players in enumerate((1, 3, 2)):
        clip, players = utterance(number, n_players=n_players)
        inputs = model.prepare(clip, PROMPTS[number], response=RESPONSES[number])
        if text:
            players = join_players(players, text_players(model, inputs, unit="words"), inputs)
        games.append(speech_game(model, inputs, players, absence=absence))
    return games


def all_of(games):
    return [all_coalitions(game.n_players) for game in games]


@pytest.mark.parametrize(
    ("name", "absence"),
    [
        ("pocket", "silence"),
        ("pocket", "delete"),
        ("pocket", "embedding"),
        ("pocket-lfm2", "silence"),
        ("pocket-lfm2", "drop"),
    ],
)
def test_each_game_gets_what_it_would_alone(name, absence):
    model = load_model(name)
    alone, together = games_of(model, absence), games_of(model, absence)
    masks, seen = all_of(alone), []
    evaluate_together(together, masks, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (14, 14)
    for one, other, masks_cp in zip(alone, together, masks, strict=True):
        ran = other.evaluations
        assert ran.unique == len(masks_cp) and ran.model_forwards >= ran.unique and ran.requested in (0, len(masks_cp))
        np.testing.assert_allclose(other.values(masks_cp), one.values(masks_cp), rtol=1e-6, atol=1e-5)
        assert other.evaluations.model_forwards == ran.model_forwards


def test_players_that_are_text_are_absent_beside_those_that_are_heard(model):
    alone, together = games_of(model, "silence", text=True), games_of(model, "silence", text=True)
    rng = np.random.default_rng(0)
    masks = [rng.random((9, game.n_players)) < 0.5 for game in alone]
    evaluate_together(together, masks)
    for one, other, masks_cp in zip(alone, together, masks, strict=True):
        np.testing.assert_allclose(other.values(masks_cp), one.values(masks_cp), atol=3e-5)


def test_only_what_is_not_known_is_evaluated(model):
    games = games_of(model, "silence")
    masks = all_of(games)
    evaluate_together(games, [masks_cp[:1] for masks_cp in masks])
    evaluate_together(games, masks)
    ran = [game.evaluations.unique for game in games]
    evaluate_together(games, masks)
    assert [game.evaluations.unique for game in games] == ran == [2, 8, 4]


@pytest.mark.parametrize(
    ("name", "absence", "text"),
    [("pocket", "silence", True), ("pocket", "delete", False), ("pocket-lfm2", "drop", True)],
)
def test_responses_are_those_of_each_game_by_itself(name, absence, text):
    model = load_model(name)
    alone, together = (answering_games(model, absence, text=text) for _ in range(2))
    rng, seen = np.random.default_rng(0), []
    masks = [rng.random((6, game.n_players)) < 0.6 for game in alone]
    evaluate_together(together, masks, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1] == sum(game.evaluations.unique for game in together)
    said = [game.evaluate(masks_cp) for game, masks_cp in zip(together, masks, strict=True)]
    assert said == [game.evaluate(masks_cp) for game, masks_cp in zip(alone, masks, strict=True)]
    assert len({response.ids for own in said for response in own}) > 2, "the test needs different responses"
    before = [game.evaluations.model_forwards for game in together]
    for game, masks_cp in zip(together, masks, strict=True):
        game.values(masks_cp)
    assert [game.evaluations.model_forwards for game in together] == before


def test_the_shapes_of_what_is_answered_are_told_before(model, monkeypatch):
    shapes = []

    def answered(model, placed, *_, **__):
        shapes.append("{} prompts of {} tokens".format(*placed.x.shape[:2]))
        return [model.response([])] * len(placed.n_b)

    for room in (answers_together, responses):
        monkeypatch.setattr(room, "answered", answered)
        monkeypatch.setattr(room, "answers_at_once", lambda _: 4)
    for room in (cost, prompts_heard):
        monkeypatch.setattr(room, "TOKEN_STEP", 4)
    games = answering_games(model, "delete", text=False)
    lengths = [game.prompts.n_tokens(masks_cp) for game, masks_cp in zip(games, all_of(games), strict=True)]
    evaluate_together(games, all_of(games))
    assert [shape for shape, _ in answers_cost(model, lengths, max_new_tokens=4)] == shapes
    assert len({*shapes}) > 1, "the test needs prompts of different lengths"
    for game, own, masks_cp in zip(answering_games(model, "delete", text=False), lengths, all_of(games), strict=True):
        shapes.clear()
        game.evaluate(masks_cp)
        assert [shape for shape, _ in answers_cost(model, [own], max_new_tokens=4)] == shapes


@pytest.mark.parametrize("absence", ["silence", "drop_keep"])
def test_other_games_of_the_same_lengths_compile_nothing(model, absence):
    programs: Any = (hear, read) if absence == "silence" else (run_chunks,)
    games, before = games_of(model, absence), [program._cache_size() for program in programs]
    evaluate_together(games, all_of(games))
    compiled = [program._cache_size() for program in programs]
    # Three games of different lengths and responses are one trie.
    assert absence == "silence" or compiled == [before[0] + 1]
    games = games_of(model, absence)[::-1]
    evaluate_together(games, all_of(games))
    assert [program._cache_size() for program in programs] == compiled


def test_coalitions_of_many_games_are_several_plans(model, monkeypatch):
    one, other, seen = games_of(model, "attention"), games_of(model, "attention"), []
    evaluate_together(one, all_of(one))
    monkeypatch.setattr(speech, "COALITIONS_AT_ONCE", 7)
    monkeypatch.setattr(tries_together, "COALITIONS_AT_ONCE", 7)
    evaluate_together(other, all_of(other), progress=lambda done, _: seen.append(done))
    assert seen == [2, 9, 14]
    for game, cut, masks_cp in zip(one, other, all_of(one), strict=True):
        np.testing.assert_allclose(cut.values(masks_cp), game.values(masks_cp), rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("absence", ["silence", "attention"])
def test_devices_share_the_rows(model, absence):
    one, other = games_of(model, absence), games_of(load_model("pocket", mesh=parse_mesh("data=4")), absence)
    masks = all_of(one)
    for games in (one, other):
        evaluate_together(games, masks)
    for game, shared, masks_cp in zip(one, other, masks, strict=True):
        np.testing.assert_allclose(shared.values(masks_cp), game.values(masks_cp), atol=3e-5)


def test_masks_of_other_players_are_refused(model):
    games = games_of(model, "silence")
    with pytest.raises(UsageError, match=r"expected bool\[C, 1\]"):
        evaluate_together(games, [np.ones((1, 2), bool), *all_of(games)[1:]])
