"""Steering: what a model answers while an edit stands behind one of its decoder's layers.

The edited layer is a layer like any other, so that generation, caches and logits are those of the model itself. Clips
times strengths are the rows of one batch, answered greedily by one compiled call; the edit's arrays, strengths and
positions are its arguments. Axes: `A` strengths, `N` clips, `B` = A · N rows, `T` tokens, `D` width.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from sgpa_jax.audio import TOKEN_STEP, round_up
from sgpa_jax.concepts.edits import Edit
from sgpa_jax.concepts.games import POSITIONS
from sgpa_jax.errors import UsageError, unknown_name
from sgpa_jax.models import (
    NO_CLIP,
    AudioLM,
    Model,
    ModelInputs,
    Placed,
    Response,
    TokenOrder,
    only_clip,
    without_response,
)


@dataclass(frozen=True, eq=False)
class Steered:
    """What a model answered at every strength.

    Attributes:
        strengths_a: the strengths.
        responses_an: the answer to every clip at every strength.
        change_an: ‖x' − x‖ / ‖x‖, the mean over the prompt's edited positions.
        nats_an: mean log-probability of the answers' tokens to the steered model itself, its end mark left aside; 0
            for an answer of none.
    """

    strengths_a: Float[np.ndarray, " A"]
    responses_an: tuple[tuple[Response, ...], ...]
    change_an: Float[np.ndarray, "A N"]
    nats_an: Float[np.ndarray, "A N"]


def steer(
    model: Model,
    batch: Sequence[ModelInputs],
    edit: Edit,
    strengths: Sequence[float],
    *,
    after_layer: int,
    positions: str = "audio",
    max_new_tokens: int = 8,
) -> Steered:
    """Answer prompts under an edit at several strengths.

    Args:
        model: the audio language model.
        batch: prompts with one recording each; responses in them are left out.
        edit: a `LatentEdit`, a `Push` or your own.
        strengths: what the edit is given; all of them times all prompts run together.
        after_layer: counted from 0.
        positions: one of `POSITIONS`.
        max_new_tokens: of the longest answer.

    Raises:
        UsageError: no prompts or strengths, an unknown name, a layer that is not there, or one whose audio positions
            nobody looks at any more.
        CheckpointError: the model's folder has no tokenizer.
    """
    if not batch or not len(strengths) or not np.isfinite(strengths).all():
        raise UsageError(f"{len(batch)} prompts at the strengths {list(strengths)}: expected finite ones, and prompts")
    batch = [without_response(inputs) for inputs in batch]
    for inputs in batch:
        only_clip(inputs)
    strengths_a = np.asarray(strengths, np.float32)
    placed, edited_nt = model.place(*batch), _edited(batch, positions)
    rows, edited_bt = repeated(placed, len(strengths_a)), np.tile(edited_nt, (len(strengths_a), 1))
    strength_b = np.repeat(strengths_a, len(batch))
    steered = with_edit(model, edit, strength_b, edited_bt, after_layer=after_layer, positions=positions)
    said = steered.generate_batch(rows, max_new_tokens=max_new_tokens)
    read_on, ids_bt, is_said_bt = _behind(rows, said, room=max_new_tokens)
    edited_bt = np.pad(edited_bt, ((0, 0), (0, ids_bt.shape[1] - edited_bt.shape[1])))
    if positions == "response":
        edited_bt |= is_said_bt
    steered = with_edit(model, edit, strength_b, edited_bt, after_layer=after_layer, positions=positions)
    sums_b = np.asarray(_log_probs(steered.graphdef, steered.state, read_on, ids_bt, is_said_bt), np.float64)
    nats_b = sums_b / np.maximum(is_said_bt.sum(axis=1), 1)
    change_an = _changes(model.graphdef, model.state, placed, edit, strengths_a, edited_nt, after_layer)
    shape = (len(strengths_a), len(batch))
    return Steered(
        strengths_a,
        tuple(tuple(said[first : first + len(batch)]) for first in range(0, len(said), len(batch))),
        np.asarray(change_an, np.float64),
        nats_b.reshape(shape),
    )


def with_edit(
    model: Model,
    edit: Edit,
    strength_b: Float[np.ndarray, " B"],
    edited_bt: Bool[np.ndarray, "B T"],
    *,
    after_layer: int,
    positions: str = "audio",
) -> Model:
    """Return a model with an edit behind one of its layers, for a batch of these rows alone.

    Args:
        model: the model, whose weights it shares.
        edit: what becomes of the residual stream.
        strength_b: of every row.
        edited_bt: where, among the tokens of a row as `Model.place` lays them out.
        after_layer: counted from 0.
        positions: `response` also edits every token that is generated.

    Raises:
        UsageError: as `steer`.
    """
    n_layers = model.config.decoder.n_layers
    if positions not in POSITIONS:
        raise unknown_name("positions", positions, POSITIONS)
    if not 0 <= after_layer < n_layers:
        raise UsageError(f"after_layer is {after_layer}, but {model.name} has the layers 0 to {n_layers - 1}")
    if positions == "audio" and after_layer == n_layers - 1:
        raise UsageError(
            f"behind layer {after_layer}, the last of {model.name}, no token looks at audio positions any more; "
            "edit an earlier one, or the response's positions"
        )
    network: AudioLM = nnx.merge(model.graphdef, model.state)
    decoder: Any = network.decoder
    layers = list(decoder.layers)
    layers[after_layer] = _EditedLayer(layers[after_layer], edit, strength_b, edited_bt, positions == "response")
    decoder.layers = nnx.List(layers)
    graphdef, state = nnx.split(network)
    return replace(model, graphdef=graphdef, state=state)


def repeated(placed: Placed, times: int) -> Placed:
    """The same rows so many times, one whole batch after the other."""
    return Placed(jnp.tile(placed.x, (times, 1, 1)), jnp.tile(placed.n_b, times))


def _behind(
    rows: Placed, said: Sequence[Response], *, room: int
) -> tuple[Placed, Int[np.ndarray, "B U"], Bool[np.ndarray, "B U"]]:
    """Rows with room for answers, the ids of these where they are to stand, and where that is."""
    n_tokens = round_up(rows.x.shape[1] + room, TOKEN_STEP)
    ids_bt, is_said_bt = np.zeros((len(said), n_tokens), np.int32), np.zeros((len(said), n_tokens), bool)
    for b, (first, response) in enumerate(zip(np.asarray(rows.n_b).tolist(), said, strict=True)):
        last = first + len(response.ids)
        ids_bt[b, first:last], is_said_bt[b, first:last] = response.ids, True
    n_b = rows.n_b + jnp.asarray(is_said_bt.sum(axis=1), rows.n_b.dtype)
    return Placed(jnp.pad(rows.x, ((0, 0), (0, n_tokens - rows.x.shape[1]), (0, 0))), n_b), ids_bt, is_said_bt


def _edited(batch: Sequence[ModelInputs], positions: str) -> Bool[np.ndarray, "N T"]:
    """Where prompts are edited, in the bucket that `Model.place` chooses."""
    n_tokens = round_up(max(len(inputs.ids_t) for inputs in batch), TOKEN_STEP)
    edited_nt = np.zeros((len(batch), n_tokens), bool)
    for n, inputs in enumerate(batch):
        if positions == "audio":
            edited_nt[n, : len(inputs.ids_t)] = inputs.clip_t != NO_CLIP
        else:
            edited_nt[n, len(inputs.ids_t) - 1] = True
    return edited_nt


class _EditedLayer(nnx.Module):
    """A layer, and what an edit makes of its residual stream; `edits_new`: of the tokens behind the prompt too."""

    def __init__(self, layer: nnx.Module, edit: Edit, strength_b: Any, edited_bt: Any, edits_new: bool) -> None:
        self.layer, self.edits_new = layer, edits_new
        self.edit = nnx.data(edit)
        self.strength_b = nnx.data(jnp.asarray(strength_b, jnp.float32))
        self.edited_bt = nnx.data(jnp.asarray(edited_bt))

    def __call__(self, x_btd: Array, order: TokenOrder) -> tuple[Array, Any]:
        run: Any = self.layer
        x_btd, written = run(x_btd, order)
        if x_btd.shape[:2] == self.edited_bt.shape:
            edited_bt = self.edited_bt
        elif x_btd.shape[1] > 1 or len(x_btd) != len(self.edited_bt):
            raise UsageError(
                f"an edit of {list(self.edited_bt.shape)} rows and tokens met {list(x_btd.shape[:2])}: expected the "
                "rows that the model was given the edit for"
            )
        elif self.edits_new:
            # The prompt's last token, where it alone goes on from the last layer, and those that are generated.
            edited_bt = jnp.ones(x_btd.shape[:2], bool)
        else:
            return x_btd, written
        changed_btd = self.edit(x_btd, self.strength_b).astype(x_btd.dtype)
        return jnp.where(edited_bt[:, :, None], changed_btd, x_btd), written


@functools.partial(jax.jit, static_argnums=(0, 6))
def _changes(
    graphdef: nnx.GraphDef,
    state: nnx.State,
    placed: Placed,
    edit: Edit,
    strength_a: Float[Array, " A"],
    edited_nt: Bool[Array, "N T"],
    after_layer: int,
) -> Float[Array, "A N"]:
    """‖Δx‖ / ‖x‖, the mean over edited positions, at every strength."""
    seen: list[Array] = []

    def read(layer: int, residual_ntd: Array) -> Array:
        if layer == after_layer:
            seen.append(residual_ntd.astype(jnp.float32))
        return residual_ntd

    model: AudioLM = nnx.merge(graphdef, state)
    model.hidden(placed, edit=read)
    x_ntd, weight_nt = seen[0], edited_nt.astype(jnp.float32)

    def change(strength: Array) -> Array:
        moved_ntd = edit(x_ntd, jnp.broadcast_to(strength, len(x_ntd))) - x_ntd
        share_nt = jnp.linalg.norm(moved_ntd, axis=2) / jnp.maximum(jnp.linalg.norm(x_ntd, axis=2), 1e-30)
        return (weight_nt * share_nt).sum(axis=1) / weight_nt.sum(axis=1)

    return jax.lax.map(change, strength_a)


@functools.partial(jax.jit, static_argnums=0)
def _log_probs(
    graphdef: nnx.GraphDef,
    state: nnx.State,
    placed: Placed,
    ids_bt: Int[Array, "B T"],
    is_said_bt: Bool[Array, "B T"],
) -> Float[Array, " B"]:
    """Sum of the log-probabilities of the tokens that are said; each is predicted at the position before it."""
    model: AudioLM = nnx.merge(graphdef, state)
    said_btd = model.decoder.embedding(ids_bt).astype(placed.x.dtype)
    placed = placed._replace(x=jnp.where(is_said_bt[:, :, None], said_btd, placed.x))
    log_probs_btv = jax.nn.log_softmax(model.decoder.logits(model.hidden(placed))[:, :-1].astype(jnp.float32))
    said_bt = jnp.take_along_axis(log_probs_btv, ids_bt[:, 1:, None], axis=2)[:, :, 0]
    return jnp.where(is_said_bt[:, 1:], said_bt, 0.0).sum(axis=1)
