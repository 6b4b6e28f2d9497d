"""Array kernels of sgpa_jax: they know arrays only, and each is held against a plain reference."""

from sgpa_kernels.conv import gated_short_conv
from sgpa_kernels.head import target_log_probs
from sgpa_kernels.reference import (
    co_moebius_reference,
    exact_banzhaf_reference,
    exact_shapley_reference,
    gated_short_conv_reference,
    moebius_reference,
    target_log_probs_reference,
    tree_attention_reference,
    walsh_hadamard_reference,
)
from sgpa_kernels.shapley import exact_banzhaf, exact_shapley
from sgpa_kernels.topk import top_k, top_k_mask
from sgpa_kernels.transforms import (
    co_moebius,
    inverse_moebius,
    inverse_walsh_hadamard,
    moebius,
    walsh_hadamard,
)
from sgpa_kernels.tree import tree_attention

__all__ = [
    "co_moebius",
    "co_moebius_reference",
    "exact_banzhaf",
    "exact_banzhaf_reference",
    "exact_shapley",
    "exact_shapley_reference",
    "gated_short_conv",
    "gated_short_conv_reference",
    "inverse_moebius",
    "inverse_walsh_hadamard",
    "moebius",
    "moebius_reference",
    "target_log_probs",
    "target_log_probs_reference",
    "top_k",
    "top_k_mask",
    "tree_attention",
    "tree_attention_reference",
    "walsh_hadamard",
    "walsh_hadamard_reference",
]
