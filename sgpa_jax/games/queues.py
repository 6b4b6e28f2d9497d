"""What waits to be evaluated beside others: games of a bundle, and coalitions that they do not know yet."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool

TABLE_BYTES, MOST_GAMES = 2**26, 64
"""What the tables of a queue's games may take on the device, and how many games it has at most."""


Part = tuple[int, Bool[np.ndarray, "C P"]]
"""The number of a game, and some of its coalitions."""


class Queued(NamedTuple):
    """A game, and different coalitions of its players, at least one; the game is to remember what they are worth."""

    game: Any
    masks_cp: Bool[np.ndarray, "C P"]


def fitting(waiting: Sequence[Queued], table_of: Callable[[Any], Any]) -> Iterator[list[Queued]]:
    """Cut a queue where its games, or the rows of numbers that they pick from (None: no rows), would be too many."""
    queue: list[Queued] = []
    n_bytes = 0
    for queued in waiting:
        table = table_of(queued.game)
        own_bytes = 0 if table is None else 4 * table.shape[0] * table.shape[1]
        if queue and (len(queue) == MOST_GAMES or n_bytes + own_bytes > TABLE_BYTES):
            yield queue
            queue, n_bytes = [], 0
        queue.append(queued)
        n_bytes += own_bytes
    yield queue
