"""Array kernels of sgpa_jax: they know arrays only, and each is held against a plain reference."""

from sgpa_kernels.reference import exact_shapley_reference
from sgpa_kernels.shapley import exact_shapley

__all__ = ["exact_shapley", "exact_shapley_reference"]
