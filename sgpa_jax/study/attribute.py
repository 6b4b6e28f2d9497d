"""One game, explained: its values beside the game itself, which goes on answering from what it evaluated.

Axes: `P` players, `K` outputs.
"""

import time
from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import Float

from sgpa_jax.estimators import Estimate, estimate
from sgpa_jax.games import Game
from sgpa_jax.players import Players
from sgpa_jax.study.partitions import spans_of
from sgpa_jax.study.records import Attribution


@dataclass(frozen=True, eq=False)
class Explained:
    """A game of some players, and who is worth what.

    Attributes:
        cut, value, absence: what was explained, by name.
        players: who plays.
        game: what was asked.
        found: the estimate; the first output is the whole response.
        seconds: that it took.
    """

    cut: str
    value: str
    absence: str
    players: Players
    game: Game
    found: Estimate
    seconds: float

    @property
    def values_p(self) -> Float[np.ndarray, "P"]:
        """φ of the whole response."""
        return np.asarray(self.found.values_pk[:, 0], np.float64)

    @property
    def is_exact(self) -> bool:
        """Whether all coalitions were evaluated."""
        return self.found.estimator == "exact"

    @property
    def durations_p(self) -> Float[np.ndarray, "P"]:
        """Seconds of each player."""
        return np.array([end_s - start_s for start_s, end_s in spans_of(self.players)])

    @property
    def name(self) -> str:
        """Value and absence, as tables call the game."""
        return f"{self.value}/{self.absence}"

    def told(self) -> Attribution:
        """Return it as records keep it."""
        found = self.found
        return Attribution(
            players=self.cut,
            value=self.value,
            absence=self.absence,
            labels=self.players.labels,
            spans_s=tuple((round(start_s, 5), round(end_s, 5)) for start_s, end_s in spans_of(self.players)),
            values=_rounded(found.values_pk[:, 0]),
            standard_errors=_rounded(found.standard_errors_pk[:, 0]),
            empty_value=float(found.empty_value_k[0]),
            full_value=float(found.full_value_k[0]),
            estimator=found.estimator,
            requested=found.evaluations.requested,
            unique=found.evaluations.unique,
            forwards=found.evaluations.model_forwards,
            seconds=round(self.seconds, 4),
        )


def explain_game(
    game: Game,
    players: Players,
    *,
    cut: str,
    value: str,
    absence: str,
    estimator: str = "auto",
    budget: int,
    seed: int,
) -> Explained:
    """Share a game out among its players.

    Raises:
        BudgetError: the budget is too small for the estimator.
    """
    began_s = time.perf_counter()
    found = estimate(game, estimator, budget=budget, key=jax.random.key(seed))
    return Explained(cut, value, absence, players, game, found, time.perf_counter() - began_s)


def _rounded(values_p: Float[np.ndarray, "P"]) -> tuple[float, ...]:
    return tuple(float(f"{value:.6g}") for value in values_p)
