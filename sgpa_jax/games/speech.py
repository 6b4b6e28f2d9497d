"""The game of a spoken question: what every coalition of the recording's players does to a response's log-probability.

Every coalition, the empty and the full one too, goes through one renderer: absent players are taken out of the waveform
and the whole model hears the rest (the waveform engine). Rendering, front end, encoder and decoder are one jitted
function over a microbatch of coalitions; weights, audio and tokens are its arguments, so that a second recording of
the same bucket compiles nothing.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from sgpa_jax.audio import TOKEN_STEP, round_up
from sgpa_jax.errors import UsageError, unknown_name
from sgpa_jax.games.game import Game
from sgpa_jax.models import AudioLM, Layout, Model, ModelInputs, layout_row
from sgpa_jax.players import ABSENCES, PADDING, Players, ambient_noise, render_coalition

VALUES = ("logprob", "mean_logprob")
_PLAYER_STEP, _RESPONSE_STEP = 4, 4


class Scene(NamedTuple):
    """What stays the same over all coalitions: S samples in a bucket, T tokens, R response tokens in a bucket.

    `owner_s` is the player of every sample, `NOBODY` for what is always there and `PADDING` behind the clip's end;
    the layout is that of the whole clip, and the response's tokens are its last ones.
    """

    wave_s: Float[Array, " S"]
    owner_s: Int[Array, " S"]
    noise_s: Float[Array, " S"]
    layout: Layout
    ids_r: Int[Array, " R"]
    n_response: Int[Array, ""]


def speech_game(
    model: Model,
    inputs: ModelInputs,
    players: Players,
    *,
    absence: str = "silence",
    value: str = "logprob",
    microbatch: int = 64,
    progress: Callable[[int, int], None] | None = None,
) -> Game:
    """Build the game whose first output is the response's log-probability and whose others are its tokens'.

    Args:
        model: the audio language model.
        inputs: prompt, clip and response as `Model.prepare` laid them out.
        players: spans of the clip, at the clip's own rate.
        absence: what an absent player is: `silence`, `noise` or `delete`.
        value: `logprob` sums over the response's tokens, `mean_logprob` averages.
        microbatch: coalitions evaluated at once, a multiple of the axis `data` of the model's mesh.
        progress: called with (coalitions evaluated, coalitions to evaluate) after every microbatch.

    Returns:
        A `Game` of `len(players)` players and 1 + R outputs for R response tokens.

    Raises:
        UsageError: an unknown absence or value, or a conversation of more than one recording.
    """
    check_names(absence=absence, value=value)
    if len(inputs.clips) != 1:
        raise UsageError(
            f"the conversation holds {len(inputs.clips)} recordings, but the players are those of one: give one"
        )
    n_response = len(inputs.ids_t) - inputs.response_start
    scene = _scene(model, inputs, players)
    if model.mesh is not None:
        scene = jax.device_put(scene, NamedSharding(model.mesh, PartitionSpec()))
    spare = round_up(len(players), _PLAYER_STEP) - len(players)

    def evaluate(masks_cp: Bool[Array, "C P"]) -> Float[Array, "C K"]:
        token_cr = _token_log_probs(
            model.graphdef,
            model.state,
            scene,
            jnp.pad(jnp.asarray(masks_cp), ((0, 0), (0, spare))),
            absence=absence,
            minimum_samples=model.minimum_samples,
        )[:, :n_response]
        total = token_cr.sum(axis=1) if value == "logprob" else token_cr.mean(axis=1)
        return jnp.concatenate([total[:, None], token_cr], axis=1)

    pieces = model.response(inputs.ids_t[inputs.response_start :].tolist()).pieces
    return Game(
        evaluate,
        len(players),
        microbatch=microbatch,
        mesh=model.mesh,
        outputs=("response", *pieces),
        jit=False,
        progress=progress,
    )


def check_names(*, absence: str, value: str) -> None:
    """Check the names that a game goes by, before anything is computed.

    Raises:
        UsageError: an unknown absence or value.
    """
    if absence not in ABSENCES:
        raise unknown_name("absence", absence, ABSENCES)
    if value not in VALUES:
        raise unknown_name("value", value, VALUES)


def _scene(model: Model, inputs: ModelInputs, players: Players) -> Scene:
    (clip,) = inputs.clips
    room = model.padded_samples(len(clip.wave_s)) - len(clip.wave_s)
    owner_s = Players(players.players, len(clip.wave_s), clip.rate_hz).owner_s()
    response = inputs.ids_t[inputs.response_start :]
    spare = round_up(len(response), _RESPONSE_STEP) - len(response)
    return Scene(
        jnp.asarray(np.pad(clip.wave_s, (0, room))),
        jnp.asarray(np.pad(owner_s, (0, room), constant_values=PADDING)),
        jnp.asarray(np.pad(ambient_noise(clip), (0, room))),
        jax.tree.map(jnp.asarray, layout_row(inputs, round_up(len(inputs.ids_t), TOKEN_STEP))),
        jnp.asarray(np.pad(response, (0, spare))),
        jnp.asarray(len(response), jnp.int32),
    )


@functools.partial(jax.jit, static_argnums=0, static_argnames=("absence", "minimum_samples"))
def _token_log_probs(
    graphdef: nnx.GraphDef,
    state: nnx.State,
    scene: Scene,
    masks_cp: Bool[Array, "C P"],
    *,
    absence: str,
    minimum_samples: int,
) -> Float[Array, "C R"]:
    """Log-probability of every response token under every coalition (rubbish behind the last token), float32."""
    model: AudioLM = nnx.merge(graphdef, state)
    render = functools.partial(
        render_coalition, scene.wave_s, scene.owner_s, absence=absence, noise_s=scene.noise_s, minimum=minimum_samples
    )
    wave_cs, n_samples_c = jax.vmap(render)(masks_cp)
    heard = model.hear(wave_cs[:, None], n_samples_c[:, None])
    n_coalitions = masks_cp.shape[0]
    layout = jax.tree.map(lambda row: jnp.broadcast_to(row, (n_coalitions, *row.shape[1:])), scene.layout)
    placed = model.place(layout, *heard)
    # Shorter audio lets the response close up, and token r is predicted one position before it stands.
    before_cr = placed.n_b[:, None] - scene.n_response + jnp.arange(scene.ids_r.shape[0])[None, :] - 1
    hidden_crd = jnp.take_along_axis(model.hidden(placed), before_cr[:, :, None], axis=1, mode="clip")
    log_probs = jax.nn.log_softmax(model.decoder.logits(hidden_crd), axis=-1)
    return jnp.take_along_axis(log_probs, scene.ids_r[None, :, None], axis=-1)[:, :, 0]
