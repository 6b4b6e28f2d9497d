"""What an estimator is, and what it gives.

An estimator is a frozen object of static numbers with four pure methods. They work inside of anybody's `jit`, and on
the host in float64 when the values handed to `update` are a NumPy array.
Axes: `C` coalitions, `P` players, `K` outputs.
"""

from dataclasses import dataclass
from types import ModuleType
from typing import Any, NamedTuple, Protocol

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from sgpa_jax.games import Evaluations
from sgpa_jax.typing import MaskCP, PRNGKeyArray, ValueCK


class Attribution(NamedTuple):
    """What an estimator found: a pytree of arrays.

    Attributes:
        values_pk: float[P, K], each player's share.
        standard_errors_pk: float[P, K], zero where the method is exact.
        empty_value_k, full_value_k: float[K], worth of the empty coalition and of all players.
    """

    values_pk: Any
    standard_errors_pk: Any
    empty_value_k: Any
    full_value_k: Any


class Estimator(Protocol):
    """One method. `state` is a pytree; `propose` gives the same number of coalitions every time."""

    @property
    def n_players(self) -> int:
        """P."""
        ...

    @property
    def n_outputs(self) -> int:
        """K."""
        ...

    def init(self, key: PRNGKeyArray) -> Any:
        """Return the state before any coalition was evaluated."""
        ...

    def propose(self, state: Any) -> MaskCP:
        """Return the coalitions to evaluate next, bool[C, P]."""
        ...

    def update(self, state: Any, masks_cp: MaskCP, values_ck: ValueCK) -> Any:
        """Return the state that knows what the proposed coalitions are worth, float[C, K]."""
        ...

    def estimate(self, state: Any) -> Attribution:
        """Return what is known so far."""
        ...


@dataclass(frozen=True, eq=False)
class Estimate:
    """Shares of the players in a game, how sure they are, and how they were found.

    Attributes:
        values_pk: float64[P, K].
        standard_errors_pk: float64[P, K]; zero for an exact method.
        empty_value_k, full_value_k: float64[K], worth of nobody and of everybody.
        estimator: "exact" or "permutation".
        budget: evaluations that were allowed.
        seed: the random key as a number.
        evaluations: what this estimate asked of the game.
        estimand: what the shares are.
    """

    values_pk: Float[np.ndarray, "P K"]
    standard_errors_pk: Float[np.ndarray, "P K"]
    empty_value_k: Float[np.ndarray, " K"]
    full_value_k: Float[np.ndarray, " K"]
    estimator: str
    budget: int
    seed: int
    evaluations: Evaluations
    estimand: str = "shapley"

    @property
    def efficiency_gap_k(self) -> Float[np.ndarray, " K"]:
        """Sum of the shares minus what everybody is worth over nobody; zero but for rounding."""
        return self.values_pk.sum(axis=0) - (self.full_value_k - self.empty_value_k)


def array_module(values: Any) -> ModuleType:
    """Return the module that computes with `values`: NumPy for NumPy's arrays, else jax.numpy."""
    return np if isinstance(values, np.ndarray) else jnp
