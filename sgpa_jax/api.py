"""The one-liners: from a recording, its words and a question to an explanation.

Each is the rooms in their order: alignment, players, the model's answer, the game of its coalitions, an estimator.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from sgpa_jax.align import AcousticModel, Alignment, transcribe
from sgpa_jax.align import align as align_clip
from sgpa_jax.audio import Clip, read_clip
from sgpa_jax.errors import UsageError, unknown_name
from sgpa_jax.estimators import choose_estimator, estimate
from sgpa_jax.explain import ClipInfo, Explanation, Transcript
from sgpa_jax.games import ABSENCES, RESPONSE_SCORES, VALUES, engine_of, response_game, speech_cost, speech_game
from sgpa_jax.models import Model, load_aligner, load_model, parse_mesh, with_response
from sgpa_jax.players import all_coalitions, word_players
from sgpa_jax.versions import versions

_ASSUMED_TOKENS = 8

HEARD = {"auto": "heard by the aligner", "auto:model": "heard by the model"}
"""Transcripts that stand for what is heard, and by whom."""


def explain(
    clip: Clip | str | Path,
    *,
    prompt: str = "",
    transcript: str | None = None,
    alignment: Alignment | None = None,
    model: Model | str | Path = "pocket",
    aligner: AcousticModel | str | Path = "pocket",
    revision: str | None = None,
    dtype: str | None = None,
    mesh: str | None = None,
    language: str | None = None,
    system: str | None = None,
    response: str | None = None,
    absence: str = "silence",
    value: str = "logprob",
    baseline: str = "mean",
    estimator: str = "auto",
    budget: int = 4096,
    max_new_tokens: int = 64,
    seed: int = 0,
    rules: str = "sgpa",
    unspellable: str = "error",
    progress: Callable[[int, int], None] | None = None,
) -> Explanation:
    """Share a model's answer to a spoken recording out among the recording's words and sounds.

    Args:
        clip: a recording, or the path of one.
        prompt: the question put to the model beside the audio; empty asks the model's usual question, if it has one.
        transcript: what is said; its words are aligned and become the players. `auto` takes what the aligner
            hears, `auto:model` what the model writes when it is asked to transcribe.
        alignment: words with their times, instead of a transcript.
        model: an audio language model, a shipped name, a folder or a hub id.
        aligner: an acoustic model, a shipped name, a folder or a hub id; unused when an alignment is given.
        revision: the hub's branch, tag or commit of a model that is still to be loaded.
        dtype: `float32` or `bfloat16`, of a model that is still to be loaded; see `load_model`.
        mesh: devices for such a model: `data=4,model=2` shares coalitions between four groups of two, each of which
            shares the weights.
        language: of the transcript, if not that of the aligner's letters; only English numbers are spelled out.
        system: the system turn, if not the chat format's own.
        response: the answer to explain, if not the model's own greedy one.
        absence: how a player is absent: from what is heard (`silence`, `noise`, `delete`, or `mel_delete` with an
            LFM2-Audio), or from the decoder's input (`embedding`, `attention`, `drop`, `drop_keep`).
        value: what a coalition is worth: the response's log-probability as `logprob` (sum over its tokens) or
            `mean_logprob`; or how near what the coalition makes the model say is to what all players do: `tfidf`,
            `tfidf_per_phase` or `response_embedding`.
        baseline: what the absence `embedding` puts in a player's place: `mean`, `zero` or `silence`.
        estimator: `exact`, `permutation`, or `auto`: exact where all 2^P coalitions fit into the budget.
        budget: coalitions that may be evaluated.
        max_new_tokens: the longest answer in tokens.
        seed: decides every random draw.
        rules: the alignment's rule set, `sgpa` or `authors`.
        unspellable: what happens to words that cannot be spelled: `error`, `merge` or `interpolate`.
        progress: called with (coalitions evaluated, coalitions planned) after every microbatch.

    Returns:
        An `Explanation` whose first output is the whole response and whose others, if its log-probability is
        explained, are its tokens.

    Raises:
        SgpaError: anything wrong with what was given, in one sentence.
    """
    clock = _Clock()
    _check_names(absence, value, response)
    clip = read_clip(clip)
    model = _model(model, revision, dtype, mesh)
    prompt = _prompt(model, prompt)
    model.prepare(clip, prompt, system=system, response=response)  # refuses what the model cannot hear or say
    clock.tick("load")
    source = "aligned file" if transcript is None else HEARD.get(transcript, "given")
    if transcript == "auto:model":
        transcript = model.transcribe(clip, max_new_tokens=max_new_tokens)
    alignment = _alignment(clip, transcript, alignment, aligner, rules, unspellable, language)
    players = word_players(alignment, clip)
    estimator = choose_estimator(estimator, len(players), budget)
    clock.tick("align")
    in_domain = model.in_domain(clip, prompt)
    inputs = model.prepare(clip, prompt, system=system, response=response)
    answer = response
    if answer is None:
        said = model.generate(inputs, max_new_tokens=max_new_tokens)
        if not said.ids:
            raise UsageError(
                f"the model {model.name} answers nothing to this recording and question; ask another question, or give "
                "the response to explain"
            )
        # The very tokens that it said: text read again may be cut into others.
        inputs, answer = with_response(inputs, said.ids), said.text
    clock.tick("respond")
    options = {"absence": absence, "baseline": baseline, "progress": progress}
    if value in RESPONSE_SCORES:
        game = response_game(model, inputs, players, score=value, max_new_tokens=max_new_tokens, **options)
    else:
        game = speech_game(model, inputs, players, value=value, **options)
    assert game.outputs is not None
    result = estimate(game, estimator, budget=budget, key=jax.random.key(seed))
    clock.tick("evaluate")
    return Explanation(
        clip=ClipInfo.of(clip),
        wave=clip,
        transcript=Transcript(alignment.transcript, source),
        messages=_messages(prompt, system),
        response=answer,
        in_domain=in_domain,
        model={"name": model.name, "digest": model.digest, "dtype": model.dtype},
        aligner={
            "name": alignment.aligner,
            "digest": alignment.digest,
            "rules": alignment.rules,
            "emission": alignment.emission,
            "notes": list(alignment.notes),
        },
        game={
            "value": value,
            "readout": "generated response" if value in RESPONSE_SCORES else "response log-probability",
            "absence": absence,
            **({"baseline": baseline} if absence == "embedding" else {}),
            "response_given": response is not None,
        },
        estimand=result.estimand,
        estimator={"name": result.estimator, "budget": budget, "seed": seed},
        engine="generation" if value in RESPONSE_SCORES else engine_of(absence),
        outputs=tuple({"name": name, "kind": "token" if k else "response"} for k, name in enumerate(game.outputs)),
        players=tuple(players),
        values=result.values_pk,
        standard_errors=result.standard_errors_pk,
        empty_value=result.empty_value_k,
        full_value=result.full_value_k,
        efficiency_gap=result.efficiency_gap_k,
        evaluations={
            "requested": result.evaluations.requested,
            "unique": result.evaluations.unique,
            "model_forwards": result.evaluations.model_forwards,
        },
        timings=clock.seconds,
        versions=versions(),
    )


def plan(
    clip: Clip | str | Path,
    *,
    prompt: str = "",
    transcript: str | None = None,
    alignment: Alignment | None = None,
    model: Model | str | Path = "pocket",
    aligner: AcousticModel | str | Path = "pocket",
    revision: str | None = None,
    dtype: str | None = None,
    mesh: str | None = None,
    language: str | None = None,
    system: str | None = None,
    response: str | None = None,
    absence: str = "silence",
    baseline: str = "mean",
    estimator: str = "auto",
    budget: int = 4096,
    rules: str = "sgpa",
    unspellable: str = "error",
) -> dict[str, Any]:
    """Tell what `explain` would cost for a log-probability, without answering the question or running a coalition.

    Without a response, one of eight tokens is assumed. See `speech_cost` for the figures.

    Raises:
        SgpaError: as `explain`.
    """
    _check_names(absence, "logprob", response)
    clip = read_clip(clip)
    model = _model(model, revision, dtype, mesh)
    inputs = model.prepare(clip, _prompt(model, prompt), system=system, response=response)
    if transcript == "auto:model":
        raise UsageError("the words of auto:model come from running the model, which a plan does not; give the words")
    players = word_players(_alignment(clip, transcript, alignment, aligner, rules, unspellable, language), clip)
    estimator = choose_estimator(estimator, len(players), budget)
    if estimator == "exact":
        masks = all_coalitions(len(players))
    else:
        masks = np.random.default_rng(0).random((min(budget, 2 ** len(players)), len(players))) < 0.5
    if response is None:
        inputs = with_response(inputs, [0] * _ASSUMED_TOKENS)
    return {
        "players": len(players),
        "labels": [player.label for player in players],
        "estimator": estimator,
        "coalitions": len(masks),
        "response_tokens": len(inputs.ids_t) - inputs.response_start,
        "absence": absence,
        **({"baseline": baseline} if absence == "embedding" else {}),
        **speech_cost(model, inputs, players, masks, absence=absence),
    }


def align(
    clip: Clip | str | Path,
    transcript: str,
    *,
    aligner: AcousticModel | str | Path = "pocket",
    rules: str = "sgpa",
    unspellable: str = "error",
    language: str | None = None,
) -> Alignment:
    """Find when each word of a transcript is said in a recording; `auto` takes what the aligner hears, and notes it.

    Raises:
        SgpaError: the recording, the transcript or a name cannot be used.
    """
    return _alignment(read_clip(clip), transcript, None, aligner, rules, unspellable, language)


class _Clock:
    """Seconds between ticks, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def tick(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name] = round(now - self._last, 4)
        self._last = now


