"""What people make of the concepts' names: a sheet for them to fill in, and what their ratings come to.

A rater hears a concept's most representative clips, reads its name, and says from 1 (does not fit at all) to 5 (fits
exactly) how well it fits. Concepts of several sources (an autoencoder's, raw dimensions') stand mixed in one sheet that
does not tell them apart; `items.csv` does. Agreement is Krippendorff's α with his ordinal metric (Computing
Krippendorff's Alpha-Reliability, 2011), which takes missing ratings. Axes: `R` raters, `I` items, `V` values.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from sgpa_jax.concepts.bank import ConceptBank, finite
from sgpa_jax.errors import UsageError
from sgpa_jax.files import atomic_write, from_cell, to_cell
from sgpa_jax.typing import PRNGKeyArray

SHEET, ITEMS = "ratings.csv", "items.csv"
LOWEST, HIGHEST = 1, 5


@dataclass(frozen=True)
class Ratings:
    """What the ratings of one source's names come to.

    Attributes:
        mean, sd: of all ratings (n − 1).
        alpha: Krippendorff's, ordinal; not a number where nobody shares an item, or all ratings are the same.
        n_items, n_raters, n_ratings: that have, give, or are ratings.
    """

    mean: float
    sd: float
    alpha: float
    n_items: int
    n_raters: int
    n_ratings: int

    def to_dict(self) -> dict[str, Any]:
        """All of it, for JSON: figures that are not numbers are None."""
        return finite(asdict(self))


def write_sheet(
    banks: Mapping[str, ConceptBank], folder: str | Path, *, raters: Sequence[str], n_items: int, key: PRNGKeyArray
) -> Path:
    """Write `ratings.csv`, a row for every item and rater with an empty rating, and `items.csv`, what the items are.

    Args:
        banks: by source; the same number of named concepts with clips is drawn from each.
        folder: where the tables go.
        raters: what they are called; each gets all items in an order of their own.
        n_items: of each source.
        key: for the draws.

    Raises:
        UsageError: a source has too few named concepts with clips, there are no raters, the folder holds a sheet, or
            it cannot be written.
    """
    draw = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    chosen = []
    for source, bank in banks.items():
        named = [concept for concept in bank.concepts if concept.name and concept.top]
        if len(named) < n_items:
            raise UsageError(f"{source} has {len(named)} named concepts with clips, but {n_items} are to be rated")
        chosen += [(source, named[n]) for n in draw.permutation(len(named))[:n_items]]
    if not raters or not chosen:
        raise UsageError("a sheet needs a rater and an item at least; give their names and a number of items")
    folder = Path(folder)
    if (folder / SHEET).exists():
        raise UsageError(f"{folder / SHEET} is there, and may have been filled in; give another folder")
    chosen = [chosen[n] for n in draw.permutation(len(chosen))]
    n_clips = max(len(concept.top) for _, concept in chosen)
    clips = [f"clip {n + 1}" for n in range(n_clips)]
    items, rows = [], []
    for item, (source, concept) in enumerate(chosen, start=1):
        heard = [str(clip.path or clip.id) for clip in concept.top]
        items.append([item, source, concept.latent, concept.name])
        rows.append([item, concept.name, *heard, *[""] * (n_clips - len(heard))])
    sheet = [[rater, *rows[n], ""] for rater in raters for n in draw.permutation(len(rows))]
    atomic_write(folder / ITEMS, _csv(["item", "source", "latent", "name"], items))
    atomic_write(folder / SHEET, _csv(["rater", "item", "name", *clips, f"rating {LOWEST}-{HIGHEST}"], sheet))
    return folder / SHEET


def read_ratings(folder: str | Path) -> dict[str, Ratings]:
    """Read a sheet that was filled in, in part or whole, and say what it comes to by source.

    Raises:
        UsageError: a table is missing or damaged, a rating is none, or there are no ratings at all.
    """
    folder = Path(folder)
    sources = {row["item"]: row["source"] for row in _read(folder / ITEMS, ("item", "source"))}
    column = f"rating {LOWEST}-{HIGHEST}"
    given: dict[tuple[str, str], float] = {}
    for row in _read(folder / SHEET, ("rater", "item", column)):
        text = row[column].strip()
        if not text:
            continue
        if not (text.isdecimal() and LOWEST <= int(text) <= HIGHEST) or row["item"] not in sources:
            raise UsageError(
                f"{folder / SHEET} has the rating {text!r} of item {row['item']}: expected a whole number from "
                f"{LOWEST} to {HIGHEST} of an item of {ITEMS}"
            )
        given[row["rater"], row["item"]] = float(text)
    if not given:
        raise UsageError(f"{folder / SHEET} holds no ratings; have it filled in")
    raters, found = sorted({rater for rater, _ in given}), {}
    for source in dict.fromkeys(sources.values()):
        items = [item for item in sources if sources[item] == source]
        rating_ri = np.array([[given.get((rater, item), np.nan) for item in items] for rater in raters])
        known_ri = ~np.isnan(rating_ri)
        if known_ri.any():
            values = rating_ri[known_ri]
            found[source] = Ratings(
                mean=float(values.mean()),
                sd=float(values.std(ddof=1)) if len(values) > 1 else float("nan"),
                alpha=krippendorff_alpha(rating_ri),
                n_items=int(known_ri.any(axis=0).sum()),
                n_raters=int(known_ri.any(axis=1).sum()),
                n_ratings=len(values),
            )
    return found


def krippendorff_alpha(rating_ri: Float[np.ndarray, "R I"]) -> float:
    """Agreement of raters on an ordinal scale: 1 if perfect, 0 as by chance; not a number marks a missing rating.

    Not a number itself where no item has two ratings, or all ratings of such items are the same.
    """
    known_ri = ~np.isnan(rating_ri)
    shared_i = known_ri.sum(axis=0) >= 2
    if not shared_i.any():
        return float("nan")
    values = np.unique(rating_ri[:, shared_i][known_ri[:, shared_i]])
    count_iv = (rating_ri[:, shared_i, None] == values).sum(axis=0).astype(np.float64)
    n_i = count_iv.sum(axis=1, keepdims=True)
    # Every ordered pair of an item's ratings, each item weighing as much as it has ratings.
    together_vv = (count_iv / (n_i - 1)).T @ count_iv - np.diag((count_iv / (n_i - 1)).sum(axis=0))
    total_v = count_iv.sum(axis=0)
    middle_v = np.cumsum(total_v) - total_v / 2
    apart_vv = (middle_v[:, None] - middle_v[None]) ** 2
    expected = float(total_v @ apart_vv @ total_v) / (total_v.sum() - 1)
    return 1 - float((together_vv * apart_vv).sum()) / expected if expected else float("nan")


def _csv(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    buffer = io.StringIO()
    cells = [
        [to_cell(cell.replace("\r", " ")) if isinstance(cell, str) else cell for cell in row] for row in (header, *rows)
    ]
    csv.writer(buffer, lineterminator="\n").writerows(cells)
    return buffer.getvalue()


def _read(path: Path, wanted: Sequence[str]) -> list[dict[str, str]]:
    try:
        rows = list(csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines()))
    except (OSError, ValueError, csv.Error) as error:
        raise UsageError(f"cannot read {path} ({error}); give the folder of a sheet") from error
    for row in rows:
        if any(row.get(name) is None for name in wanted):
            raise UsageError(f"{path} has a row without {' or '.join(map(repr, wanted))}; restore the column")
    return [{name: from_cell(row[name]) for name in wanted} for row in rows]
