"""The game of a spoken question whose absent players are absent at the decoder's input: the audio is encoded once.

A decoder's audio position belongs to the player in whose stretch of time the middle of its receptive field lies. What
the encoder mixed between neighbours stays mixed: an absent word may still be heard a little in the positions around.
Players that are text own the tokens that they name.
"""

import functools
import itertools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from sgpa_jax.audio import TOKEN_STEP, Clip, round_up
from sgpa_jax.errors import PlayerError, UsageError, unknown_name
from sgpa_jax.games.passage import Passage
from sgpa_jax.games.windows import heard_in_clips
from sgpa_jax.models import (
    NO_CLIP,
    AudioLM,
    AudioLMConfig,
    Layout,
    Model,
    ModelInputs,
    gathered,
    layout_row,
    starts_of,
)
from sgpa_jax.players import NOBODY, Player, Players, describe

BASELINES = ("mean", "zero", "silence")
"""What stands in an absent player's place: the mean of the clip's positions, zeros, or what silence is encoded to."""


TEXT_ABSENCES = ("attention", "drop", "drop_keep", "replace")
"""The ways in which text can be absent: as in `TOKEN_ABSENCES`, or with a neutral token in its place."""


def speech_passage(
    model: Model,
    inputs: ModelInputs,
    players: Players,
    *,
    absence: str,
    baseline: str = "mean",
    text_absence: str = "attention",
) -> Passage:
    """Embed a prompt and its response, and give the audio positions and the tokens of the text to the players.

    Args:
        model: the audio language model.
        inputs: prompt, clip and response as `Model.prepare` laid them out.
        players: spans of the clip, and text of the prompt.
        absence: of players that are heard, one of `TOKEN_ABSENCES`.
        baseline: one of `BASELINES`, for the absence `embedding`.
        text_absence: of players that are text, one of `TEXT_ABSENCES`.

    Raises:
        UsageError: an unknown name, no response, or players that are heard without exactly one recording, whole or in
            windows.
        PlayerError: two players share the only position that either could have, or one's text is not in the prompt.
    """
    if baseline not in BASELINES:
        raise unknown_name("baseline", baseline, BASELINES)
    absences = absences_of(players, absence, text_absence)
    owner = token_owners(model, inputs, players)
    x_td = _placed(model, inputs)
    rows_td = None
    if "embedding" in absences:
        rows_td = x_td
        is_audio_t = inputs.clip_t != NO_CLIP
        if text_absence == "replace" and players.text:
            rows_td = np.asarray(gathered(neutral_rows(model, inputs, players)))[: len(x_td)].astype(x_td.dtype)
        if absence == "embedding" and players.heard:
            rows_td = np.where(is_audio_t[:, None], _baseline(model, inputs, x_td, is_audio_t, baseline), rows_td)
        rows_td = rows_td[: len(owner)]
    is_text_p = tuple(player.is_text for player in players)
    return Passage(x_td[: len(owner)], inputs.ids_t[inputs.response_start :], owner, absences, rows_td, is_text_p)


def absences_of(players: Players, absence: str, text_absence: str) -> tuple[str, ...]:
    """Return how each player is absent, one of `TOKEN_ABSENCES`: a neutral token is a baseline, as `embedding` has it.

    Raises:
        UsageError: an unknown absence of text.
    """
    if text_absence not in TEXT_ABSENCES:
        raise unknown_name("absence of text", text_absence, TEXT_ABSENCES)
    of_text = "embedding" if text_absence == "replace" else text_absence
    return tuple(of_text if player.is_text else absence for player in players)


def token_owners(model: Model, inputs: ModelInputs, players: Players) -> Int[np.ndarray, " T"]:
    """Return the player of every token but the response's last, `NOBODY` (-1) for other text and for pauses.

    Raises:
        UsageError: players that are heard without exactly one recording.
        PlayerError: two players share the only position that either could have, or one's text is not in the prompt.
    """
    owner = text_owners(inputs, players)
    if players.heard:
        for clip, spans_s in enumerate(heard_in_clips(inputs, players)):
            is_here = inputs.clip_t[:-1] == clip
            owner[is_here] = _owners(model.config, players, spans_s, inputs.place_t[:-1][is_here])
    return owner


def text_owners(inputs: ModelInputs, players: Players) -> Int[np.ndarray, " T"]:
    """Return the same for players that are text alone.

    Raises:
        PlayerError: a player's text is not in the prompt.
    """
    owner = np.full(len(inputs.ids_t) - 1, NOBODY, np.int32)
    for index in players.text:
        first, last = players[index].tokens or (0, 0)
        if last > inputs.response_start or (inputs.clip_t[first:last] != NO_CLIP).any():
            raise PlayerError(
                f"player {describe(players[index])} is no text of this prompt of {inputs.response_start} tokens: "
                "take text_players of these very inputs"
            )
        owner[first:last] = index
    return owner


