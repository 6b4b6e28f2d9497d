"""Does the story stay? Agreement of attributions of the same players over seeds, absences, jitter or models.

A run is one attribution of one output. Rankings are by value, largest first, as in `faithfulness`.
Axes: `R` runs, `P` players, `K` outputs.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import stats

from sgpa_jax.errors import UsageError

TOP = 3


@dataclass(frozen=True, eq=False)
class Agreement:
    """How alike the rankings of several runs are, pair by pair.

    Attributes:
        n_runs, n_players: R and P.
        top: how many players the overlap looks at, at most P.
        spearman_rr: float64[R, R], Spearman's rank correlation; nan with a run whose values are all the same.
        kendall_rr: float64[R, R], Kendall's τ_b, which allows for ties; nan likewise.
        overlap_rr: float64[R, R], see `top_overlap`; top / P is what chance gives.
    """

    n_runs: int
    n_players: int
    top: int
    spearman_rr: Float[np.ndarray, "R R"]
    kendall_rr: Float[np.ndarray, "R R"]
    overlap_rr: Float[np.ndarray, "R R"]

    def pairs(self, name: str) -> Float[np.ndarray, "M"]:
        """Return the M = R (R − 1) / 2 numbers of "spearman", "kendall" or "overlap" of two different runs."""
        matrix_rr = getattr(self, f"{name}_rr")
        return matrix_rr[np.triu_indices(self.n_runs, 1)]


def agreement(values_rp: Float[np.ndarray, "R P"], *, top: int = TOP) -> Agreement:
    """Compare the rankings of every two runs.

    Raises:
        UsageError: the values are not finite float[R, P] of at least two runs and two players, or `top` is below 1.
    """
    values_rp = np.asarray(values_rp, np.float64)
    if values_rp.ndim != 2 or min(values_rp.shape) < 2 or not np.isfinite(values_rp).all() or top < 1:
        raise UsageError(
            f"runs {list(values_rp.shape)} compared by their top {top}: expected finite float[R, P] of at least two "
            "runs of at least two players, and a top of at least 1"
        )
    n_runs, n_players = values_rp.shape
    top = min(top, n_players)
    first, second = np.triu_indices(n_runs)
    kendall_rr = np.empty((n_runs, n_runs))
    for i, j in zip(first, second, strict=True):
        found: Any = stats.kendalltau(values_rp[i], values_rp[j])
        kendall_rr[i, j] = kendall_rr[j, i] = found.statistic
    return Agreement(
        n_runs=n_runs,
        n_players=n_players,
        top=top,
        spearman_rr=spearman(values_rp[:, None], values_rp[None]),
        kendall_rr=kendall_rr,
        overlap_rr=top_overlap(values_rp[:, None], values_rp[None], top),
    )


def spearman(first: Float[np.ndarray, "*N P"], second: Float[np.ndarray, "*N P"]) -> Any:
    """Return Spearman's rank correlation along the last axis, float64[N]; nan where either is the same for all."""
    centred = []
    for values in (first, second):
        ranks = stats.rankdata(values, axis=-1)
        centred.append(ranks - ranks.mean(axis=-1, keepdims=True))
    product = (centred[0] * centred[1]).sum(axis=-1)
    spread = np.sqrt(np.square(centred[0]).sum(axis=-1) * np.square(centred[1]).sum(axis=-1))
    return np.where(spread > 0, product / np.where(spread > 0, spread, 1), np.nan)


def top_overlap(first: Float[np.ndarray, "*N P"], second: Float[np.ndarray, "*N P"], top: int) -> Any:
    """Return the share of the `top` largest of one that are among those of the other, along the last axis.

    Players that tie for the last places have them in part, as if the tie were broken by lot in each: equal values agree
    no more than chance does.

    Raises:
        UsageError: `top` is below 1 or above the number of players.
    """
    n_players = np.shape(first)[-1]
    if not 1 <= top <= n_players:
        raise UsageError(f"the top {top} of {n_players} players: expected from 1 to {n_players}")
    members = []
    for values in (first, second):
        last = -np.sort(-values, axis=-1)[..., top - 1 : top]
        above, tied = values > last, values == last
        free = top - above.sum(axis=-1, keepdims=True)
        members.append(above + tied * free / tied.sum(axis=-1, keepdims=True))
    return (members[0] * members[1]).sum(axis=-1) / top


def sensitivity_max(
    values_pk: Float[np.ndarray, "P K"], perturbed_rpk: Float[np.ndarray, "R P K"]
) -> Float[np.ndarray, "K"]:
    """Return the largest ‖φ' − φ‖ / ‖φ‖ over attributions φ' of perturbed inputs, for each output, float64[K].

    The max-sensitivity of Yeh et al. 2019, relative to φ; the perturbations are the caller's, e.g. boundaries moved by
    20 ms. An attribution of nothing but zeros has 0 if it stays, and inf if it doesn't.

    Raises:
        UsageError: the values are not finite, or those of the runs not of the same players and outputs.
    """
    values_pk, perturbed_rpk = np.asarray(values_pk, np.float64), np.asarray(perturbed_rpk, np.float64)
    shapes = values_pk.shape, perturbed_rpk.shape
    if len(shapes[0]) != 2 or shapes[1][1:] != shapes[0] or len(perturbed_rpk) == 0:
        raise UsageError(f"values {shapes[0]} and perturbed ones {shapes[1]}: expected float[P, K] and float[R, P, K]")
    if not (np.isfinite(values_pk).all() and np.isfinite(perturbed_rpk).all()):
        raise UsageError("attributions hold values that are not finite: leave such runs out")
    moved_k = np.linalg.norm(perturbed_rpk - values_pk[None], axis=1).max(axis=0)
    length_k = np.linalg.norm(values_pk, axis=0)
    relative_k = moved_k / np.where(length_k > 0, length_k, 1)
    return np.where(length_k > 0, relative_k, np.where(moved_k > 0, np.inf, 0.0))
