"""Prompts of coalitions whose absent players change what is heard: rendered, encoded, and put in their places.

The tokens behind shorter audio close up; text may be absent beside what is heard, and the order of the tokens says so.
A batch holds coalitions of one game or of several, those of each side by side.
Axes: `B` rows of a batch, `C` coalitions of one game, `T` tokens, `A` audio positions.
"""

import functools
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Int

from sgpa_jax.audio import TOKEN_STEP, round_up
from sgpa_jax.games.flat import order_without
from sgpa_jax.games.hearing import Hearing, JointHearing, Picked, Rendered
from sgpa_jax.games.queues import Part
from sgpa_jax.games.tokens import neutral_token, text_owners
from sgpa_jax.models import AudioLM, Layout, Model, ModelInputs, Order, Placed, gathered, layout_row
from sgpa_jax.players import NOBODY, Players

Place = Callable[[Sequence[Part]], tuple[Placed, Order | None]]
"""What places the rows of a batch, and tells the order of their tokens; None: as they stand."""


class HeardPrompts:
    """Recordings rendered, heard and placed, in a shape that the longest of them fits in; as `prompts_of` tells.

    No coalition of the `hearing` is longer than the one recording in `inputs`.
    """

    def __init__(
        self, model: Model, inputs: ModelInputs, players: Players, hearing: Hearing, text_absence: str = "attention"
    ) -> None:
        self._model, self._heard, self.hearing = model, list(players.heard), hearing
        is_replaced = bool(players.text) and text_absence == "replace"
        self._neutral = neutral_token(model)[0] if is_replaced else None
        self._text_absence = text_absence if players.text and not is_replaced else None
        self.matters_p = np.ones(len(players), bool)
        self.matters_p[self._heard] = hearing.is_audible_p
        n_tokens = inputs.response_start
        spare = round_up(n_tokens, TOKEN_STEP) - n_tokens
        is_text, owner = inputs.clip_t[:n_tokens] < 0, text_owners(inputs, players)[:n_tokens]
        self._n_before_audio, self._n_text = int(np.argmin(is_text)), int(is_text.sum())
        self._n_audio = n_tokens - self._n_text
        self.n_shared = min(self._n_before_audio, int(np.argmax(np.append(owner != NOBODY, True))))
        self.shared = first_tokens(inputs, self.n_shared)
        # The format's own end of the prompt and what pads it are always there.
        owner = np.pad(owner, (0, n_tokens + spare - len(owner)), constant_values=NOBODY)
        self._owner_t = np.where(owner == NOBODY, len(players), owner)
        self._layout = jax.tree.map(
            lambda row_1t: np.pad(row_1t[:, :n_tokens], ((0, 0), (0, spare), *((0, 0),) * (row_1t.ndim - 2))),
            layout_row(inputs, len(inputs.ids_t)),
        )

    @property
    def table(self) -> Any | None:
        """What rows of a batch pick from, of two axes; None: nothing."""
        return self.hearing.table_nm

    @property
    def kind(self) -> Hashable:
        """What is the same in all rows of a batch."""
        return self.hearing.is_settled, self.hearing.table_nm is None, self._text_absence

    def length(self, masks_cp: Bool[np.ndarray, "C P"]) -> Int[np.ndarray, " C"]:
        """Mel frames."""
        return self.hearing.n_frames(masks_cp[:, self._heard])

    def n_tokens(self, masks_cp: Bool[np.ndarray, "C P"]) -> Int[np.ndarray, " C"]:
        """Text and what is left of the audio."""
        n_frames_c = self.length(masks_cp).tolist()
        n_audio_of = {n_frames: int(self._model.config.encoder.n_tokens(n_frames)) for n_frames in {*n_frames_c}}
        return self._n_text + np.array([n_audio_of[n_frames] for n_frames in n_frames_c], np.int32)

    def __call__(self, masks_cp: Bool[Array, "C P"]) -> tuple[Placed, Order | None]:
        """Place the coalitions of a batch."""
        return self._placing([self], lambda heard, n_frames: self.hearing.hear(heard[0][1], n_frames))(
            [(0, np.asarray(gathered(masks_cp)))]
        )

    def together(self, several: Sequence["HeardPrompts"]) -> Place:
        """Return what places batches of several of this kind, by their numbers."""
        return self._placing(several, JointHearing([prompts.hearing for prompts in several]).hear)

    def _placing(
        self, several: Sequence["HeardPrompts"], hear: Callable[[Sequence[Part], int], Picked | Rendered]
    ) -> Place:
        def place(parts: Sequence[Part]) -> tuple[Placed, Order | None]:
            rows = [several[number]._rows(masks_cp) for number, masks_cp in parts]
            heard = [(number, masks_cp[:, several[number]._heard]) for number, masks_cp in parts]
            n_frames = max(
                several[number].hearing.bucket(int(own.n_frames_b.max()))
                for (number, _), own in zip(parts, rows, strict=True)
            )
            return self._placed(_Rows.joined(rows), hear(heard, n_frames))

        return place

    def _rows(self, masks_cp: Bool[np.ndarray, "C P"]) -> "_Rows":
        size, there_ct = len(masks_cp), np.append(masks_cp, np.ones((len(masks_cp), 1), bool), axis=1)[:, self._owner_t]
        layout: Layout = jax.tree.map(lambda row_1t: np.repeat(row_1t, size, axis=0), self._layout)
        if self._neutral is not None:
            layout = layout._replace(ids_bt=np.where(there_ct, layout.ids_bt, np.int32(self._neutral)))
        n_frames_c, n_audio_c = self.length(masks_cp).astype(np.int32), self.n_tokens(masks_cp) - self._n_text
        before_c = np.full(size, self._n_before_audio)
        return _Rows(layout, there_ct, n_frames_c, before_c, n_audio_c, self._n_audio - n_audio_c)

    def _placed(self, rows: "_Rows", heard: Picked | Rendered) -> tuple[Placed, Order | None]:
        n_tokens_b = rows.layout.exists_bt.sum(axis=1) - rows.n_closed_b
        n_tokens, lengths, mesh = round_up(int(n_tokens_b.max()), TOKEN_STEP), rows.n_frames_b, self._model.mesh
        if mesh is not None:
            everywhere, spread = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("data"))
            kind, shared = (Picked, everywhere) if isinstance(heard, Picked) else (Rendered, spread)
            heard = kind(jax.device_put(heard[0], shared), jax.device_put(heard[1], spread))
            lengths = jax.device_put(lengths, spread)
        placed = _place(
            self._model.graphdef, self._model.state, rows.layout, heard, lengths, n_tokens=n_tokens,
            is_settled=self.hearing.is_settled,
        )  # fmt: skip
        if self._text_absence is None:
            return placed, None
        return placed, self._order(placed, rows)

    def _order(self, placed: Placed, rows: "_Rows") -> Order:
        """Say who of the text is not there; it closed up behind the audio, which may be shorter than the layout's."""
        token_1t, n_layout = np.arange(placed.x.shape[1])[None], rows.there_bt.shape[1]
        before_b1, n_audio_b1, n_closed_b1 = (n_b[:, None] for n_b in (rows.before_b, rows.n_audio_b, rows.n_closed_b))
        is_audio_bt = (token_1t >= before_b1) & (token_1t < before_b1 + n_audio_b1)
        column_bt = np.where(token_1t < before_b1, token_1t, token_1t + n_closed_b1)
        there_bt = np.take_along_axis(rows.there_bt, column_bt.clip(0, n_layout - 1), axis=1)
        gone_bt = placed.exists_bt & jnp.asarray(~(is_audio_bt | there_bt))
        return order_without(
            placed.exists_bt & ~gone_bt, gone_bt & (self._text_absence != "attention"),
            gone_bt & (self._text_absence == "drop"), self._model.config.decoder.n_before,
        )  # fmt: skip


