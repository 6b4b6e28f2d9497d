"""Exact Shapley values: every coalition, once. Axes: `N` = 2^P coalitions, `P` players, `K` outputs."""

from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool
from sgpa_kernels import exact_shapley

from sgpa_jax.estimators.base import Attribution, array_module
from sgpa_jax.typing import MaskCP, PRNGKeyArray, ValueCK


class ExactState(NamedTuple):
    """The value of every coalition, in the order of `all_coalitions`; zero before `update`."""

    values_nk: ValueCK


@dataclass(frozen=True)
class Exact:
    """All 2^P coalitions of a game of `n_players` with `n_outputs`; propose once."""

    n_players: int
    n_outputs: int = 1

    def init(self, key: PRNGKeyArray) -> ExactState:
        """Return the state before evaluation; nothing is drawn from `key`."""
        return ExactState(jnp.zeros((2**self.n_players, self.n_outputs)))

    def propose(self, state: ExactState) -> Bool[Array, "N P"]:
        """Return every coalition, bool[2^P, P]: bit `i` of the row's index is player `i`."""
        rows_n1 = jnp.arange(2**self.n_players, dtype=jnp.uint32)[:, None]
        return (rows_n1 >> jnp.arange(self.n_players, dtype=jnp.uint32)[None, :]) % 2 == 1

    def update(self, state: ExactState, masks_cp: MaskCP, values_ck: ValueCK) -> ExactState:
        """Return the state that holds the values of the proposed coalitions."""
        return ExactState(values_ck)

    def estimate(self, state: ExactState) -> Attribution:
        """Return the Shapley values; their standard errors are zero."""
        values_pk = exact_shapley(state.values_nk)
        zeros_pk = array_module(state.values_nk).zeros_like(values_pk)
        return Attribution(values_pk, zeros_pk, state.values_nk[0], state.values_nk[-1])
