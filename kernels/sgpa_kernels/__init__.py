"""Array kernels of sgpa_jax: they know arrays only, and each is held against a plain reference."""

from sgpa_kernels.conv import gated_short_conv
from sgpa_kernels.head import target_log_probs
from sgpa_kernels.reference import (
    exact_shapley_reference,
    gated_short_conv_reference,
    target_log_probs_reference,
    tree_attention_reference,
)
from sgpa_kernels.shapley import exact_shapley
from sgpa_kernels.tree import tree_attention

__all__ = [
    "exact_shapley",
    "exact_shapley_reference",
    "gated_short_conv",
    "gated_short_conv_reference",
    "target_log_probs",
    "target_log_probs_reference",
    "tree_attention",
    "tree_attention_reference",
]
