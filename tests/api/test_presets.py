"""Presets: what they choose, what they refuse, and that `explain` finds what their parts find."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
import sgpa_checkpoints

import sgpa_jax
from sgpa_jax.align import Alignment, Word
from sgpa_jax.api import PRESETS, Asked, with_preset
from sgpa_jax.api.asked import OPTIONS
from sgpa_jax.audio import Clip, read_clip
from sgpa_jax.errors import BudgetError, UsageError
from sgpa_jax.estimators import AUTHORS, authors_budget, estimate, paper_budget
from sgpa_jax.games import AUTHORS_GAME, authors_game, response_game
from sgpa_jax.models import load_model
from sgpa_jax.players import spoken_players
from sgpa_jax.report.facts import facts

PROMPT = "what to do ?"


@pytest.fixture(scope="module")
def model():
    return load_model("pocket")


@pytest.fixture(scope="module")
def clip():
    return read_clip(Path(sgpa_checkpoints.__file__).parent / "demo" / "demo.wav")


@pytest.fixture(scope="module")
def alignment(clip):
    """Three of its words, the second of which runs into the third."""
    words = (Word("one", 0.2, 1.3), Word("two", 1.4, 2.2), Word("three", 2.1, 3.1))
    return Alignment(words, clip.duration_s, "one two three", "x", "", "given", "none")


def explained(clip, alignment, model, preset, **options):
    return sgpa_jax.explain(clip, prompt=PROMPT, alignment=alignment, model=model, preset=preset, seed=4, **options)


def test_every_option_of_a_preset_is_one():
    for preset in PRESETS.values():
        assert set(preset) <= set(OPTIONS)
    assert PRESETS["paper"]["max_new_tokens"] == PRESETS["authors"]["max_new_tokens"] == 30


def test_authors_is_their_game_by_their_estimator(clip, alignment, model, tmp_path):
    archive = tmp_path / "coalitions.safetensors"
    found = explained(clip, alignment, model, "authors", archive=archive, absence="delete")
    game = authors_game(model, clip, alignment, prompt=PROMPT)
    expected = estimate(game, AUTHORS, budget=6, key=jax.random.key(4))
    np.testing.assert_array_equal(found.values, expected.values_pk)
    assert found.estimator == {"name": "neyman_authors", "budget": 6, "seed": 4} and found.estimand == "shapley"
    assert found.full_value[0] == pytest.approx(1) and found.engine == "generation"
    assert found.response == model.generate(model.prepare(clip, PROMPT), max_new_tokens=30).text
    assert [player.span_s for player in found.players] == [(0.2, 1.3), (1.4, 2.1), (2.1, 3.1)]
    told = found.game["preset"]
    assert told == {"name": "authors", **PRESETS["authors"], "evaluations": 6, "rules": "given", **AUTHORS_GAME}
    assert (found.game["absence"], found.game["value"]) == ("delete", "tfidf_per_phase")
    found.save(tmp_path / "x.json")
    read = sgpa_jax.Explanation.load(tmp_path / "x.json")
    assert read.game == json.loads(json.dumps(found.game))
    assert dict(facts(read))["Preset"].startswith("authors: players speech, text none, estimand shapley")
    # What was evaluated serves again.
    again = explained(clip, alignment, model, "authors", archive=archive)
    assert again.evaluations["model_forwards"] == 0 and again.values.tolist() == found.values.tolist()


def test_paper_is_silence_and_neyman_on_the_words_alone(clip, alignment, model):
    found = explained(clip, alignment, model, "paper", estimator="neyman", budget="paper")
    players = spoken_players(alignment, clip)
    game = response_game(model, model.prepare(clip, PROMPT), players, score="tfidf", max_new_tokens=30)
    expected = estimate(game, "neyman", budget=paper_budget(3), key=jax.random.key(4))
    np.testing.assert_array_equal(found.values, expected.values_pk)
    assert found.estimator["name"] == "neyman" and found.game["preset"]["name"] == "paper"
    assert abs(found.efficiency_gap[0]) < 1e-6
    keys = {found.game["key"], explained(clip, alignment, model, "authors").game["key"]}
    asked = {"players": "speech", "value": "tfidf", "max_new_tokens": 30, "budget": 8}
    keys |= {explained(clip, alignment, model, None, **asked).game["key"]}
    assert len(keys) == 3


def test_words_that_overlap_otherwise_are_another_game(clip, alignment, model):
    apart = Alignment(
        (alignment.words[0], Word("two", 1.4, 2.1), alignment.words[2]), clip.duration_s, "", "x", "", "given", "none"
    )
    one, other = (explained(clip, words, model, "authors") for words in (alignment, apart))
    assert one.players == other.players and one.game["key"] != other.game["key"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "papers"}, "unknown preset 'papers': expected one of paper"),
        (
            {"preset": "paper", "absence": "delete"},
            "the preset paper has absence silence, but absence delete was given",
        ),
        ({"preset": "authors", "absence": "silence"}, "the preset authors has absence delete"),
        ({"preset": "authors", "rules": "sgpa"}, "has rules authors"),
        ({"preset": "paper", "value": "logprob"}, "has value tfidf"),
        ({"preset": "paper", "budget": 100}, "has budget paper, but budget 100"),
        ({"preset": "paper", "tolerance": "0.1"}, "takes no tolerance, but tolerance 0.1"),
        ({"preset": "paper", "interactions": "k-SII:2"}, "takes no interactions"),
        ({"preset": "paper", "text": "words"}, "has text none"),
        ({"preset": "paper", "long": "windows"}, "has long refuse"),
        ({"preset": "paper", "concepts": "somewhere"}, "concepts were asked for"),
        ({"preset": "paper", "response": "red"}, "a response was given"),
        ({"preset": "paper", "control": "layers:2"}, "a control"),
    ],
)
def test_what_contradicts_a_preset_is_refused(clip, alignment, model, options, message):
    with pytest.raises(UsageError, match=message):
        sgpa_jax.explain(clip, alignment=alignment, model=model, **options)


def test_options_that_agree_and_a_preset_that_comes_without_its_own():
    assert with_preset(None, {"absence": None, "value": "tfidf"}) == {"value": "tfidf"}
    assert with_preset("authors", {"absence": "delete", "budget": None}) == PRESETS["authors"]
    assert Asked(preset="paper", **with_preset("paper", {})).budget_for(5) == paper_budget(5)
    assert Asked(preset="authors", **with_preset("authors", {})).budget_for(5) == authors_budget(5)
    with pytest.raises(UsageError, match="has players speech, but players words"):
        Asked(preset="paper")


def test_a_plan(clip, alignment, model):
    told = sgpa_jax.plan(clip, alignment=alignment, model=model, preset="authors")
    assert (told["estimator"], told["coalitions"], told["absence"]) == ("neyman_authors", 6, "delete")
    assert (told["engine"], told["response_tokens"]) == ("generation", 30)
    assert sgpa_jax.plan(clip, alignment=alignment, model=model, preset="paper")["absence"] == "silence"
    told = sgpa_jax.plan(clip, players="windows:2", model=model, value="tfidf", max_new_tokens=3)
    assert (told["engine"], told["response_tokens"], told["runs"]) == ("generation", 3, 1)
    assert told["shapes"] == ["4 prompts of 64 tokens"] and told["bytes_at_once"] > 2**16


def test_a_single_word_is_too_few_for_the_authors(model):
    clip = Clip(np.sin(np.arange(16_000, dtype=np.float32) / 7), 16_000)
    alone = Alignment((Word("one", 0.1, 0.9),), 1.0, "one", "x", "", "given", "none")
    with pytest.raises(BudgetError, match="single player"):
        sgpa_jax.explain(clip, alignment=alone, model=model, preset="authors")
