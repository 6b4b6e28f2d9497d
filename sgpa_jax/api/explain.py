"""`explain`: from a recording, its words and a question to an explanation, through the rooms in their order."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax

from sgpa_jax.align import AcousticModel, Alignment
from sgpa_jax.api.align import HEARD
from sgpa_jax.api.players import in_windows, players_of, transcribed, words_of
from sgpa_jax.api.question import budget_of, check_names, loaded, usual_prompt
from sgpa_jax.archive import CoalitionFile, Sample, estimator_facts, game_key, interaction_facts, parse_index
from sgpa_jax.audio import Clip, read_clip
from sgpa_jax.errors import UsageError
from sgpa_jax.estimators import Estimate, Tolerance, choose_estimator, estimate
from sgpa_jax.estimators import interactions as interactions_of
from sgpa_jax.explain import ClipInfo, Explanation, Transcript
from sgpa_jax.games import RESPONSE_SCORES, Game, control_game, engine_of, neutral_token, response_game, speech_game
from sgpa_jax.models import Model, ModelInputs, load_model, with_response
from sgpa_jax.players import groups_of
from sgpa_jax.versions import versions

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
    players: str = "words",
    text: str = "none",
    absence: str = "silence",
    text_absence: str = "attention",
    value: str = "logprob",
    baseline: str = "mean",
    estimand: str = "shapley",
    groups: str | None = None,
    estimator: str = "auto",
    budget: int | str = 4096,
    tolerance: str | None = None,
    control: str | None = None,
    interactions: str | None = None,
    concepts: str | Path | None = None,
    top: int = 10,
    max_new_tokens: int = 64,
    seed: int = 0,
    rules: str = "sgpa",
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
        players: what the recording is cut into: `words`, `phrases`, `energy` (stretches between the quietest moments),
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
    check_names(absence, text_absence, value, response, long)
    wanted = None if tolerance is None else Tolerance.parse(tolerance)
    index = None if interactions is None else parse_index(interactions)
    clip = read_clip(clip)
    model = loaded(model, revision, dtype, mesh)
    trained, names = (None, {}) if concepts is None else _autoencoder(model, concepts, top)
    prompt = usual_prompt(model, prompt)
    # Refuses what cannot be heard or said; windows are cut between words, which come first.
    inputs = None if long == "windows" else model.prepare(clip, prompt, system=system, response=response)
    clock.tick("load")
    source = "aligned file" if transcript is None else HEARD.get(transcript, "given")
    if transcript == "auto:model":
        transcript = transcribed(model, clip, long=long, max_new_tokens=max_new_tokens)
    alignment = words_of(players, clip, transcript, alignment, aligner, rules, unspellable, language)
    if inputs is None:
        inputs = in_windows(model, clip, prompt, alignment, players=players, system=system, response=response)
    who = players_of(model, inputs, clip, alignment, players=players, text=text)
    together = groups_of(groups, who, inputs)
    budget = budget_of(budget, len(who))
    estimator = choose_estimator(estimator, len(who), budget, estimand=estimand, groups=together)
    if index is not None and (estimator != "exact" or estimand == "owen"):
        raise UsageError(
            f"interactions need all {2 ** len(who):,} coalitions of {len(who)} players, but the {estimator} estimator "
            f"of {estimand} values takes fewer: raise the budget, or take fewer players"
        )
    if index is not None and index[1] > len(who):
        raise UsageError(f"interactions of order {index[1]} among {len(who)} players: expected 1 to {len(who)}")
    if trained is not None:
        from sgpa_jax.concepts import check_firing

        check_firing(inputs, who, absence=absence, budget=budget)
    clock.tick("align")
    in_domain = None if model.world is None else all(model.in_domain(heard, prompt) for heard in inputs.clips)
    answer = response
    if answer is None:
        inputs, answer = _answered(model, inputs, max_new_tokens)
    clock.tick("respond")
    told = {
        "value": value,
        "readout": "generated response" if value in RESPONSE_SCORES else "response log-probability",
        "absence": absence,
        **({"baseline": baseline} if absence == "embedding" and who.heard else {}),
        **({"text_absence": text_absence} if who.text else {}),
        **({"neutral_token": neutral_token(model)[1]} if who.text and text_absence == "replace" else {}),
        **({"max_new_tokens": max_new_tokens} if value in RESPONSE_SCORES else {}),
        **({"window_starts_s": list(inputs.starts_s)} if inputs.starts_s else {}),
        "response_given": response is not None,
    }
    told["key"] = game_key(
        told
        | {
            "clip": clip.sha256,
            "players": [vars(player) for player in who],
            "prompt_and_response": inputs.ids_t.tolist(),
            "model": model.digest,
            "dtype": model.dtype,
        }
    )
    kept = None if archive is None else CoalitionFile(archive, told["key"], decode=lambda ids: model.response([*ids]))

    def evaluated(done: int, planned: int) -> None:
        if kept is not None:
            kept.save_now_and_then(game)
        if progress is not None:
            progress(done, planned)

    options: dict[str, Any] = {"absence": absence, "baseline": baseline, "text_absence": text_absence}
    if value in RESPONSE_SCORES:
        game = response_game(
            model, inputs, who, score=value, max_new_tokens=max_new_tokens, progress=evaluated, **options
        )
    else:
        game = speech_game(model, inputs, who, value=value, progress=evaluated, **options)
    assert game.outputs is not None

    def asked_of(name: str) -> tuple[Model, ModelInputs]:
        other = load_model(name)
        if long == "refuse":
            return other, other.prepare(clip, prompt, system=system, response=answer)
        return other, in_windows(other, clip, prompt, alignment, players=players, system=system, response=answer)

    cheap = None if control is None else control_game(control, model, inputs, who, other=asked_of, **options)
    result = _estimated(
        game, kept, estimator=estimator, estimand=estimand, groups=together, budget=budget, tolerance=wanted,
        control=cheap, key=jax.random.key(seed),
    )  # fmt: skip
    clock.tick("evaluate")
    fired = None
    if trained is not None:
        from sgpa_jax.concepts import fired_concepts

        fired = fired_concepts(
            model, inputs, who, trained, top=top, budget=budget, names=names,
            key=jax.random.fold_in(jax.random.key(seed), 1), **options,
        )  # fmt: skip
        clock.tick("concepts")
    return Explanation(
        clip=ClipInfo.of(clip),
        wave=clip,
        transcript=Transcript(alignment.transcript, source) if alignment else Transcript("", "none"),
        messages=_messages(prompt, system),
        response=answer,
        in_domain=in_domain,
        model={"name": model.name, "digest": model.digest, "dtype": model.dtype},
        aligner=_aligner(alignment),
        game=told,
        estimand=result.estimand,
        estimator=estimator_facts(result, seed, tolerance=tolerance, control=control),
        engine="generation" if value in RESPONSE_SCORES else engine_of(absence, who),
        outputs=tuple({"name": name, "kind": "token" if k else "response"} for k, name in enumerate(game.outputs)),
        players=tuple(who),
        values=result.values_pk,
        standard_errors=result.standard_errors_pk,
        empty_value=result.empty_value_k,
        full_value=result.full_value_k,
        efficiency_gap=result.efficiency_gap_k,
        evaluations=vars(result.evaluations),
        groups=together or (),
        interactions=() if index is None else interaction_facts(interactions_of(result.coalition_values_ck, *index)),
        concepts=fired,
        timings=clock.seconds,
        versions=versions(),
    )


class _Clock:
    """Seconds between ticks, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def tick(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name] = round(now - self._last, 4)
        self._last = now


def _answered(model: Model, inputs: ModelInputs, max_new_tokens: int) -> tuple[ModelInputs, str]:
    """Put the model's own answer behind the prompt."""
    said = model.generate(inputs, max_new_tokens=max_new_tokens)
    if not said.ids:
        raise UsageError(
            f"the model {model.name} answers nothing to this recording and question; ask another question, or give "
            "the response to explain"
        )
    # The very tokens that it said: text read again may be cut into others.
    return with_response(inputs, said.ids), said.text


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
