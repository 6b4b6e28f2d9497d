"""Games of what a model says, of several utterances, in the same batches: prompts of about one length, whoever's.

Every row of a batch is a prompt of its own length, and what begins all of them is read once.
"""

from collections.abc import Hashable, Iterator, Sequence
from itertools import takewhile

import numpy as np
from jaxtyping import Int

from sgpa_jax.audio import round_up
from sgpa_jax.games.queues import Queued, fitting
from sgpa_jax.games.responses import answered, answers_at_once
from sgpa_jax.models import Model


def evaluate_answers(waiting: Sequence[Queued]) -> Iterator[int]:
    """Answer coalitions of games of responses; yield how many were answered after every batch."""
    queues: dict[Hashable, list[Queued]] = {}
    for queued in waiting:
        game = queued.game
        queues.setdefault((game.prompts.kind, game.max_new_tokens, game.mode), []).append(queued)
    for alike in queues.values():
        for queue in fitting(alike, lambda game: game.prompts.table):
            yield from _answered(queue)


def batches_of_answers(
    model: Model, n_tokens_c: Int[np.ndarray, " C"], game_c: Int[np.ndarray, " C"]
) -> tuple[int, list[Int[np.ndarray, " B"]]]:
    """Return the rows of a batch, and which coalitions of a queue are in each: of about one length."""
    n_devices = 1 if model.mesh is None else model.mesh.shape["data"]
    size = min(answers_at_once(model), round_up(1 << (len(n_tokens_c) - 1).bit_length(), n_devices))
    order_c = np.lexsort((game_c, n_tokens_c))
    return size, [order_c[start : start + size] for start in range(0, len(order_c), size)]


def _answered(queue: Sequence[Queued]) -> Iterator[int]:
    first, several = queue[0].game, [game.prompts for game, _ in queue]
    place, shared = several[0].together(several), zip(*(prompts.shared for prompts in several), strict=False)
    n_shared = len([*takewhile(lambda tokens: all(token == tokens[0] for token in tokens), shared)])
    game_c = np.repeat(np.arange(len(queue)), [len(masks_cp) for _, masks_cp in queue])
    masks_c = [mask for _, masks_cp in queue for mask in masks_cp]
    n_tokens_c = np.concatenate([game.prompts.n_tokens(masks_cp) for game, masks_cp in queue])
    size, batches = batches_of_answers(first.model, n_tokens_c, game_c)
    said, forwards_n = {}, np.zeros(len(queue), np.int64)
    for alike in batches:
        rows = alike[np.argsort(game_c[alike], kind="stable")]
        padded = np.pad(rows, (0, size - len(rows)), mode="edge")
        numbers = np.unique(game_c[padded]).tolist()
        parts = [(n, np.stack([masks_c[row] for row in padded[game_c[padded] == n]])) for n in numbers]
        placed, order = place(parts)
        answers = answered(first.model, placed, order, n_shared, max_new_tokens=first.max_new_tokens, mode=first.mode)
        said |= zip(rows.tolist(), answers, strict=False)
        forwards_n += np.bincount(game_c[padded], minlength=len(queue))
        yield len(rows)
    for number, (game, masks_cp) in enumerate(queue):
        outputs = [said[row] for row in np.flatnonzero(game_c == number).tolist()]
        game.remember(masks_cp, outputs, model_forwards=int(forwards_n[number]))
