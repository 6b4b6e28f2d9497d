"""The game of a spoken question whose absent players are absent at the decoder's input: the audio is encoded once.

A decoder's audio position belongs to the player in whose stretch of time the middle of its receptive field lies. What
the encoder mixed between neighbours stays mixed: an absent word may still be heard a little in the positions around.
"""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from sgpa_jax.audio import Clip
from sgpa_jax.errors import PlayerError, unknown_name
from sgpa_jax.games.passage import Passage
from sgpa_jax.models import NO_CLIP, AudioLMConfig, Model, ModelInputs, only_clip
from sgpa_jax.players import NOBODY, Players

BASELINES = ("mean", "zero", "silence")
"""What stands in an absent player's place: the mean of the clip's positions, zeros, or what silence is encoded to."""


def speech_passage(
    model: Model, inputs: ModelInputs, players: Players, *, absence: str, baseline: str = "mean"
) -> Passage:
    """Embed a prompt of one recording and its response, and give the audio positions to the players.

    Args:
        model: the audio language model.
        inputs: prompt, clip and response as `Model.prepare` laid them out.
        players: spans of the clip.
        absence: one of `TOKEN_ABSENCES`.
        baseline: one of `BASELINES`, for the absence `embedding`.

    Raises:
        UsageError: an unknown name, no response, or not exactly one recording.
        PlayerError: two players share the only position that either could have.
    """
    if baseline not in BASELINES:
        raise unknown_name("baseline", baseline, BASELINES)
    owner = token_owners(model, inputs, players)
    x_td = model.place(inputs).x[0, : len(owner)]
    rows = None
    if absence == "embedding":
        is_audio = inputs.clip_t[: len(owner)] != NO_CLIP
        rows = _baseline(model, inputs, x_td, jnp.asarray(is_audio)[:, None], baseline)
    return Passage(x_td, inputs.ids_t[inputs.response_start :], owner, (absence,) * len(players), rows)


def token_owners(model: Model, inputs: ModelInputs, players: Players) -> Int[np.ndarray, " T"]:
    """Return the player of every token but the response's last, `NOBODY` (-1) for text and for pauses.

    Raises:
        UsageError: not exactly one recording.
        PlayerError: two players share the only position that either could have.
    """
    only_clip(inputs)
    is_audio = inputs.clip_t[:-1] != NO_CLIP
    owner = np.full(len(is_audio), NOBODY, np.int32)
    owner[is_audio] = _owners(model.config, players, inputs.place_t[:-1][is_audio])
    return owner


def position_centres_s(config: AudioLMConfig, places: Int[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
    """Seconds of the middle of the receptive field of audio positions, attention left aside."""
    hop_s = config.front_end.hop_samples / config.front_end.rate_hz
    first, step = config.encoder.position_frames
    return hop_s * (first + step * places)


def _owners(config: AudioLMConfig, players: Players, places: Int[np.ndarray, " N"]) -> Int[np.ndarray, " N"]:
    centres_s = position_centres_s(config, places)
    owner = np.full(len(places), NOBODY, np.int32)
    for index, player in enumerate(players):
        owner[(centres_s >= player.start_s) & (centres_s < player.end_s)] = index
    for index, player in enumerate(players):
        if (owner == index).any():
            continue
        # Shorter than the distance of positions, and between two of them: it takes the nearer one.
        nearest = int(np.abs(centres_s - (player.start_s + player.end_s) / 2).argmin())
        other = owner[nearest]
        if other != NOBODY and (owner == other).sum() == 1:
            raise PlayerError(
                f"players {player.label!r} and {players[other].label!r} share one audio position of the model: "
                "expected one for each; merge them"
            )
        owner[nearest] = index
    return owner


def _baseline(
    model: Model, inputs: ModelInputs, x_td: Float[Array, "T D"], is_audio_t1: Bool[Array, "T 1"], kind: str
) -> Float[Array, "T D"]:
    if kind == "silence":
        clip = only_clip(inputs)
        quiet = Clip(np.zeros_like(clip.wave_s), clip.rate_hz)
        return model.place(replace(inputs, clips=(quiet,))).x[0, : len(x_td)]
    if kind == "zero":
        return jnp.zeros_like(x_td)
    mean = jnp.where(is_audio_t1, x_td, 0).astype(jnp.float32).sum(axis=0) / is_audio_t1.sum().astype(jnp.float32)
    return jnp.broadcast_to(mean.astype(x_td.dtype)[None], x_td.shape)
