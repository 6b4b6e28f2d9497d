"""How far what we compute is off what a reference computes: the figures of one stage, and what decides.

An error is relative: the Euclidean length of the difference at a position over that of the reference's vector there,
the worst position counts. A network's few very large numbers so neither hide an error elsewhere nor make one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Stage:
    """How one stage compares.

    Attributes:
        name: the stage; `encoder.layers.3` and the like are paths of our parameters.
        difference: the largest difference of two numbers.
        scale: root mean square of the reference's numbers.
        error: the relative error that decides, infinite where shapes differ or numbers are not finite.
        carried: the same where ours was fed with what our own stages before it gave; None where that is the same.
        tolerance: what `error` may be.
    """

    name: str
    difference: float
    scale: float
    error: float
    carried: float | None
    tolerance: float

    @property
    def within(self) -> bool:
        """Whether ours and the reference agree here."""
        return self.error <= self.tolerance


def compare(
    name: str,
    ours: np.ndarray,
    theirs: np.ndarray,
    tolerance: float,
    *,
    carried: np.ndarray | None = None,
    n: int | None = None,
) -> Stage:
    """Compare the first n positions of what a stage gave, `[1, T, D]` each; `carried` is ours of our own input."""
    ours, theirs = ours[:, :n], theirs[:, :n]
    if ours.shape != theirs.shape:
        return Stage(name, np.inf, float(np.sqrt(np.mean(theirs**2))), np.inf, None, tolerance)
    return Stage(
        name,
        float(np.abs(ours - theirs).max()),
        float(np.sqrt(np.mean(theirs**2))),
        _error(ours, theirs),
        None if carried is None else _error(carried[:, :n], theirs),
        tolerance,
    )


def compare_choices(
    name: str, logits_nv: np.ndarray, ours: Sequence[int], theirs: Sequence[int], tolerance: float
) -> Stage:
    """Compare choices up to the first other one, by how much less likely it is by the logits."""
    for logits_v, our, their in zip(logits_nv, ours, theirs, strict=False):
        if our != their:
            difference, scale = abs(float(logits_v[their] - logits_v[our])), float(np.sqrt(np.mean(logits_v**2)))
            return Stage(name, difference, scale, difference / scale, None, tolerance)
    return Stage(name, 0.0, float(np.sqrt(np.mean(logits_nv**2))), 0.0, None, tolerance)


def compare_ids(ours: Sequence[int], theirs: Sequence[int]) -> Stage:
    """Compare the token ids of a prompt, which must be the same."""
    n_different = sum(a != b for a, b in zip(ours, theirs, strict=False)) + abs(len(ours) - len(theirs))
    return Stage("prompt", float(n_different), float(len(theirs)), float(n_different), None, 0.0)


def _error(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Worst relative error of a position; one of next to nothing is measured by the others."""
    length = np.linalg.norm(theirs, axis=-1)
    error = np.linalg.norm(ours - theirs, axis=-1) / np.maximum(length, max(0.1 * np.median(length), 1e-6))
    return float(error.max()) if np.isfinite(error).all() else np.inf
