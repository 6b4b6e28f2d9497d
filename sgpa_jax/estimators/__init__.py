"""Estimators: from a game and a budget to an `Estimate`, one method a file; none ever sees a model."""

from sgpa_jax.estimators.authors import AUTHORS, authors_budget
from sgpa_jax.estimators.base import Attribution, Control, Estimate, Estimator
from sgpa_jax.estimators.estimate import estimate, estimating
from sgpa_jax.estimators.exact import Exact
from sgpa_jax.estimators.interactions import INDICES, Interactions, interactions
from sgpa_jax.estimators.methods import ESTIMANDS, ESTIMATORS, choose_estimator, first_coalitions
from sgpa_jax.estimators.neyman import paper_budget
from sgpa_jax.estimators.owen import exact_owen
from sgpa_jax.estimators.permutation import Permutation
from sgpa_jax.estimators.refold import refold
from sgpa_jax.estimators.stopping import Tolerance

__all__ = [
    "AUTHORS",
    "ESTIMANDS",
    "ESTIMATORS",
    "INDICES",
    "Attribution",
    "Control",
    "Estimate",
    "Estimator",
    "Exact",
    "Interactions",
    "Permutation",
    "Tolerance",
    "authors_budget",
    "choose_estimator",
    "estimate",
    "estimating",
    "exact_owen",
    "first_coalitions",
    "interactions",
    "paper_budget",
    "refold",
]
