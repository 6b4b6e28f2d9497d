"""Cheap games that resemble a dear one, to be explained exactly as its control variate.

Each plays the same players in the same way for less: for the first tokens of the response only, through the first
layers of the decoder only (what they alone would say, the head read early), or by another, smaller model.
"""

from collections.abc import Callable
from typing import Any

from sgpa_jax.errors import UsageError
from sgpa_jax.games.game import Game
from sgpa_jax.games.speech import speech_game
from sgpa_jax.models import Model, ModelInputs, first_layers, first_response_tokens
from sgpa_jax.players import Players

CONTROLS = ("tokens", "layers", "model")
"""`tokens:2`, `layers:3` or `model:NAME`."""


def control_game(
    control: str,
    model: Model,
    inputs: ModelInputs,
    players: Players,
    *,
    other: Callable[[str], tuple[Model, ModelInputs]],
    **options: Any,
) -> Game:
    """Build a game whose first output stands beside the first output of `speech_game` with the same options.

    Args:
        control: `tokens:N`, `layers:N` or `model:NAME`.
        model: the model of the dear game.
        inputs: its prompt, clip and response.
        players: its players.
        other: gives the model of that name, and what it is asked.
        options: of `speech_game`.

    Raises:
        UsageError: it is none of these, or not fewer tokens or layers than there are; or another model is to play with
            players that are text, whose tokens are not its own.
    """
    kind, _, given = control.partition(":")
    is_number = given.isascii() and given.isdigit()
    if kind not in CONTROLS or not given or (kind != "model" and not is_number):
        raise UsageError(f"the control is {control!r}: expected tokens:N, layers:N or model:NAME")
    if kind == "tokens":
        return speech_game(model, first_response_tokens(inputs, int(given)), players, **options)
    if kind == "layers":
        return speech_game(first_layers(model, int(given)), inputs, players, **options)
    if players.text:
        raise UsageError(f"the control {control} has tokens of its own: leave the text out, or choose tokens or layers")
    return speech_game(*other(given), players, **options)
