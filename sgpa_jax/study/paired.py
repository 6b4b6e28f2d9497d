"""Paired tests over the items of a study, corrected within their family, as rows of a table."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from sgpa_jax.explain import bonferroni, holm, matched, paired_comparison
from sgpa_jax.study.table import Cell

COLUMNS = ("n", "mean", "other_mean", "difference", "low", "high", "d_z", "rank_biserial", "t_p", "wilcoxon_p",
           "bonferroni_p", "holm_p")  # fmt: skip
"""Of a paired test: n is the number of pairs, low and high a bootstrap interval of the mean difference (95 %)."""

TESTS = "Tests are paired over items; p values of Wilcoxon's test are corrected within their family."

_FEWEST = 5
"""Fewer pairs give no test."""


@dataclass(frozen=True)
class Pair:
    """Two numbers of the same items, and the cells that name them."""

    names: Mapping[str, Cell]
    first: Mapping[str, float]
    second: Mapping[str, float]


def rows_of(pairs: Sequence[Pair], family: Callable[[Mapping[str, Cell]], Any], seed: int) -> list[dict[str, Cell]]:
    """Test every pair; those of one family share a correction. Pairs with fewer than five items have their n alone.

    Args:
        pairs: what to compare.
        family: names the family of a row.
        seed: of the bootstrap.
    """
    rows: list[dict[str, Cell]] = [_row(pair, seed) for pair in pairs]
    families: dict[Any, list[dict[str, Cell]]] = {}
    for row in rows:
        if "wilcoxon_p" in row:
            families.setdefault(family(row), []).append(row)
    for members in families.values():
        p_h = np.array([row["wilcoxon_p"] for row in members], float)
        for row, by_bonferroni, by_holm in zip(members, bonferroni(p_h), holm(p_h), strict=True):
            row |= {"bonferroni_p": float(by_bonferroni), "holm_p": float(by_holm)}
    return rows


def _row(pair: Pair, seed: int) -> dict[str, Cell]:
    row = dict(pair.names)
    n_pairs = len(set(pair.first) & set(pair.second))
    if n_pairs < _FEWEST:
        return row | {"n": n_pairs}
    _, first_i, second_i = matched(pair.first, pair.second)
    found = paired_comparison(first_i, second_i, key=jax.random.key(seed))
    return row | {
        "n": found.n,
        "mean": found.first_mean,
        "other_mean": found.second_mean,
        "difference": found.mean_difference,
        "low": found.low,
        "high": found.high,
        "d_z": found.d_z,
        "rank_biserial": found.rank_biserial,
        "t_p": found.t_p,
        "wilcoxon_p": found.signed_rank_p,
    }
