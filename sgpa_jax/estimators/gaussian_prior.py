"""The prior of `gaussian.py`: what pairs of coalitions tell of each other, and the values of that as a game.

For the players' signs x (+1 inside of S, -1 outside) and their mean u it is the odd part of a product kernel and more,

    k(x, x') = e^(-Σc) (e^(Σ c_i x_i x'_i) - e^(-Σ c_i x_i x'_i)) + (l + s e^(-2 ||u| - |u'||)) Σ x_i x'_i
               + r (|u + u'| - |u - u'|) / 2 + w [x = x'] - w [x = -x'].

The first part knows interactions of every odd order, the higher the less likely, and for each player how much it
interacts (Rasmussen and Williams 2006, §5.1: automatic relevance determination). The others: shares, and such as change
with the size, because voters decide much where half have joined and nothing before; a random walk in what depends on
the size alone; and what nothing can be learned of from other pairs. The scales of the players are held together: few
pairs of a vote are explained best by a few of the voters alone, and then neither the values nor what the pairs tell of
their error can be trusted: without the walk, and with scales held together ten times less, 95 % intervals covered
50 %. For the same reason how far shares reach is given: learned too, it cost about 3 % of the coverage.

Values are found exactly. The product kernel's are integrals over the diagonal of the multilinear extension (Owen 1972),
in which a product stays a product, and Gauss and Legendre's rule with P / 2 nodes is exact for it.
Axes: `M` pairs, `T` sizes from 0 to P, `Q` nodes, `P` players, `K` outputs.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float

_STEPS = 80
_RATE = 0.15


class Scales(NamedTuple):
    """Logarithms: of how much each player interacts, and of the variance of the other four parts."""

    interaction_p: Float[Array, " P"]
    additive: Float[Array, ""]
    white: Float[Array, ""]
    size: Float[Array, ""]
    share: Float[Array, ""]


def learn(x_mp: Float[Array, "M P"], y_mk: Float[Array, "M K"]) -> Scales:
    """Return the scales of the largest posterior, by steps of falling length (Kingma and Ba 2015)."""
    n_players, dtype = x_mp.shape[1], x_mp.dtype
    alike = -np.log(n_players)
    start = Scales(*(jnp.asarray(at, dtype) for at in (np.full(n_players, alike), alike, -4, -2, -6)))
    zeros = jax.tree.map(jnp.zeros_like, start)
    slope = jax.grad(_surprise)
    n_fast = 0.7 * _STEPS

    def step(carry, number):
        scales, mean, square = carry
        gradient = jax.tree.map(jnp.nan_to_num, slope(scales, x_mp, y_mk))
        mean = jax.tree.map(lambda old, new: 0.8 * old + 0.2 * new, mean, gradient)
        square = jax.tree.map(lambda old, new: 0.95 * old + 0.05 * jnp.square(new), square, gradient)
        rate = _RATE * jnp.where(number <= n_fast, 1.0, 0.3).astype(dtype)
        toward = jax.tree.map(
            lambda m, s: rate * (m / (1 - 0.8**number)) / (jnp.sqrt(s / (1 - 0.95**number)) + 1e-6), mean, square
        )
        return (jax.tree.map(jnp.subtract, scales, toward), mean, square), None

    numbers = jnp.arange(1, _STEPS + 1, dtype=dtype)
    return jax.lax.scan(step, (start, zeros, zeros), numbers)[0][0]


def covariance(scales: Scales, x_mp: Float[Array, "M P"]) -> Float[Array, "M M"]:
    """Return the prior covariance of the pairs of a sample, all of them different."""
    strength_p = jnp.exp(scales.interaction_p)
    exponent_mm, most = (x_mp * strength_p[None]) @ x_mp.T, strength_p.sum()
    odd_mm = jnp.exp(exponent_mm - most) - jnp.exp(-exponent_mm - most)
    white_mm = white(scales, x_mp.dtype) * jnp.eye(len(x_mp), dtype=x_mp.dtype)
    mean_m = x_mp.mean(axis=1)
    shares_mm = (jnp.exp(scales.additive) + _shares(scales, mean_m, mean_m)) * (x_mp @ x_mp.T)
    return odd_mm + shares_mm + _by_size(scales, mean_m, mean_m) + white_mm


def values_of_prior(scales: Scales, x_mp: Float[Array, "M P"], estimand: str) -> Float[Array, "M P"]:
    """Return the values of k(·, x) as a game, but for its unlearnable part, for every pair x."""
    n_players, dtype = x_mp.shape[1], x_mp.dtype
    # The multilinear extension where all players are inside with probability (1 + u) / 2; Banzhaf's is at ½.
    nodes = np.polynomial.legendre.leggauss((n_players + 1) // 2) if estimand == "shapley" else ([0.0], [2.0])
    strength_p = jnp.exp(scales.interaction_p)
    slope_mp = jnp.tanh(strength_p)[None] * x_mp
    size = jnp.exp(jnp.log(jnp.cosh(strength_p)).sum() - strength_p.sum())

    def add(total_mp, node):
        u, weight = node
        factor_mp = 1 + u * slope_mp
        return total_mp + weight * jnp.exp(jnp.log(factor_mp).sum(axis=1, keepdims=True)) / factor_mp, None

    total_mp, _ = jax.lax.scan(add, jnp.zeros_like(x_mp), tuple(jnp.asarray(part, dtype) for part in nodes))
    return size * slope_mp * total_mp + jnp.exp(scales.additive) * x_mp + _values_by_size(scales, x_mp, estimand)


def white(scales: Scales, dtype) -> Float[Array, ""]:
    """Return the variance of what nothing can be learned of; never none, for the sake of the Cholesky factor."""
    return jnp.exp(scales.white) + jnp.finfo(dtype).eps ** 0.5


def _surprise(scales: Scales, x_mp: Float[Array, "M P"], y_mk: Float[Array, "M K"]) -> Float[Array, ""]:
    """Return minus the logarithm of likelihood times priors; each output's variance is the likeliest."""
    factor_mm = jnp.linalg.cholesky(covariance(scales, x_mp))
    squares_k = jnp.square(solve_triangular(factor_mm, y_mk, lower=True)).sum(axis=0)
    likelihood = 0.5 * len(x_mp) * jnp.log(squares_k + jnp.finfo(x_mp.dtype).tiny).sum()
    likelihood += y_mk.shape[1] * jnp.log(jnp.diagonal(factor_mm)).sum()
    usual = np.log(x_mp.shape[1])
    middle = scales.interaction_p.mean()
    return (
        likelihood
        + 5 * jnp.square(scales.interaction_p - middle).sum()
        + jnp.square(middle + usual) / 8
        + jnp.square(scales.additive + usual) / 18
        + jnp.square(scales.white + 4) / 32
        + jnp.square(scales.size + 2) / 18
        + jnp.square(scales.share + 6) / 18
    )


