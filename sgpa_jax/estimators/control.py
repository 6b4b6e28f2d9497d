"""Control variates: a cheap game that is solved exactly, and a sampled correction by the true one.

Let φ be linear in the game, and φ̂ an estimator of it from a sample that is linear in the game too. Where a cheap game g
resembles the true game v and is solved (all its coalitions were evaluated, or it is a proxy with a closed form),

    β φ(g) + φ̂(v - β g)

estimates φ(v) with no more bias than φ̂ has, for any β that the sample did not choose, and varies as v - β g does.
The best β makes that variance least; it is the regression coefficient of φ̂(v) on φ̂(g). Both variances and the
covariance come from the standard errors that the estimator tells of v, of g and of their sum, summed over players, so
that nothing has to be known about it. One β serves all players of an output: their shares keep their sum.

A β chosen by the very coalitions that it is used on would bias the result a little. So the sample is dealt into two
halves, and the coalitions of one take the β that the other has chosen. Where half a sample is too little for the
estimator, or cannot be told, the whole one chooses for itself: that bias is of the order of one over the size of the
sample, and was a tenth of the standard error with seven pairs of permutations (Glasserman 2003, "Monte Carlo Methods in
Financial Engineering", §4.1).
Axes: `C` coalitions, `N` = 2^P coalitions, `P` players, `K` outputs, `J` outputs of the cheap game: K or 1.
"""

import dataclasses
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from sgpa_kernels import exact_banzhaf, exact_shapley

from sgpa_jax.errors import BudgetError, UsageError
from sgpa_jax.estimators.base import Attribution, Estimator
from sgpa_jax.estimators.permutation import Permutation
from sgpa_jax.estimators.sampling import strata_of
from sgpa_jax.typing import MaskCP, PRNGKeyArray, ValueCK


class Solved(NamedTuple):
    """What is known of a cheap game.

    Attributes:
        values_pj: float[P, J], its exact values, of the same estimand.
        coalition_values_cj: float[C, J], what the sampled coalitions are worth in it.
    """

    values_pj: ValueCK
    coalition_values_cj: ValueCK


class Controlled(NamedTuple):
    """What came of a control variate.

    Attributes:
        attribution: the estimate.
        beta_k: float[K], how much of the cheap game was taken.
        variance_reduction_k: float[K], variance without the control over variance with it, summed over players; 1 where
            nothing was to be gained. Chosen on the sample, β makes an unrelated game look useful by its own noise.
    """

    attribution: Attribution
    beta_k: Float[Array, " K"]
    variance_reduction_k: Float[Array, " K"]


def controlled(
    estimator: Estimator,
    key: PRNGKeyArray,
    masks_cp: MaskCP,
    values_ck: ValueCK,
    cheap: Solved,
    *,
    beta_k: Float[Array, " K"] | None = None,
) -> Controlled:
    """Return what an estimator linear in the game makes of a sample, with a cheap game taken as its control variate.

    Args:
        estimator: a dataclass, of what `update` is given `masks_cp` and values; of one proposal.
        key: what the estimator was started with.
        masks_cp: the coalitions it proposed, or others that it takes.
        values_ck: their worth in the true game.
        cheap: the control; one output serves all.
        beta_k: float[K]; None: estimated.

    Raises:
        UsageError: the cheap game has neither one output nor as many as the true one, or other coalitions.
    """
    values_ck = jnp.asarray(values_ck)
    n_outputs, dtype = values_ck.shape[1], values_ck.dtype
    if cheap.coalition_values_cj.shape not in {(len(values_ck), 1), values_ck.shape}:
        raise UsageError(
            f"the control's values are {list(cheap.coalition_values_cj.shape)} beside {list(values_ck.shape)} of the "
            "game: expected the same coalitions, and one output or the same number"
        )
    cheap_ck = jnp.broadcast_to(jnp.asarray(cheap.coalition_values_cj, dtype), values_ck.shape)
    exact_pk = jnp.broadcast_to(jnp.asarray(cheap.values_pj, dtype), (estimator.n_players, n_outputs))

    if beta_k is None:
        halves = _halves(estimator, masks_cp)
        if halves is None:
            beta_ck = _best_beta(estimator, key, masks_cp, values_ck, cheap_ck)[None]
        else:
            method, *rows = halves
            first_k, second_k = (_best_beta(method, key, masks_cp[r], values_ck[r], cheap_ck[r]) for r in rows)
            lean_c = np.ones(len(values_ck))
            lean_c[rows[0]], lean_c[:2] = -1, 0
            unseen_c1 = _unseen(estimator, masks_cp, dtype)[:, None]
            mean_k, lean_k = (first_k + second_k) / 2, (first_k - second_k) / 2
            beta_ck = mean_k[None] + jnp.asarray(lean_c, dtype)[:, None] * unseen_c1 * lean_k[None]
    else:
        beta_ck = jnp.asarray(beta_k, dtype)[None]
    alone = _run(estimator, key, masks_cp, values_ck)
    found = _run(estimator, key, masks_cp, values_ck - beta_ck * cheap_ck)
    without_k, with_k = (jnp.square(of.standard_errors_pk).sum(axis=0) for of in (alone, found))
    attribution = found._replace(
        values_pk=found.values_pk + beta_ck[:1] * exact_pk,
        empty_value_k=values_ck[0],
        full_value_k=values_ck[1],
    )
    reduction_k = jnp.where(without_k == with_k, 1, _ratio(without_k, with_k, jnp.inf))
    return Controlled(attribution, beta_ck[0], reduction_k)


