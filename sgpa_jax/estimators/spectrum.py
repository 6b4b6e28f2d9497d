"""A game as a short sum of parities: its sparse Fourier spectrum, and the values that follow from it in closed form.

Write x for the signs of the players, +1 in the coalition and -1 outside. Every game is Σ_T f_T Π_{i∈T} x_i (O'Donnell
2014, "Analysis of Boolean Functions", §1.2), and where few f_T matter, everything linear in the game is a short sum:
a term's Shapley value is 2 f_T / |T| for each of its players if |T| is odd, and none if it is even. Interactions come
from the terms' derivatives along the players in question, as those of `interactions.py` do from the whole table.
Axes: `F` terms, `D` places for players in a term, `M` coalitions, `P` players.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


class Spectrum(NamedTuple):
    """Terms of one output; `jax.vmap` gives those of many.

    Attributes:
        subsets_fd: int32[F, D], the players of each term in rising order, filled up with -1.
        coefficients_f: float[F], f_T; zero where a row is not in use.
    """

    subsets_fd: Int[Array, "F D"]
    coefficients_f: Float[Array, " F"]

    @property
    def size_f(self) -> Int[Array, " F"]:
        """How many players each term has."""
        return (self.subsets_fd >= 0).sum(axis=1, dtype=jnp.int32)

    def predict(self, signs_mp: Float[Array, "M P"]) -> Float[Array, " M"]:
        """Return what the terms say that coalitions are worth."""
        return characters(self.subsets_fd, signs_mp) @ self.coefficients_f

    def shapley(self, n_players: int) -> Float[Array, " P"]:
        """Return the Shapley values of the terms."""
        return self._sum_over_players(n_players, self._per_term(1, shapley=True))

    def banzhaf(self, n_players: int) -> Float[Array, " P"]:
        """Return the Banzhaf values of the terms: twice the coefficients of the single players."""
        return self._sum_over_players(n_players, self._per_term(1, shapley=False))

    def shapley_interactions(self, n_players: int) -> Float[Array, "P P"]:
        """Return the Shapley interaction index (SII) of every two players; zero on the diagonal."""
        return self._sum_over_pairs(n_players, self._per_term(2, shapley=True))

    def banzhaf_interactions(self, n_players: int) -> Float[Array, "P P"]:
        """Return the Banzhaf interaction index (BII) of every two players; zero on the diagonal."""
        return self._sum_over_pairs(n_players, self._per_term(2, shapley=False))

    def _per_term(self, order: int, *, shapley: bool) -> Float[Array, " F"]:
        """Return what a term adds to the index of any `order` of its players.

        Its derivative along them is 2^order f_T times the parity of the `rest`, whose mean is (2t - 1)^rest over
        coalitions that each player joins with probability t. Banzhaf's index takes t = 1/2, Shapley's all t evenly.
        """
        rest_f = self.size_f - order
        mean_f = jnp.where(rest_f % 2 == 0, 1 / (rest_f + 1).astype(self.coefficients_f.dtype), 0) if shapley else 1
        counts_f = (rest_f >= 0) if shapley else (rest_f == 0)
        return jnp.where(counts_f, 2**order * self.coefficients_f * mean_f, 0)

    def _sum_over_players(self, n_players: int, share_f: Float[Array, " F"]) -> Float[Array, " P"]:
        return members(self.subsets_fd, n_players, share_f.dtype).T @ share_f

    def _sum_over_pairs(self, n_players: int, share_f: Float[Array, " F"]) -> Float[Array, "P P"]:
        member_fp = members(self.subsets_fd, n_players, share_f.dtype)
        return (member_fp.T @ (share_f[:, None] * member_fp)) * (1 - jnp.eye(n_players, dtype=share_f.dtype))


def members(subsets_fd: Int[Array, "F D"], n_players: int, dtype) -> Float[Array, "F P"]:
    """Return 1 where a player is in a term."""
    return jax.nn.one_hot(subsets_fd, n_players, dtype=dtype).sum(axis=1)


def characters(subsets_fd: Int[Array, "F D"], signs_mp: Float[Array, "M P"]) -> Float[Array, "M F"]:
    """Return the product of the signs of each term's players; 1 for the term of none."""
    signs_mfd = signs_mp[:, jnp.maximum(subsets_fd, 0)]
    return jnp.where(subsets_fd[None] >= 0, signs_mfd, 1).prod(axis=2)