class _Rows(NamedTuple):
    """Rows of prompts: their layouts with all of the audio, and what of it there is.

    Attributes:
        layout: with B rows.
        there_bt: which tokens of the layout have players that are there, or none.
        n_frames_b: mel frames.
        before_b: tokens before the audio.
        n_audio_b: audio positions; `n_closed_b` less than in the layout.
    """

    layout: Layout
    there_bt: Bool[np.ndarray, "B T"]
    n_frames_b: Int[np.ndarray, " B"]
    before_b: Int[np.ndarray, " B"]
    n_audio_b: Int[np.ndarray, " B"]
    n_closed_b: Int[np.ndarray, " B"]

    @classmethod
    def joined(cls, several: "Sequence[_Rows]") -> "_Rows":
        """Rows one behind another, the layouts as long as the longest."""
        size = max(rows.there_bt.shape[1] for rows in several)

        def join(*parts: np.ndarray) -> np.ndarray:
            if parts[0].ndim == 1:
                return np.concatenate(parts)
            rest = ((0, 0),) * (parts[0].ndim - 2)
            return np.concatenate([np.pad(part, ((0, 0), (0, size - part.shape[1]), *rest)) for part in parts])

        return jax.tree.map(join, *several)


def first_tokens(inputs: ModelInputs, n_tokens: int) -> list[list[int]]:
    """What a prompt's first tokens are made of, all of them text or codes."""
    layout = layout_row(inputs, len(inputs.ids_t))
    codes = [] if layout.codes_btk is None else [layout.codes_btk[0]]
    return np.column_stack([layout.ids_bt[0], *codes])[:n_tokens].tolist()


@functools.partial(jax.jit, static_argnums=0, static_argnames=("n_tokens", "is_settled"))
def _place(
    graphdef: nnx.GraphDef,
    state: nnx.State,
    layout: Layout,
    heard: Picked | Rendered,
    n_frames_c: Int[Array, " C"],
    *,
    n_tokens: int,
    is_settled: bool,
) -> Placed:
    model: AudioLM = nnx.merge(graphdef, state)
    front_end, n_rows = model.config.front_end, len(n_frames_c)
    frames = heard.frames(front_end)
    mel = frames if is_settled else front_end.settle(frames, n_frames_c)
    audio_cad, n_audio_c = model.encode(mel, n_frames_c), model.config.encoder.n_tokens(n_frames_c)
    rows = jax.tree.map(lambda row_1t: jnp.broadcast_to(row_1t, (n_rows, *row_1t.shape[1:])), layout)
    placed = model.place(rows, audio_cad[:, None], n_audio_c[:, None])
    return Placed(placed.x[:, :n_tokens], placed.n_b)
