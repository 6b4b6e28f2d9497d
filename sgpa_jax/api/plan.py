"""`plan`: what an explanation would cost, before anything is computed."""

from pathlib import Path
from typing import Any

import jax

from sgpa_jax.align import AcousticModel, Alignment
from sgpa_jax.api.players import in_windows, players_of, words_of
from sgpa_jax.api.question import budget_of, check_names, loaded, usual_prompt
from sgpa_jax.audio import Clip, read_clip
from sgpa_jax.errors import UsageError
from sgpa_jax.estimators import choose_estimator, first_coalitions
from sgpa_jax.games import speech_cost
from sgpa_jax.models import Model, with_response
from sgpa_jax.players import groups_of

_ASSUMED_TOKENS = 8


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
    players: str = "words",
    text: str = "none",
    absence: str = "silence",
    text_absence: str = "attention",
    baseline: str = "mean",
    estimand: str = "shapley",
    groups: str | None = None,
    estimator: str = "auto",
    budget: int | str = 4096,
    rules: str = "sgpa",
    unspellable: str = "error",
    long: str = "refuse",
) -> dict[str, Any]:
    """Tell what `explain` would cost for a log-probability, without answering the question or running a coalition.

    Without a response, one of eight tokens is assumed. See `speech_cost` for the figures.

    Raises:
        SgpaError: as `explain`.
    """
    check_names(absence, text_absence, "logprob", response, long)
    clip = read_clip(clip)
    model = loaded(model, revision, dtype, mesh)
    prompt = usual_prompt(model, prompt)
    inputs = None if long == "windows" else model.prepare(clip, prompt, system=system, response=response)
    if transcript == "auto:model":
        raise UsageError("the words of auto:model come from running the model, which a plan does not; give the words")
    alignment = words_of(players, clip, transcript, alignment, aligner, rules, unspellable, language)
    if inputs is None:
        inputs = in_windows(model, clip, prompt, alignment, players=players, system=system, response=response)
    who = players_of(model, inputs, clip, alignment, players=players, text=text)
    together = groups_of(groups, who, inputs)
    budget = budget_of(budget, len(who))
    estimator = choose_estimator(estimator, len(who), budget, estimand=estimand, groups=together)
    masks = first_coalitions(estimator, len(who), budget, estimand=estimand, groups=together, key=jax.random.key(0))
    if response is None:
        inputs = with_response(inputs, [0] * _ASSUMED_TOKENS)
    return {
        "players": len(who),
        "labels": [player.label for player in who],
        "estimator": estimator,
        "coalitions": len(masks),
        "response_tokens": len(inputs.ids_t) - inputs.response_start,
        "absence": absence,
        **({"text_absence": text_absence} if who.text else {}),
        **({"baseline": baseline} if absence == "embedding" else {}),
        **speech_cost(model, inputs, who, masks, absence=absence, text_absence=text_absence),
    }
