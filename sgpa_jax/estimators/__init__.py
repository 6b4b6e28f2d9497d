"""Estimators: from a game and a budget to an `Estimate`, one method a file; none ever sees a model."""

from sgpa_jax.estimators.base import Attribution, Estimate, Estimator
from sgpa_jax.estimators.estimate import ESTIMATORS, choose_estimator, estimate
from sgpa_jax.estimators.exact import Exact
from sgpa_jax.estimators.permutation import Permutation

__all__ = [
    "ESTIMATORS",
    "Attribution",
    "Estimate",
    "Estimator",
    "Exact",
    "Permutation",
    "choose_estimator",
    "estimate",
]
