"""The game of what a model says: the responses of all coalitions, decoded greedily in batches, then compared.

A batch of coalitions' prompts (`prompts.py`), each of its own length, is answered at once until all rows ended; what
stands before the audio is read once. A score compares what a coalition makes the model say with what all players
together make it say (value functions U1 to U3 of SGPA's paper).
Axes: `C` coalitions, `P` players, `N` tokens of a response, `K` codebooks.
"""

import functools
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from sgpa_jax.audio import round_up
from sgpa_jax.errors import UsageError, unknown_name
from sgpa_jax.games.game import Game, Score
from sgpa_jax.games.prompts import prompts_of
from sgpa_jax.games.scores import embedding_cosine, tfidf_cosine
from sgpa_jax.models import AudioLM, Model, ModelInputs, Order, Placed, Response, Speech, gathered, starts_of
from sgpa_jax.players import Players

RESPONSE_SCORES = ("tfidf", "tfidf_per_phase", "response_embedding")
"""How responses are compared: `tfidf_cosine` of a frozen corpus or of each request's, `embedding_cosine`."""

_RESPONSE_STEP = 32
_ON_CPU, _ELSEWHERE = 16, 128
"""Coalitions answered at once: measured for *pocket* on CPUs, not measured elsewhere."""


class ResponseGame(Game):
    """The game of what a model says.

    Attributes:
        model: the audio language model.
        prompts: what it answers, as `prompts_of` has it; `answers_together.py` lets it do so beside other games'.
        max_new_tokens: the longest response.
        mode: as `response_game` takes it.
    """

    def __init__(self, model: Model, prompts: Any, max_new_tokens: int, mode: str | None, **options: Any) -> None:
        super().__init__(answers_to(model, prompts, max_new_tokens=max_new_tokens, mode=mode), **options)
        self.model, self.prompts, self.max_new_tokens, self.mode = model, prompts, max_new_tokens, mode


