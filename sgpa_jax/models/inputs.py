"""What a model is run on: a conversation laid out position by position, with its recordings."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from sgpa_jax.audio import Clip
from sgpa_jax.errors import UsageError
from sgpa_jax.models.audio_lm import NO_CLIP, Layout


@dataclass(frozen=True, eq=False)
class ModelInputs:
    """A conversation with its clips, and optionally a response to be scored.

    Attributes:
        ids_t: the prompt's and then the response's token ids (int32[T]); at audio positions the placeholder's, or 0.
        clip_t: the clip whose audio stands here, -1 for text (int32[T]).
        place_t: which of that clip's positions this is (int32[T]).
        turn_t: the turn of the conversation, -1 for what stands before the first (int32[T]).
        is_content_t: whether the token is text of the messages, not the format's own (bool[T]).
        response_start: where the response begins, T without one.
        clips: the recordings, at the model's rate.
        roles: role of each turn, those of the format's own included; empty where bare ids were given.
        starts_s: when each clip begins in the one long recording of which the clips are the parts, in order; empty
            where they are recordings of their own. Infinite where nobody plays in a clip (`explained_in`).
        codes_tk: codes of the frames that the model spoke in earlier turns, -1 for other tokens (int32[T, K]); None
            without any.
    """

    ids_t: np.ndarray
    clip_t: np.ndarray
    place_t: np.ndarray
    turn_t: np.ndarray
    is_content_t: np.ndarray
    response_start: int
    clips: tuple[Clip, ...]
    roles: tuple[str, ...] = ()
    starts_s: tuple[float, ...] = ()
    codes_tk: np.ndarray | None = None


def only_clip(inputs: ModelInputs) -> Clip:
    """Return the recording whose stretches are the players.

    Raises:
        UsageError: there is none, or more than one.
    """
    if len(inputs.clips) != 1:
        raise UsageError(
            f"the conversation holds {len(inputs.clips)} recordings, but the players are those of one: give one, or "
            "name the one by explained_in"
        )
    return inputs.clips[0]


def starts_of(inputs: ModelInputs) -> tuple[float, ...]:
    """Return when each clip begins in the recording whose stretches are the players, in seconds.

    Raises:
        UsageError: the clips are none, or several recordings.
    """
    if inputs.starts_s:
        return inputs.starts_s
    only_clip(inputs)
    return (0.0,)


def explained_in(inputs: ModelInputs, clip: int) -> ModelInputs:
    """Say in which of several recordings the players are; the others are a part of the question, and always there.

    Raises:
        UsageError: there is no such recording.
    """
    n_clips = len(inputs.clips)
    if not 0 <= clip < n_clips:
        raise UsageError(f"the players are to be those of clip {clip}, but the conversation holds {n_clips} recordings")
    # On the clock of the players' own, the others begin before or behind everything.
    return replace(inputs, starts_s=(-math.inf,) * clip + (0.0,) + (math.inf,) * (n_clips - clip - 1))


def with_response(inputs: ModelInputs, ids: Sequence[int]) -> ModelInputs:
    """Put a response's token ids behind the prompt, in the turn that it opened."""
    n = len(ids)
    return replace(
        inputs,
        ids_t=np.append(inputs.ids_t, np.asarray(ids, np.int32)),
        clip_t=np.append(inputs.clip_t, np.full(n, NO_CLIP, np.int32)),
        place_t=np.append(inputs.place_t, np.zeros(n, np.int32)),
        turn_t=np.append(inputs.turn_t, np.full(n, inputs.turn_t[-1], np.int32)),
        is_content_t=np.append(inputs.is_content_t, np.zeros(n, bool)),
        codes_tk=None if inputs.codes_tk is None else np.pad(inputs.codes_tk, ((0, n), (0, 0)), constant_values=-1),
    )


def without_response(inputs: ModelInputs) -> ModelInputs:
    """Leave the response out."""
    return _picked(inputs, slice(inputs.response_start))


def without_spoken_turn(inputs: ModelInputs) -> ModelInputs:
    """Leave out the whole turn of the only recording, its text and markers included, and the response.

    Raises:
        UsageError: there is no recording, or more than one.
    """
    only_clip(inputs)
    prompt = without_response(inputs)
    stays_t = prompt.turn_t != prompt.turn_t[np.argmax(prompt.clip_t != NO_CLIP)]
    return replace(_picked(prompt, stays_t), response_start=int(stays_t.sum()), clips=())


def first_response_tokens(inputs: ModelInputs, n_tokens: int) -> ModelInputs:
    """Leave out all of the response but its first `n_tokens`.

    Raises:
        UsageError: the response is not longer than that, or the number is below one.
    """
    n_response = len(inputs.ids_t) - inputs.response_start
    if not 0 < n_tokens < n_response:
        raise UsageError(
            f"the first {n_tokens} of the response's {n_response} tokens: expected fewer, and at least one"
        )
    return _picked(inputs, slice(inputs.response_start + n_tokens))


def layout_row(inputs: ModelInputs, n_tokens: int) -> Layout:
    """Lay out one row in a bucket of `n_tokens` positions, as numpy arrays."""
    room = n_tokens - len(inputs.ids_t)
    ids, clip, place = (np.pad(row, (0, room))[None] for row in (inputs.ids_t, inputs.clip_t, inputs.place_t))
    codes = inputs.codes_tk
    if codes is not None:
        codes = np.pad(codes, ((0, room), (0, 0)), constant_values=-1)[None]
    return Layout(ids, clip, place, np.arange(n_tokens)[None, :] < len(inputs.ids_t), codes)


def _picked(inputs: ModelInputs, index_t: slice | np.ndarray) -> ModelInputs:
    """Leave out all positions but these."""
    return replace(
        inputs,
        ids_t=inputs.ids_t[index_t],
        clip_t=inputs.clip_t[index_t],
        place_t=inputs.place_t[index_t],
        turn_t=inputs.turn_t[index_t],
        is_content_t=inputs.is_content_t[index_t],
        codes_tk=None if inputs.codes_tk is None else inputs.codes_tk[index_t],
    )
