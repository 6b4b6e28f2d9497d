"""How far values can be trusted: what judges say of them, and what changes when something else is changed."""

from collections.abc import Mapping, Sequence

from sgpa_jax.study.paired import COLUMNS, TESTS, Pair, rows_of
from sgpa_jax.study.records import Record, settings
from sgpa_jax.study.summaries import SPOKEN, mean, median, of, quantile
from sgpa_jax.study.table import Cell, Table


def faithfulness_table(by_model: Mapping[str, Sequence[Record]], seed: int) -> Table:
    """Whether a ranking matters more than random ones of equal duration."""
    pairs = []
    for model, records in by_model.items():
        for kind in settings(records, "faithfulness"):
            random = of(records, kind, f"random {kind.name}")
            if random:
                names = {"model": model, "explained": kind.value, "judged by": kind.setting, "measure": kind.name}
                pairs.append(Pair(names, of(records, kind, kind.name), random))
    return Table(
        "faithfulness",
        "Faithfulness against random choices of equal duration",
        "`mean` is of the ranking by value, `other_mean` of 20 random ones, in the judge's unit (nats, or cosine): "
        "low is faithful for the deletion area and sufficiency, high for the insertion area and comprehensiveness. "
        "Only a judge of another value function or absence is no witness in its own case. "
        + TESTS
        + " A family is one explanation by one judge.",
        ("model", "explained", "judged by", "measure", *COLUMNS),
        tuple(rows_of(pairs, lambda row: (row["model"], row["explained"], row["judged by"]), seed)),
    )


def judges_table(by_model: Mapping[str, Sequence[Record]], seed: int) -> Table:
    """Whether the values foretell what a judge does: infidelity and monotonicity."""
    rows: list[dict[str, Cell]] = []
    for model, records in by_model.items():
        for kind in settings(records, "faithfulness"):
            if kind.name == "infidelity":
                found = {name: of(records, kind, name) for name in ("infidelity", "monotonicity ρ", "agreeing steps")}
                names = {"model": model, "explained": kind.value, "judged by": kind.setting}
                row: dict[str, Cell] = {**names, "n": len(found["infidelity"])}
                for name, each in found.items():
                    row |= {f"{name} (mean)": mean(each.values()), f"{name} (median)": median(each.values())}
                rows.append(row)
    names = ("infidelity", "monotonicity ρ", "agreeing steps")
    return Table(
        "judges",
        "Infidelity and monotonicity",
        "Infidelity: the share of a judge's squared losses that the values leave unexplained after one common factor, "
        "0 at best. Monotonicity: Spearman's ρ of a player's value and what is lost without it alone. Agreeing steps: "
        "the share of players that move the judge to the side of their sign when players come back, the least first.",
        (
            "model",
            "explained",
            "judged by",
            "n",
            *(f"{name} ({kind})" for name in names for kind in ("mean", "median")),
        ),
        tuple(rows),
    )


def sensitivity_table(by_model: Mapping[str, Sequence[Record]], seed: int) -> Table:
    """What changes the story, and what does not."""
    rows: list[dict[str, Cell]] = []
    for model, records in by_model.items():
        for kind in settings(records, "sensitivity"):
            if kind.name != "Spearman's ρ" or kind.setting.startswith("value "):
                continue
            ρ, first, change = (
                of(records, kind, name) for name in ("Spearman's ρ", "same first player", "relative change")
            )
            rows.append(
                {
                    "model": model,
                    "changed": kind.setting,
                    "n": len(first),
                    "ρ (mean)": mean(ρ.values()),
                    "edges moved_ms": mean(of(records, kind, "edges moved, ms").values()),
                    "ρ (lowest tenth)": quantile(ρ.values(), 0.1),
                    "same first player": mean(first.values()),
                    "relative change (median)": median(change.values()),
                    "relative change (max)": max(change.values(), default=None),
                }
            )
    return Table(
        "sensitivity",
        "Sensitivity: values of the words when something else is changed",
        f"Compared with the values of {SPOKEN} over aligned words. Jitter moves every edge so many milliseconds "
        "earlier or later (two draws); α and δ are the paper's stage 3 at the edges of words, beside the authors' "
        "choice (0.8, 40 ms); `edges` are those of other rules, for items without a sound. The relative "
        "change is ‖φ′ − φ‖ / ‖φ‖; its largest over items and draws is the max-sensitivity of the corpus.",
        ("model", "changed", "n", "edges moved_ms", "ρ (mean)", "ρ (lowest tenth)", "same first player",
         "relative change (median)", "relative change (max)"),
        tuple(rows),
    )  # fmt: skip


def stability_table(by_model: Mapping[str, Sequence[Record]], seed: int) -> Table:
    """Whether the paper's budget gives the same story with other seeds."""
    rows: list[dict[str, Cell]] = []
    for model, records in by_model.items():
        for kind in settings(records, "stability"):
            found = of(records, kind, kind.name)
            rows.append(
                {"model": model, "measure": kind.name, "n": len(found), "mean": mean(found.values()),
                 "lowest": min(found.values(), default=None), "highest": max(found.values(), default=None)}
            )  # fmt: skip
    return Table(
        "stability",
        "Stability over seeds at the paper's budget",
        "Five runs of the paper's estimator (Neyman, 3 n² evaluations) on games whose exact values are known. "
        "Relative error: mean |φ − exact φ| over mean |exact φ|.",
        ("model", "measure", "n", "mean", "lowest", "highest"),
        tuple(rows),
    )