def response_game(
    model: Model,
    inputs: ModelInputs,
    players: Players,
    *,
    absence: str = "silence",
    text_absence: str = "attention",
    score: str | Score = "tfidf",
    max_new_tokens: int = 64,
    mode: str | None = None,
    baseline: str = "mean",
    microbatch: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Game:
    """Build the game whose outputs are responses and whose values say how near they are to the full coalition's.

    Args:
        model: the audio language model.
        inputs: prompt and clip as `Model.prepare` laid them out; a response in it is left out.
        players: spans of the clip, at the clip's own rate, and text of the prompt (`text_players`); either may be none.
        absence: of players that are heard, one of `HEARD_ABSENCES` or of `TOKEN_ABSENCES`.
        text_absence: of players that are text, one of `TEXT_ABSENCES`.
        score: one of `RESPONSE_SCORES`, or a function of responses and a `Reference`.
        max_new_tokens: the longest response, in text tokens and frames.
        mode: None answers in text; `sequential` or `interleaved` in text and audio codes, as in `Model.speak`.
        baseline: one of `BASELINES`, for the absence `embedding`.
        microbatch: coalitions answered at once, a multiple of the axis `data` of the model's mesh; None: what suits
            the devices.
        progress: called with (coalitions evaluated, coalitions to evaluate) after every microbatch.

    Returns:
        A `Game` of `len(players)` players whose `evaluate` gives a `Response` (or with a `mode` a `Speech`) for each
        coalition: what `Model.generate` (`Model.speak`) says to the coalition's prompt alone.

    Raises:
        UsageError: an unknown name, a conversation of more than one recording, an absence from what is heard in one
            that is cut into windows, no room for a token, or, at the first evaluation, a `mode` for a model that does
            not speak.
        PlayerError: as `speech_game`.
    """
    starts_of(inputs)
    prompts = prompts_of(model, inputs, players, absence=absence, baseline=baseline, text_absence=text_absence)
    return ResponseGame(
        model,
        prompts,
        max_new_tokens,
        mode,
        n_players=len(players),
        score=_named_score(score, model) if isinstance(score, str) else score,
        microbatch=answers_at_once(model) if microbatch is None else microbatch,
        mesh=model.mesh,
        outputs=("response",) if isinstance(score, str) else None,
        jit=False,
        length=prompts.length,
        matters_p=prompts.matters_p,
        progress=progress,
    )


def answers_to(
    model: Model, prompts: Any, *, max_new_tokens: int, mode: str | None = None
) -> Callable[[Bool[Array, "C P"]], list[Response] | list[Speech]]:
    """Return what answers coalitions whose `prompts` are those of `prompts_of`, all of a batch at once.

    Raises:
        UsageError: no room for a token.
    """
    if max_new_tokens < 1:
        raise UsageError(f"max_new_tokens is {max_new_tokens}, but a response takes at least one; give more")

    def respond(masks_cp: Bool[Array, "C P"]) -> list[Response] | list[Speech]:
        placed, order = prompts(masks_cp)
        return answered(model, placed, order, prompts.n_shared, max_new_tokens=max_new_tokens, mode=mode)

    return respond


def answered(
    model: Model, placed: Placed, order: Order | None, n_shared: int, *, max_new_tokens: int, mode: str | None
) -> list[Response] | list[Speech]:
    """Answer prompts that are in place, in text or in a `mode` of speaking."""
    if mode is None:
        return model.generate_batch(placed, max_new_tokens=max_new_tokens, order=order, n_shared=n_shared)
    return model.speak_batch(placed, max_new_tokens=max_new_tokens, mode=mode, order=order, n_shared=n_shared)


def answers_at_once(model: Model) -> int:
    """Return how many coalitions are best answered at once on the model's devices."""
    at_once = _ON_CPU if model.platform == "cpu" else _ELSEWHERE
    return round_up(at_once, 1 if model.mesh is None else model.mesh.shape["data"])


def tokens_of(response: Response | Speech) -> list[Hashable]:
    """Terms of a response as the authors count them: ids of text tokens, and whole frames of audio codes."""
    if isinstance(response, Response):
        return list(response.ids)
    frames = zip(response.ids, response.codes, response.is_audio, strict=True)
    return [codes if is_audio else token for token, codes, is_audio in frames]


def token_embeddings(model: Model, *, rows: int = 64) -> Callable[[Sequence[Response | Speech]], np.ndarray]:
    """Return the embedder of responses: the mean of the model's own input embeddings of the tokens, float32[C, D].

    Zero for an empty response; `rows` responses are embedded at once.
    """

    audio_out = model.config.audio_out
    n_codebooks = 0 if audio_out is None else audio_out.n_codebooks

    def embed(responses: Sequence[Response | Speech]) -> Float[np.ndarray, "C D"]:
        n_room = round_up(max(len(response.ids) for response in responses), _RESPONSE_STEP)
        parts = []
        for first in range(0, len(responses), rows):
            part = responses[first : first + rows]
            ids = np.zeros((rows, n_room), np.int32)
            codes = np.full((*ids.shape, n_codebooks), -1, np.int32) if n_codebooks else None
            for row, response in enumerate(part):
                ids[row, : len(response.ids)] = response.ids
                if isinstance(response, Speech):
                    assert codes is not None
                    frames = np.array([frame for frame in response.codes if frame], np.int32)
                    codes[row, np.flatnonzero(response.is_audio)] = frames.reshape(-1, n_codebooks)
            lengths = np.array([len(response.ids) for response in part] + [0] * (rows - len(part)), np.int32)
            parts.append(
                np.asarray(gathered(_mean_embedding(model.graphdef, model.state, ids, codes, lengths)))[: len(part)]
            )
        return np.concatenate(parts)

    return embed


def _named_score(name: str, model: Model) -> Score:
    if name == "response_embedding":
        return functools.partial(embedding_cosine, embed=token_embeddings(model))
    if name in RESPONSE_SCORES:
        return functools.partial(tfidf_cosine, terms=tokens_of, per_phase=name == "tfidf_per_phase")
    raise unknown_name("score", name, RESPONSE_SCORES)


@functools.partial(jax.jit, static_argnums=0)
def _mean_embedding(
    graphdef: nnx.GraphDef,
    state: nnx.State,
    ids_cn: Int[Array, "C N"],
    codes_cnk: Int[Array, "C N K"] | None,
    lengths_c: Int[Array, " C"],
) -> Float[Array, "C D"]:
    model: AudioLM = nnx.merge(graphdef, state)
    x = model.decoder.embedding(ids_cn)
    if codes_cnk is not None:
        assert model.audio_out is not None
        x = jnp.where(codes_cnk[:, :, :1] >= 0, model.audio_out.embed_codes(jnp.maximum(codes_cnk, 0)), x)
    exists = jnp.arange(ids_cn.shape[1])[None, :] < lengths_c[:, None]
    total = jnp.where(exists[:, :, None], x.astype(jnp.float32), 0.0).sum(axis=1)
    return total / jnp.maximum(lengths_c, 1).astype(jnp.float32)[:, None]
