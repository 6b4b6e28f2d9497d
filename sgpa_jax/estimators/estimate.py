"""`estimate`: one call from a game, an estimand, an estimator and a budget to an `Estimate`."""

from collections.abc import Generator, Iterable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from sgpa_jax.errors import UsageError
from sgpa_jax.estimators.authors import AUTHORS, authors_neyman
from sgpa_jax.estimators.base import Attribution, Control, Estimate
from sgpa_jax.estimators.control import Controlled, controlled, solved
from sgpa_jax.estimators.methods import LINEAR, choose_estimator, method_for
from sgpa_jax.estimators.solve import arrays_of, asking, seed_of, solved_on_host
from sgpa_jax.estimators.stopping import Tolerance, growing_budgets
from sgpa_jax.games import Evaluations, Game
from sgpa_jax.players import all_coalitions
from sgpa_jax.typing import MaskCP, PRNGKeyArray, ValueCK


def estimate(
    game: Game,
    estimator: str = "auto",
    *,
    estimand: str = "shapley",
    groups: tuple[int, ...] | None = None,
    budget: int = 4096,
    tolerance: Tolerance | None = None,
    control: Game | None = None,
    key: PRNGKeyArray,
) -> Estimate:
    """Share what a game is worth out among its players.

    Args:
        game: the game to ask.
        estimator: one of `ESTIMATORS`, or "auto" (see `choose_estimator`), or `AUTHORS`, the method of SGPA's code.
        estimand: one of `ESTIMANDS`.
        groups: each player's group, for Owen values.
        budget: evaluations allowed, v(∅) and v(N) among them.
        tolerance: stop as soon as the estimate is this sure; None: spend the budget. What was evaluated for one look
            serves the next.
        control: a cheap game of the same players that resembles this one. It is explained exactly, from all its
            coalitions, and the estimator only finds what is different about the true game (see `controlled`). The first
            of its outputs serves all.
        key: a typed key (`jax.random.key`); exact draws nothing from it.

    Raises:
        UsageError: an unknown name, an estimand that the estimator does not offer, missing groups, a key of another
            kind, a control of other players or for an estimator that is exact or not linear in the game, or a tolerance
            for `AUTHORS`.
        BudgetError: the budget is too small for the estimator.
    """
    before = game.evaluations
    options: dict[str, Any] = {"estimand": estimand, "groups": groups, "budget": budget, "tolerance": tolerance}
    asked = estimating(game.n_players, estimator, **options, control=control, key=key)
    masks_cp = next(asked)
    while True:
        try:
            masks_cp = asked.send(game.values(masks_cp))
        except StopIteration as stopped:
            return replace(stopped.value, evaluations=game.evaluations - before)


def estimating(
    n_players: int,
    estimator: str = "auto",
    *,
    estimand: str = "shapley",
    groups: tuple[int, ...] | None = None,
    budget: int = 4096,
    tolerance: Tolerance | None = None,
    control: Game | None = None,
    key: PRNGKeyArray,
) -> Generator[MaskCP, ValueCK, Estimate]:
    """Yield the coalitions that `estimate` would ask a game of so many players for, and take what they are worth.

    Returns the estimate, whose evaluations are left to who answered: so that several games can be asked together.

    Raises:
        UsageError, BudgetError: as `estimate`.
    """
    seed = seed_of(key)
    name = choose_estimator(estimator, n_players, budget, estimand=estimand, groups=groups)
    cheap = None if control is None else _solved_control(control, n_players, name, estimand)
    if name == AUTHORS:
        if tolerance is not None:
            raise UsageError(
                f"the estimator {AUTHORS} spends its budget as the authors' code does: leave tolerance out"
            )
        return (yield from authors_neyman(n_players, budget=budget, key=key))
    settled, helped = None, None
    for look in _looks(name, n_players, budget, tolerance):
        method, told = yield from asking(method_for(name, estimand, groups, n_players, look), key)
        masks_cp, values_ck = (np.concatenate(parts) for parts in zip(*told, strict=True))
        if cheap is None:
            found = solved_on_host(method, key, told)
        else:
            found, helped = _controlled(method, key, masks_cp, values_ck, cheap)
        settled = None if tolerance is None else tolerance.is_met(found)
        if settled:
            break
    return Estimate(
        **arrays_of(found),
        estimand=estimand,
        estimator=name,
        budget=budget,
        seed=seed,
        evaluations=Evaluations(),
        masks_cp=masks_cp,
        coalition_values_ck=values_ck,
        settled=settled,
        control=helped,
    )


class _CheapGame(NamedTuple):
    """A control: its values of all 2^P coalitions, and what they cost."""

    values_n1: np.ndarray
    evaluations: Evaluations


def _solved_control(control: Game, n_players: int, name: str, estimand: str) -> _CheapGame:
    if control.n_players != n_players or name not in LINEAR or estimand == "owen":
        raise UsageError(
            f"a control of {control.n_players} players for the {estimand} values of {n_players} by the {name} "
            f"estimator: expected the same players, no owen values, and one of {', '.join(LINEAR)}"
        )
    before = control.evaluations
    values_nk = control.values(all_coalitions(n_players)).astype(np.float64)
    return _CheapGame(values_nk[:, :1], control.evaluations - before)


def _controlled(
    method: Any, key: PRNGKeyArray, masks_cp: np.ndarray, values_ck: np.ndarray, cheap: _CheapGame
) -> tuple[Attribution, Control]:
    with jax.enable_x64(True), jax.default_device(jax.devices("cpu")[0]):
        found = _control_compiled(method, key, masks_cp, values_ck, cheap.values_n1)
    beta_k, reduction_k = (np.asarray(array, np.float64) for array in (found.beta_k, found.variance_reduction_k))
    return found.attribution, Control(beta_k, reduction_k, cheap.evaluations)


@partial(jax.jit, static_argnums=0)
def _control_compiled(method: Any, key: PRNGKeyArray, masks_cp: Any, values_ck: Any, cheap_n1: Any) -> Controlled:
    estimand = getattr(method, "estimand", method.estimands[0])
    return controlled(method, key, masks_cp, values_ck, solved(cheap_n1, masks_cp, estimand))


def _looks(name: str, n_players: int, budget: int, tolerance: Tolerance | None) -> Iterable[int]:
    """The evaluations to have spent at each look: standard errors are to be trusted from ten for each player on."""
    if tolerance is None or name == "exact":
        return (budget,)
    return growing_budgets(min(10 * n_players + 2, budget), budget)
