"""What a decoder is given for coalitions that it is to answer: the prompts of a batch, whatever the absence.

Absences of the waveform are rendered and heard (`hearing.py`), and the tokens behind shorter audio close up. Those of
the decoder's input share one encoding (`tokens.py`); their order says who is not there (`flat.py`).
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
from sgpa_jax.games.flat import order_of
from sgpa_jax.games.hearing import Picked, Rendered, hearing_of
from sgpa_jax.games.passage import TOKEN_ABSENCES
from sgpa_jax.games.tokens import speech_passage
from sgpa_jax.models import AudioLM, Layout, Model, ModelInputs, Order, Placed, layout_row, with_response
from sgpa_jax.players import NOBODY, Players


def prompts_of(
    model: Model, inputs: ModelInputs, players: Players, *, absence: str, baseline: str
) -> "_Heard | _Embedded":
    """Return what maps coalitions of the players of the one clip in `inputs` to prompts, without a response.

    It maps bool[C, P] to a `Placed` and the `Order` of its tokens (None: as they stand), and tells `n_shared`, how many
    tokens stand before all that depends on the coalition, `length`, by which coalitions are best sorted (None: all are
    alike), and `matters_p`, whose presence changes anything (None: everybody's).

    Raises:
        UsageError: an unknown name, or an absence that the model does not offer.
    """
    if absence in TOKEN_ABSENCES:
        return _Embedded(model, inputs, players, absence, baseline)
    return _Heard(model, inputs, players, absence)


class _Heard:
    """Recordings rendered, heard and placed, in a shape that the longest of them fits in."""

    def __init__(self, model: Model, inputs: ModelInputs, players: Players, absence: str) -> None:
        self._model, self._hearing = model, hearing_of(model, inputs.clips[0], players, absence)
        self.length, self.matters_p = self._hearing.n_frames, self._hearing.is_audible_p
        is_text = inputs.clip_t[: inputs.response_start] < 0
        self.n_shared, self._n_text = int(np.argmin(is_text)), int(is_text.sum())
        spare = round_up(len(is_text), TOKEN_STEP) - len(is_text)
        self._layout = jax.tree.map(
            lambda row_1t: np.pad(row_1t[:, : len(is_text)], ((0, 0), (0, spare), *((0, 0),) * (row_1t.ndim - 2))),
            layout_row(inputs, len(inputs.ids_t)),
        )

    def __call__(self, masks_cp: Bool[Array, "C P"]) -> tuple[Placed, None]:
        masks, encoder, mesh = np.asarray(masks_cp), self._model.config.encoder, self._model.mesh
        n_frames_c = self._hearing.n_frames(masks)
        n_frames = self._hearing.bucket(int(n_frames_c.max()))
        n_tokens = round_up(self._n_text + encoder.n_tokens(int(n_frames_c.max())), TOKEN_STEP)
        heard, lengths = self._hearing.hear(masks, n_frames), n_frames_c.astype(np.int32)
        if mesh is not None:
            everywhere, spread = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("data"))
            kind, shared = (Picked, everywhere) if isinstance(heard, Picked) else (Rendered, spread)
            heard = kind(jax.device_put(heard[0], shared), jax.device_put(heard[1], spread))
            lengths = jax.device_put(lengths, spread)
        placed = _place(
            self._model.graphdef, self._model.state, self._layout, heard, lengths, n_tokens=n_tokens,
            is_settled=self._hearing.is_settled,
        )  # fmt: skip
        return placed, None


class _Embedded:
    """One encoding of the whole clip, in which absent players are replaced, hidden or removed."""

    length, matters_p = None, None

    def __init__(self, model: Model, inputs: ModelInputs, players: Players, absence: str, baseline: str) -> None:
        # A passage ends where its last target is predicted: with one target, at the prompt's end.
        start = inputs.response_start
        if start == len(inputs.ids_t):
            inputs = with_response(inputs, [0])
        passage = speech_passage(model, inputs, players, absence=absence, baseline=baseline)
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
