"""What a decoder is given for coalitions that it is to answer: the prompts of a batch, whatever the absence.

Absences of the waveform are rendered and heard (`hearing.py`), and the tokens behind shorter audio close up. Those of
the decoder's input share one encoding (`tokens.py`); their order says who is not there (`flat.py`), which text may be
under either.
Axes: `C` coalitions, `P` players, `T` tokens, `A` audio positions.
"""

import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Int

from sgpa_jax.audio import TOKEN_STEP, round_up
from sgpa_jax.errors import UsageError, unknown_name
from sgpa_jax.games.flat import order_of, order_without
from sgpa_jax.games.hearing import HEARD_ABSENCES, Hearing, Picked, Rendered, hearing_of
from sgpa_jax.games.passage import TOKEN_ABSENCES
from sgpa_jax.games.tokens import absences_of, neutral_token, speech_passage, text_owners
from sgpa_jax.models import AudioLM, Layout, Model, ModelInputs, Order, Placed, gathered, layout_row, with_response
from sgpa_jax.players import NOBODY, Players


def prompts_of(
    model: Model, inputs: ModelInputs, players: Players, *, absence: str, baseline: str, text_absence: str
) -> "HeardPrompts | _Embedded":
    """Return what maps coalitions of the players of the prompt in `inputs` to prompts, without a response.

    It maps bool[C, P] to a `Placed` and the `Order` of its tokens (None: as they stand), and tells `n_shared`, how many
    tokens stand before all that depends on the coalition, `length`, by which coalitions are best sorted (None: all are
    alike), and `matters_p`, whose presence changes anything (None: everybody's).

    Raises:
        UsageError: an unknown name, or an absence that the model does not offer.
        PlayerError: as `speech_passage`.
    """
    if absence not in (*HEARD_ABSENCES, *TOKEN_ABSENCES):
        raise unknown_name("absence", absence, (*HEARD_ABSENCES, *TOKEN_ABSENCES))
    absences_of(players, absence, text_absence)
    if absence in HEARD_ABSENCES and players.heard:
        if inputs.starts_s:
            raise UsageError(
                f"answers to a recording in windows are not compared under the absence {absence!r}: choose one of "
                f"{', '.join(TOKEN_ABSENCES)}, or explain the log-probability"
            )
        heard = replace(players, players=tuple(players[index] for index in players.heard))
        return HeardPrompts(model, inputs, players, hearing_of(model, inputs.clips[0], heard, absence), text_absence)
    return _Embedded(model, inputs, players, absence, baseline, text_absence)


