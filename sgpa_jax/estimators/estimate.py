"""`estimate`: one call from a game, the name of an estimator and a budget to an `Estimate`, in float64 on the host."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sgpa_jax.errors import BudgetError, UsageError, unknown_name
from sgpa_jax.estimators.base import Estimate, Estimator
from sgpa_jax.estimators.exact import Exact
from sgpa_jax.estimators.permutation import Permutation
from sgpa_jax.games import Game
from sgpa_jax.typing import PRNGKeyArray

ESTIMATORS = ("exact", "permutation")


def estimate(game: Game, estimator: str = "auto", *, budget: int = 4096, key: PRNGKeyArray) -> Estimate:
    """Return the Shapley values of `game`.

    Args:
        game: the game to ask.
        estimator: "exact" (2^P evaluations), "permutation" (antithetic pairs; as many as the budget allows), or "auto":
            exact where 2^P is within the budget, else permutation.
        budget: evaluations allowed, v(∅) and v(N) among them.
        key: a typed key (`jax.random.key`); exact draws nothing from it.

    Raises:
        UsageError: an unknown estimator, or a key of another kind.
        BudgetError: the budget is too small for the estimator.
    """
    seed = _seed(key)
    name = choose_estimator(estimator, game.n_players, budget)
    method = _method(name, game, budget)
    before = game.evaluations
    state = method.init(key)
    masks_cp = np.asarray(_propose(method, state))
    values_ck = game.values(masks_cp).astype(np.float64)
    found = method.estimate(method.update(state, masks_cp, values_ck))
    return Estimate(
        *(np.asarray(array, np.float64) for array in found),
        estimator=name,
        budget=budget,
        seed=seed,
        evaluations=game.evaluations - before,
    )


def choose_estimator(estimator: str, n_players: int, budget: int) -> str:
    """Return the name of the estimator that `estimate` would use; it never becomes another one later.

    Raises:
        UsageError: an unknown estimator.
        BudgetError: the budget is too small for it.
    """
    if estimator not in (*ESTIMATORS, "auto"):
        raise unknown_name("estimator", estimator, (*ESTIMATORS, "auto"))
    name = ("exact" if 2**n_players <= budget else "permutation") if estimator == "auto" else estimator
    least = {"exact": 2**n_players, "permutation": 2 + 2 * _pair_cost(n_players)}[name]
    if budget < least:
        raise BudgetError(
            f"a budget of {budget} evaluations is too small for the {name} estimator with {n_players} players: "
            f"expected at least {least}; raise the budget"
        )
    return name


@partial(jax.jit, static_argnums=0)
def _propose(method: Estimator, state: Any) -> Any:
    return method.propose(state)


def _method(name: str, game: Game, budget: int) -> Estimator:
    if name == "exact":
        return Exact(game.n_players)
    # One player alone has one order: its pairs cost nothing and all agree.
    n_pairs = (budget - 2) // _pair_cost(game.n_players) if game.n_players > 1 else 2
    return Permutation(game.n_players, n_pairs=n_pairs)


def _pair_cost(n_players: int) -> int:
    return 2 * (n_players - 1)


def _seed(key: Any) -> int:
    if not (isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.shape == ()):
        raise UsageError(
            "the key is no single typed key: expected one from jax.random.key; make it with an integer seed"
        )
    seed = 0
    for word in np.asarray(jax.random.key_data(key)).ravel().tolist():
        seed = (seed << 32) | word
    return seed
