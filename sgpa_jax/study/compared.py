"""Our words beside other cuts of the same recordings: how concentrated values are, and when they come together."""

from collections.abc import Iterable, Mapping, Sequence

import jax
import numpy as np

from sgpa_jax.explain import compare_profiles
from sgpa_jax.study.paired import COLUMNS, TESTS, Pair, rows_of
from sgpa_jax.study.partitions import AUTHORS, CTC, NATIVE, RANDOM, TRUE, UNIFORM, WORDS
from sgpa_jax.study.records import Record, numbers, settings
from sgpa_jax.study.summaries import HIDDEN, SPOKEN, of
from sgpa_jax.study.table import Cell, Table

RIVALS = ((NATIVE, HIDDEN), (RANDOM, SPOKEN), (UNIFORM, SPOKEN), (CTC, SPOKEN), (AUTHORS, SPOKEN), (TRUE, SPOKEN))
"""Cuts that our words are compared with, and in which game."""


def concentration_table(by_model: Mapping[str, Sequence[Record]], seed: int) -> Table:
    """How concentrated values of words are, beside those of native tokens and of as many other players."""
    pairs = []
    for model, records in by_model.items():
        for kind in settings(records, "concentration"):
            for rival, game in RIVALS:
                if (kind.players, kind.value) != (WORDS, game) or kind.name == "players":
                    continue
                names = {"model": model, "measure": kind.name, "of": kind.setting, "other": rival, "game": game}
                ours, others = (of(records, kind, kind.name, players=players) for players in (WORDS, rival))
                if rival != NATIVE:
                    others = _where_as_many(records, others, rival, game)
                pairs.append(Pair(names, ours, others))
    return Table(
        "concentration",
        "Concentration: words beside other cuts",
        "`mean` is of our words, `other_mean` of the other cut, with as many players except for `native`; "
        "all these measures depend on the number of players whatever the values are. `of`: |φ| as it is (identity) or "
        "min–max normalised, as in the paper's code. Entropy over ln n is the code's, over √n the text's. "
        + TESTS
        + " A family is one model beside one other cut.",
        ("model", "measure", "of", "other", "game", *COLUMNS),
        tuple(rows_of(pairs, lambda row: (row["model"], row["other"]), seed)),
    )


def profile_table(by_model: Mapping[str, Sequence[Record]], seed: int) -> Table:
    """Whether the cumulative profile over time is another one for other cuts."""
    rows = []
    for model, records in by_model.items():
        for rival, game in RIVALS:
            for kind in ("profile", "profile as in the paper"):
                ours, others = (_curves(records, f"{kind} {players} {game}") for players in (WORDS, rival))
                both = [item for item in ours if item in others]
                row: dict[str, Cell] = {"model": model, "curves": kind, "other": rival, "game": game, "n": len(both)}
                if len(both) > 1:
                    first_ig, second_ig = (np.array([curves[item] for item in both]) for curves in (ours, others))
                    found = compare_profiles(first_ig, second_ig, key=jax.random.key(seed))
                    row |= {"area": found.area, "area_p": found.area_p, "ks": found.ks, "ks_p": found.ks_p}
                rows.append(row)
    return Table(
        "profile",
        "Cumulative profiles: words beside other cuts",
        "Area and largest distance (KS) between the mean curves of both cuts, and the share of 9,999 permutations "
        "(an item's two curves are swapped or not) with as large a one. A large p does not show that profiles are "
        "alike. The paper's curves begin with the first player's share and know no time.",
        ("model", "curves", "other", "game", "n", "area", "area_p", "ks", "ks_p"),
        tuple(rows),
    )


def _where_as_many(records: Sequence[Record], found: Mapping[str, float], rival: str, game: str) -> dict[str, float]:
    ours, theirs = (numbers(records, "concentration", "players", players=p, value=game) for p in (WORDS, rival))
    return {item: number for item, number in found.items() if ours.get(item) == theirs.get(item)}


def _curves(records: Iterable[Record], name: str) -> dict[str, tuple[float, ...]]:
    return {record.item: record.curves[name] for record in records if name in record.curves}
