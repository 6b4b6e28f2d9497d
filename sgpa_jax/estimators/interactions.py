"""Interaction indices of any order, from the values of all 2^P coalitions.

Every index here is read off the game's multilinear extension f (Owen 1972, "Multilinear extensions of games"): f(x) is
the mean worth of a coalition that each player joins with probability x, and D_S(x), its derivative along the players of
S, is the mean of the discrete derivative Δ_S v(T) = Σ_{L⊆S} (-1)^(|S|-|L|) v(T ∪ L) over such coalitions T of the
others. An index is an integral of D_S over x with a density that depends on |S| alone, so that a few Gauss–Legendre
nodes give it exactly, by means and differences only: nothing large cancels, in float32 as well. For subsets S of a
size s of 1 to k, the order:

- `SII`: ∫ D_S(x) dx (Grabisch and Roubens 1999). The empty set holds ∫ f(x) dx.
- `BII`: D_S(1/2) (the same paper). The empty set holds f(1/2), the mean of v.
- `Moebius`: D_S(0), what S adds beyond its subsets (Harsanyi 1963). The empty set holds v(∅).
- `Co-Moebius`: D_S(1), the same where all others are there (Fujimoto et al. 2006). The empty set holds v(N).
- `k-SII`: Σ B(|T|-s) SII_T over the T ⊇ S with |T| <= k, of Bernoulli numbers (Bordt and von Luxburg 2023); ∅: v(∅).
- `STII`: D_S(0), but ∫ k (1-x)^(k-1) D_S(x) dx where s = k (Sundararajan et al. 2020); ∅: v(∅).
- `FSII`: coefficients, in the products of players' presence, of the polynomial of degree k that fits v best under
  KernelSHAP's weights and exactly at ∅ and N (Tsai et al. 2023, "Faith-Shap"); ∅: v(∅).
- `FBII`: the same with all coalitions weighted alike and none fitted exactly (the same paper), which is
  Σ (-1/2)^(|T|-s) BII_T over the T ⊇ S with |T| <= k, for the empty set as well.

Summed over all subsets, the empty one included, `k-SII`, `STII` and `FSII` give v(N), and so does `Moebius` of order P.
Of order 1, `SII`, `k-SII`, `STII` and `FSII` are Shapley values, `BII` and `FBII` Banzhaf's. The empty set holds what
shapiq's ExactComputer puts there, but for two: `SII` of order 1, which it calls SV and gives v(∅), and `Co-Moebius`,
where it writes v(∅) over v(N).
Axes: `N` = 2^P coalitions (bit `i` of the row's index = player `i`), `K` outputs, `I` subsets, `J` subsets of one size,
`Q` nodes.
"""

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import combinations
from math import comb, factorial, prod
from typing import Any, NamedTuple, overload

import jax
import numpy as np
from jaxtyping import Array, Float
from numpy.polynomial.legendre import leggauss

from sgpa_jax.errors import UsageError, unknown_name
from sgpa_jax.estimators.base import array_module

INDICES = ("SII", "k-SII", "STII", "FSII", "BII", "FBII", "Moebius", "Co-Moebius")
"""The indices, spelled as shapiq does."""

_HOST_BLOCK = 2**17


@dataclass(frozen=True, eq=False)
class Interactions:
    """What groups of players are worth as groups.

    Attributes:
        index: which index.
        order: the size of the largest groups.
        n_players: P.
        subsets: the groups, by size and then by their players; the empty one comes first.
        values_ik: float64[I, K], of each group and output.
        empty_value_k: float64[K], v(∅).
    """

    index: str
    order: int
    n_players: int
    subsets: tuple[tuple[int, ...], ...]
    values_ik: Float[np.ndarray, "I K"]
    empty_value_k: Float[np.ndarray, " K"]

    def __getitem__(self, subset: tuple[int, ...]) -> Float[np.ndarray, " K"]:
        """Return the values of one group of players, given in rising order."""
        return self.values_ik[self.subsets.index(subset)]


def interactions(values: Float[np.ndarray, "N *K"], index: str = "k-SII", order: int = 2) -> Interactions:
    """Return the interactions of all groups of up to `order` players, in float64 on the host.

    Args:
        values: of all coalitions, float[2^P] or float[2^P, K].
        index: one of `INDICES`; the module says what each is and what it holds for the empty set.
        order: the size of the largest groups, 1 to P.

    Raises:
        UsageError: an unknown index, or an order or a table of another size.
    """
    values = np.asarray(values, np.float64)
    values_ik = interaction_values(values, index, order)
    n_players = len(values).bit_length() - 1
    subsets = subsets_up_to(n_players, order)
    return Interactions(index, order, n_players, subsets, values_ik.reshape(len(subsets), -1), values[0].reshape(-1))