def native_players(model: Model, inputs: ModelInputs) -> Players:
    """Return a player for every audio position of the decoder: "1", "2" …, 80 ms with LFM2-Audio, 40 with Qwen2-Audio.

    Its stretch of the recording lies around the middle of the position's receptive field and reaches halfway to its
    neighbours', the first and the last one to the recording's ends. Positions that are padding alone are nobody's.

    Raises:
        UsageError: not exactly one recording.
    """
    spans_s: list[tuple[float, float]] = []
    n_samples = 0
    for number, (clip_start_s, clip) in enumerate(zip(starts_of(inputs), inputs.clips, strict=True)):
        # A recording that belongs to the question has no place on the players' clock (`explained_in`).
        if np.isinf(clip_start_s):
            continue
        n_samples += len(clip.wave_s)
        middle_s = position_centres_s(model.config, np.arange((inputs.clip_t == number).sum()))
        edges_s = np.concatenate([[0.0], (middle_s[:-1] + middle_s[1:]) / 2, [np.inf]]).clip(0.0, clip.duration_s)
        spans_s += [
            (clip_start_s + start_s, clip_start_s + end_s)
            for start_s, end_s in itertools.pairwise(edges_s.tolist())
            if (end_s - start_s) * clip.rate_hz >= 1
        ]
    named = (Player(str(number), "native", *span_s) for number, span_s in enumerate(spans_s, start=1))
    return Players(tuple(named), n_samples, model.rate_hz)


def position_centres_s(config: AudioLMConfig, places: Int[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
    """Seconds of the middle of the receptive field of audio positions, attention left aside."""
    hop_s = config.front_end.hop_samples / config.front_end.rate_hz
    first, step = config.encoder.position_frames
    return hop_s * (first + step * places)


def neutral_token(model: Model) -> tuple[int, str]:
    """Return the token that stands for absent text, its id and its name in the vocabulary.

    The token for unknown words, which stands for any word, if the tokenizer has one; else, as with tokenizers that
    spell bytes, a space.

    Raises:
        UsageError: the model has no tokenizer.
    """
    if model.chat is None:
        raise UsageError("the model has no tokenizer, so that no neutral token is known: choose 'attention' for text")
    tokenizer = model.chat.tokenizer
    unknown = getattr(tokenizer.model, "unk_token", None)
    found = None if unknown is None else tokenizer.token_to_id(unknown)
    token = tokenizer.encode(" ", add_special_tokens=False).ids[0] if found is None else found
    return token, tokenizer.id_to_token(token) or ""


def neutral_rows(model: Model, inputs: ModelInputs, players: Players) -> Float[Array, "T D"]:
    """Embed a prompt's text with a neutral token for every one that is a player's; in a bucket, zeros for audio."""
    ids_t, (token, _) = inputs.ids_t.copy(), neutral_token(model)
    for index in players.text:
        first, last = players[index].tokens or (0, 0)
        ids_t[first:last] = token
    return text_rows(model, replace(inputs, ids_t=ids_t))


def text_rows(model: Model, inputs: ModelInputs) -> Float[Array, "T D"]:
    """Embed a prompt's text and its response, in a bucket; zeros where audio stands."""
    layout = layout_row(inputs, round_up(len(inputs.ids_t), TOKEN_STEP))
    return _text_rows(model.graphdef, model.state, layout, len(inputs.clips))


@functools.partial(jax.jit, static_argnums=(0, 3))
def _text_rows(graphdef: nnx.GraphDef, state: nnx.State, layout: Layout, n_clips: int) -> Float[Array, "T D"]:
    model: AudioLM = nnx.merge(graphdef, state)
    table = model.decoder.embedding.table[...]
    # One silent position stands for all of a clip, so that its length compiles nothing.
    silent = jnp.zeros((1, n_clips, 1, table.shape[1]), table.dtype)
    return model.place(layout, silent, jnp.full((1, n_clips), layout.ids_bt.shape[1])).x[0]


def _owners(
    config: AudioLMConfig, players: Players, spans_s: dict[int, tuple[float, float]], places: Int[np.ndarray, " N"]
) -> Int[np.ndarray, " N"]:
    """Return the owners of a clip's positions among its players, whose times are those of the clip."""
    centres_s = position_centres_s(config, places)
    owner = np.full(len(places), NOBODY, np.int32)
    for index, (start_s, end_s) in spans_s.items():
        owner[(centres_s >= start_s) & (centres_s < end_s)] = index
    for index, (start_s, end_s) in spans_s.items():
        if (owner == index).any():
            continue
        # Shorter than the distance of positions, and between two of them: it takes the nearer one.
        nearest = int(np.abs(centres_s - (start_s + end_s) / 2).argmin())
        other = owner[nearest]
        if other != NOBODY and (owner == other).sum() == 1:
            raise PlayerError(
                f"players {players[index].label!r} and {players[other].label!r} share one audio position of the model: "
                "expected one for each; merge them"
            )
        owner[nearest] = index
    return owner


def _placed(model: Model, inputs: ModelInputs) -> Float[np.ndarray, "T D"]:
    """Embed a prompt and its response; cut on the host, as on the device every length would be a program."""
    return np.asarray(gathered(model.place(inputs).x))[0, : len(inputs.ids_t)]


def _baseline(
    model: Model, inputs: ModelInputs, x_td: Float[np.ndarray, "T D"], is_audio_t: Bool[np.ndarray, " T"], kind: str
) -> Float[np.ndarray, "T D"]:
    if kind == "silence":
        quiet = tuple(Clip(np.zeros_like(clip.wave_s), clip.rate_hz) for clip in inputs.clips)
        return _placed(model, replace(inputs, clips=quiet))
    if kind == "zero":
        return np.zeros_like(x_td)
    mean_d = x_td[is_audio_t].astype(np.float32).mean(axis=0)
    return np.broadcast_to(mean_d.astype(x_td.dtype), x_td.shape)
