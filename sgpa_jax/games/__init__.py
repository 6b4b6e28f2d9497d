"""Games: what a coalition of players is worth, evaluated in batches and counted at the model."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sgpa_jax.games.game import Evaluations, Game, Reference, Score

if TYPE_CHECKING:
    from sgpa_jax.games.authors import AUTHORS_GAME, authors_game
    from sgpa_jax.games.controls import CONTROLS, control_game
    from sgpa_jax.games.cost import answers_cost, response_cost, speech_cost, tries_cost
    from sgpa_jax.games.flat import evaluate_flat
    from sgpa_jax.games.hearing import frames_of_everybody
    from sgpa_jax.games.passage import TOKEN_ABSENCES, Passage
    from sgpa_jax.games.readout import Readout
    from sgpa_jax.games.responses import RESPONSE_SCORES, response_game
    from sgpa_jax.games.speech import ABSENCES, VALUES, HeardGame, engine_of, speech_game
    from sgpa_jax.games.together import evaluate_together
    from sgpa_jax.games.tokens import TEXT_ABSENCES, native_players, neutral_token, speech_passage
    from sgpa_jax.games.trie import coalition_values, evaluate_coalitions, plan_for, scene_of
    from sgpa_jax.games.waveform import coalition_bytes, coalitions_at_once
    from sgpa_jax.games.windows import prepare_windows
    from sgpa_jax.models import Decoder

__all__ = [
    "ABSENCES",
    "AUTHORS_GAME",
    "CONTROLS",
    "RESPONSE_SCORES",
    "TEXT_ABSENCES",
    "TOKEN_ABSENCES",
    "VALUES",
    "Decoder",
    "Evaluations",
    "Game",
    "HeardGame",
    "Passage",
    "Readout",
    "Reference",
    "Score",
    "answers_cost",
    "authors_game",
    "coalition_bytes",
    "coalition_values",
    "coalitions_at_once",
    "control_game",
    "engine_of",
    "evaluate_coalitions",
    "evaluate_flat",
    "evaluate_together",
    "frames_of_everybody",
    "native_players",
    "neutral_token",
    "plan_for",
    "prepare_windows",
    "response_cost",
    "response_game",
    "scene_of",
    "speech_cost",
    "speech_game",
    "speech_passage",
    "tries_cost",
]

# The engines bring the networks along; a game around somebody else's model does without them.
_HOMES = {
    "ABSENCES": "sgpa_jax.games.speech",
    "AUTHORS_GAME": "sgpa_jax.games.authors",
    "CONTROLS": "sgpa_jax.games.controls",
    "Decoder": "sgpa_jax.models",
    "HeardGame": "sgpa_jax.games.speech",
    "Passage": "sgpa_jax.games.passage",
    "RESPONSE_SCORES": "sgpa_jax.games.responses",
    "Readout": "sgpa_jax.games.readout",
    "TEXT_ABSENCES": "sgpa_jax.games.tokens",
    "TOKEN_ABSENCES": "sgpa_jax.games.passage",
    "VALUES": "sgpa_jax.games.speech",
    "answers_cost": "sgpa_jax.games.cost",
    "authors_game": "sgpa_jax.games.authors",
    "coalition_bytes": "sgpa_jax.games.waveform",
    "coalitions_at_once": "sgpa_jax.games.waveform",
    "frames_of_everybody": "sgpa_jax.games.hearing",
    "coalition_values": "sgpa_jax.games.trie",
    "control_game": "sgpa_jax.games.controls",
    "engine_of": "sgpa_jax.games.speech",
    "evaluate_coalitions": "sgpa_jax.games.trie",
    "evaluate_flat": "sgpa_jax.games.flat",
    "evaluate_together": "sgpa_jax.games.together",
    "native_players": "sgpa_jax.games.tokens",
    "neutral_token": "sgpa_jax.games.tokens",
    "plan_for": "sgpa_jax.games.trie",
    "prepare_windows": "sgpa_jax.games.windows",
    "response_cost": "sgpa_jax.games.cost",
    "response_game": "sgpa_jax.games.responses",
    "scene_of": "sgpa_jax.games.trie",
    "speech_cost": "sgpa_jax.games.cost",
    "speech_game": "sgpa_jax.games.speech",
    "speech_passage": "sgpa_jax.games.tokens",
    "tries_cost": "sgpa_jax.games.cost",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
