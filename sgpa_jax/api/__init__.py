"""The one-liners: `explain` an answer, `plan` what that would cost, `align` words; and the stages of an explanation."""

from sgpa_jax.api.align import HEARD, align
from sgpa_jax.api.asked import OPTIONS, Asked
from sgpa_jax.api.explain import explain
from sgpa_jax.api.plan import plan
from sgpa_jax.api.presets import PRESETS, with_preset
from sgpa_jax.api.question import loaded, usual_prompt
from sgpa_jax.api.stages import (
    Answer,
    Prepared,
    Question,
    answered,
    explanation_of,
    game_facts,
    game_of,
    laid_out,
    prepared,
    timed,
)

__all__ = [
    "HEARD",
    "OPTIONS",
    "PRESETS",
    "Answer",
    "Asked",
    "Prepared",
    "Question",
    "align",
    "answered",
    "explain",
    "explanation_of",
    "game_facts",
    "game_of",
    "laid_out",
    "loaded",
    "plan",
    "prepared",
    "timed",
    "usual_prompt",
    "with_preset",
]