@overload
def interaction_values(values: Float[np.ndarray, "N *K"], index: str, order: int) -> Float[np.ndarray, "I *K"]: ...
@overload
def interaction_values(values: Float[Array, "N *K"], index: str, order: int) -> Float[Array, "I *K"]: ...
def interaction_values(values, index, order):
    """Return the values of `subsets_up_to(P, order)`: the core of `interactions`, also inside `jit`, `vmap` and `grad`.

    A NumPy array is solved on the host in float64, a block of outputs at a time; a JAX array where it lives, in its own
    floating dtype.

    Raises:
        UsageError: as `interactions`.
    """
    n_rows = values.shape[0] if values.ndim in (1, 2) else 0
    n_players = n_rows.bit_length() - 1
    if n_rows < 2 or n_rows & (n_rows - 1):
        raise UsageError(
            f"the values have the shape {list(values.shape)}: expected [2^P] or [2^P, K], a row for every coalition"
        )
    if index not in INDICES:
        raise unknown_name("interaction index", index, INDICES)
    if not 1 <= order <= n_players:
        raise UsageError(f"interactions of order {order} among {n_players} players: expected 1 to {n_players}")
    table_nk = values.reshape(n_rows, -1)
    if isinstance(values, np.ndarray):
        table_nk = table_nk.astype(np.float64, copy=False)
        step = max(_HOST_BLOCK // n_rows, 1)
        blocks = [_solve(table_nk[:, k : k + step], index, order) for k in range(0, table_nk.shape[1], step)]
        solved_ik = np.concatenate(blocks, axis=1)
    else:
        solved_ik = _solve_on_device(table_nk, index, order)
    return solved_ik.reshape(-1, *values.shape[1:])


def subsets_up_to(n_players: int, order: int) -> tuple[tuple[int, ...], ...]:
    """Return all subsets of up to `order` players, by size and then by their players, the empty one first."""
    return tuple(subset for size in range(order + 1) for subset in combinations(range(n_players), size))


class _Rule(NamedTuple):
    """How an index is integrated: where D_S is taken, and its weight there, for each size of S from 0 to the order."""

    node_q: np.ndarray
    weight_sq: np.ndarray


def _solve(table_nk: Any, index: str, order: int) -> Any:
    xp, dtype = array_module(table_nk), table_nk.dtype
    n_players = table_nk.shape[0].bit_length() - 1
    rule = _rule(index, order, n_players)
    derivatives = _derivatives(xp, table_nk, xp.asarray(rule.node_q, dtype), order)
    weight_sq = xp.asarray(rule.weight_sq, dtype)
    by_size = [(w[:, None, None] * d_qjk).sum(axis=0) for w, d_qjk in zip(weight_sq, derivatives, strict=True)]
    if index in ("k-SII", "FBII"):
        step = _bernoulli(order) if index == "k-SII" else [(-0.5) ** size for size in range(order + 1)]
        by_size = [_with_supersets(xp, by_size, size, n_players, step) for size in range(order + 1)]
    if index in ("k-SII", "STII", "FSII"):
        by_size[0] = table_nk[:1]
    return xp.concatenate(by_size)


_solve_on_device = jax.jit(_solve, static_argnums=(1, 2))


def _derivatives(xp: Any, table_nk: Any, node_q: Any, order: int) -> list[Any]:
    """Return D_S at each node, [Q, J, K] for each size of S, its subsets in the order of `subsets_up_to`.

    The table is halved along its last player again and again. The mean of both halves goes on with the subsets without
    that player, their difference with those that have it; these come first, as its index is the smallest so far.
    """
    node_q111 = node_q[:, None, None, None]
    tables = [xp.broadcast_to(table_nk, (len(node_q), 1, *table_nk.shape))]
    while tables[0].shape[2] > 1:
        halves = [xp.split(table_qjnk, 2, axis=2) for table_qjnk in tables]
        differences = [upper - lower for lower, upper in halves]
        tables = [lower + node_q111 * difference for (lower, _), difference in zip(halves, differences, strict=True)]
        for size, difference in enumerate(differences[:order], start=1):
            without = tables[size : size + 1]
            tables[size : size + 1] = [xp.concatenate([difference, *without], axis=1)]
    return [table_qjnk[:, :, 0] for table_qjnk in tables]


def _with_supersets(xp: Any, by_size: list[Any], size: int, n_players: int, step: list[float]) -> Any:
    """Return Σ_{T⊇S} step[|T|-|S|] of the given values, for all S of one size."""
    total_jk = step[0] * by_size[size]
    for larger in range(size + 1, len(by_size)):
        if step[larger - size]:
            supersets = _supersets(n_players, size, larger)
            total_jk = total_jk + step[larger - size] * by_size[larger][supersets].sum(axis=1)
    return total_jk


@lru_cache(maxsize=64)
def _supersets(n_players: int, size: int, larger: int) -> np.ndarray:
    """Return int[J, supersets]: for each subset of one size, the places of those of a larger size that hold it."""
    small = _combinations(n_players, size)
    parts = _combinations(n_players, larger)[:, _combinations(larger, size)]
    small_bits, part_bits = (1 << small).sum(axis=-1), (1 << parts).sum(axis=-1)
    by_part = np.argsort(part_bits, axis=None, kind="stable").reshape(len(small), -1) // part_bits.shape[1]
    # Sorted by their bits; back to the order of the subsets.
    return by_part[np.argsort(np.argsort(small_bits))]


def _combinations(n: int, size: int) -> np.ndarray:
    return np.array([*combinations(range(n), size)], np.int64).reshape(comb(n, size), size)


@lru_cache(maxsize=64)
def _rule(index: str, order: int, n_players: int) -> _Rule:
    points = {"BII": 0.5, "FBII": 0.5, "Moebius": 0.0, "Co-Moebius": 1.0}
    if index in points:
        return _Rule(np.array([points[index]]), np.ones((order + 1, 1)))
    # D_S times the density is a polynomial of a degree of at most n + order - 2, or n for the empty set.
    node_q, weight_q = leggauss((n_players + order) // 2 + 1)
    node_q, weight_q = (node_q + 1) / 2, weight_q / 2
    if index in ("SII", "k-SII"):
        return _Rule(node_q, np.tile(weight_q, (order + 1, 1)))
    if index == "FSII":
        densities = [np.zeros_like(node_q), *(_faithful_density(node_q, size, order) for size in range(1, order + 1))]
        return _Rule(node_q, np.stack(densities) * weight_q)
    # Below its order STII has Möbius coefficients, which are taken at a node of their own.
    weight_sq = np.zeros((order + 1, len(node_q) + 1))
    weight_sq[:order, -1] = 1.0
    weight_sq[order, :-1] = order * (1 - node_q) ** (order - 1) * weight_q
    return _Rule(np.append(node_q, 0.0), weight_sq)


def _faithful_density(node_q: np.ndarray, size: int, order: int) -> np.ndarray:
    """Return at each x the density that D_S of a given size is integrated with to give its FSII.

    In closed form FSII is Σ_{T⊇S} g(|T|) a(T) of the Möbius coefficients a (Tsai et al. 2023). With s = |S|, order k,

        g(t) = (-1)^(k-s) s (k+s-1)! / (s! (k-s)!) · (t-s-1) … (t-k) / (t (t+1) … (t+k-1)),

    or in partial fractions Σ_r c_r / (t+r) with r < k. That is ∫ x^(t-s) · x^(s-1) Σ_r c_r x^r dx, and D_S(x) is
    Σ_{T⊇S} x^(|T|-s) a(T).
    """
    divisor = factorial(size) * factorial(order - size)
    scale = Fraction((-1) ** (order - size) * size * factorial(order + size - 1), divisor)
    coefficients = [
        scale
        * prod(-r - zero for zero in range(size + 1, order + 1))
        / prod(other - r for other in range(order) if other != r)
        for r in range(order)
    ]
    # Exactly, since the terms cancel the more the higher the order.
    return np.array(
        [float(x ** (size - 1) * sum(c * x**r for r, c in enumerate(coefficients))) for x in map(Fraction, node_q)]
    )


def _bernoulli(order: int) -> list[float]:
    """Return the Bernoulli numbers B(0) … B(order), with B(1) = -1/2."""
    numbers: list[Fraction] = []
    for m in range(order + 1):
        earlier = sum((comb(m, j) * number / (m - j + 1) for j, number in enumerate(numbers)), Fraction())
        numbers.append(Fraction(m == 0) - earlier)
    return [float(number) for number in numbers]
