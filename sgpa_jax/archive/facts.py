"""How an estimate and its interactions are written down in an explanation, and asked for by name."""

from typing import Any

from sgpa_jax.errors import UsageError, unknown_name
from sgpa_jax.estimators import INDICES, Estimate, Interactions


def estimator_facts(
    found: Estimate, seed: int, *, tolerance: str | None = None, control: str | None = None
) -> dict[str, Any]:
    """Return the method, its budget and seed; whether a tolerance was met; and what a control did for the first output.

    Args:
        found: the estimate.
        seed: the number that its key was made of.
        tolerance: what was asked for, if anything.
        control: the name of its cheap game, if there was one.
    """
    told: dict[str, Any] = {"name": found.estimator, "budget": found.budget, "seed": seed}
    if tolerance is not None:
        told |= {"tolerance": tolerance, "settled": found.settled}
    if found.control is not None:
        told |= {
            "control": control,
            "control_beta": float(found.control.beta_k[0]),
            "control_variance_reduction": float(found.control.variance_reduction_k[0]),
            "control_evaluations": found.control.evaluations.unique,
        }
    return told


def interaction_facts(found: Interactions) -> tuple[dict[str, Any], ...]:
    """Return a record of every set of two players or more, and of one too where the index is not the values' own."""
    return tuple(
        {"index": found.index, "order": found.order, "players": list(subset), "values": values_k.tolist()}
        for subset, values_k in zip(found.subsets, found.values_ik, strict=True)
        if subset
    )


def parse_index(text: str) -> tuple[str, int]:
    """Read an index and an order such as `k-SII:2`.

    Raises:
        UsageError: there is no such index, or the order is no whole number above zero.
    """
    index, _, order = text.partition(":")
    if index not in INDICES:
        raise unknown_name("interaction index", index, INDICES)
    if not (order.isascii() and order.isdigit() and int(order) > 0):
        raise UsageError(f"the interactions are {text!r}: expected an index and an order, such as k-SII:2")
    return index, int(order)