class HeardPrompts:
    """Recordings rendered, heard and placed, in a shape that the longest of them fits in; as `prompts_of` tells.

    No coalition of the `hearing` is longer than the one recording in `inputs`.
    """

    def __init__(
        self, model: Model, inputs: ModelInputs, players: Players, hearing: Hearing, text_absence: str = "attention"
    ) -> None:
        self._model, self._heard, self._hearing = model, list(players.heard), hearing
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
        # The format's own end of the prompt and what pads it are always there.
        owner = np.pad(owner, (0, n_tokens + spare - len(owner)), constant_values=NOBODY)
        self._owner_t = np.where(owner == NOBODY, len(players), owner)
        self._layout = jax.tree.map(
            lambda row_1t: np.pad(row_1t[:, :n_tokens], ((0, 0), (0, spare), *((0, 0),) * (row_1t.ndim - 2))),
            layout_row(inputs, len(inputs.ids_t)),
        )

    def length(self, masks_cp: Bool[np.ndarray, "C P"]) -> Int[np.ndarray, " C"]:
        """Mel frames."""
        return self._hearing.n_frames(masks_cp[:, self._heard])

    def __call__(self, masks_cp: Bool[Array, "C P"]) -> tuple[Placed, Order | None]:
        """Place the coalitions of a batch."""
        masks, encoder, mesh = np.asarray(gathered(masks_cp)), self._model.config.encoder, self._model.mesh
        n_frames_c = self.length(masks)
        n_frames = self._hearing.bucket(int(n_frames_c.max()))
        n_tokens = round_up(self._n_text + encoder.n_tokens(int(n_frames_c.max())), TOKEN_STEP)
        heard, lengths = self._hearing.hear(masks[:, self._heard], n_frames), n_frames_c.astype(np.int32)
        there_ct = np.append(masks, np.ones((len(masks), 1), bool), axis=1)[:, self._owner_t]
        layout = self._layout
        if self._neutral is not None:
            layout = layout._replace(ids_bt=np.where(there_ct, layout.ids_bt, np.int32(self._neutral)))
        if mesh is not None:
            everywhere, spread = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("data"))
            kind, shared = (Picked, everywhere) if isinstance(heard, Picked) else (Rendered, spread)
            heard = kind(jax.device_put(heard[0], shared), jax.device_put(heard[1], spread))
            lengths = jax.device_put(lengths, spread)
        placed = _place(
            self._model.graphdef, self._model.state, layout, heard, lengths, n_tokens=n_tokens,
            is_settled=self._hearing.is_settled,
        )  # fmt: skip
        if self._text_absence is None:
            return placed, None
        return placed, self._order(placed, jnp.asarray(there_ct), encoder.n_tokens(jnp.asarray(lengths))[:, None])

    def _order(self, placed: Placed, there_ct: Bool[Array, "C T"], n_audio_c1: Int[Array, "C 1"]) -> Order:
        """Say who of the text is not there; it closed up behind the audio, which may be shorter than the layout's."""
        token_1t, n_layout = jnp.arange(placed.x.shape[1])[None], there_ct.shape[1]
        is_audio_ct = (token_1t >= self._n_before_audio) & (token_1t < self._n_before_audio + n_audio_c1)
        n_closed_c1 = self._n_audio - n_audio_c1
        column_ct = jnp.where(token_1t < self._n_before_audio, token_1t, token_1t + n_closed_c1)
        there_ct = jnp.take_along_axis(there_ct, jnp.clip(column_ct, 0, n_layout - 1), axis=1)
        gone_ct = placed.exists_bt & ~(is_audio_ct | there_ct)
        return order_without(
            placed.exists_bt & ~gone_ct, gone_ct & (self._text_absence != "attention"),
            gone_ct & (self._text_absence == "drop"), self._model.config.decoder.n_before,
        )  # fmt: skip


class _Embedded:
    """One encoding of the whole clip, in which absent players are replaced, hidden or removed."""

    length, matters_p = None, None

    def __init__(
        self, model: Model, inputs: ModelInputs, players: Players, absence: str, baseline: str, text_absence: str
    ) -> None:
        # A passage ends where its last target is predicted: with one target, at the prompt's end.
        start = inputs.response_start
        if start == len(inputs.ids_t):
            inputs = with_response(inputs, [0])
        passage = speech_passage(model, inputs, players, absence=absence, baseline=baseline, text_absence=text_absence)
        spare = round_up(start, TOKEN_STEP) - start
        x_td, *baseline_td = (
            jnp.pad(rows[:start], ((0, spare), (0, 0)))
            for rows in (passage.x_td, passage.baseline_td)
            if rows is not None
        )
        self._passage = replace(
            passage,
            x_td=x_td,
            owner_t=np.pad(passage.owner_t[:start], (0, spare), constant_values=NOBODY),
            targets_r=passage.targets_r[:1],
            baseline_td=baseline_td[0] if baseline_td else None,
        )
        self._n_tokens = start
        self._n_before = model.config.decoder.n_before
        self.n_shared = int(np.argmax(passage.owner_t != NOBODY))

    def __call__(self, masks_cp: Bool[Array, "C P"]) -> tuple[Placed, Order]:
        passage = self._passage
        there_ct = jnp.pad(jnp.asarray(masks_cp), ((0, 0), (0, 1)), constant_values=True)[:, passage.owner_t]
        replaced_t = passage.absent_t("embedding")
        x_ctd = jnp.broadcast_to(passage.x_td[None], (*there_ct.shape, passage.x_td.shape[1]))
        if passage.baseline_td is not None:
            x_ctd = jnp.where((there_ct | ~replaced_t[None])[:, :, None], x_ctd, passage.baseline_td[None])
        runs_ct = (there_ct | replaced_t[None]) & (jnp.arange(there_ct.shape[1]) < self._n_tokens)[None]
        order = order_of(passage, runs_ct, self._n_before)
        return Placed(x_ctd, jnp.full(len(x_ctd), self._n_tokens, jnp.int32)), order


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
