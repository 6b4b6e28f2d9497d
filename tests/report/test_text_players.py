"""Explanations whose players are text of the prompt, alone or beside the recording's: saved, told and shown."""

import itertools
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.patches import Rectangle

from sgpa_jax.errors import ExplanationError
from sgpa_jax.explain import Explanation
from sgpa_jax.players import Player
from sgpa_jax.report import draw_figure, page, plain_table
from sgpa_jax.report.facts import absence, facts, finding, player_name, span

WORDS = ("What", "colour", "should", "the", "lamp", "be?")
TEXT = tuple(Player(word, "text", tokens=(40 + i, 41 + i)) for i, word in enumerate(WORDS))
VALUES = np.array([0.1, 5.0, -0.3, 0.01, 1.2, 0.4])[:, None] * np.array([1.0, 0.9, 0.1])
GAME = {"value": "logprob", "readout": "response", "absence": "silence", "text_absence": "drop"}


@pytest.fixture(scope="module")
def mixed(exact_explanation: Explanation) -> Explanation:
    spoken = exact_explanation
    values = np.concatenate([VALUES[:2], spoken.values, VALUES[2:]])
    players = (*TEXT[:2], *spoken.players, *TEXT[2:])
    return replace(spoken, players=players, values=values, standard_errors=np.zeros_like(values), game=GAME)


@pytest.fixture(scope="module")
def text_alone(exact_explanation: Explanation) -> Explanation:
    return replace(exact_explanation, players=TEXT, values=VALUES, standard_errors=np.zeros_like(VALUES), game=GAME)


@pytest.fixture(params=["mixed", "text_alone"])
def either(request) -> Explanation:
    return request.getfixturevalue(request.param)


def embedded(html: str) -> dict:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def test_comes_back_from_its_file(either, tmp_path):
    x = either
    x.save(tmp_path / "x.json")
    assert Explanation.load(tmp_path / "x.json").players == x.players
    for player, record in zip(x.players, json.loads(x.to_json())["players"], strict=True):
        assert ("tokens" in record) == player.is_text == (record["start_s"] is None)


@pytest.mark.parametrize("kind", ["phrase", "window", "energy", "native"])
def test_every_kind_of_stretch_comes_back_and_is_drawn(exact_explanation, kind, tmp_path):
    x = exact_explanation
    x = replace(x, players=tuple(replace(player, kind=kind, label=str(i)) for i, player in enumerate(x.players)))
    x.save(tmp_path / "x.json")
    assert Explanation.load(tmp_path / "x.json").players == x.players
    assert len(embedded(page(x))["players"]) == len(x.players) and draw_figure(x).axes
    assert player_name(x, 3) == ("position 3" if kind == "native" else "3")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"tokens": [4, 4]}, "begins and ends"), ({"tokens": [1]}, "begins and ends"), ({"tokens": None}, "a list"),
        ({"start_s": 0.0}, "null"), ({"kind": "word"}, "number"), ({"kind": "picture"}, "native or text"),
    ],
)  # fmt: skip
def test_damaged_text_is_refused(mixed, change, says, tmp_path):
    record = json.loads(mixed.to_json())
    record["players"][0] |= change
    (tmp_path / "x.json").write_text(json.dumps(record))
    with pytest.raises(ExplanationError, match=says):
        Explanation.load(tmp_path / "x.json")


def test_text_is_told_apart_from_what_is_heard(exact_explanation, mixed, text_alone):
    x = mixed
    assert (player_name(x, 1), span(x, 1)) == ("✎ colour", "in the prompt")
    assert (player_name(x, 2), span(x, 2)) == ("make", "0.12–0.38 s")
    assert finding(x).startswith("“✎ colour” did most")
    assert absence(x).startswith("Silence. ") and "Text: drop. It is taken out of the prompt" in absence(x)
    assert absence(text_alone).startswith("Drop. ") and "come in" in facts(x)[0][1]
    lines = plain_table(x).splitlines()
    assert any(re.match(r"✎ colour +in the prompt +\+5\.00", line) for line in lines)
    assert any(line.startswith("player ") for line in lines)
    assert not any("player " in line[:7] for line in plain_table(exact_explanation).splitlines())
    nothing = replace(text_alone, values=-np.abs(VALUES))
    assert finding(nothing) == "Nothing among the players made the answer likelier."


def test_the_page_lists_text_beside_the_transcript(exact_explanation, mixed, text_alone):
    x = mixed
    players = embedded(page(x))["players"]
    assert [player["chip"] for player in players if player["text"]] == list(WORDS)
    for player in players:
        assert ("first" in player) == (not player["text"]) == (player["start_s"] is not None)
    assert "Click a spoken word" in page(x) and "Click a" not in page(text_alone)
    assert "Click a word" in page(exact_explanation)


def test_the_picture_sets_text_apart_from_the_recording(either):
    figure = draw_figure(either)
    apart = figure.axes[-1]
    assert [text.get_text() for text in apart.texts[::2]] == list(WORDS)
    assert apart.texts[3].get_text() == "+5.00"
    # Nothing overlaps or runs out of the page.
    chips = sorted((chip.get_x(), chip.get_x() + chip.get_width()) for chip in _chips(apart))
    assert all(end < start for (_, end), (start, _) in itertools.pairwise(chips))
    assert chips[0][0] >= 0 and chips[-1][1] <= apart.get_xlim()[1]
    heights = [ax.get_position() for ax in figure.axes]
    assert all(0 <= box.y0 < box.y1 <= 1 for box in heights)
    many = replace(either, players=tuple(replace(p, label=p.label * 9) for p in either.players))
    assert len({chip.get_y() for chip in _chips(draw_figure(many).axes[-1])}) > 1


def _chips(ax) -> list[Rectangle]:
    return [patch for patch in ax.patches if isinstance(patch, Rectangle)]