def _check_names(absence: str, value: str, response: str | None) -> None:
    """Before anything is computed."""
    for kind, name, known in (("absence", absence, ABSENCES), ("value", value, (*VALUES, *RESPONSE_SCORES))):
        if name not in known:
            raise unknown_name(kind, name, known)
    if response is not None and value in RESPONSE_SCORES:
        raise UsageError(
            f"the value {value} compares what the model itself says, but a response was given; leave it out, or "
            "explain its log-probability"
        )


def _model(model: Model | str | Path, revision: str | None, dtype: str | None, mesh: str | None) -> Model:
    if not isinstance(model, Model):
        return load_model(model, revision=revision, dtype=dtype, mesh=None if mesh is None else parse_mesh(mesh))
    if (revision, dtype, mesh) != (None, None, None):
        raise UsageError("the model is loaded already: give revision, dtype and mesh to load_model, or give its name")
    return model


def _alignment(
    clip: Clip,
    transcript: str | None,
    alignment: Alignment | None,
    aligner: AcousticModel | str | Path,
    rules: str,
    unspellable: str,
    language: str | None,
) -> Alignment:
    if (transcript is None) == (alignment is None):
        raise UsageError("expected either a transcript, what is said, or an alignment, which also tells when; give one")
    if alignment is not None:
        return alignment
    model = load_aligner(aligner) if isinstance(aligner, str | Path) else aligner
    words = transcribe(clip, model=model) if transcript == "auto" else transcript or ""
    found = align_clip(clip, words, model=model, rules=rules, unspellable=unspellable, language=language)
    if transcript != "auto":
        return found
    return replace(found, notes=(f"the transcript was not given: the aligner heard {words!r}", *found.notes))


def _prompt(model: Model, prompt: str) -> str:
    return prompt or (model.world.prompt if model.world is not None else "")


def _messages(prompt: str, system: str | None) -> tuple[dict[str, str], ...]:
    first = () if system is None else ({"role": "system", "content": system},)
    return (*first, {"role": "user", "content": prompt})
