"""The result of an explanation: one object with values, their certainty, and everything needed to make it again.

And the measures that judge it: how concentrated it is, how faithful to the model, how stable, and how two compare.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sgpa_jax.explain.explanation import Explanation
from sgpa_jax.explain.schema import SCHEMA
from sgpa_jax.explain.source import ClipInfo, Transcript

if TYPE_CHECKING:
    from sgpa_jax.explain.faithfulness import Erasure, RankCurves, erasure, evidence_hit, rank_curves
    from sgpa_jax.explain.fidelity import Infidelity, Monotonicity, infidelity, monotonicity
    from sgpa_jax.explain.inequality import Concentration, concentration, entropy, gini, normalise, top_mass
    from sgpa_jax.explain.profile import (
        ProfileComparison,
        area_between,
        compare_profiles,
        cumulative_profile,
        ks_distance,
        paper_profile,
    )
    from sgpa_jax.explain.stability import Agreement, agreement, sensitivity_max, spearman, top_overlap
    from sgpa_jax.explain.statistics import (
        PairedComparison,
        bonferroni,
        bootstrap_interval,
        holm,
        matched,
        paired_comparison,
        ratio_of_means,
    )

__all__ = [
    "SCHEMA",
    "Agreement",
    "ClipInfo",
    "Concentration",
    "Erasure",
    "Explanation",
    "Infidelity",
    "Monotonicity",
    "PairedComparison",
    "ProfileComparison",
    "RankCurves",
    "Transcript",
    "agreement",
    "area_between",
    "bonferroni",
    "bootstrap_interval",
    "compare_profiles",
    "concentration",
    "cumulative_profile",
    "entropy",
    "erasure",
    "evidence_hit",
    "gini",
    "holm",
    "infidelity",
    "ks_distance",
    "matched",
    "monotonicity",
    "normalise",
    "paired_comparison",
    "paper_profile",
    "rank_curves",
    "ratio_of_means",
    "sensitivity_max",
    "spearman",
    "top_mass",
    "top_overlap",
]

# The measures bring scipy.stats along, which takes most of a second to load.
_NAMES_BY_HOME = {
    "sgpa_jax.explain.inequality": ("Concentration", "concentration", "entropy", "gini", "normalise", "top_mass"),
    "sgpa_jax.explain.faithfulness": ("Erasure", "RankCurves", "erasure", "evidence_hit", "rank_curves"),
    "sgpa_jax.explain.fidelity": ("Infidelity", "Monotonicity", "infidelity", "monotonicity"),
    "sgpa_jax.explain.profile": (
        "ProfileComparison",
        "area_between",
        "compare_profiles",
        "cumulative_profile",
        "ks_distance",
        "paper_profile",
    ),
    "sgpa_jax.explain.stability": ("Agreement", "agreement", "sensitivity_max", "spearman", "top_overlap"),
    "sgpa_jax.explain.statistics": (
        "PairedComparison",
        "bonferroni",
        "bootstrap_interval",
        "holm",
        "matched",
        "paired_comparison",
        "ratio_of_means",
    ),
}
_HOMES = {name: home for home, names in _NAMES_BY_HOME.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
