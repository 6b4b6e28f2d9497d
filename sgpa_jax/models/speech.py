"""Generation of speech: text tokens and frames of audio codes in turn, batched, under `jax.jit` with static shapes.

Upstream: liquid-audio's `generate_sequential` and `generate_interleaved` (1.3.0). A model begins with text. In sequence
it speaks from the audio-start token to its end of audio; interleaved, so many text tokens and so many frames alternate
until the text ends, and audio goes on to its own end. Every row of a batch is at its own point of this.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from sgpa_jax.models.audio_lm import Placed
from sgpa_jax.models.audio_out import END_OF_AUDIO
from sgpa_jax.models.cache import Reading, read, read_on
from sgpa_jax.models.order import Order, causal_order
from sgpa_jax.models.sampling import Sampling, choose, row_keys


@dataclass(frozen=True)
class Speech:
    """What a model says and speaks, in order, without its end mark: N text tokens and frames of audio codes.

    Attributes:
        ids: text token ids, 0 where a frame stands.
        codes: the frames' codes, one per codebook, empty where a text token stands; a frame that ends the audio has
            the code 2048 throughout and is no sound.
        is_audio: where frames stand.
        text: the text of the text tokens, markers left out.
    """

    ids: tuple[int, ...]
    codes: tuple[tuple[int, ...], ...]
    is_audio: tuple[bool, ...]
    text: str


class SpeechMarks(NamedTuple):
    """Ids of the text tokens that end the answer, begin audio (in sequence) and end the text (interleaved)."""

    end: int
    audio_start: int
    text_end: int


class SpeechTokens(NamedTuple):
    """Text tokens and audio frames in the order in which they were generated.

    Attributes:
        ids_bn: text ids, 0 where a frame stands, and the end mark from `n_b` on.
        codes_bnk: codes of the frames, -1 where none stands; a frame that ends the audio has that code throughout.
        n_b: tokens and frames of each row before its end mark.
    """

    ids_bn: Int[Array, "B N"]
    codes_bnk: Int[Array, "B N K"]
    n_b: Int[Array, " B"]

    @property
    def is_audio_bn(self) -> Bool[Array, "B N"]:
        """Where frames stand."""
        return self.codes_bnk[:, :, 0] >= 0


def speech_of(tokens: SpeechTokens, row: int, text: Callable[[list[int]], str]) -> Speech:
    """Return one row of a batch as what was said; `text` spells the ids of its text tokens."""
    n = int(tokens.n_b[row])
    columns = (tokens.ids_bn, tokens.codes_bnk, tokens.is_audio_bn)
    ids, codes, is_audio = (np.asarray(column[row, :n]).tolist() for column in columns)
    return Speech(
        tuple(ids),
        tuple(tuple(frame) if spoken else () for frame, spoken in zip(codes, is_audio, strict=True)),
        tuple(is_audio),
        text([token for token, spoken in zip(ids, is_audio, strict=True) if not spoken]),
    )


class _Turn(NamedTuple):
    """What every row does next: speak or write, how many of that are left, and whether its text or all has ended."""

    speaks_b: Bool[Array, " B"]
    left_b: Int[Array, " B"]
    text_ended_b: Bool[Array, " B"]
    ended_b: Bool[Array, " B"]


class _Written(NamedTuple):
    """Where a generation stands: `count` tokens or frames a row, the last of which the decoder has not read yet."""

    count: Int[Array, ""]
    tokens: SpeechTokens
    turn: _Turn
    reading: Reading


@functools.partial(
    jax.jit,
    static_argnums=0,
    static_argnames=("room", "marks", "interleave", "n_shared", "text_sampling", "audio_sampling"),
)
def generate_speech(
    graphdef: nnx.GraphDef,
    state: nnx.State,
    placed: Placed,
    n_new: Int[Array, ""],
    *,
    room: int,
    marks: SpeechMarks,
    interleave: tuple[int, int] | None = None,
    order: Order | None = None,
    n_shared: int = 0,
    text_sampling: Sampling | None = None,
    audio_sampling: Sampling | None = None,
    key: PRNGKeyArray | None = None,
) -> SpeechTokens:
    """Return the next tokens and frames of every row, until all rows ended or there are `n_new` (at least one).

    In sequence without `interleave`, which gives the numbers of text tokens and of frames that alternate. Each kind
    greedily without its sampling, else drawn from `key`. The result has N = `room` columns, at least `n_new`. The
    prompt's tokens follow each other in `order`, without it as they stand; the first `n_shared` are the same in every
    row. The model is `(graphdef, state)`; its `decoder` and its `audio_out` are used.
    """
    model = nnx.merge(graphdef, state)
    decoder, audio_out = model.decoder, model.audio_out
    n_rows, n_codebooks = len(placed.n_b), audio_out.config.n_codebooks

    def text(hidden_bd: Float[Array, "B D"], place: Int[Array, ""]) -> Int[Array, " B"]:
        keys = None if key is None else row_keys(key, n_rows, place)
        return choose(decoder.logits(hidden_bd), text_sampling, keys)

    def frame(hidden_bd: Float[Array, "B D"], place: Int[Array, ""]) -> Int[Array, "B K"]:
        keys = None if key is None else row_keys(key, n_rows, place)
        return audio_out.frame(hidden_bd, sampling=audio_sampling, keys_b=keys)

    def is_unfinished(written: _Written) -> Bool[Array, ""]:
        return (written.count < n_new) & ~jnp.all(written.turn.ended_b)

    def step(written: _Written) -> _Written:
        count, tokens, turn, reading = written
        last = count - 1
        codes = tokens.codes_bnk[:, last]
        spoken, said = audio_out.embed_codes(jnp.maximum(codes, 0)), decoder.embedding(tokens.ids_bn[:, last])
        x = jnp.where(codes[:, :1] >= 0, spoken, said).astype(placed.x.dtype)
        hidden, reading = read_on(decoder, x, reading, last)
        writes, speaks = ~turn.speaks_b & ~turn.ended_b, turn.speaks_b & ~turn.ended_b
        # Either head is run only where a row needs it: the audio one costs as much as several decoder layers.
        ids = jax.lax.cond(jnp.any(writes), text, lambda *_: _no_ids(n_rows), hidden, count)
        codes = jax.lax.cond(jnp.any(speaks), frame, lambda *_: _no_codes(n_rows, n_codebooks), hidden, count)
        ids = jnp.where(turn.ended_b, marks.end, jnp.where(speaks, 0, ids))
        codes = jnp.where(speaks[:, None], codes, -1)
        return _Written(count + 1, _add(tokens, count, ids, codes), _next(turn, ids, codes, marks, interleave), reading)

    order = causal_order(placed.exists_bt) if order is None else order
    hidden, reading = read(decoder, placed.x, order, placed.n_b - 1, room=room, n_shared=n_shared)
    first = text(hidden, jnp.zeros((), jnp.int32))
    empty = SpeechTokens(
        jnp.full((n_rows, room), marks.end, jnp.int32),
        jnp.full((n_rows, room, n_codebooks), -1, jnp.int32),
        jnp.zeros(n_rows, jnp.int32),
    )
    nobody, codes = jnp.zeros(n_rows, bool), _no_codes(n_rows, n_codebooks)
    n_text = jnp.full(n_rows, 0 if interleave is None else interleave[0], jnp.int32)
    turn = _next(_Turn(nobody, n_text, nobody, nobody), first, codes, marks, interleave)
    begun = _Written(jnp.ones((), jnp.int32), _add(empty, jnp.zeros((), jnp.int32), first, codes), turn, reading)
    tokens = jax.lax.while_loop(is_unfinished, step, begun).tokens
    is_token = (jnp.arange(room)[None, :] < n_new) & (tokens.is_audio_bn | (tokens.ids_bn != marks.end))
    return tokens._replace(n_b=is_token.sum(axis=1))


def _next(
    turn: _Turn,
    ids_b: Int[Array, " B"],
    codes_bk: Int[Array, "B K"],
    marks: SpeechMarks,
    interleave: tuple[int, int] | None,
) -> _Turn:
    """Say what follows a text token or a frame (a row's codes are -1 without one)."""
    spoke, audio_ended = codes_bk[:, 0] >= 0, codes_bk[:, 0] == END_OF_AUDIO
    ended = turn.ended_b | (~spoke & (ids_b == marks.end))
    if interleave is None:
        return turn._replace(speaks_b=jnp.where(spoke, ~audio_ended, ids_b == marks.audio_start), ended_b=ended)
    n_text, n_audio = interleave
    text_ended, left = turn.text_ended_b | (~spoke & (ids_b == marks.text_end)), turn.left_b - 1
    to_audio, to_text = ~spoke & ((left == 0) | text_ended), spoke & (left == 0) & ~text_ended
    left = jnp.where(to_audio, n_audio, jnp.where(to_text, n_text, left))
    return _Turn(to_audio | (spoke & ~to_text & ~audio_ended), left, text_ended, ended)


def _add(tokens: SpeechTokens, place: Int[Array, ""], ids_b: Array, codes_bk: Array) -> SpeechTokens:
    ids, codes = tokens.ids_bn.at[:, place].set(ids_b), tokens.codes_bnk.at[:, place].set(codes_bk)
    return tokens._replace(ids_bn=ids, codes_bnk=codes)


def _no_ids(n_rows: int) -> Int[Array, " B"]:
    return jnp.zeros(n_rows, jnp.int32)


def _no_codes(n_rows: int, n_codebooks: int) -> Int[Array, "B K"]:
    return jnp.full((n_rows, n_codebooks), -1, jnp.int32)
