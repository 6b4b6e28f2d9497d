"""Games of several utterances in the same batches, as if each had been asked alone.

Which coalitions stand beside which depends on what the games share: the programs of the waveform engine
(`heard_together.py`), chunks of the trie engine (`tries_together.py`), or batches of answers (`answers_together.py`).
Other games are evaluated one after another.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from sgpa_jax.games.answers_together import evaluate_answers
from sgpa_jax.games.game import Game
from sgpa_jax.games.heard_together import evaluate_heard
from sgpa_jax.games.queues import Queued
from sgpa_jax.games.responses import ResponseGame
from sgpa_jax.games.speech import EmbeddedGame, HeardGame
from sgpa_jax.games.tries_together import evaluate_tries
from sgpa_jax.games.waveform import WaveformEngine
from sgpa_jax.typing import MaskCP

Way = Callable[[Sequence[Queued]], Iterator[int]]


def evaluate_together(
    games: Sequence[Game], masks: Sequence[MaskCP], *, progress: Callable[[int, int], None] | None = None
) -> None:
    """Evaluate coalitions of several games of one model; each game remembers its own, as if it had been asked alone.

    Args:
        games: of one model; those of `speech_game` share batches, and so do those of `response_game`.
        masks: the coalitions of each, bool[C, P].
        progress: called with (coalitions evaluated, coalitions to evaluate) after every batch.

    Raises:
        UsageError: masks of another shape, or values that are not finite.
    """
    asked = [Queued(game, game.unknown(_wanted(game, own))) for game, own in zip(games, masks, strict=True)]
    total, done = sum(len(masks_cp) for _, masks_cp in asked), 0
    ways: dict[Way, list[Queued]] = {}
    for queued in asked:
        if len(queued.masks_cp):
            ways.setdefault(_way(queued.game), []).append(queued)
    for way, waiting in ways.items():
        for n_rows in way(waiting):
            done += n_rows
            if progress is not None:
                progress(done, total)


def _wanted(game: Game, masks_cp: MaskCP) -> MaskCP:
    # Responses are compared with that of everybody.
    return np.concatenate([masks_cp, np.ones_like(masks_cp[:1])]) if isinstance(game, ResponseGame) else masks_cp


def _way(game: Game) -> Way:
    # Recordings in windows have an engine of their own.
    if isinstance(game, HeardGame) and type(game.engine) is WaveformEngine:
        return evaluate_heard
    if isinstance(game, EmbeddedGame):
        return evaluate_tries
    return evaluate_answers if isinstance(game, ResponseGame) else _one_by_one


def _one_by_one(waiting: Sequence[Queued]) -> Iterator[int]:
    for game, masks_cp in waiting:
        game.evaluate(masks_cp)
        yield len(masks_cp)
