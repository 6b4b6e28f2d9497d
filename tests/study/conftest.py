"""Records without any model behind them: two models, items of two conditions, and numbers that are easy to check."""

from typing import Any

import numpy as np
import pytest

from sgpa_jax.study.figures import study_figures
from sgpa_jax.study.records import Attribution, Measure, Record
from sgpa_jax.study.summaries import HIDDEN, SPOKEN, grouped
from sgpa_jax.study.table import Table
from sgpa_jax.study.tables import study_tables

N_ITEMS = 12


def _measures(number: int, rng: np.random.Generator) -> list[Measure]:
    spoken = {"players": "words", "value": SPOKEN}
    found = [
        Measure("evidence", "hit", float(number > 0), **spoken),
        Measure("evidence", "points", 1.0, **spoken),
        Measure("concentration", "players", 8.0, **spoken),
        Measure("concentration", "players", 8.0 if number else 7.0, "random", SPOKEN),
        Measure("concentration", "gini", 0.5 + 0.01 * number, setting="identity", **spoken),
        Measure("concentration", "gini", 0.3 + 0.02 * rng.random(), "random", SPOKEN, "identity"),
        Measure("concentration", "gini", 0.6, "words", HIDDEN, "identity"),
        Measure("concentration", "gini", 0.4 + 0.02 * rng.random(), "native", HIDDEN, "identity"),
        Measure("stability", "Spearman's ρ of seeds", 0.9),
        Measure("values", "worth anything", 1.0, "words", "tfidf/silence"),
    ]
    judged = {"players": "words", "value": SPOKEN, "setting": "response_embedding/silence"}
    for name, number_of in (("deletion area", 0.2), ("random deletion area", 0.6), ("infidelity", 0.1)):
        found.append(Measure("faithfulness", name, number_of + 0.05 * rng.random(), **judged))
    found.append(Measure("faithfulness", "monotonicity ρ", None if number < 3 else 0.7, **judged))
    for setting, ρ in (("absence delete", 0.8), ("jitter 20 0", 0.95), ("edges ctc", 0.6)):
        moved = {"players": "words", "setting": setting}
        found += [Measure("sensitivity", "Spearman's ρ", ρ, **moved)]
        found += [Measure("sensitivity", "same first player", 1.0, **moved)]
        found += [Measure("sensitivity", "relative change", 0.2 + 0.1 * number, **moved)]
    return found


@pytest.fixture(scope="session")
def records() -> list[Record]:
    """Twelve items under each of two models; the last one failed."""
    rng = np.random.default_rng(0)
    made = []
    for number in range(N_ITEMS):
        for model in ("pocket", "pocket-lfm2"):
            where: dict[str, Any] = {"item": f"item {number}", "subject": model, "key": "k", "voice": "a voice"}
            where |= {"condition": "clean" if number % 2 else "noise", "category": "plain"}
            if number == N_ITEMS - 1:
                made.append(Record(error="the recording is <b>not</b> there", **where))
                continue
            line = np.linspace(0, 1, 21)
            made.append(
                Record(
                    facts={"right": number != 1, "n_players": 8, "duration_s": 2.0, "looked at closely": True},
                    measures=tuple(_measures(number, rng)),
                    attributions=(
                        Attribution("words", "logprob", "silence", ("a", "b"), ((0.0, 1.0), (1.0, 2.0)), (1.5, 0.25),
                                    (0.0, 0.0), -3.0, -1.25, "exact", 4, 4, 4, 0.5),
                    ),
                    curves={
                        f"profile words {SPOKEN}": tuple(line**2),
                        f"profile random {SPOKEN}": tuple(line),
                    },
                    seconds=2.5,
                    **where,
                )
            )  # fmt: skip
    return made


@pytest.fixture(scope="session")
def tables(records: list[Record]) -> dict[str, Table]:
    """All tables of these records, by name."""
    return {table.name: table for table in study_tables(records, seed=0)}


@pytest.fixture(scope="session")
def figures(records: list[Record]) -> dict[str, tuple[str, bytes]]:
    """All figures of these records."""
    return study_figures(grouped(records))