def solved(cheap_values_nj: ValueCK, masks_cp: MaskCP, estimand: str = "shapley") -> Solved:
    """Solve a game of which all 2^P coalitions are known, bit `i` of the row's index being player `i`.

    Raises:
        UsageError: the number of rows is not 2^P, or Shapley's or Banzhaf's values are not meant.
    """
    n_players = masks_cp.shape[1]
    if cheap_values_nj.shape[0] != 2**n_players or estimand not in ("shapley", "banzhaf"):
        raise UsageError(
            f"a control of {cheap_values_nj.shape[0]} coalitions for the {estimand} values of {n_players} players: "
            f"expected all {2**n_players} coalitions, and Shapley's or Banzhaf's values"
        )
    cheap_values_nj = jnp.asarray(cheap_values_nj)
    bits_p = jnp.left_shift(jnp.int32(1), jnp.arange(n_players, dtype=jnp.int32))
    row_c = jnp.where(jnp.asarray(masks_cp), bits_p[None], 0).sum(axis=1, dtype=jnp.int32)
    transform = exact_shapley if estimand == "shapley" else exact_banzhaf
    return Solved(transform(cheap_values_nj), cheap_values_nj[row_c])


def _best_beta(estimator: Estimator, key: PRNGKeyArray, masks_cp, values_ck, cheap_ck) -> Float[Array, " K"]:
    """Return the β of least variance; zero where the cheap game has none."""
    # Both of one unit, lest the smaller be lost in the sum.
    unit_k = _ratio(values_ck.std(axis=0), cheap_ck.std(axis=0))
    cheap_ck = cheap_ck * unit_k[None]
    three = _run(estimator, key, masks_cp, jnp.concatenate([values_ck, cheap_ck, values_ck + cheap_ck], axis=1))
    own_k, cheap_k, both_k = jnp.split(jnp.square(three.standard_errors_pk).sum(axis=0), 3)
    return unit_k * _ratio((both_k - own_k - cheap_k) / 2, cheap_k)


def _run(estimator: Any, key: PRNGKeyArray, masks_cp: MaskCP, values_ck: Array) -> Attribution:
    method = dataclasses.replace(estimator, n_outputs=values_ck.shape[1])
    return method.estimate(method.update(method.init(key), masks_cp, values_ck))


def _unseen(estimator: Estimator, masks_cp: MaskCP, dtype) -> Float[Array, " C"]:
    """Return, for each coalition, the part of its like that is not in the sample; what is seen needs no other half."""
    if not estimator.takes_any_sample:
        return jnp.ones(len(masks_cp), dtype)
    size_c = jnp.asarray(masks_cp).sum(axis=1, dtype=jnp.int32)
    strata = strata_of(size_c[2::2], estimator.n_players, dtype)
    return jnp.append(jnp.zeros(2, dtype), jnp.repeat(jnp.append(strata.unseen_z, 1)[strata.of_m], 2))


def _halves(estimator: Any, masks_cp: MaskCP) -> tuple[Any, np.ndarray, np.ndarray] | None:
    """Return the method for half a sample, and the rows of each half with ∅ and N; None where that is too little.

    Behind ∅ and N come blocks that belong together: a coalition and its complement, or the chains of two orders.
    """
    if not (estimator.takes_any_sample or isinstance(estimator, Permutation)):
        return None
    n_blocks = (len(masks_cp) - 2) // 2 if estimator.takes_any_sample else estimator.n_pairs
    n_rows, half = (len(masks_cp) - 2) // max(n_blocks, 1), n_blocks // 2
    try:
        type(estimator).for_budget(estimator.n_players, 2 + half * n_rows)
    except BudgetError:
        return None
    block_rows = 2 + np.arange(n_blocks * n_rows).reshape(n_blocks, n_rows)
    first, second = (np.append([0, 1], block_rows[start : 2 * half : 2].ravel()) for start in (0, 1))
    return dataclasses.replace(estimator, n_pairs=half), first, second


def _ratio(above_k: Array, below_k: Array, otherwise: float = 0.0) -> Array:
    return jnp.where(below_k > 0, above_k / jnp.where(below_k > 0, below_k, 1), otherwise)
