"""Drawn parameters of sounds and voices, with ranges held out of training.

Two tenths of every range are never drawn in training, and held-out clips draw from these alone: they are of values that
no training clip had, and lie inside of what training spans.
"""

from dataclasses import dataclass

import numpy as np

_GAPS = ((0.2, 0.3), (0.7, 0.8))
_KEPT = ((0.0, 0.2), (0.3, 0.7), (0.8, 1.0))


@dataclass(frozen=True, eq=False)
class Draw:
    """Draws the parameters of one clip.

    Attributes:
        rng: decides everything.
        held_out: whether values come from the ranges that training leaves out.
    """

    rng: np.random.Generator
    held_out: bool = False

    def between(self, low: float, high: float) -> float:
        """A value from the part of a range that is open to this clip."""
        parts = np.array(_GAPS if self.held_out else _KEPT)
        lengths = parts[:, 1] - parts[:, 0]
        first, last = parts[self.rng.choice(len(parts), p=lengths / lengths.sum())]
        return float(low + (high - low) * self.rng.uniform(first, last))

    def geometric(self, low: float, high: float) -> float:
        """The same on a logarithmic scale, for frequencies."""
        return float(np.exp(self.between(np.log(low), np.log(high))))
