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
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from sgpa_jax.audio import TOKEN_STEP, round_up
from sgpa_jax.errors import unknown_name
from sgpa_jax.games.game import Game
from sgpa_jax.models import AudioLM, MelConfig, Model, ModelInputs, place_audio
from sgpa_jax.players import ABSENCES, PADDING, Players, ambient_noise, render_coalition

VALUES = ("logprob", "mean_logprob")
_PLAYER_STEP, _RESPONSE_STEP = 4, 4


class Scene(NamedTuple):
    """What stays the same over all coalitions: S samples in a bucket, T tokens, R response tokens in a bucket.

    `owner_s` is the player of every sample, `NOBODY` for what is always there and `PADDING` behind the clip's end.
    """

    wave_s: Float[Array, " S"]
    owner_s: Int[Array, " S"]
    noise_s: Float[Array, " S"]
    ids_t: Int[Array, " T"]
    n_tokens: Int[Array, ""]
    response_start: Int[Array, ""]


def speech_game(
    model: Model,
    inputs: ModelInputs,
    players: Players,
    *,
    absence: str = "silence",
    value: str = "logprob",
    microbatch: int = 64,
    mesh: Mesh | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Game:
    """Build the game whose first output is the response's log-probability and whose others are its tokens'.

    Args:
        model: the audio language model.
        inputs: prompt, clip and response as `Model.prepare` laid them out.
        players: spans of the clip, at the clip's own rate.
        absence: what an absent player is: `silence`, `noise` or `delete`.
        value: `logprob` sums over the response's tokens, `mean_logprob` averages.
        microbatch: coalitions evaluated at once.
        mesh: devices to spread every microbatch over, along the axis `data`; weights are copied to all of them.
        progress: called with (coalitions evaluated, coalitions to evaluate) after every microbatch.

    Returns:
        A `Game` of `len(players)` players and 1 + R outputs for R response tokens.

    Raises:
        UsageError: an unknown absence or value.
    """
    check_names(absence=absence, value=value)
    n_response = len(inputs.ids_t) - inputs.response_start
    scene = _scene(model, inputs, players)
    state = model.state
    if mesh is not None:
        everywhere = NamedSharding(mesh, PartitionSpec())
        scene, state = jax.device_put((scene, state), everywhere)
    spare = round_up(len(players), _PLAYER_STEP) - len(players)

    def evaluate(masks_cp: Bool[Array, "C P"]) -> Float[Array, "C K"]:
        token_cr = _token_log_probs(
            model.graphdef,
            state,
            scene,
            jnp.pad(jnp.asarray(masks_cp), ((0, 0), (0, spare))),
            mel=model.mel,
            absence=absence,
            minimum_samples=model.minimum_samples,
            n_response=round_up(n_response, _RESPONSE_STEP),
        )[:, :n_response]
        total = token_cr.sum(axis=1) if value == "logprob" else token_cr.mean(axis=1)
        return jnp.concatenate([total[:, None], token_cr], axis=1)

    pieces = model.response(inputs.ids_t[inputs.response_start :].tolist()).pieces
    return Game(
        evaluate,
        len(players),
        microbatch=microbatch,
        mesh=mesh,
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
    n_samples, n_tokens = len(inputs.clip.wave_s), len(inputs.ids_t)
    room = model.padded_samples(n_samples) - n_samples
    owner_s = Players(players.players, n_samples, inputs.clip.rate_hz).owner_s()
    ids_t = np.zeros(round_up(n_tokens, TOKEN_STEP), np.int32)
    ids_t[:n_tokens] = inputs.ids_t
    return Scene(
        jnp.asarray(np.pad(inputs.clip.wave_s, (0, room))),
        jnp.asarray(np.pad(owner_s, (0, room), constant_values=PADDING)),
        jnp.asarray(np.pad(ambient_noise(inputs.clip), (0, room))),
        jnp.asarray(ids_t),
        jnp.asarray(n_tokens, jnp.int32),
        jnp.asarray(inputs.response_start, jnp.int32),
    )


@functools.partial(jax.jit, static_argnums=0, static_argnames=("mel", "absence", "minimum_samples", "n_response"))
def _token_log_probs(
    graphdef: nnx.GraphDef,
    state: nnx.State,
    scene: Scene,
    masks_cp: Bool[Array, "C P"],
    *,
    mel: MelConfig,
    absence: str,
    minimum_samples: int,
    n_response: int,
) -> Float[Array, "C R"]:
    """Log-probability of every response token under every coalition (rubbish behind the last token), float32."""
    model: AudioLM = nnx.merge(graphdef, state)
    render = functools.partial(
        render_coalition, scene.wave_s, scene.owner_s, absence=absence, noise_s=scene.noise_s, minimum=minimum_samples
    )
    wave_cs, n_samples_c = jax.vmap(render)(masks_cp)
    n_frames_c = -(-n_samples_c // mel.hop_samples)
    n_rows, n_tokens = masks_cp.shape[0], scene.ids_t.shape[0]
    ids_ct = jnp.broadcast_to(scene.ids_t[None], (n_rows, n_tokens))
    exists_ct = jnp.broadcast_to((jnp.arange(n_tokens) < scene.n_tokens)[None], (n_rows, n_tokens))
    hidden = model.hidden(place_audio(model, mel, wave_cs, n_frames_c, ids_ct, exists_ct))
    # Token r of the response is predicted one position before it stands.
    index_r = jnp.minimum(scene.response_start + jnp.arange(n_response), n_tokens - 1)
    log_probs = jax.nn.log_softmax(model.decoder.logits(hidden[:, index_r - 1]), axis=-1)
    return jnp.take_along_axis(log_probs, scene.ids_t[index_r][None, :, None], axis=-1)[:, :, 0]
