"""Words or tokens of the user's text as players, alone or beside those of the recording.

The format's own markers, the system's and the assistant's turns belong to nobody and are always there. Words are what
whitespace separates: a token belongs to the last word that it spells a letter of, and where text is written without
spaces, tokens are the better players. Axes: `T` tokens.
"""

import itertools
import unicodedata
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int

from sgpa_jax.errors import PlayerError, UsageError, unknown_name
from sgpa_jax.players.player import Player, Players

if TYPE_CHECKING:
    from sgpa_jax.models import Model, ModelInputs

UNITS = ("words", "tokens")


def text_players(model: "Model", inputs: "ModelInputs", *, unit: str = "words", punctuation: bool = True) -> Players:
    """Return the words or the tokens of the user's text, in the order of the prompt.

    Args:
        model: whose tokenizer spelled the prompt.
        inputs: the prompt as `Model.prepare` laid it out, with or without a response.
        unit: `words` or `tokens`.
        punctuation: false leaves out the players that are made of punctuation alone: they are always there.

    Raises:
        PlayerError: the prompt holds no text of the user.
        UsageError: an unknown unit, or inputs of bare token ids, which tell no roles.
    """
    if unit not in UNITS:
        raise unknown_name("unit", unit, UNITS)
    if not inputs.roles or model.chat is None:
        raise UsageError("the prompt was given as token ids, which tell no roles: prepare it from messages")
    tokenizer = model.chat.tokenizer
    players = []
    for run in _runs(inputs):
        ids = inputs.ids_t[run].tolist()
        # Unknown words count as well, so nothing is skipped; half a character is no text before its other half.
        spelled = [tokenizer.decode(ids[: n + 1], skip_special_tokens=False).rstrip("\ufffd") for n in range(len(ids))]
        ends = np.maximum.accumulate([len(text) for text in spelled])
        starts = [0, *ends[:-1].tolist()]
        group = _word_of(spelled[-1], ends) if unit == "words" else np.arange(len(ids))
        for _, members in itertools.groupby(range(len(ids)), key=lambda n, group=group: group[n]):
            own = list(members)
            label = spelled[-1][starts[own[0]] : ends[own[-1]]].strip() or tokenizer.id_to_token(ids[own[0]]) or ""
            players.append(Player(label, "text", tokens=(int(run[own[0]]), int(run[own[-1]]) + 1)))
    if not punctuation:
        players = [player for player in players if not _is_punctuation(player.label)]
    if not players:
        raise PlayerError("the prompt holds no text of the user: ask in words, or take players of the recording alone")
    return Players(tuple(players), sum(len(clip.wave_s) for clip in inputs.clips), model.rate_hz)


def join_players(heard: Players, text: Players, inputs: "ModelInputs") -> Players:
    """Return both, in the order of the conversation: text before the audio, what is heard by time, text behind it.

    Raises:
        PlayerError: two of them overlap.
    """
    audio = int(np.argmax(inputs.clip_t >= 0))
    is_before = [player.tokens is not None and player.tokens[0] < audio for player in text]
    before, behind = (tuple(itertools.compress(text, chosen)) for chosen in (is_before, (not b for b in is_before)))
    return replace(heard, players=(*before, *heard.players, *behind))


def _runs(inputs: "ModelInputs") -> Iterator[Int[np.ndarray, " N"]]:
    """Yield the positions of text of the user that follow one another in a turn."""
    is_user_t = np.array([turn >= 0 and inputs.roles[turn] == "user" for turn in inputs.turn_t.tolist()])
    places = np.flatnonzero(inputs.is_content_t & is_user_t)
    if places.size:
        breaks = (np.diff(places) != 1) | (np.diff(inputs.turn_t[places]) != 0)
        yield from np.split(places, np.flatnonzero(breaks) + 1)


def _word_of(text: str, ends: Int[np.ndarray, " N"]) -> Int[np.ndarray, " N"]:
    """Number the words of a text, and return that of each token by where it ends; spaces belong to the word before."""
    begins = [i for i, letter in enumerate(text) if not letter.isspace() and (i == 0 or text[i - 1].isspace())]
    return np.maximum(np.searchsorted(begins, ends, side="left"), 1)


def _is_punctuation(label: str) -> bool:
    return all(unicodedata.category(letter).startswith("P") for letter in label)
