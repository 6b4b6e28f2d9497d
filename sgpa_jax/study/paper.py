"""The paper's numbers (arXiv 2603.02250, and its repository's results) beside ours, with what each really counts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sgpa_jax.study.partitions import NATIVE, RANDOM
from sgpa_jax.study.table import Cell, Table, shown

_FEW = "10 clips a voice (paired t, 9 degrees of freedom), min–max normalised, fewer players in SGPA by construction"


@dataclass(frozen=True)
class Number:
    """A number of the paper, and where ours stands.

    Attributes:
        claim: what is claimed.
        paper: the number, as it was computed there.
        counts: what that counts.
        table: of ours.
        where: cells that name our row.
        columns: of ours that answer, in order.
    """

    claim: str
    paper: str
    counts: str
    table: str
    where: Mapping[str, Cell]
    columns: Sequence[str]


_TEST = ("d_z", "difference", "holm_p")


def _concentration(measure: str, other: str) -> dict[str, Cell]:
    return {"measure": measure, "of": "min_max", "other": other}


NUMBERS = (
    Number(
        "Words concentrate values more than native tokens: Gini",
        "d_z .89 and .77 (synthetic voices), .78 (LibriSpeech); −.20 on the original voices, which the paper omits",
        _FEW, "concentration", _concentration("gini", NATIVE), _TEST,
    ),
    Number(
        "… top 20 % of players",
        "d_z 1.06 and 1.08, .97; .53 on the original voices",
        _FEW, "concentration", _concentration("top fifth", NATIVE), _TEST,
    ),
    Number(
        "… entropy",
        "d_z −1.61 and −1.45, −1.26; −.80 on the original voices",
        "over ln n, though the text says √n; " + _FEW,
        "concentration", _concentration("entropy / ln n", NATIVE), _TEST,
    ),
    Number(
        "Is it SGPA, or fewer players? Gini against as many random cuts",
        "not measured", "–", "concentration", _concentration("gini", RANDOM), _TEST,
    ),
    Number(
        "… entropy against as many random cuts",
        "not measured", "–", "concentration", _concentration("entropy / ln n", RANDOM), _TEST,
    ),
    Number(
        "The cumulative profile of native tokens is preserved",
        "shown as a figure, without a test",
        "a running maximum over min–max values by position; the eye compares",
        "profile", {"curves": "profile", "other": NATIVE}, ("area", "area_p", "ks", "ks_p"),
    ),
    Number(
        "Taking away the word of the largest value changes the answer most",
        "Δ .037 against random stretches of its length, p .041, d_z .21; female voice alone",
        "98 clips, TF-IDF of answers, the explained value function judging itself",
        "faithfulness",
        {"explained": "logprob/silence", "judged by": "response_embedding/silence", "measure": "deletion area"},
        _TEST,
    ),
    Number(
        "Larger values lose more: rank correlation of value and loss",
        "ρ .042 over all words, −.090 within clips",
        "591 single deletions of 99 clips",
        "judges",
        {"explained": "logprob/silence", "judged by": "response_embedding/silence"},
        ("monotonicity ρ (mean)",),
    ),
    Number(
        "The answer's values do not depend on the seed",
        "not measured", "–", "stability", {"measure": "Spearman's ρ of seeds"}, ("mean", "lowest"),
    ),
    Number(
        "Refined boundaries matter to the values",
        "flux at the cuts falls by 43 %", "flux is part of the cost that is minimised; nothing is said of the values",
        "sensitivity", {"changed": "edges ctc"}, ("ρ (mean)", "same first player"),
    ),
)  # fmt: skip


def paper_table(tables: Sequence[Table], models: Sequence[str]) -> Table:
    """Return the paper's numbers with those of our tables that answer them, model by model."""
    by_name = {table.name: table for table in tables}
    rows = []
    for number in NUMBERS:
        for model in models:
            found = next((row for row in by_name[number.table].rows if _is(row, {"model": model, **number.where})), {})
            told = ", ".join(f"{name} {shown(found[name])}" for name in number.columns if found.get(name) is not None)
            rows.append(
                {"claim": number.claim, "paper": number.paper, "what it counts": number.counts, "model": model,
                 "ours": told or None, "n": found.get("n")}
            )  # fmt: skip
    return Table(
        "paper",
        "The paper's numbers beside ours",
        "Numbers of the paper are recomputed from its repository's own files. Ours are of synthetic speech and small "
        "models: they say what the measures do, not what LFM2-Audio does.",
        ("claim", "paper", "what it counts", "model", "ours", "n"),
        tuple(rows),
    )


def _is(row: Mapping[str, Cell], where: Mapping[str, Cell]) -> bool:
    return all(row.get(name) == cell for name, cell in where.items())
