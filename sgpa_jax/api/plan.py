"""`plan`: what an explanation would cost, before anything is computed."""

from pathlib import Path
from typing import Any

import jax

from sgpa_jax.align import AcousticModel, Alignment
from sgpa_jax.api.asked import Asked
from sgpa_jax.api.presets import with_preset
from sgpa_jax.api.question import loaded, usual_prompt
from sgpa_jax.api.stages import Question, laid_out, prepared, timed
from sgpa_jax.audio import Clip, read_clip
from sgpa_jax.errors import UsageError
from sgpa_jax.estimators import first_coalitions
from sgpa_jax.games import response_cost, speech_cost
from sgpa_jax.models import Model, with_response

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
    max_new_tokens: int | None = None,
    rules: str | None = None,
    unspellable: str = "error",
    long: str = "refuse",
) -> dict[str, Any]:
    """Tell what `explain` would cost, without answering the question or running a coalition.

    Of a log-probability without a response, one of eight tokens is assumed. See `speech_cost` for the figures, and
    `response_cost` for those of values that compare responses; the preset `authors` is told as if words that are absent
    were cut out of the clip, whose code joins those that are there instead.

    Raises:
        SgpaError: as `explain`.
    """
    options = {
        "players": players, "text": text, "absence": absence, "value": value, "estimand": estimand, "groups": groups,
        "estimator": estimator, "budget": budget, "max_new_tokens": max_new_tokens, "rules": rules, "long": long,
    }  # fmt: skip
    asked = Asked(
        preset=preset, system=system, text_absence=text_absence, baseline=baseline, unspellable=unspellable,
        language=language, **with_preset(preset, options),
    )  # fmt: skip
    clip = read_clip(clip)
    model = loaded(model, revision, dtype, mesh)
    question = Question(clip, usual_prompt(model, prompt), transcript, alignment, response)
    inputs = laid_out(model, question, asked)
    if transcript == "auto:model":
        raise UsageError("the words of auto:model come from running the model, which a plan does not; give the words")
    one = prepared(model, question, inputs, timed(model, question, asked, aligner), asked)
    who, inputs = one.players, one.inputs
    masks = first_coalitions(
        one.estimator, len(who), one.budget, estimand=asked.estimand, groups=one.groups, key=jax.random.key(0)
    )
    if response is None and not asked.compares_responses:
        inputs = with_response(inputs, [0] * _ASSUMED_TOKENS)
    absent = {"absence": asked.absence, "text_absence": text_absence}
    if asked.compares_responses:
        n_response = asked.max_new_tokens
        cost = response_cost(model, inputs, who, masks, max_new_tokens=n_response, **absent)
    else:
        n_response = len(inputs.ids_t) - inputs.response_start
        cost = speech_cost(model, inputs, who, masks, **absent)
    return {
        "players": len(who),
        "labels": [player.label for player in who],
        "estimator": one.estimator,
        "coalitions": len(masks),
        "response_tokens": n_response,
        "absence": asked.absence,
        **({"text_absence": text_absence} if who.text else {}),
        **({"baseline": baseline} if asked.absence == "embedding" else {}),
        **cost,
    }
