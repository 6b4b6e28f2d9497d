"""Presets: options that belong together. `paper` is what the text of SGPA says, `authors` what its authors' code does.

Both explain the words alone by how near the answers to them are to the answer to all: TF-IDF's cosine, 30 tokens at
most, complementary contributions with Neyman's allocation, 3 P² evaluations. In the text an absent word is silent and
the corpus of TF-IDF is one; the code has a game (`authors_game`), an estimator, a budget and rules of its own. Whatever
is not named here is free: recording, words, question, system turn, models, devices and seed.
"""

from collections.abc import Mapping
from typing import Any

from sgpa_jax.align import Alignment
from sgpa_jax.errors import UsageError, unknown_name
from sgpa_jax.estimators import AUTHORS
from sgpa_jax.games import AUTHORS_GAME

_COMMON: dict[str, Any] = {
    "players": "speech",
    "text": "none",
    "estimand": "shapley",
    "groups": None,
    "tolerance": None,
    "interactions": None,
    "max_new_tokens": 30,
    "long": "refuse",
}
PRESETS: dict[str, dict[str, Any]] = {
    "paper": _COMMON
    | {"absence": "silence", "value": "tfidf", "estimator": "neyman", "budget": "paper", "rules": "sgpa"},
    "authors": _COMMON
    | {"absence": "delete", "value": "tfidf_per_phase", "estimator": AUTHORS, "budget": "authors", "rules": "authors"},
}
"""The options of each preset, by the names that `Asked` has for them."""


def with_preset(preset: str | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that were given, those that are not None, and a preset's.

    Raises:
        UsageError: there is no such preset, or an option contradicts it.
    """
    given = {name: option for name, option in options.items() if option is not None}
    if preset is None:
        return given
    if preset not in PRESETS:
        raise unknown_name("preset", preset, tuple(PRESETS))
    for name, option in PRESETS[preset].items():
        if given.get(name, option) != option:
            does = f"takes no {name}" if option is None else f"has {name} {option}"
            raise UsageError(
                f"the preset {preset} {does}, but {name} {given[name]} was given: leave it or the preset out"
            )
    return PRESETS[preset] | given


def preset_facts(preset: str, alignment: Alignment | None, budget: int) -> dict[str, Any]:
    """Return all that a preset came to, as an explanation tells it."""
    told = {"name": preset, **PRESETS[preset], "evaluations": budget}
    if alignment is not None:
        told["rules"] = alignment.rules
    return told | (AUTHORS_GAME if preset == "authors" else {})
