"""What an estimator is, and what it gives.

An estimator is a frozen object of static numbers with four pure methods. They work inside of anybody's `jit`, and on
the host in float64 when the values handed to `update` are a NumPy array.
Axes: `C` coalitions, `P` players, `K` outputs.
"""

from dataclasses import dataclass
from types import ModuleType
from typing import Any, ClassVar, NamedTuple, Protocol, Self

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float
from scipy.special import stdtrit

from sgpa_jax.errors import BudgetError
from sgpa_jax.games import Evaluations
from sgpa_jax.typing import MaskCP, PRNGKeyArray, ValueCK


class Attribution(NamedTuple):
    """What an estimator found: a pytree of arrays.

    Attributes:
        values_pk: float[P, K], each player's share.
        standard_errors_pk: float[P, K], zero where the method is exact.
        empty_value_k, full_value_k: float[K], worth of the empty coalition and of all players.
        degrees_of_freedom: float[], of the t distribution that intervals are made with; infinite where exact.
    """

    values_pk: Any
    standard_errors_pk: Any
    empty_value_k: Any
    full_value_k: Any
    degrees_of_freedom: Any


class Estimator(Protocol):
    """One method. `state` is a pytree; `propose` gives the same number of coalitions every time.

    Attributes:
        estimands: what it can estimate; a class of more than one has a field `estimand`.
        takes_any_sample: whether `update` takes coalitions that it has not proposed itself, laid out as `draw_pairs`
            does, and uniform among those of one size.
        n_proposals: how often it proposes; each proposal may rest on the values of the ones before.
    """

    estimands: ClassVar[tuple[str, ...]]
    takes_any_sample: ClassVar[bool]
    n_proposals: ClassVar[int]

    @classmethod
    def for_budget(cls, n_players: int, budget: int, *, n_outputs: int = 1) -> Self:
        """Return the method that proposes as many coalitions as a budget allows, v(∅) and v(N) among them.

        Raises:
            BudgetError: the budget is too small.
        """
        ...

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
class Control:
    """What a cheap game did for an estimate as its control variate.

    Attributes:
        beta_k: float64[K], how much of it was taken.
        variance_reduction_k: float64[K], the variance without it over that with it, as the sample tells.
        evaluations: what was asked of the cheap game.
    """

    beta_k: Float[np.ndarray, " K"]
    variance_reduction_k: Float[np.ndarray, " K"]
    evaluations: Evaluations


@dataclass(frozen=True, eq=False, kw_only=True)
class Estimate:
    """Shares of the players in a game, how sure they are, and how they were found.

    Attributes:
        values_pk: float64[P, K].
        standard_errors_pk: float64[P, K]; zero for an exact method.
        empty_value_k, full_value_k: float64[K], worth of nobody and of everybody.
        degrees_of_freedom: of the t distribution that intervals are made with; infinite for an exact method.
        estimand: what the shares are, one of `ESTIMANDS`.
        estimator: which method found them, one of `ESTIMATORS`.
        budget: evaluations that were allowed.
        seed: the random key as a number.
        evaluations: what this estimate asked of the game.
        masks_cp: bool[C, P], the coalitions that it rests on, in the method's order.
        coalition_values_ck: float64[C, K], what they are worth.
        settled: whether the tolerance was met; None where there was none.
        control: of a cheap game, if one helped.
    """

    values_pk: Float[np.ndarray, "P K"]
    standard_errors_pk: Float[np.ndarray, "P K"]
    empty_value_k: Float[np.ndarray, " K"]
    full_value_k: Float[np.ndarray, " K"]
    degrees_of_freedom: float
    estimand: str
    estimator: str
    budget: int
    seed: int
    evaluations: Evaluations
    masks_cp: Bool[np.ndarray, "C P"]
    coalition_values_ck: Float[np.ndarray, "C K"]
    settled: bool | None = None
    control: Control | None = None

    @property
    def efficiency_gap_k(self) -> Float[np.ndarray, " K"]:
        """Sum of the shares minus what everybody is worth over nobody; zero but for rounding, save for Banzhaf's."""
        return self.values_pk.sum(axis=0) - (self.full_value_k - self.empty_value_k)

    def interval_pk(self, level: float = 0.95) -> tuple[Float[np.ndarray, "P K"], Float[np.ndarray, "P K"]]:
        """Return both ends of each value's confidence interval at `level`, by t quantiles."""
        reach_pk = stdtrit(self.degrees_of_freedom, (1 + level) / 2) * self.standard_errors_pk
        return self.values_pk - reach_pk, self.values_pk + reach_pk


def too_small(budget: int, least: int, estimator: str, n_players: int) -> BudgetError:
    """Return the error for a budget below what an estimator needs at least."""
    return BudgetError(
        f"a budget of {budget} evaluations is too small for the {estimator} estimator with {n_players} players: "
        f"expected at least {least}; raise the budget"
    )


def array_module(values: Any) -> ModuleType:
    """Return the module that computes with `values`: NumPy for NumPy's arrays, else jax.numpy."""
    return np if isinstance(values, np.ndarray) else jnp
