"""Prompts of coalitions whose absent players change the decoder's input alone: one encoding serves all of them.

Rows of a batch, coalitions of one game or of several, pick their tokens from one table; the order of these says who is
not there.
Axes: `B` rows of a batch, `C` coalitions of one game, `T` tokens, `S` rows of the table.
"""

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from sgpa_jax.audio import TOKEN_STEP, round_up
from sgpa_jax.games.flat import order_without
from sgpa_jax.games.prompts_heard import Place, first_tokens
from sgpa_jax.games.queues import Part
from sgpa_jax.games.tokens import speech_passage
from sgpa_jax.games.trie import scene_of
from sgpa_jax.models import Model, ModelInputs, Order, Placed, gathered, with_response
from sgpa_jax.players import NOBODY, Players


class EmbeddedPrompts:
    """One encoding of the whole clip, in which absent players are replaced, hidden or removed; see `prompts_of`."""

    length, matters_p = None, None
    kind = "embedded"

    def __init__(
        self, model: Model, inputs: ModelInputs, players: Players, absence: str, baseline: str, text_absence: str
    ) -> None:
        # A passage ends where its last target is predicted: with one target, at the prompt's end.
        start = inputs.response_start
        if start == len(inputs.ids_t):
            inputs = with_response(inputs, [0])
        passage = speech_passage(model, inputs, players, absence=absence, baseline=baseline, text_absence=text_absence)
        self.passage = replace(
            passage,
            x_td=passage.x_td[:start],
            owner_t=passage.owner_t[:start],
            targets_r=passage.targets_r[:1],
            baseline_td=None if passage.baseline_td is None else passage.baseline_td[:start],
        )
        self._model = model
        self.n_shared = int(np.argmax(passage.owner_t != NOBODY))
        self.shared = first_tokens(inputs, min(self.n_shared, int(np.argmax(inputs.clip_t >= 0))))

    @property
    def table(self) -> Any:
        """As of `HeardPrompts`."""
        return self.passage.x_td

    def n_tokens(self, masks_cp: Bool[np.ndarray, "C P"]) -> Int[np.ndarray, " C"]:
        """All of them, whoever is there."""
        return np.full(len(masks_cp), len(self.passage.owner_t))

    def __call__(self, masks_cp: Bool[Array, "C P"]) -> tuple[Placed, Order | None]:
        """Place the coalitions of a batch."""
        return self.together([self])([(0, np.asarray(gathered(masks_cp)))])

    def together(self, several: Sequence["EmbeddedPrompts"]) -> Place:
        """Return what places batches of several, by their numbers."""
        rows_sd = scene_of(*(prompts.passage for prompts in several)).rows_sd
        sizes = [len(own.owner_t) * (1 if own.baseline_td is None else 2) for own in (p.passage for p in several)]
        first_row, mesh = np.cumsum([0, *sizes]).tolist(), self._model.mesh

        def place(parts: Sequence[Part]) -> tuple[Placed, Order]:
            n_tokens = round_up(max(len(several[number].passage.owner_t) for number, _ in parts), TOKEN_STEP)
            columns = [several[number]._rows(masks_cp, first_row[number], n_tokens) for number, masks_cp in parts]
            rows: list[Any] = [np.concatenate(column) for column in zip(*columns, strict=True)]
            if mesh is not None:
                rows = jax.device_put(rows, NamedSharding(mesh, PartitionSpec("data")))
            n_b, index_bt, *order = rows
            return _look_up(rows_sd, n_b, index_bt, *order, self._model.config.decoder.n_before)

        return place

    def _rows(self, masks_cp: Bool[np.ndarray, "C P"], first_row: int, n_tokens: int) -> tuple[np.ndarray, ...]:
        """Tokens of each coalition, which rows they are, which run, and as `order_without` has it the others."""
        passage, n_own = self.passage, len(self.passage.owner_t)
        there_ct = np.append(masks_cp, np.ones((len(masks_cp), 1), bool), axis=1)[:, passage.owner_t]
        is_replaced_ct = ~there_ct & passage.absent_t("embedding")[None]
        closes_ct = ~there_ct & passage.absent_t("drop")[None]
        skipped_ct = closes_ct | (~there_ct & passage.absent_t("drop_keep")[None])
        index_ct = first_row + np.arange(n_own, dtype=np.int32)[None] + n_own * is_replaced_ct.astype(np.int32)
        spare = ((0, 0), (0, n_tokens - n_own))
        columns = (np.pad(own, spare) for own in (index_ct, there_ct | is_replaced_ct, skipped_ct, closes_ct))
        return np.full(len(masks_cp), n_own, np.int32), *columns


@functools.partial(jax.jit, static_argnums=6)
def _look_up(
    rows_sd: Float[Array, "S D"],
    n_b: Int[Array, " B"],
    index_bt: Int[Array, "B T"],
    runs_bt: Bool[Array, "B T"],
    skipped_bt: Bool[Array, "B T"],
    closes_bt: Bool[Array, "B T"],
    n_before: int,
) -> tuple[Placed, Order]:
    return Placed(rows_sd[index_bt], n_b), order_without(runs_bt, skipped_bt, closes_bt, n_before)
