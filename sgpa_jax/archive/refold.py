"""Explaining again without the model: other estimands and estimators from the coalitions of a finished run."""

from dataclasses import replace
from pathlib import Path

import jax

from sgpa_jax.archive.coalitions import Sample, read_sample
from sgpa_jax.archive.facts import estimator_facts, interaction_facts, parse_index
from sgpa_jax.errors import UsageError
from sgpa_jax.estimators import interactions as interactions_of
from sgpa_jax.estimators import refold
from sgpa_jax.explain import Explanation
from sgpa_jax.players import groups_of

COALITIONS = "coalitions.safetensors"
EXPLANATION = "explanation.json"
"""The files of a run's folder."""


def refold_explanation(
    folder: Path,
    *,
    estimator: str = "auto",
    estimand: str = "shapley",
    groups: str | None = None,
    interactions: str | None = None,
    seed: int = 0,
) -> Explanation:
    """Return the explanation in `folder` with values found anew from the coalitions beside it.

    Args:
        folder: of a finished run.
        estimator: one of `ESTIMATORS`, or `auto`.
        estimand: one of `ESTIMANDS`.
        groups: what groups players for Owen values: `phrases` or `modality`.
        interactions: an index and an order such as `k-SII:2`, where the run evaluated all coalitions.
        seed: decides every random draw.

    Raises:
        ExplanationError: there is no explanation that can be read.
        UsageError: its coalitions are not there, damaged or of another game, or do not serve the estimator.
        BudgetError: they are too few for it.
    """
    old = Explanation.load(folder / EXPLANATION)
    sample = read_sample(folder / COALITIONS, old.game.get("key", ""))
    if sample.masks_cp.shape[1] != len(old.players) or sample.values_ck.shape[1] != len(old.outputs):
        raise UsageError(f"{folder / COALITIONS} does not fit the explanation beside it: explain again")
    return refolded(
        old, sample, estimator=estimator, estimand=estimand, groups=groups, interactions=interactions, seed=seed
    )


def refolded(
    old: Explanation,
    sample: Sample,
    *,
    estimator: str,
    estimand: str,
    groups: str | None,
    interactions: str | None,
    seed: int,
) -> Explanation:
    """Return an explanation with values found anew from the sample that it rests on, as `refold_explanation` does.

    Raises:
        UsageError: the sample does not serve the estimator.
        BudgetError: it is too small for it.
    """
    index = None if interactions is None else parse_index(interactions)
    together = groups_of(groups, old.players)
    found = refold(*sample, estimator, estimand=estimand, groups=together, key=jax.random.key(seed))
    return replace(
        old,
        estimand=found.estimand,
        estimator=estimator_facts(found, seed),
        values=found.values_pk,
        standard_errors=found.standard_errors_pk,
        empty_value=found.empty_value_k,
        full_value=found.full_value_k,
        efficiency_gap=found.efficiency_gap_k,
        groups=together or (),
        interactions=() if index is None else interaction_facts(interactions_of(found.coalition_values_ck, *index)),
    )
