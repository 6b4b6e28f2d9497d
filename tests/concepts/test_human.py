"""The sheet for raters, and the agreement of what they fill in."""

import csv
from pathlib import Path

import jax
import numpy as np
import pytest

from sgpa_jax.concepts import Concept, ConceptBank, Representative, krippendorff_alpha, read_ratings, write_sheet
from sgpa_jax.errors import UsageError

_ = np.nan


def test_alpha_of_a_published_example():
    """Four observers of twelve units (Krippendorff 2011, section E): ordinal 0.815."""
    rating_ri = np.array(
        [
            [1, 2, 3, 3, 2, 1, 4, 1, 2, _, _, _],
            [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, _, 3],
            [_, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, _],
            [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, _],
        ],
        float,
    )
    assert krippendorff_alpha(rating_ri) == pytest.approx(0.815, abs=5e-4)
    assert krippendorff_alpha(np.array([[1.0, 2, 3], [1, 2, 3]])) == 1
    assert krippendorff_alpha(np.array([[1.0, 2, 1, 2], [2, 1, 2, 1]])) < 0
    assert np.isnan(krippendorff_alpha(np.array([[1.0, _], [_, 2]])))
    assert np.isnan(krippendorff_alpha(np.array([[3.0, 3], [3, 3]])))
    rng = np.random.default_rng(0)
    assert abs(krippendorff_alpha(rng.integers(1, 6, size=(3, 4000)).astype(float))) < 0.03


def bank(kind: str) -> ConceptBank:
    clips = tuple(Representative(f"{kind}{n}", Path(f"/sounds/{kind}{n}.wav"), 1.0, 1.0) for n in range(3))
    named = [Concept(latent, f"{kind} {latent}", top=clips) for latent in range(5)]
    return ConceptBank({}, {"digest": kind}, (*named, Concept(9, None, top=clips), Concept(10, "no clips")))


def test_a_sheet_is_filled_in_and_read(tmp_path: Path):
    banks = {"latents": bank("l"), "raw": bank("r")}
    path = write_sheet(banks, tmp_path, raters=["ann", "bob"], n_items=4, key=jax.random.key(0))
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert len(rows) == 16 and "source" not in rows[0] and rows[0]["clip 1"].startswith("/sounds/")
    orders = [[row["item"] for row in rows if row["rater"] == rater] for rater in ("ann", "bob")]
    assert orders[0] != orders[1] and sorted(orders[0]) == sorted(orders[1])
    assert {row["rating 1-5"] for row in rows} == {""}
    with pytest.raises(UsageError, match="holds no ratings"):
        read_ratings(tmp_path)
    for row in rows:
        row["rating 1-5"] = "5" if row["name"].startswith("l") else str(1 + int(row["item"]) % 3)
    rows[0]["rating 1-5"] = " "
    _write(path, rows)
    found = read_ratings(tmp_path)
    assert (found["latents"].mean, found["latents"].sd) == (5, 0) and np.isnan(found["latents"].alpha)
    assert found["raw"].alpha == 1 and found["raw"].n_items == 4 and found["raw"].n_raters == 2
    assert found["latents"].n_ratings + found["raw"].n_ratings == 15
    for wrong, told in (("6", "the rating '6'"), ("good", "the rating 'good'")):
        rows[1]["rating 1-5"] = wrong
        _write(path, rows)
        with pytest.raises(UsageError, match=told):
            read_ratings(tmp_path)
    with pytest.raises(UsageError, match="l has 5 named concepts with clips, but 6"):
        write_sheet({"l": bank("l")}, tmp_path, raters=["ann"], n_items=6, key=jax.random.key(0))
    with pytest.raises(UsageError, match="needs a rater"):
        write_sheet(banks, tmp_path, raters=[], n_items=1, key=jax.random.key(0))
    with pytest.raises(UsageError, match="cannot read"):
        read_ratings(tmp_path / "nowhere")


def _write(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
