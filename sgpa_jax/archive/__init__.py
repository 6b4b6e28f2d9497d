"""Archives: the coalitions that a run evaluated, kept so that no model has to be asked again."""

from sgpa_jax.archive.coalitions import CoalitionFile, Sample, game_key
from sgpa_jax.archive.facts import estimator_facts, interaction_facts, parse_index
from sgpa_jax.archive.refold import COALITIONS, refold_explanation, refolded

__all__ = [
    "COALITIONS",
    "CoalitionFile",
    "Sample",
    "estimator_facts",
    "game_key",
    "interaction_facts",
    "parse_index",
    "refold_explanation",
    "refolded",
]
