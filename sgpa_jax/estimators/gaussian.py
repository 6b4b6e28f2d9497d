"""Values from a Gaussian process over coalitions: the most exact at a small budget, for games that are at all regular.

Shapley and Banzhaf values are linear in d(S) = v(S) - v(N∖S), an odd function of the players' signs. It gets the prior
of `gaussian_prior.py`, whose scales are those of the largest posterior, the same for all outputs. All this is a
linear-algebra problem of the size of the sample. The posterior mean passes through every observation, v(N) - v(∅) among
them, so that Shapley values sum to it, and are exact once all pairs are there.

Standard errors are not the posterior's, which trusts its prior, but the robust ones of a predictor of a finite
population's sum (Royall and Cumberland 1978). They rest on what each pair would have missed by, had it been left out,
in closed form: for a pair that was seen by the weight it got beyond its own, for those that were not by what was seen
of their size. With 120 evaluations of 12 players 95 % intervals covered 94 % in a weighted majority (2,000 repetitions;
one player 89 %), and 96 to 98 % in log-sigmoid, glove, airport, polynomial and unanimity games, Shapley's values and
Banzhaf's alike. Drawn as for Shapley's, pairs told of the few large coalitions as much as of the many that Banzhaf's
values are made of: they had a bias as large as their spread, and 80 % were covered.

Less is not as exact: without a scale for each player the mean square was up to 36 times larger, and correcting the
values by the pairs left out, which would take their bias away, made it up to twice as large.
Axes: `M` pairs, the pair (N, ∅) among them; `P` players, `K` outputs.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import cho_solve, solve_triangular
from jaxtyping import Array, Float

from sgpa_jax.errors import BudgetError
from sgpa_jax.estimators.base import Attribution
from sgpa_jax.estimators.gaussian_prior import covariance, learn, values_of_prior, white
from sgpa_jax.estimators.sampling import Sample, ShapleyOrBanzhaf, alike_weights, pair_population, pairs_of
from sgpa_jax.typing import MaskCP, ValueCK

MOST_PAIRS = 4096
"""The matrix of this many pairs is 134 MB in float64; its inverse takes some ten seconds of one processor core."""

_PAIRS_TO_LEARN_FROM = 256
"""The scales are learned from no more, since a step costs the cube of their number."""


@dataclass(frozen=True)
class GaussianProcess(ShapleyOrBanzhaf):
    """Shapley or Banzhaf values of the posterior mean of a Gaussian process.

    Raises:
        UsageError: an unknown estimand.
    """

    name: ClassVar[str] = "gaussian"

    @classmethod
    def for_budget(cls, n_players: int, budget: int, *, n_outputs: int = 1, estimand: str = "shapley") -> Self:
        """Return as many pairs as a budget allows, v(∅) and v(N) counted as one.

        Raises:
            BudgetError: it allows neither two pairs a player nor all, or more pairs than `MOST_PAIRS`.
            UsageError: an unknown estimand.
        """
        n_pairs = super().for_budget(n_players, budget, n_outputs=n_outputs).n_pairs
        _check_size(min(n_pairs, int(pair_population(n_players).sum())))
        return cls(n_players, n_outputs, n_pairs, estimand)

    @property
    def weights_by_size(self) -> Float[np.ndarray, " Z"]:
        """Sizes the same for Shapley's values; as many as there are for Banzhaf's."""
        if self.estimand == "shapley":
            return alike_weights(self.n_players)
        return pair_population(self.n_players) * 2.0**-self.n_players

    def update(self, state: Sample, masks_cp: MaskCP, values_ck: ValueCK) -> Sample:
        """Return the state that holds these coalitions and their values.

        Raises:
            BudgetError: they are more than `MOST_PAIRS` pairs.
        """
        _check_size(len(masks_cp) // 2 - 1)
        return super().update(state, masks_cp, values_ck)

    def estimate(self, state: Sample) -> Attribution:
        """Return the values of the posterior mean; Shapley values sum to v(N) - v(∅)."""
        pairs, n_players = pairs_of(state.masks_cp, state.values_ck), self.n_players
        x_mp = jnp.concatenate([jnp.ones((1, n_players), pairs.signs_mp.dtype), pairs.signs_mp])
        d_mk = jnp.concatenate([(pairs.full_value_k - pairs.empty_value_k)[None], pairs.differences_mk])
        size_m = jnp.concatenate([jnp.full(1, n_players, jnp.int32), pairs.size_m])
        spread_k = jnp.sqrt(jnp.square(d_mk).mean(axis=0))
        y_mk = d_mk / jnp.where(spread_k > 0, spread_k, 1)[None]
        # By size, as the sample is laid out, so that those to learn from are of all sizes.
        few = np.unique(np.linspace(0, len(x_mp) - 1, min(len(x_mp), _PAIRS_TO_LEARN_FROM)).round().astype(int))
        with jax.default_matmul_precision("highest"):
            scales = learn(x_mp[few], y_mk[few])
            weight_mp = _weights(size_m, x_mp, self.estimand)
            factor_mm = jnp.linalg.cholesky(covariance(scales, x_mp))
            known_mp = values_of_prior(scales, x_mp, self.estimand) + white(scales, x_mp.dtype) * weight_mp
            reach_mp, alpha_mk = cho_solve((factor_mm, True), known_mp), cho_solve((factor_mm, True), y_mk)
            inverse_mm = solve_triangular(factor_mm, jnp.eye(len(x_mp), dtype=x_mp.dtype), lower=True)
            values_pk = known_mp.T @ alpha_mk
            left_out_mk = alpha_mk / jnp.square(inverse_mm).sum(axis=0)[:, None]
            unseen_mp = jnp.sqrt(_unseen(size_m, n_players, x_mp.dtype)) * weight_mp
            square_mp = jnp.square(reach_mp - weight_mp) + jnp.square(unseen_mp)
            variance_pk = square_mp.T @ jnp.square(left_out_mk)
        return Attribution(
            values_pk * spread_k[None],
            jnp.sqrt(variance_pk) * spread_k[None],
            pairs.empty_value_k,
            pairs.full_value_k,
            jnp.asarray(max(len(x_mp) - n_players - 3, 1), x_mp.dtype),
        )


def _check_size(n_pairs: int) -> None:
    if n_pairs > MOST_PAIRS:
        raise BudgetError(
            f"{2 + 2 * n_pairs} evaluations are too many for the gaussian estimator: expected at most "
            f"{2 + 2 * MOST_PAIRS}; lower the budget or take another estimator"
        )


def _weights(size_m, x_mp: Float[Array, "M P"], estimand: str) -> Float[Array, "M P"]:
    """Return what d of each pair weighs in the value of each player: its own weight, if all pairs are there."""
    n_players = x_mp.shape[1]
    if estimand == "banzhaf":
        return x_mp * 2.0 ** (1 - n_players)
    # Of s players that this one is among: (s - 1)! (P - s)! / P!; that it is not among: minus s! (P - s - 1)! / P!.
    weight_z = [0.0] + [1 / (n_players * math.comb(n_players - 1, size - 1)) for size in range(1, n_players + 1)]
    with_m, without_m = (jnp.asarray(part, x_mp.dtype)[size_m][:, None] for part in (weight_z, weight_z[::-1]))
    return jnp.where(x_mp > 0, with_m, -without_m)


def _unseen(size_m, n_players: int, dtype) -> Float[Array, "M 1"]:
    """Return how many pairs of its size each pair stands for, beside itself, that are not in the sample."""
    # float32 holds no more than 1e38; what weighs so little does not matter.
    population = [1.0, *np.minimum(pair_population(n_players), 1e38)]
    smaller_m = jnp.minimum(size_m, n_players - size_m)
    count_z = jax.ops.segment_sum(jnp.ones(len(size_m), dtype), smaller_m, len(population))
    unseen_z = jnp.maximum(jnp.asarray(population, dtype) / jnp.maximum(count_z, 1) - 1, 0)
    return unseen_z[smaller_m][:, None]