def _values_by_size(scales: Scales, x_mp: Float[Array, "M P"], estimand: str) -> Float[Array, "M P"]:
    """Return the values of the parts of k(·, x) that change with the size."""
    n_players, dtype, mean_m = x_mp.shape[1], x_mp.dtype, x_mp.mean(axis=1)
    size_t = np.arange(n_players + 1)
    # What all coalitions of a size weigh in the value of a player that they have, and of one that they lack.
    having_t = np.where(size_t > 0, 1 / n_players, 0)
    if estimand == "banzhaf":
        count_t = [0, *(math.comb(n_players - 1, others) for others in range(n_players))]
        having_t = np.array([count / 2 ** (n_players - 1) for count in count_t])
    lacking_t = having_t[::-1]
    # The mean sign of another player, beside one that is there and beside one that is not.
    beside_t, without_t = (2 * (size_t - other) / max(n_players - 1, 1) - 1 for other in (1, 0))
    own_t, other_t = (having_t + lacking_t) / 2, (having_t * beside_t - lacking_t * without_t) / 2
    mean_t = jnp.asarray(2 * size_t / n_players - 1, dtype)
    alike_m1 = _by_size(scales, mean_m, mean_t) @ jnp.asarray((having_t - lacking_t) / 2, dtype)[:, None]
    shares_mt = _shares(scales, mean_m, mean_t)
    own_m1, other_m1 = (shares_mt @ jnp.asarray(part_t, dtype)[:, None] for part_t in (own_t, other_t))
    return alike_m1 + own_m1 * x_mp + other_m1 * (x_mp.sum(axis=1, keepdims=True) - x_mp)


def _by_size(scales: Scales, mean_m: Float[Array, " M"], other_t: Float[Array, " T"]) -> Float[Array, "M T"]:
    """Return the covariance, by mean signs, of the part that depends on the size alone: a random walk, made odd."""
    mean_m1, other_1t = mean_m[:, None], other_t[None]
    return jnp.exp(scales.size) * (abs(mean_m1 + other_1t) - abs(mean_m1 - other_1t)) / 2


def _shares(scales: Scales, mean_m: Float[Array, " M"], other_t: Float[Array, " T"]) -> Float[Array, "M T"]:
    """Return the covariance, by mean signs, of what a player adds there beyond what it adds everywhere."""
    return jnp.exp(scales.share - 2 * abs(abs(mean_m)[:, None] - abs(other_t)[None]))
