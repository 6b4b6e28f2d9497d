"""`refold`: estimating again from coalitions whose values are known, without the game."""

from dataclasses import replace
from functools import partial

import numpy as np
from jaxtyping import Bool, Float

from sgpa_jax.errors import UsageError
from sgpa_jax.estimators.authors import AUTHORS
from sgpa_jax.estimators.base import Estimate
from sgpa_jax.estimators.estimate import estimate
from sgpa_jax.estimators.methods import METHODS, choose_estimator, method_for
from sgpa_jax.estimators.solve import arrays_of, seed_of, solved_on_host
from sgpa_jax.games import Evaluations, Game
from sgpa_jax.typing import PRNGKeyArray


def refold(
    masks_cp: Bool[np.ndarray, "C P"],
    coalition_values_ck: Float[np.ndarray, "C K"],
    estimator: str,
    *,
    estimand: str = "shapley",
    groups: tuple[int, ...] | None = None,
    key: PRNGKeyArray,
) -> Estimate:
    """Estimate again from coalitions whose values are known, without the game.

    All 2^P coalitions serve every method. A sample serves those that take any sample whose coalitions of one size are
    a uniform draw, as those of all our methods are; of it they use the pairs of a coalition and its complement.

    Args:
        masks_cp: the coalitions, v(∅) and v(N) among them, in any order and also repeated.
        coalition_values_ck: what they are worth.
        estimator: one of `ESTIMATORS`.
        estimand: one of `ESTIMANDS`.
        groups: each player's group, for Owen values.
        key: a typed key, for methods that draw.

    Raises:
        UsageError: as `estimate`; or a sample for a method that only takes its own, or one without v(∅), v(N) or a
            pair.
        BudgetError: too few coalitions for the method.
    """
    n_players = masks_cp.shape[1]
    masks_cp, first_c = np.unique(masks_cp, axis=0, return_index=True)
    values_ck = np.asarray(coalition_values_ck, np.float64)[first_c]
    if len(masks_cp) == 2**n_players:
        known = Game(partial(_looked_up, masks_cp, values_ck), n_players, jit=False)
        return estimate(known, estimator, estimand=estimand, groups=groups, budget=len(masks_cp), key=key)
    masks_cp, values_ck = _paired(masks_cp, values_ck)
    name = choose_estimator(estimator, n_players, len(masks_cp), estimand=estimand, groups=groups)
    method = None if name == AUTHORS else method_for(name, estimand, groups, n_players, len(masks_cp))
    if method is None or not method.takes_any_sample:
        able = [other for other, classes in METHODS.items() if any(kind.takes_any_sample for kind in classes)]
        raise UsageError(
            f"the estimator {name} needs coalitions of its own drawing, but these are of another run: expected one of "
            f"{', '.join(able)}"
        )
    method = replace(method, n_outputs=values_ck.shape[1])
    return Estimate(
        **arrays_of(solved_on_host(method, key, [(masks_cp, values_ck)])),
        estimand=estimand,
        estimator=name,
        budget=len(masks_cp),
        seed=seed_of(key),
        evaluations=Evaluations(),
        masks_cp=masks_cp,
        coalition_values_ck=values_ck,
    )


def _looked_up(masks_np: np.ndarray, values_nk: np.ndarray, masks_cp: np.ndarray) -> np.ndarray:
    """Find the rows of coalitions in a sorted table of all of them."""
    # Rows of bits sort as the numbers that they write out do.
    weights_p = 2.0 ** np.arange(masks_np.shape[1])[::-1]
    return values_nk[np.searchsorted(masks_np @ weights_p, masks_cp @ weights_p)]


def _paired(masks_cp: np.ndarray, values_ck: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lay distinct coalitions out as ∅, N, and then pairs; those without their complement are left out."""
    row_of = {row.tobytes(): index for index, row in enumerate(masks_cp)}
    other_c = np.array([row_of.get((~row).tobytes(), -1) for row in masks_cp])
    empty = row_of.get(np.zeros_like(masks_cp[0]).tobytes())
    full = row_of.get(np.ones_like(masks_cp[0]).tobytes())
    # The smaller of two comes first; of two equally large the one that was found first.
    size_c = masks_cp.sum(axis=1)
    index_c = np.arange(len(masks_cp))
    first_c = (other_c >= 0) & (size_c > 0)
    first_c &= (2 * size_c < masks_cp.shape[1]) | ((2 * size_c == masks_cp.shape[1]) & (index_c < other_c))
    if empty is None or full is None or not first_c.any():
        raise UsageError(
            f"{len(masks_cp)} coalitions lack the empty one, the full one or any pair of complements: expected those "
            "of a finished run"
        )
    rows = np.concatenate([[empty, full], np.stack([index_c[first_c], other_c[first_c]], axis=1).ravel()])
    return masks_cp[rows], values_ck[rows]
