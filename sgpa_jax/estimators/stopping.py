"""When an estimate is sure enough: every standard error small, or the players that matter most in an order that stays.

Both are judged at 95 % with t quantiles. Looking again and again finds a lucky moment more often than looking once, so
that intervals of an estimate which stopped by itself cover a little less. Axes: `P` players, `K` outputs.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from sgpa_jax.errors import UsageError
from sgpa_jax.estimators.base import Attribution

LEVEL = 0.95
GROWTH = 1.5
"""Each look takes this many times the evaluations of the one before, so that looking costs little."""


@dataclass(frozen=True)
class Tolerance:
    """What has to be settled; exactly one of the two is given.

    Attributes:
        error: the largest standard error that any value may have, in the unit of the values.
        top: this many players of the largest values of the first output must be known, and in which order.

    Raises:
        UsageError: neither or both are given, or one is not above zero.
    """

    error: float | None = None
    top: int | None = None

    def __post_init__(self) -> None:
        """Check what was given."""
        if (self.error is None) == (self.top is None) or not (self.error or self.top or 0) > 0:
            raise UsageError(
                f"a tolerance of error {self.error} and top {self.top}: expected one of them, and above zero"
            )

    @classmethod
    def parse(cls, text: str) -> "Tolerance":
        """Read `0.05` (a standard error) or `top:3` (a ranking).

        Raises:
            UsageError: it is neither.
        """
        try:
            return cls(top=int(text[4:])) if text.startswith("top:") else cls(error=float(text))
        except ValueError as error:
            raise UsageError(
                f"the tolerance is {text!r}: expected a standard error such as 0.05, or a ranking such as top:3"
            ) from error

    def is_met(self, found: Attribution) -> bool:
        """Whether an attribution is settled; errors that are not known yet settle nothing."""
        errors_pk = np.asarray(found.standard_errors_pk)
        if self.error is not None:
            return bool((errors_pk <= self.error).all())
        values_p, errors_p = np.asarray(found.values_pk)[:, 0], errors_pk[:, 0]
        order = np.argsort(-values_p, kind="stable")
        upper, lower = order[: self.top], order[1 : (self.top or 0) + 1]
        gaps = values_p[upper[: len(lower)]] - values_p[lower]
        # However two values vary together, their difference varies no more than this.
        reach = stdtrit(found.degrees_of_freedom, (1 + LEVEL) / 2) * (errors_p[upper[: len(lower)]] + errors_p[lower])
        return bool((gaps >= reach).all())


def growing_budgets(least: int, most: int) -> Iterator[int]:
    """Yield the evaluations to have spent at each look, the last being `most`."""
    budget = least
    while budget < most:
        yield budget
        budget = int(np.ceil(budget * GROWTH))
    yield most
