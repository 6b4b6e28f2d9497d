"""What a report says of players together: totals of groups, strongest interactions, and how sure they are."""

from dataclasses import replace

import numpy as np

from sgpa_jax.report.facts import certainty, estimand
from sgpa_jax.report.page import page
from sgpa_jax.report.table import plain_table
from sgpa_jax.report.together import group_totals, strongest_interactions


def test_groups_have_the_sum_of_their_players(exact_explanation):
    x = replace(exact_explanation, estimand="owen", groups=(0, 0, 0, 0, 1, 1, 1, 2))
    assert group_totals(x) == ("“make the lamp blue” +5.53, “and not red” −0.80, “♪ sound” +0.02 nats.")
    assert "keep groups together" in estimand(x)
    assert "Groups: “make the lamp blue” +5.53" in plain_table(x) and "<dt>Groups</dt>" in page(x)


def test_the_strongest_interaction_comes_first(exact_explanation):
    entries = [
        {"index": "k-SII", "order": 2, "players": players, "values": [value, value, 0.0]}
        for players, value in (([0], 9.0), ([0, 1], -0.5), ([2, 3], 1.5))
    ]
    x = replace(exact_explanation, interactions=tuple(entries))
    assert strongest_interactions(x) == "“lamp” × “blue” +1.50, “make” × “the” −0.50 nats (k-SII of order 2, all)."
    assert "Together:" in plain_table(x) and "<dt>Together</dt>" in page(x)


def test_nothing_together_says_nothing(exact_explanation):
    assert group_totals(exact_explanation) == strongest_interactions(exact_explanation) == ""
    table = plain_table(exact_explanation)
    assert "Groups" not in table and "Together" not in table


def test_estimates_tell_their_tolerance_and_their_control(exact_explanation):
    x = replace(
        exact_explanation,
        estimand="banzhaf",
        standard_errors=np.full_like(exact_explanation.values, 0.1),
        estimator={
            "name": "leverage", "budget": 100, "seed": 0, "tolerance": "top:2", "settled": False,
            "control": "layers:2", "control_beta": 1.0, "control_variance_reduction": 4.08, "control_evaluations": 512,
        },
    )  # fmt: skip
    told = certainty(x)
    assert "top:2 was not met" in told and "layers:2" in told and "cut the variance 4.1 times" in told
    assert "all coalitions of the others" in estimand(x)
