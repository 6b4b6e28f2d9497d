"""Owen values: Shapley's for players that come in groups, such as words in phrases, turns or modalities.

Groups share what the game is worth as if each were one player, and then each group shares its part among its members,
who may threaten to join the others alone (Owen 1977, "Values of games with a priori unions"). Equivalently it is the
mean of what a player adds over all orders in which the members of every group join one right after another: the Shapley
value where every player is its own group, or all are in one.

Exactly, a player's value is its Shapley value in a game of its group alone, in which the members T are worth the mean
of v(Q ∪ T) over unions Q of other groups, with Shapley's weights for the number of groups. Only coalitions of whole
groups and a part of one are needed, far fewer than 2^P where there are several large groups.
Axes: `G` groups, `C` coalitions, `N` = 2^P all coalitions, `U` unions of the others, `B` parts of one group,
`P` players, `K` outputs.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import comb
from typing import Any, ClassVar, NamedTuple, Self, overload

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from sgpa_kernels import exact_shapley

from sgpa_jax.errors import UsageError
from sgpa_jax.estimators.base import array_module
from sgpa_jax.estimators.permutation import Permutation
from sgpa_jax.players import all_coalitions
from sgpa_jax.typing import PRNGKeyArray


@overload
def exact_owen(values: Float[np.ndarray, "N *K"], groups: tuple[int, ...]) -> Float[np.ndarray, "P *K"]: ...
@overload
def exact_owen(values: Float[Array, "N *K"], groups: tuple[int, ...]) -> Float[Array, "P *K"]: ...
def exact_owen(values, groups):
    """Return the Owen values of the game whose coalition values are `values`, float[2^P] or float[2^P, K].

    A NumPy array is solved on the host in float64; a JAX array where it lives, in its own floating dtype, also inside
    of `jit`, `vmap` and `grad`.

    Args:
        values: what each coalition is worth; bit `i` of the row's index is player `i`.
        groups: a number for each player, the same for players of one group.

    Raises:
        UsageError: there is not one number for each player.
    """
    if len(values) != 2 ** len(groups):
        raise UsageError(
            f"{len(values)} values and groups of {len(groups)} players: expected {2 ** len(groups)} values, or a group "
            "for each player"
        )
    plan = plan_of(tuple(groups))
    row_c = plan.masks_cp @ (1 << np.arange(len(groups)))
    solved_pk = solve(values.reshape(len(values), -1), tuple(row_c[place_ub] for place_ub in plan.places))
    return solved_pk[plan.order_p].reshape(-1, *values.shape[1:])


class OwenPlan(NamedTuple):
    """The coalitions that Owen values are made of.

    Attributes:
        masks_cp: bool[C, P], each once: the 2^G unions of groups, of which the last is that of all players, and then
            those with a part of one group.
        full: the row of all players; that of none is the first.
        places: for each group int[U, B], where the unions of the others and the parts of it are in `masks_cp`.
        order_p: int[P], where each player is among those of the first group, of the second, and so on.
    """

    masks_cp: Bool[np.ndarray, "C P"]
    full: int
    places: tuple[Int[np.ndarray, "U B"], ...]
    order_p: Int[np.ndarray, " P"]


def count_coalitions(groups: tuple[int, ...]) -> int:
    """Return how many coalitions the exact Owen values of these groups take."""
    sizes = [groups.count(group) for group in set(groups)]
    return 2 ** len(sizes) + sum(2 ** (len(sizes) - 1) * (2**size - 2) for size in sizes)


@lru_cache(maxsize=16)
def plan_of(groups: tuple[int, ...]) -> OwenPlan:
    """Return the coalitions that the exact Owen values of these groups take."""
    member_gp = np.array(groups)[None] == np.unique(groups)[:, None]
    n_groups, n_players = member_gp.shape
    others_u = np.arange(2 ** (n_groups - 1))
    masks, places, n_rows = [all_coalitions(n_groups) @ member_gp], [], 2**n_groups
    for group in range(n_groups):
        # The number of a union without this group: a zero goes into the bits of the union of the others.
        union_u1 = ((others_u >> group << group + 1) | (others_u & ((1 << group) - 1)))[:, None]
        players = np.flatnonzero(member_gp[group])
        parts_bp = np.zeros((2 ** len(players) - 2, n_players), bool)
        parts_bp[:, players] = all_coalitions(len(players))[1:-1]
        masks.append((masks[0][union_u1] | parts_bp[None]).reshape(-1, n_players))
        part_ub = n_rows + np.arange(len(masks[-1])).reshape(len(others_u), -1)
        places.append(np.concatenate([union_u1, part_ub, union_u1 | 1 << group], axis=1))
        n_rows += len(masks[-1])
    order_p = np.argsort(np.argsort(groups, kind="stable"))
    return OwenPlan(np.concatenate(masks), 2**n_groups - 1, tuple(places), order_p)


def solve(values_ck: Any, places: tuple[np.ndarray, ...]) -> Any:
    """Return the Owen values of the first group's players, of the second's, and so on, [P, K].

    `places` tells for each group where in `values_ck` its coalitions are; see `OwenPlan`.
    """
    xp = array_module(values_ck)
    dtype = np.dtype(np.float64) if xp is np else values_ck.dtype
    n_there_u = np.bitwise_count(np.arange(2 ** (len(places) - 1))).tolist()
    weight_u = xp.asarray([1 / (len(places) * comb(len(places) - 1, size)) for size in n_there_u], dtype)
    values_ck = (values_ck - values_ck[:1]).astype(dtype)
    games = [(weight_u[:, None, None] * values_ck[place_ub]).sum(axis=0) for place_ub in places]
    return xp.concatenate([exact_shapley(game_bk) for game_bk in games])


@dataclass(frozen=True)
class OwenPermutation(Permutation):
    """Owen values from antithetic pairs of random orders that keep groups together; see `Permutation`.

    Groups come in a random order, and so do the members of each; the reversed order keeps groups together as well.
    """

    groups: tuple[int, ...] = ()
    estimands: ClassVar[tuple[str, ...]] = ("owen",)

    @classmethod
    def for_budget(cls, n_players: int, budget: int, *, n_outputs: int = 1, groups: tuple[int, ...] = ()) -> Self:
        """Return as many pairs as a budget allows, v(∅) and v(N) counted once.

        Raises:
            BudgetError: it does not allow two, from which a standard error comes.
            UsageError: there is not one group for each player.
        """
        plain = Permutation.for_budget(n_players, budget, n_outputs=n_outputs)
        return cls(n_players, n_outputs, plain.n_pairs, groups)

    def __post_init__(self) -> None:
        """Refuse groups of other players."""
        check_groups(self.groups, self.n_players)

    def _ranks(self, key: PRNGKeyArray, index: Int[Array, ""]) -> Int[Array, " P"]:
        """Return each player's place in the order of pair `index`."""
        names, group_p = np.unique(self.groups, return_inverse=True)
        of_groups, of_members = jax.random.split(key)
        group_rank_g = Permutation(len(names))._ranks(of_groups, index)
        rank_p = group_rank_g[group_p] * self.n_players + super()._ranks(of_members, index)
        return jnp.sum(rank_p[None, :] < rank_p[:, None], axis=1, dtype=jnp.int32)


def check_groups(groups: tuple[int, ...], n_players: int) -> None:
    """Refuse groups that are not one number for each player.

    Raises:
        UsageError: they are not.
    """
    if len(groups) != n_players:
        raise UsageError(
            f"{len(groups)} groups came for {n_players} players: expected the number of its group for each player"
        )
