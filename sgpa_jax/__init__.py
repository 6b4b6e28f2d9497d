"""Which words of a recording made an audio language model answer as it did: Shapley values over speech, in JAX.

Everything public is named here and loaded on first use, so that `import sgpa_jax` runs nothing: it touches no device,
changes no JAX configuration and loads no other library.
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sgpa_kernels import exact_banzhaf, exact_shapley

    from sgpa_jax.align import Alignment, Word, align_batch, read_alignment, write_alignment
    from sgpa_jax.api import align, explain, plan
    from sgpa_jax.archive import refold_explanation
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
    from sgpa_jax.estimators import Estimate, Interactions, Tolerance, estimate, exact_owen, interactions, refold
    from sgpa_jax.explain import Explanation
    from sgpa_jax.games import (
        ABSENCES,
        Decoder,
        Game,
        Passage,
        Readout,
        control_game,
        evaluate_coalitions,
        evaluate_flat,
        native_players,
        response_game,
        speech_game,
        speech_passage,
    )
    from sgpa_jax.interop import as_shapiq_game, from_shapiq_game
    from sgpa_jax.models import explained_in, load_aligner, load_model
    from sgpa_jax.players import (
        Player,
        Players,
        all_coalitions,
        energy_players,
        group_by_phrase,
        groups_of,
        join_players,
        phrase_players,
        text_players,
        window_players,
        word_players,
    )

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
    "Interactions",
    "Passage",
    "Player",
    "PlayerError",
    "Players",
    "Readout",
    "SgpaError",
    "Tolerance",
    "UsageError",
    "Word",
    "align",
    "align_batch",
    "all_coalitions",
    "as_shapiq_game",
    "control_game",
    "energy_players",
    "estimate",
    "evaluate_coalitions",
    "evaluate_flat",
    "exact_banzhaf",
    "exact_owen",
    "exact_shapley",
    "explain",
    "explained_in",
    "from_shapiq_game",
    "group_by_phrase",
    "groups_of",
    "interactions",
    "join_players",
    "load_aligner",
    "load_model",
    "native_players",
    "phrase_players",
    "plan",
    "read_alignment",
    "read_clip",
    "refold",
    "refold_explanation",
    "response_game",
    "speech_game",
    "speech_passage",
    "text_players",
    "window_players",
    "word_players",
    "write_alignment",
    "write_wav",
]

_NAMES_BY_HOME = {
    "sgpa_jax.align": ("Alignment", "Word", "align_batch", "read_alignment", "write_alignment"),
    "sgpa_jax.api": ("align", "explain", "plan"),
    "sgpa_jax.archive": ("refold_explanation",),
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
    "sgpa_jax.estimators": (
        "Estimate",
        "Interactions",
        "Tolerance",
        "estimate",
        "exact_owen",
        "interactions",
        "refold",
    ),
    "sgpa_jax.explain": ("Explanation",),
    "sgpa_jax.games": (
        "ABSENCES",
        "Decoder",
        "Game",
        "Passage",
        "Readout",
        "control_game",
        "evaluate_coalitions",
        "evaluate_flat",
        "native_players",
        "response_game",
        "speech_game",
        "speech_passage",
    ),
    "sgpa_jax.interop": ("as_shapiq_game", "from_shapiq_game"),
    "sgpa_jax.models": ("explained_in", "load_aligner", "load_model"),
    "sgpa_jax.players": (
        "Player",
        "Players",
        "all_coalitions",
        "energy_players",
        "group_by_phrase",
        "groups_of",
        "join_players",
        "phrase_players",
        "text_players",
        "window_players",
        "word_players",
    ),
    "sgpa_kernels": ("exact_banzhaf", "exact_shapley"),
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
