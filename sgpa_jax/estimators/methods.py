"""Which methods there are, what each can estimate, and which one is taken."""

from typing import Any

import numpy as np
from jaxtyping import Bool

from sgpa_jax.errors import UsageError, unknown_name
from sgpa_jax.estimators.authors import AUTHORS, check_authors_budget, first_phase
from sgpa_jax.estimators.complementary import ComplementaryContributions
from sgpa_jax.estimators.exact import Exact
from sgpa_jax.estimators.gaussian import MOST_PAIRS, GaussianProcess
from sgpa_jax.estimators.neyman import NeymanComplementary
from sgpa_jax.estimators.owen import OwenPermutation
from sgpa_jax.estimators.permutation import Permutation
from sgpa_jax.estimators.proxy import TreeProxy
from sgpa_jax.estimators.regression import KernelBanzhaf, KernelShap, LeverageShap
from sgpa_jax.estimators.solve import proposed
from sgpa_jax.estimators.svarm import StratifiedSvarm
from sgpa_jax.estimators.unbiased_kernelshap import UnbiasedKernelShap
from sgpa_jax.typing import PRNGKeyArray

ESTIMANDS = ("shapley", "banzhaf", "owen")
"""What can be estimated: Shapley values, Banzhaf's, and Owen's, which respect groups of players."""

METHODS: dict[str, tuple[Any, ...]] = {
    "exact": (Exact,),
    "permutation": (Permutation, OwenPermutation),
    "kernelshap": (KernelShap, KernelBanzhaf),
    "leverage": (LeverageShap,),
    "svarm": (StratifiedSvarm,),
    "complementary": (ComplementaryContributions,),
    "neyman": (NeymanComplementary,),
    "unbiased_kernelshap": (UnbiasedKernelShap,),
    "gaussian": (GaussianProcess,),
    "proxy": (TreeProxy,),
}
ESTIMATORS = tuple(METHODS)
"""The names of the methods; `auto` chooses one of them. `AUTHORS` is one more, for comparison alone."""

LINEAR = ("permutation", "kernelshap", "leverage", "complementary", "unbiased_kernelshap")
"""Those that are linear in the game, so that a control variate serves them."""


def choose_estimator(
    estimator: str,
    n_players: int,
    budget: int,
    *,
    estimand: str = "shapley",
    groups: tuple[int, ...] | None = None,
) -> str:
    """Return the name of the estimator that `estimate` would use; it never becomes another one later.

    `auto` is exact where the budget allows every coalition that the estimand depends on. Beyond that, Owen values are
    estimated by permutations; others by a Gaussian process while its matrix is of a bearable size (`MOST_PAIRS`), and
    by boosted trees above. The rule was chosen on random games of sparse interactions, networks and trees of 10 to 100
    players, other ones than those of the benchmark.

    Raises:
        UsageError: an unknown name, an estimand that the estimator does not offer, or groups that do not belong to it.
        BudgetError: the budget is too small for it.
    """
    if estimator not in (*ESTIMATORS, AUTHORS, "auto"):
        raise unknown_name("estimator", estimator, (*ESTIMATORS, "auto"))
    if estimand not in ESTIMANDS:
        raise unknown_name("estimand", estimand, ESTIMANDS)
    if (groups is not None) != (estimand == "owen"):
        raise UsageError(
            f"the {estimand} values came {'without' if groups is None else 'with'} groups: owen takes groups of "
            "players, and no other values do"
        )
    if estimator == AUTHORS and estimand == "shapley":
        check_authors_budget(n_players, budget)
        return AUTHORS
    name = estimator
    if estimator == "auto":
        all_of_them = Exact(n_players, estimand=estimand, groups=groups or ()).n_coalitions
        sampled = "gaussian" if budget <= 2 + 2 * MOST_PAIRS else "proxy"
        name = "exact" if all_of_them <= budget else ("permutation" if estimand == "owen" else sampled)
    if not any(estimand in kind.estimands for kind in METHODS.get(name, ())):
        able = [other for other, kinds in METHODS.items() if any(estimand in kind.estimands for kind in kinds)]
        raise UsageError(f"the estimator {name} offers no {estimand} values: expected one of {', '.join(able)}")
    method_for(name, estimand, groups, n_players, budget)  # refuses a budget that is too small
    return name


def first_coalitions(
    estimator: str,
    n_players: int,
    budget: int,
    *,
    estimand: str = "shapley",
    groups: tuple[int, ...] | None = None,
    key: PRNGKeyArray,
) -> Bool[np.ndarray, "C P"]:
    """Return the coalitions that an estimator asks for first, and all of them unless it learns on the way.

    Raises:
        UsageError, BudgetError: as `estimate`.
    """
    name = choose_estimator(estimator, n_players, budget, estimand=estimand, groups=groups)
    if name == AUTHORS:
        return first_phase(n_players, budget, key=key)
    method = method_for(name, estimand, groups, n_players, budget)
    return proposed(method, key)


def method_for(name: str, estimand: str, groups: tuple[int, ...] | None, n_players: int, budget: int) -> Any:
    """Return the method of that name for as many evaluations as a budget allows."""
    kind = next(kind for kind in METHODS[name] if estimand in kind.estimands)
    options: dict[str, Any] = {} if groups is None else {"groups": groups}
    if len(kind.estimands) > 1:
        options["estimand"] = estimand
    return kind.for_budget(n_players, budget, **options)
