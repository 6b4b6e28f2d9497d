"""The sentences: leaders, ties, certainty, and numbers with the right decimals."""

from dataclasses import replace

import numpy as np
import pytest

import sgpa_jax
from sgpa_jax.explain import Explanation
from sgpa_jax.report.facts import (
    absence,
    certainty,
    direction,
    estimand,
    facts,
    finding,
    notices,
    number,
    output_name,
    readable,
    uncertain,
    unit,
)


@pytest.mark.parametrize(
    ("value", "limit", "text"),
    [
        (4.358, 6.0, "+4.36"),
        (-0.0123, 0.05, "−0.0123"),
        (12.34, 50.0, "+12.3"),
        (-345.6, 400.0, "−346"),
        (2e12, 2e12, "+2.00e+12"),
    ],
)
def test_numbers_have_as_many_decimals_as_their_scale_needs(value: float, limit: float, text: str) -> None:
    assert number(value, limit) == text


def test_exact_values_stand_alone_and_estimates_say_their_error(
    exact_explanation: Explanation, estimated_explanation: Explanation
) -> None:
    assert uncertain(exact_explanation, 3, 0) == "+4.36"
    assert uncertain(estimated_explanation, 3, 0) == "+4.36 ± 0.30"


def test_a_clear_leader_is_named(exact_explanation: Explanation) -> None:
    assert finding(exact_explanation) == "“blue” did most to make the answer likely: +4.36 nats."
    assert finding(exact_explanation, 1).startswith("“blue” did most to make “blue” likely")


def test_exact_ties_are_told(exact_explanation: Explanation) -> None:
    values = exact_explanation.values.copy()
    values[2, 0] = values[3, 0]
    assert finding(replace(exact_explanation, values=values)) == (
        "“lamp” and “blue” did most to make the answer likely: +4.36 nats each."
    )


def test_leaders_within_their_errors_are_not_ranked(estimated_explanation: Explanation) -> None:
    values = estimated_explanation.values.copy()
    values[2, 0] = values[3, 0] - 0.3
    sentence = finding(replace(estimated_explanation, values=values))
    assert "“blue” and “lamp”" in sentence
    assert "too close to tell apart" in sentence


def test_nothing_is_named_where_nothing_helped(exact_explanation: Explanation) -> None:
    values = -np.abs(exact_explanation.values)
    assert finding(replace(exact_explanation, values=values)) == "Nothing in the recording made the answer likelier."


def test_certainty_says_exact_or_estimated(exact_explanation: Explanation, estimated_explanation: Explanation) -> None:
    assert certainty(exact_explanation).startswith("Exact: all 256 coalitions")
    told = certainty(estimated_explanation)
    assert told.startswith("Estimated by permutation sampling")
    assert "standard error" in told


def test_facts_cover_what_was_recorded(exact_explanation: Explanation) -> None:
    told = dict(facts(exact_explanation))
    assert told["Evaluations"] == "256 requested, 256 different, 256 forward passes of the model."
    assert "melt into each other" in told["Alignment"]
    assert "rules sgpa, emissions phone" in told["Alignment"]
    assert "+2.2e−07" in told["Efficiency gap"]
    assert "−4.87" in told["Empty and full value"]
    assert told["An absent player"].startswith("Silence. ")


def test_being_out_of_domain_comes_first(estimated_explanation: Explanation) -> None:
    told = notices(replace(estimated_explanation, in_domain=False, warnings=("Another thing.",)))
    assert told[0].startswith("The model was not made for")
    assert told[1] == "Another thing."
    assert notices(replace(estimated_explanation, in_domain=None)) == []


def test_texts_cannot_steer_a_terminal() -> None:
    assert readable("a\nb\x1b[31m\u202ec\u200b") == "a b�[31m�c�"


def test_blank_tokens_are_visible(exact_explanation: Explanation) -> None:
    x = replace(exact_explanation, outputs=(*exact_explanation.outputs[:2], {"name": " \n", "kind": "token"}))
    assert [output_name(x, k) for k in range(3)] == ["whole answer", "blue", "␣"]


def test_likenesses_of_answers_are_told_in_their_own_words(exact_explanation):
    x = replace(exact_explanation, game=exact_explanation.game | {"value": "tfidf"})
    assert unit(x) == "cosine similarity" and direction(x) == ("farther from it", "nearer to it", "nearer")
    assert "did most for the answer" in finding(x) and "likely" not in finding(x)
    assert "what is then answered" in estimand(x)
    assert direction(exact_explanation)[:2] == ("less likely", "more likely")


@pytest.mark.parametrize("name", sgpa_jax.ABSENCES)
def test_every_absence_is_put_in_words(exact_explanation, name):
    told = absence(replace(exact_explanation, game=exact_explanation.game | {"absence": name}))
    assert told.endswith(".") and len(told) > 30
