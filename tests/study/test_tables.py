"""Tables say what the records hold, each number with its n."""

import csv
import io
import json

import numpy as np
import pytest

from sgpa_jax.study.figures import study_figures
from sgpa_jax.study.paired import Pair, rows_of
from sgpa_jax.study.summaries import wilson
from sgpa_jax.study.table import Table, as_json, shown


def row_of(table: Table, **where: object) -> dict[str, object]:
    (row,) = [row for row in table.rows if all(row.get(name) == cell for name, cell in where.items())]
    return dict(row)


def test_every_row_has_its_n(tables: dict[str, Table]):
    for name, table in tables.items():
        assert "n" in table.columns or name == "items"
        assert {key for row in table.rows for key in row} <= set(table.columns)


def test_failed_items_are_counted_and_left_out(tables: dict[str, Table]):
    row = row_of(tables["items"], model="pocket")
    assert (row["items"], row["failed"], row["answers known"]) == (12, 1, 11)
    assert row["right"] == pytest.approx(10 / 11)


def test_evidence_is_a_share_with_its_interval(tables: dict[str, Table]):
    row = row_of(tables["evidence"], model="pocket", players="words")
    assert (row["n"], row["n_right"]) == (11, 10)
    assert row["hit_rate"] == pytest.approx(10 / 11)
    assert row["hit_rate_right"] == pytest.approx(9 / 10)
    assert (row["low"], row["high"]) == pytest.approx(wilson(10, 11))
    by = row_of(tables["evidence_by"], model="pocket", by="condition", group="clean")
    assert by["n"] == 5 and by["words_hit_rate"] == 1


def test_concentration_compares_cuts_of_equally_many_players(tables: dict[str, Table]):
    where = {"model": "pocket", "measure": "gini", "of": "identity"}
    fewer = row_of(tables["concentration"], other="native", **where)
    random = row_of(tables["concentration"], other="random", **where)
    assert (fewer["n"], random["n"]) == (11, 10)
    assert random["mean"] == pytest.approx(np.mean([0.5 + 0.01 * number for number in range(1, 11)]))
    assert random["wilcoxon_p"] == pytest.approx(2 / 2**10)
    assert random["bonferroni_p"] == random["wilcoxon_p"]
    assert row_of(tables["concentration"], other="uniform", **where)["n"] == 0


def test_tests_are_corrected_within_their_family():
    same = {f"item {n}": float(n) for n in range(8)}
    pairs = [
        Pair({"of": of}, {item: number + more for item, number in same.items()}, same)
        for of, more in (("a", 1.0), ("a", 2.0), ("b", 3.0))
    ]
    rows = rows_of([*pairs, Pair({"of": "b"}, {"item 0": 1.0}, same)], lambda row: row["of"], seed=0)
    p = 2 / 2**8
    assert [row.get("wilcoxon_p") for row in rows] == [p, p, p, None]
    assert [row.get("bonferroni_p") for row in rows] == [2 * p, 2 * p, p, None]
    assert [row["n"] for row in rows] == [8, 8, 8, 1]


def test_profiles_have_a_permutation_null(tables: dict[str, Table]):
    row = row_of(tables["profile"], model="pocket", curves="profile", other="random")
    assert row["n"] == 11
    assert row["area"] == pytest.approx(1 / 6, abs=2e-3)
    assert row["ks"] == pytest.approx(0.25, abs=1e-3)
    assert row["area_p"] < 0.01  # pyright: ignore


def test_faithfulness_is_against_random_rivals(tables: dict[str, Table]):
    row = row_of(tables["faithfulness"], model="pocket-lfm2")
    assert row["difference"] == pytest.approx(-0.4, abs=0.05)
    assert row["d_z"] < -5 and row["holm_p"] < 0.01  # pyright: ignore
    judged = row_of(tables["judges"], model="pocket")
    assert judged["n"] == 11 and judged["monotonicity ρ (mean)"] == pytest.approx(0.7)


def test_sensitivity_names_what_was_changed(tables: dict[str, Table]):
    row = row_of(tables["sensitivity"], model="pocket", changed="absence delete")
    assert row["n"] == 11 and row["ρ (mean)"] == pytest.approx(0.8)
    assert row["relative change (max)"] == pytest.approx(1.2)


def test_the_papers_numbers_stand_beside_ours(tables: dict[str, Table]):
    rows = [row for row in tables["paper"].rows if row["model"] == "pocket"]
    ours = {row["claim"]: row["ours"] for row in rows}
    assert ours["Words concentrate values more than native tokens: Gini"] is None
    assert "holm_p" in str(ours["Taking away the word of the largest value changes the answer most"])
    assert next(row["n"] for row in rows if row["claim"] == "Refined boundaries matter to the values") == 11


def test_a_table_reads_back_from_every_format(tables: dict[str, Table]):
    table = tables["evidence"]
    read = list(csv.DictReader(io.StringIO(table.csv())))
    assert [float(row["hit_rate"]) for row in read] == [row["hit_rate"] for row in table.rows]
    told = json.loads(as_json([table], {"seed": 0}))
    assert told["tables"][0]["rows"][0]["n"] == 11
    assert table.markdown().count("\n|") == 2 + len(table.rows)


def test_cells_are_short():
    cells = [None, float("nan"), 0.12345, 12.345, 1234.5, 1e-5, True, 3, -0.5, float("inf"), "a|b", 0.0]
    said = ["–", "–", "0.123", "12.35", "1234", "1.0e−05", "yes", "3", "−0.500", "∞", "a|b", "0.000"]
    assert [shown(cell) for cell in cells] == [*said[:3], shown(12.345), *said[4:]]
    assert "a\\|b" in Table("t", "t", "t", ("x",), ({"x": "a|b"},)).markdown()


def test_intervals_of_shares():
    assert wilson(0, 0) == (None, None)
    assert wilson(98, 100) == pytest.approx((0.930, 0.9945), abs=1e-3)
    assert wilson(10, 10) == pytest.approx((0.722, 1.0), abs=1e-3)


def test_figures_are_pictures(figures: dict[str, tuple[str, bytes]]):
    assert set(figures) == {"evidence", "concentration", "profiles", "faithfulness", "sensitivity"}
    assert all(png.startswith(b"\x89PNG") for _, png in figures.values())
    assert study_figures({"pocket": []}) == {}
