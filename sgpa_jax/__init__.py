"""Which words of a recording made an audio language model answer as it did: Shapley values over speech, in JAX.

Everything public is named here and loaded on first use, so that `import sgpa_jax` runs nothing: it touches no device,
changes no JAX configuration and loads no other library.
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sgpa_kernels import exact_shapley

    from sgpa_jax.align import Alignment, Word, align_batch, read_alignment, write_alignment
    from sgpa_jax.api import align, explain, plan
    from sgpa_jax.audio import Clip, read_clip, write_wav
    from sgpa_jax.errors import (
        AlignmentError,
        AudioError,
        BudgetError,
        CheckpointError,
        ExplanationError,
        PlayerError,
        SgpaError,
        UsageError,
    )
    from sgpa_jax.estimators import Estimate, estimate
    from sgpa_jax.explain import Explanation
    from sgpa_jax.games import (
        ABSENCES,
        Decoder,
        Game,
        Passage,
        Readout,
        evaluate_coalitions,
        evaluate_flat,
        response_game,
        speech_game,
        speech_passage,
    )
    from sgpa_jax.models import load_aligner, load_model
    from sgpa_jax.players import Player, Players, all_coalitions, word_players

__version__ = "0.1.0"

__all__ = [
    "ABSENCES",
    "Alignment",
    "AlignmentError",
    "AudioError",
    "BudgetError",
    "CheckpointError",
    "Clip",
    "Decoder",
    "Estimate",
    "Explanation",
    "ExplanationError",
    "Game",
    "Passage",
    "Player",
    "PlayerError",
    "Players",
    "Readout",
    "SgpaError",
    "UsageError",
    "Word",
    "align",
    "align_batch",
    "all_coalitions",
    "estimate",
    "evaluate_coalitions",
    "evaluate_flat",
    "exact_shapley",
    "explain",
    "load_aligner",
    "load_model",
    "plan",
    "read_alignment",
    "read_clip",
    "response_game",
    "speech_game",
    "speech_passage",
    "word_players",
    "write_alignment",
    "write_wav",
]

_NAMES_BY_HOME = {
    "sgpa_jax.align": ("Alignment", "Word", "align_batch", "read_alignment", "write_alignment"),
    "sgpa_jax.api": ("align", "explain", "plan"),
    "sgpa_jax.audio": ("Clip", "read_clip", "write_wav"),
    "sgpa_jax.errors": (
        "AlignmentError",
        "AudioError",
        "BudgetError",
        "CheckpointError",
        "ExplanationError",
        "PlayerError",
        "SgpaError",
        "UsageError",
    ),
    "sgpa_jax.estimators": ("Estimate", "estimate"),
    "sgpa_jax.explain": ("Explanation",),
    "sgpa_jax.games": (
        "ABSENCES",
        "Decoder",
        "Game",
        "Passage",
        "Readout",
        "evaluate_coalitions",
        "evaluate_flat",
        "response_game",
        "speech_game",
        "speech_passage",
    ),
    "sgpa_jax.models": ("load_aligner", "load_model"),
    "sgpa_jax.players": ("Player", "Players", "all_coalitions", "word_players"),
    "sgpa_kernels": ("exact_shapley",),
}
_HOMES = {name: home for home, names in _NAMES_BY_HOME.items() for name in names}


class _Package(ModuleType):
    """This package, whose `align` and `explain` stay the functions when the rooms of the same names are imported."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
