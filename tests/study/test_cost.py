"""What cuts cost: everything that was evaluated is counted, and only recordings that have both are compared."""

import numpy as np
import pytest

from sgpa_jax.estimators import paper_budget
from sgpa_jax.games import Game
from sgpa_jax.study.cost import COUNTED, cost_table, note_cost, paper_cost_table
from sgpa_jax.study.notes import Notes
from sgpa_jax.study.records import Measure, Record


def test_both_phases_are_counted():
    asked: list[int] = []

    def make(n_players: int) -> Game:
        def value(masks_cp: np.ndarray) -> np.ndarray:
            asked[-1] += len(masks_cp)
            return np.asarray(masks_cp).sum(axis=1).astype(np.float32)

        asked.append(0)
        return Game(value, n_players)

    notes = Notes()
    note_cost(notes, {"words": lambda: make(3), "native": lambda: make(4)}, 0)
    found = {(measure.players, measure.name): measure.number or 0.0 for measure in notes.measures}
    assert found["words", "requested"] == paper_budget(3) and found["native", "requested"] == paper_budget(4)
    assert found["words", "computed"] <= 2**3
    assert found["words", "computed"] <= found["words", "forwards"] <= asked[1]
    assert found["words", "seconds"] > 0 and {name for _, name in found} == set(COUNTED)


def test_only_recordings_that_have_both_are_compared():
    records = [
        Record(
            f"item {n}",
            "pocket",
            "k",
            measures=tuple(
                Measure("cost", "requested", 10.0 * factor * (1 + n), players=cut)
                for cut, factor in (("words", 1), ("native", 7))
                if n < 5 or cut == "words"
            ),
        )
        for n in range(100)
    ]
    rows = {row["counted"]: row for row in cost_table({"pocket": records}, 0).rows}
    row = rows["requested"]
    assert row["n"] == 5 and row["words"] == 30 and row["native tokens"] == 210
    assert row["ratio"] == pytest.approx(7) and row["low"] == pytest.approx(7) == row["high"]
    assert rows["seconds"]["n"] == 0 and "ratio" not in rows["seconds"]


def test_the_papers_ratios_follow_from_its_means():
    rows = {row["run"]: row for row in paper_cost_table().rows}
    of_all = rows["native ÷ SGPA, original voices: other recordings"]
    assert of_all["recorded calls"] == pytest.approx(79.2, abs=0.1)
    assert of_all["true evaluations"] == pytest.approx(54.1, abs=0.1)
    assert of_all["seconds"] == pytest.approx(53.5, abs=0.1)
