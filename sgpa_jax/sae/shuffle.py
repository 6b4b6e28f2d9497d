"""Rows of a harvest in random order, from a buffer of a few shards, with one number that says how far one has come.

An epoch draws the order of the shards, takes as many at a time as the buffer has room for, and draws the order of all
their rows. Every draw is keyed by epoch and buffer, so that the cursor, the number of rows taken so far, finds its
place again without what came before. Batches run over the edges of buffers and epochs. Axes: `B` rows, `D` width.
"""

import numpy as np
from jaxtyping import Float

from sgpa_jax.errors import UsageError
from sgpa_jax.sae.store import ActivationStore


class ShuffledRows:
    """The rows of a layer, batch after batch, for ever; `cursor` may be set to any number of rows taken."""

    def __init__(self, store: ActivationStore, layer: int, *, batch: int, seed: int, buffer_shards: int = 16):
        """Begin at the first row; `buffer_shards` shards of one layer are in memory at once.

        Raises:
            UsageError: the layer was not harvested, or there are no rows.
        """
        store.check_layer(layer)
        if store.n_rows == 0:
            raise UsageError(f"{store.folder} holds no rows; harvest clips that can be heard")
        self.cursor = 0
        self._store, self._layer, self._batch, self._seed, self._room = store, layer, batch, seed, buffer_shards
        self._held: tuple[tuple[int, int], np.ndarray] | None = None

    def next(self) -> Float[np.ndarray, "B D"]:
        """The next batch, in the dtype that the rows are kept in."""
        parts, missing = [], self._batch
        while missing:
            rows_nd = self._from_cursor()[:missing]
            parts.append(rows_nd)
            missing -= len(rows_nd)
            self.cursor += len(rows_nd)
        return np.concatenate(parts)

    def _from_cursor(self) -> np.ndarray:
        """What is left of the buffer that the cursor lies in."""
        epoch, at = divmod(self.cursor, self._store.n_rows)
        order = self._draw(epoch, 0).permutation(len(self._store.rows_in_shard))
        for buffer, first in enumerate(range(0, len(order), self._room)):
            shards = order[first : first + self._room]
            n_rows = sum(self._store.rows_in_shard[shard] for shard in shards)
            if at < n_rows:
                return self._buffer(epoch, buffer, shards)[at:]
            at -= n_rows
        raise AssertionError("a cursor within an epoch lies in one of its buffers")

    def _buffer(self, epoch: int, buffer: int, shards: np.ndarray) -> np.ndarray:
        if self._held is None or self._held[0] != (epoch, buffer):
            self._held = None
            rows_nd = np.concatenate([self._store.rows(int(shard), self._layer) for shard in shards])
            # Taken in the drawn order, not shuffled in place: rows of no native dtype are slow to swap.
            self._held = (epoch, buffer), rows_nd[self._draw(epoch, 1 + buffer).permutation(len(rows_nd))]
        return self._held[1]

    def _draw(self, epoch: int, what: int) -> np.random.Generator:
        return np.random.default_rng((self._seed, epoch, what))
