"""`explain`: from a recording, its words and a question to an explanation, through the rooms in their order."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax

from sgpa_jax.align import AcousticModel, Alignment
from sgpa_jax.api.asked import Asked
from sgpa_jax.api.players import in_windows
from sgpa_jax.api.presets import with_preset
from sgpa_jax.api.question import loaded, usual_prompt
from sgpa_jax.api.stages import (
    Question,
    answered,
    explanation_of,
    game_facts,
    game_of,
    laid_out,
    prepared,
    timed,
)
from sgpa_jax.archive import CoalitionFile, Sample
from sgpa_jax.audio import Clip, read_clip
from sgpa_jax.errors import UsageError
from sgpa_jax.estimators import Estimate, estimate
from sgpa_jax.explain import Explanation
from sgpa_jax.games import Game, control_game
from sgpa_jax.models import Model, ModelInputs, load_model

if TYPE_CHECKING:
    from sgpa_jax.sae import TrainedSAE


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
    preset: str | None = None,
    players: str | None = None,
    text: str = "none",
    absence: str | None = None,
    text_absence: str = "attention",
    value: str | None = None,
    baseline: str = "mean",
    estimand: str = "shapley",
    groups: str | None = None,
    estimator: str | None = None,
    budget: int | str | None = None,
    tolerance: str | None = None,
    control: str | None = None,
    interactions: str | None = None,
    concepts: str | Path | None = None,
    top: int = 10,
    max_new_tokens: int | None = None,
    seed: int = 0,
    rules: str | None = None,
    unspellable: str = "error",
    long: str = "refuse",
    archive: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Explanation:
    """Share a model's answer to a spoken recording out among the recording's words and sounds, or other players.

    Args:
        clip: a recording, or the path of one.
        prompt: the question to the model; empty asks what its world usually asks.
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
        preset: options that belong together: `paper` for what SGPA's text says, `authors` for what its authors' code
            does; what contradicts it is refused. Without one, options left out are the words, their silence, the
            log-probability, `auto`, 4,096 evaluations, 64 tokens and the rules `sgpa`.
        players: what the recording is cut into: `words`, `speech` (words without the sounds around them),
            `phrases`, `energy` (stretches between the quietest moments),
            `native` (the decoder's own audio positions), `windows:0.5` (seconds), or `none`. Words, and so phrases,
            need a transcript or an alignment.
        text: the user's text as players beside them: `words`, `tokens` or `none`.
        absence: how a player of the recording is absent: from what is heard (`silence`, `noise`, `delete`, or
            `mel_delete` with an LFM2-Audio), or from the decoder's input (`embedding`, `attention`, `drop`,
            `drop_keep`).
        text_absence: how text is absent: `attention`, `drop`, `drop_keep`, or `replace` with a neutral token.
        value: what a coalition is worth: the response's log-probability as `logprob` (sum over its tokens) or
            `mean_logprob`; or how near what the coalition makes the model say is to what all players do: `tfidf`,
            `tfidf_per_phase` or `response_embedding`.
        baseline: what the absence `embedding` puts in a player's place: `mean`, `zero` or `silence`.
        estimand: what the values are: `shapley`, `banzhaf`, or `owen`, which respects groups of players.
        groups: those groups: `phrases`, `modality` or `turns`.
        estimator: one of `ESTIMATORS`, or `auto`: exact where all 2^P coalitions fit into the budget; see
            `choose_estimator`.
        budget: coalitions that may be evaluated; `paper` for the 3 P² of SGPA's paper.
        tolerance: stop sooner, once every standard error is at most this (`0.05`), or once the so many players of the
            largest values are known, and in which order (`top:3`).
        control: a cheap game that is explained exactly and of which the estimator corrects the difference: `tokens:2`
            (the response's first tokens), `layers:3` (the decoder's first layers) or `model:NAME` (another model).
        interactions: also what groups of players do together, an index and an order such as `k-SII:2`, where all
            coalitions were evaluated.
        concepts: also which player fires which concept, and what these carry of the answer: the folder of an
            autoencoder that was trained on this model's residual stream (`sgpa sae train`), with the names of a bank
            of concepts where the folder holds one. Coalitions of players, and of concepts, are bounded by the budget.
        top: how many concepts are told, those of which a player does most.
        max_new_tokens: the longest answer in tokens.
        seed: decides every random draw.
        rules: the alignment's rule set, `sgpa` or `authors`.
        unspellable: what happens to words that cannot be spelled: `error`, `merge` or `interpolate`.
        long: what happens to a recording longer than the model's window: `refuse`, or `windows`, which cuts it
            between players into several clips of one message.
        archive: a file for the coalitions' outputs, from which a stopped run of the same game goes on, and from which
            other values can be found without the model.
        progress: called with (coalitions evaluated, coalitions planned) after every microbatch.


    Returns:
        An `Explanation` whose first output is the whole response and whose others, if its log-probability is
        explained, are its tokens.

    Raises:
        SgpaError: anything wrong with what was given, in one sentence.
    """
    clock = _Clock()
    options = {
        "players": players, "text": text, "absence": absence, "value": value, "estimand": estimand, "groups": groups,
        "estimator": estimator, "budget": budget, "tolerance": tolerance, "interactions": interactions,
        "max_new_tokens": max_new_tokens, "rules": rules, "long": long,
    }  # fmt: skip
    asked = Asked(
        preset=preset, system=system, text_absence=text_absence, baseline=baseline, seed=seed,
        unspellable=unspellable, language=language, **with_preset(preset, options),
    )  # fmt: skip
    if preset is not None and concepts is not None:
        raise UsageError(f"the preset {preset} explains answers, but concepts were asked for: leave one of them out")
    clip = read_clip(clip)
    model = loaded(model, revision, dtype, mesh)
    trained, names = (None, {}) if concepts is None else _autoencoder(model, concepts, top)
    question = Question(clip, usual_prompt(model, prompt), transcript, alignment, response)
    # Refuses what cannot be heard or said; windows are cut between words, which come first.
    inputs = laid_out(model, question, asked)
    clock.tick("load")
    one = prepared(model, question, inputs, timed(model, question, asked, aligner), asked)
    if trained is not None:
        from sgpa_jax.concepts import check_firing

        check_firing(one.inputs, one.players, absence=asked.absence, budget=one.budget)
    clock.tick("align")
    (answer,) = answered(model, [one], asked)
    if isinstance(answer, UsageError):
        raise answer
    clock.tick("respond")
    facts = game_facts(model, one, answer, asked)
    kept = None if archive is None else CoalitionFile(archive, facts["key"], decode=lambda ids: model.response([*ids]))

    def evaluated(done: int, planned: int) -> None:
        if kept is not None:
            kept.save_now_and_then(game)
        if progress is not None:
            progress(done, planned)

    def asked_of(name: str) -> tuple[Model, ModelInputs]:
        other = load_model(name)
        said = replace(question, response=answer.text)
        # What the other says of itself is not asked.
        other_inputs = laid_out(other, said, replace(asked, value="logprob"))
        return other, other_inputs or in_windows(
            other, clip, question.prompt, one.alignment, players=asked.players, system=system, response=answer.text
        )

    game = game_of(model, one, answer, asked, progress=evaluated)
    cheap = None
    if control is not None:
        cheap = control_game(control, model, answer.inputs, one.players, other=asked_of, **asked.of_the_game)
    found = _estimated(
        game, kept, estimator=one.estimator, estimand=asked.estimand, groups=one.groups, budget=one.budget,
        tolerance=asked.wanted, control=cheap, key=jax.random.key(seed),
    )  # fmt: skip
    clock.tick("evaluate")
    fired = None
    if trained is not None:
        from sgpa_jax.concepts import fired_concepts

        fired = fired_concepts(
            model, answer.inputs, one.players, trained, top=top, budget=one.budget, names=names,
            key=jax.random.fold_in(jax.random.key(seed), 1), **asked.of_the_game,
        )  # fmt: skip
        clock.tick("concepts")
    return explanation_of(
        model, one, answer, asked, game=game, facts=facts, found=found, control=control, concepts=fired,
        timings=clock.seconds,
    )  # fmt: skip


class _Clock:
    """Seconds between ticks, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def tick(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name] = round(now - self._last, 4)
        self._last = now


def _autoencoder(model: Model, folder: str | Path, top: int) -> "tuple[TrainedSAE, dict[int, str]]":
    """The autoencoder of a folder, and the names of its concepts."""
    # The room brings statistics along that nobody waits for who asks for no concepts.
    from sgpa_jax.concepts import autoencoder_of, names_in

    trained = autoencoder_of(model, folder, top)
    return trained, names_in(folder, trained)


def _estimated(game: Game, kept: CoalitionFile | None, **asked: Any) -> Estimate:
    if kept is None:
        return estimate(game, **asked)
    kept.restore(game)
    try:
        result = estimate(game, **asked)
    except BaseException:
        # Interrupted or failed: what was evaluated serves the next attempt.
        kept.save(game)
        raise
    kept.save(game, Sample(result.masks_cp, result.coalition_values_ck))
    return result
