"""The stages of an explanation, of one recording or of many: laid out, aligned, cut into players, answered, a game.

`explain` goes through them with one recording, `explain_many` with several, which then share the model's batches.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sgpa_jax.align import AcousticModel, Alignment
from sgpa_jax.api.align import HEARD
from sgpa_jax.api.asked import Asked
from sgpa_jax.api.players import in_windows, players_of, transcribed, words_of
from sgpa_jax.api.presets import preset_facts
from sgpa_jax.archive import estimator_facts, game_key, interaction_facts
from sgpa_jax.audio import Clip
from sgpa_jax.errors import UsageError
from sgpa_jax.estimators import Estimate, choose_estimator
from sgpa_jax.estimators import interactions as interactions_of
from sgpa_jax.explain import ClipInfo, Explanation, Transcript
from sgpa_jax.games import Game, authors_game, engine_of, neutral_token, response_game, speech_game
from sgpa_jax.models import PROBE_TOKENS, Model, ModelInputs, with_response
from sgpa_jax.players import Players, groups_of
from sgpa_jax.versions import versions


@dataclass(frozen=True, eq=False)
class Question:
    """One recording, and what is asked about it.

    Attributes:
        clip: the recording.
        prompt: the question to the model.
        transcript, alignment: what is said in it, or also when; at most one of them.
        response: the answer to explain, if not the model's own.
    """

    clip: Clip
    prompt: str
    transcript: str | None = None
    alignment: Alignment | None = None
    response: str | None = None

    @property
    def source(self) -> str:
        """Where its words come from."""
        return "aligned file" if self.transcript is None else HEARD.get(self.transcript, "given")


@dataclass(frozen=True, eq=False)
class Prepared:
    """A question that is laid out for a model, and who plays.

    Attributes:
        question: what was asked.
        inputs: the conversation, with the response if one was given.
        alignment: when its words are said, where they are known.
        players: who plays.
        groups: each player's group, where they are grouped.
        budget: evaluations that are allowed.
        estimator: its name.
    """

    question: Question
    inputs: ModelInputs
    alignment: Alignment | None
    players: Players
    groups: tuple[int, ...] | None
    budget: int
    estimator: str


@dataclass(frozen=True)
class Answer:
    """What a model says to a question: `inputs` with the response behind, its text, and whether it is of its world."""

    inputs: ModelInputs
    text: str
    in_domain: bool | None


def laid_out(model: Model, question: Question, asked: Asked) -> ModelInputs | None:
    """Lay a question out for a model; None where its recording is to be cut between players, who come first.

    Raises:
        SgpaError: what cannot be heard or said.
    """
    if question.response is not None and asked.compares_responses:
        raise UsageError(
            f"the value {asked.value} compares what the model itself says, but a response was given; leave it out, or "
            "explain its log-probability"
        )
    if asked.long == "windows":
        return None
    return model.prepare(question.clip, question.prompt, system=asked.system, response=question.response)


def timed(model: Model, question: Question, asked: Asked, aligner: AcousticModel | str | Path) -> Alignment | None:
    """Return when the words of a question's recording are said; None where nobody needs them.

    Raises:
        SgpaError: they cannot be aligned.
    """
    transcript = question.transcript
    if transcript == "auto:model":
        transcript = transcribed(model, question.clip, long=asked.long, max_new_tokens=asked.max_new_tokens)
    return words_of(
        asked.players, question.clip, transcript, question.alignment, aligner, asked.rules, asked.unspellable,
        asked.language,
    )  # fmt: skip


def prepared(
    model: Model, question: Question, inputs: ModelInputs | None, alignment: Alignment | None, asked: Asked
) -> Prepared:
    """Cut a question's recording into players, and choose how they are explained.

    Raises:
        SgpaError: no such players, or a budget too small for them.
    """
    if inputs is None:
        inputs = in_windows(
            model, question.clip, question.prompt, alignment, players=asked.players, system=asked.system,
            response=question.response,
        )  # fmt: skip
    who = players_of(model, inputs, question.clip, alignment, players=asked.players, text=asked.text)
    together = groups_of(asked.groups, who, inputs)
    budget = asked.budget_for(len(who))
    estimator = choose_estimator(asked.estimator, len(who), budget, estimand=asked.estimand, groups=together)
    if asked.index is not None and (estimator != "exact" or asked.estimand == "owen"):
        raise UsageError(
            f"interactions need all {2 ** len(who):,} coalitions of {len(who)} players, but the {estimator} estimator "
            f"of {asked.estimand} values takes fewer: raise the budget, or take fewer players"
        )
    if asked.index is not None and asked.index[1] > len(who):
        raise UsageError(f"interactions of order {asked.index[1]} among {len(who)} players: expected 1 to {len(who)}")
    return Prepared(question, inputs, alignment, who, together, budget, estimator)


def answered(model: Model, several: Sequence[Prepared], asked: Asked) -> list[Answer | UsageError]:
    """Answer questions, and tell whether they are of the model's world; an error stands for one without an answer.

    They share the model's batches, and a question that is asked twice, by the user and to tell the world, is run once.
    """
    wanted: dict[tuple[Any, ...], ModelInputs] = {}
    own, probes = [], []
    for number, one in enumerate(several):
        clips, prompt = one.inputs.clips, one.question.prompt
        own.append((number, 0 if len(clips) == 1 else None, prompt, asked.system))
        if one.question.response is None:
            wanted[own[-1]] = one.inputs
        of_clips = []
        for place, clip in enumerate(clips):
            asks = dict(zip(_usual_questions(model), model.probes(clip, prompt), strict=False))
            of_clips.append([(number, place, text, None) for text in asks])
            for name, inputs in zip(of_clips[-1], asks.values(), strict=True):
                wanted.setdefault(name, inputs)
        probes.append(of_clips)
    said = model.respond(list(wanted.values()), max_new_tokens=max(asked.max_new_tokens, PROBE_TOKENS))
    ids_of = {name: list(response.ids) for name, response in zip(wanted, said, strict=True)}

    def is_inside(names: Sequence[tuple[Any, ...]]) -> bool:
        return model.is_inside([model.response(ids_of[name][:PROBE_TOKENS]).text for name in names])

    answers: list[Answer | UsageError] = []
    for one, name, of_clips in zip(several, own, probes, strict=True):
        in_domain = None if model.world is None else all(map(is_inside, of_clips))
        if one.question.response is not None:
            answers.append(Answer(one.inputs, one.question.response, in_domain))
            continue
        # The very tokens that it said: text read again may be cut into others.
        ids = ids_of[name][: asked.max_new_tokens]
        if ids:
            answers.append(Answer(with_response(one.inputs, ids), model.response(ids).text, in_domain))
        else:
            answers.append(
                UsageError(
                    f"the model {model.name} answers nothing to this recording and question; ask another question, or "
                    "give the response to explain"
                )
            )
    return answers


def game_of(
    model: Model,
    one: Prepared,
    answer: Answer,
    asked: Asked,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Game:
    """Return the game of an answered question."""
    if asked.preset == "authors":
        assert one.alignment is not None
        return authors_game(
            model, one.question.clip, one.alignment, prompt=one.question.prompt, system=asked.system,
            max_new_tokens=asked.max_new_tokens, progress=progress,
        )  # fmt: skip
    if asked.compares_responses:
        return response_game(
            model, answer.inputs, one.players, score=asked.value, max_new_tokens=asked.max_new_tokens,
            progress=progress, **asked.of_the_game,
        )  # fmt: skip
    return speech_game(model, answer.inputs, one.players, value=asked.value, progress=progress, **asked.of_the_game)


def game_facts(model: Model, one: Prepared, answer: Answer, asked: Asked) -> dict[str, Any]:
    """Return what makes the game this one and no other, as an explanation tells it, and the key of all that."""
    who, inputs = one.players, answer.inputs
    told = {
        "value": asked.value,
        "readout": "generated response" if asked.compares_responses else "response log-probability",
        "absence": asked.absence,
        **({"baseline": asked.baseline} if asked.absence == "embedding" and who.heard else {}),
        **({"text_absence": asked.text_absence} if who.text else {}),
        **({"neutral_token": neutral_token(model)[1]} if who.text and asked.text_absence == "replace" else {}),
        **({"max_new_tokens": asked.max_new_tokens} if asked.compares_responses else {}),
        **({"window_starts_s": list(inputs.starts_s)} if inputs.starts_s else {}),
        "response_given": one.question.response is not None,
        **({} if asked.preset is None else {"preset": preset_facts(asked.preset, one.alignment, one.budget)}),
    }
    same_game = {
        "clip": one.question.clip.sha256,
        "players": [vars(player) for player in who],
        # Players have no sample in common, but words of the authors' game may.
        **({"words": [vars(word) for word in one.alignment.words]} if asked.preset and one.alignment else {}),
        "prompt_and_response": inputs.ids_t.tolist(),
        "model": model.digest,
        "dtype": model.dtype,
    }
    return told | {"key": game_key(told | same_game)}


def explanation_of(
    model: Model,
    one: Prepared,
    answer: Answer,
    asked: Asked,
    *,
    game: Game,
    facts: dict[str, Any],
    found: Estimate,
    control: str | None = None,
    concepts: Any = None,
    timings: dict[str, float],
) -> Explanation:
    """Put together what the stages found."""
    question, alignment, index = one.question, one.alignment, asked.index
    assert game.outputs is not None
    return Explanation(
        clip=ClipInfo.of(question.clip),
        wave=question.clip,
        transcript=Transcript(alignment.transcript, question.source) if alignment else Transcript("", "none"),
        messages=_messages(question.prompt, asked.system),
        response=answer.text,
        in_domain=answer.in_domain,
        model={"name": model.name, "digest": model.digest, "dtype": model.dtype},
        aligner=_aligner(alignment),
        game=facts,
        estimand=found.estimand,
        estimator=estimator_facts(found, asked.seed, tolerance=asked.tolerance, control=control),
        engine="generation" if asked.compares_responses else engine_of(asked.absence, one.players),
        outputs=tuple({"name": name, "kind": "token" if k else "response"} for k, name in enumerate(game.outputs)),
        players=tuple(one.players),
        values=found.values_pk,
        standard_errors=found.standard_errors_pk,
        empty_value=found.empty_value_k,
        full_value=found.full_value_k,
        efficiency_gap=found.efficiency_gap_k,
        evaluations=vars(found.evaluations),
        groups=one.groups or (),
        interactions=() if index is None else interaction_facts(interactions_of(found.coalition_values_ck, *index)),
        concepts=concepts,
        timings=timings,
        versions=versions(),
    )


def _usual_questions(model: Model) -> tuple[str, ...]:
    return () if model.world is None else (model.world.probe, model.world.prompt)


def _aligner(alignment: Alignment | None) -> dict[str, Any]:
    if alignment is None:
        return {"name": "none", "digest": "", "rules": "none", "emission": "none", "notes": []}
    return {
        "name": alignment.aligner,
        "digest": alignment.digest,
        "rules": alignment.rules,
        "emission": alignment.emission,
        "notes": list(alignment.notes),
    }


def _messages(prompt: str, system: str | None) -> tuple[dict[str, str], ...]:
    first = () if system is None else ({"role": "system", "content": system},)
    return (*first, {"role": "user", "content": prompt})