def merged(terms: Spectrum) -> Spectrum:
    """Return as many terms, of which none is there twice: equal ones are summed up, the rest of the rows is empty."""
    order_f = jnp.lexsort(terms.subsets_fd.T)
    subsets_fd, coefficients_f = terms.subsets_fd[order_f], terms.coefficients_f[order_f]
    is_new_f = jnp.append(True, (subsets_fd[1:] != subsets_fd[:-1]).any(axis=1))
    row_f = jnp.cumsum(is_new_f, dtype=jnp.int32) - 1
    return Spectrum(
        jnp.full_like(subsets_fd, -1).at[row_f].set(subsets_fd),
        jax.ops.segment_sum(coefficients_f, row_f, len(row_f)),
    )


def refit(
    terms: Spectrum,
    signs_mp: Float[Array, "M P"],
    target_m: Float[Array, " M"],
    weight_m: Float[Array, " M"],
    *,
    odd: bool,
    n_kept: int,
) -> Spectrum:
    """Fit the largest terms of odd, or else of even order anew, by ridge regression.

    Each coefficient is shrunk the more, the smaller it was, and all by a factor that generalized cross-validation
    chooses (Golub et al. 1979). Of the odd ones those of all single players are kept, of the even ones the constant.

    Args:
        terms: what was found, no term twice.
        signs_mp: the coalitions that were evaluated, one of each pair.
        target_m: the part of the game that is odd, or even, under the exchange of a coalition and its complement.
        weight_m: 1 for the coalitions to fit to, 0 for the others.
        odd: whether terms of odd order are meant.
        n_kept: how many terms of more than one player may stay.
    """
    dtype, n_players = target_m.dtype, signs_mp.shape[1]
    size_f = terms.size_f
    strength_f = jnp.where((size_f % 2 == int(odd)) & (size_f > 1), jnp.abs(terms.coefficients_f), 0)
    strength_g, kept_g = jax.lax.top_k(strength_f, min(n_kept, len(strength_f)))
    subsets_gd = jnp.where(strength_g[:, None] > 0, terms.subsets_fd[kept_g], -1)
    if odd:
        nobody_pd = jnp.full((n_players, subsets_gd.shape[1] - 1), -1, jnp.int32)
        single_pd = jnp.append(jnp.arange(n_players, dtype=jnp.int32)[:, None], nobody_pd, axis=1)
        single_f = jnp.where(size_f == 1, terms.coefficients_f, 0)
        alone_p = jnp.abs(members(terms.subsets_fd, n_players, dtype).T @ single_f)
        # Trees that never asked for a player have not shown that it does nothing.
        floor = 0.06 * jnp.sqrt(jnp.square(jnp.append(alone_p, strength_g)).mean())
        subsets_gd = jnp.append(single_pd, subsets_gd, axis=0)
        strength_g = jnp.append(jnp.maximum(alone_p, floor), strength_g)
    design_mg = characters(subsets_gd, signs_mp) * strength_g[None]
    # Odd ones are around zero by themselves, since complements are their negatives.
    share_m = jnp.zeros_like(weight_m) if odd else weight_m / weight_m.sum()
    mean_g, mean = (share_m @ rows for rows in (design_mg, target_m))
    fitted_g = _ridge(weight_m[:, None] * (design_mg - mean_g[None]), weight_m * (target_m - mean), weight_m.sum())
    if odd:
        return Spectrum(subsets_gd, strength_g * fitted_g)
    nobody_1d = jnp.full_like(subsets_gd[:1], -1)
    constant = (mean - mean_g @ fitted_g)[None]
    return Spectrum(jnp.concatenate([subsets_gd, nobody_1d]), jnp.concatenate([strength_g * fitted_g, constant]))


def _ridge(design_mg: Float[Array, "M G"], target_m: Float[Array, " M"], n_rows: Array) -> Float[Array, " G"]:
    dtype = target_m.dtype
    power_g, axes_gg = jnp.linalg.eigh(design_mg.T @ design_mg)
    power_g = jnp.maximum(power_g, 0)
    along_g = axes_gg.T @ (design_mg.T @ target_m)
    # Nothing at all to fit to leaves all coefficients zero.
    penalty_q = jnp.geomspace(1e-3 * jnp.finfo(dtype).eps ** 0.5, 10.0, 24, dtype=dtype) * power_g[-1]
    penalty_q = jnp.maximum(penalty_q, jnp.finfo(dtype).tiny)

    def score(penalty):
        left_m = target_m - design_mg @ (axes_gg @ (along_g / (power_g + penalty)))
        free = n_rows - _OVERFITTING * (power_g / (power_g + penalty)).sum()
        return jnp.where(free > 0, jnp.square(left_m).sum() / jnp.square(jnp.maximum(free, 1e-3)), jnp.inf)

    best = penalty_q[jnp.argmin(jax.lax.map(score, penalty_q))]
    return axes_gg @ (along_g / (power_g + best))


_OVERFITTING = 1.2
"""What a degree of freedom counts: terms were found on the same coalitions that they are fitted to."""
