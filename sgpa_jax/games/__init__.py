"""Games: what a coalition of players is worth, evaluated in batches and counted at the model."""

from typing import TYPE_CHECKING, Any

from sgpa_jax.games.game import Evaluations, Game

if TYPE_CHECKING:
    from sgpa_jax.games.speech import check_names, speech_game

__all__ = ["Evaluations", "Game", "check_names", "speech_game"]


def __getattr__(name: str) -> Any:
    # The game of a spoken question brings the networks along; a game around somebody else's model does without them.
    if name in ("check_names", "speech_game"):
        from sgpa_jax.games import speech

        return getattr(speech, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
