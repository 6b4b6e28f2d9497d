"""Exact Shapley, Banzhaf and Owen values: every coalition that matters, once.

Axes: `N` coalitions, 2^P but for Owen values, which take fewer; `P` players, `K` outputs.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Self

import jax.numpy as jnp
from jaxtyping import Array, Bool
from sgpa_kernels import exact_banzhaf, exact_shapley

from sgpa_jax.errors import unknown_name
from sgpa_jax.estimators.base import Attribution, array_module, too_small
from sgpa_jax.estimators.owen import check_groups, count_coalitions, plan_of, solve
from sgpa_jax.typing import MaskCP, PRNGKeyArray, ValueCK


class ExactState(NamedTuple):
    """The value of every coalition, in the order of `propose`; zero before `update`."""

    values_nk: ValueCK


@dataclass(frozen=True)
class Exact:
    """All coalitions that the estimand of a game of `n_players` with `n_outputs` depends on; propose once.

    These are all 2^P for Shapley's and Banzhaf's values, in the order of `all_coalitions`. For Owen's they are the
    unions of groups with a part of one more group; `groups` has a number for each player, the same for those of one
    group.

    Raises:
        UsageError: an unknown estimand, or not one group for each player (none for other values than Owen's).
    """

    n_players: int
    n_outputs: int = 1
    estimand: str = "shapley"
    groups: tuple[int, ...] = ()
    estimands: ClassVar[tuple[str, ...]] = ("shapley", "banzhaf", "owen")
    takes_any_sample: ClassVar[bool] = False
    n_proposals: ClassVar[int] = 1

    def __post_init__(self) -> None:
        """Refuse what is no estimand, and groups of other players."""
        if self.estimand not in self.estimands:
            raise unknown_name("estimand", self.estimand, self.estimands)
        check_groups(self.groups, self.n_players if self.estimand == "owen" else 0)

    @classmethod
    def for_budget(
        cls,
        n_players: int,
        budget: int,
        *,
        n_outputs: int = 1,
        estimand: str = "shapley",
        groups: tuple[int, ...] = (),
    ) -> Self:
        """Return the method, if the budget allows all coalitions.

        Raises:
            BudgetError: it does not.
            UsageError: as for the class.
        """
        method = cls(n_players, n_outputs, estimand, groups)
        if budget < method.n_coalitions:
            raise too_small(budget, method.n_coalitions, "exact", n_players)
        return method

    @property
    def n_coalitions(self) -> int:
        """N, what `propose` returns and the least budget."""
        return count_coalitions(self.groups) if self.estimand == "owen" else 2**self.n_players

    def init(self, key: PRNGKeyArray) -> ExactState:
        """Return the state before evaluation; nothing is drawn from `key`."""
        return ExactState(jnp.zeros((self.n_coalitions, self.n_outputs)))

    def propose(self, state: ExactState) -> Bool[Array, "N P"]:
        """Return every coalition, bool[N, P]; of all 2^P, bit `i` of the row's index is player `i`."""
        if self.estimand == "owen":
            return jnp.asarray(plan_of(self.groups).masks_cp)
        rows_n1 = jnp.arange(2**self.n_players, dtype=jnp.uint32)[:, None]
        return (rows_n1 >> jnp.arange(self.n_players, dtype=jnp.uint32)[None, :]) % 2 == 1

    def update(self, state: ExactState, masks_cp: MaskCP, values_ck: ValueCK) -> ExactState:
        """Return the state that holds the values of the proposed coalitions."""
        return ExactState(values_ck)

    def estimate(self, state: ExactState) -> Attribution:
        """Return the values; their standard errors are zero."""
        values_nk, full = state.values_nk, -1
        if self.estimand == "owen":
            plan = plan_of(self.groups)
            values_pk, full = solve(values_nk, plan.places)[plan.order_p], plan.full
        else:
            values_pk = (exact_shapley if self.estimand == "shapley" else exact_banzhaf)(values_nk)
        xp = array_module(values_nk)
        certain = xp.asarray(xp.inf, values_pk.dtype)
        return Attribution(values_pk, xp.zeros_like(values_pk), values_nk[0], values_nk[full], certain)
