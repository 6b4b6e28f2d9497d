"""What is asked of every recording: the options of an explanation beside recording, words, question and models."""

from dataclasses import dataclass, field, fields
from typing import Any

from sgpa_jax.api.presets import PRESETS, with_preset
from sgpa_jax.archive import parse_index
from sgpa_jax.errors import UsageError, unknown_name
from sgpa_jax.estimators import Tolerance, authors_budget, paper_budget
from sgpa_jax.games import ABSENCES, RESPONSE_SCORES, TEXT_ABSENCES, VALUES

BUDGETS = {"paper": paper_budget, "authors": authors_budget}
"""What SGPA's paper, and the code of its authors, grant a number of players."""

LONG = ("refuse", "windows")
"""What happens to a recording that is longer than the model hears at once."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The options of an explanation, as `explain` describes them; a `preset` comes with its own (`with_preset`).

    Raises:
        UsageError: an unknown name, no such tolerance, index or budget, or an option that is not the preset's.
    """

    preset: str | None = None
    system: str | None = None
    players: str = "words"
    text: str = "none"
    absence: str = "silence"
    text_absence: str = "attention"
    value: str = "logprob"
    baseline: str = "mean"
    estimand: str = "shapley"
    groups: str | None = None
    estimator: str = "auto"
    budget: int | str = 4096
    tolerance: str | None = None
    interactions: str | None = None
    max_new_tokens: int = 64
    seed: int = 0
    rules: str = "sgpa"
    unspellable: str = "error"
    language: str | None = None
    long: str = "refuse"
    wanted: Tolerance | None = field(init=False)
    index: tuple[str, int] | None = field(init=False)

    def __post_init__(self) -> None:
        for kind, name, known in (
            ("absence", self.absence, ABSENCES),
            ("absence of text", self.text_absence, TEXT_ABSENCES),
            ("value", self.value, (*VALUES, *RESPONSE_SCORES)),
            ("way with long recordings", self.long, LONG),
        ):
            if name not in known:
                raise unknown_name(kind, name, known)
        if self.budget not in BUDGETS and (not isinstance(self.budget, int) or self.budget < 1):
            raise UsageError(f"the budget is {self.budget!r}: expected a number of coalitions, or paper")
        if self.preset is not None:
            with_preset(self.preset, {name: getattr(self, name) for name in PRESETS.get(self.preset, {})})
        object.__setattr__(self, "wanted", None if self.tolerance is None else Tolerance.parse(self.tolerance))
        object.__setattr__(self, "index", None if self.interactions is None else parse_index(self.interactions))

    @property
    def compares_responses(self) -> bool:
        """Whether the value compares what coalitions make the model say."""
        return self.value in RESPONSE_SCORES

    @property
    def of_the_game(self) -> dict[str, Any]:
        """How players are absent, as games take it."""
        return {"absence": self.absence, "baseline": self.baseline, "text_absence": self.text_absence}

    def budget_for(self, n_players: int) -> int:
        """The evaluations that are allowed: a number, or what one of `BUDGETS` grants so many players."""
        return BUDGETS[self.budget](n_players) if isinstance(self.budget, str) else self.budget


OPTIONS = tuple(option.name for option in fields(Asked) if option.init)
"""The names of the options."""
