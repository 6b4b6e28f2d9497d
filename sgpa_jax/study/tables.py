"""The tables of a study, made from its records alone: nothing here needs a model, a recording or an aligner.

Every row tells of how many items it is (`n`). Items that lack a number are left out of its row, and of no other.
"""

from collections.abc import Callable, Mapping, Sequence

from sgpa_jax.study.alignment_quality import alignment_tables
from sgpa_jax.study.compared import concentration_table, profile_table
from sgpa_jax.study.cost import cost_table, paper_cost_table
from sgpa_jax.study.cuts import cuts_table
from sgpa_jax.study.paper import paper_table
from sgpa_jax.study.partitions import TRUE, WORDS
from sgpa_jax.study.records import ALIGNMENT, Record, numbers, settings
from sgpa_jax.study.summaries import SPOKEN, grouped, mean, median, of, wilson
from sgpa_jax.study.table import Cell, Table
from sgpa_jax.study.trust import faithfulness_table, judges_table, sensitivity_table, stability_table


def study_tables(records: Sequence[Record], seed: int) -> list[Table]:
    """Return all tables of the records of one or more models, and of the alignment."""
    found = grouped(record for record in records if record.subject != ALIGNMENT)
    makers: Sequence[Callable[[Mapping[str, Sequence[Record]], int], Table]] = (
        items_table,
        evidence_table,
        evidence_by_table,
        concentration_table,
        profile_table,
        faithfulness_table,
        judges_table,
        values_table,
        sensitivity_table,
        stability_table,
        cost_table,
    )
    tables = [make(found, seed) for make in makers]
    of_alignment = [*alignment_tables(records, seed), cuts_table(records, seed), paper_cost_table()]
    return [paper_table(tables, [*found]), *tables, *(table for table in of_alignment if table.rows)]


def items_table(by_model: Mapping[str, Sequence[Record]], seed: int) -> Table:
    """How many items there were, what became of them, and what they took."""
    rows = []
    for model, records in by_model.items():
        done = [record for record in records if record.error is None]
        right = [bool(record.facts["right"]) for record in done if record.facts.get("right") is not None]
        row: dict[str, Cell] = {
            "model": model,
            "items": len(records),
            "failed": len(records) - len(done),
            "looked at closely": sum(bool(record.facts.get("looked at closely")) for record in done),
            "answers known": len(right),
            "right": mean(right),
            "players": mean([float(record.facts["n_players"] or 0) for record in done]),
            "duration_s": mean([float(record.facts["duration_s"] or 0) for record in done]),
            "seconds": median([record.seconds for record in done]),
        }
        rows.append(row)
    return Table(
        "items",
        "Items",
        "What was studied. `right`: share of the answers that are the manifest's; players and duration are means, "
        "`seconds` is the median wall time of an item, compilation included.",
        ("model", "items", "failed", "looked at closely", "answers known", "right", "players", "duration_s", "seconds"),
        tuple(rows),
    )


def evidence_table(by_model: Mapping[str, Sequence[Record]], seed: int) -> Table:
    """How often the word that must decide the answer ranks first."""
    rows = []
    for model, records in by_model.items():
        right = [record for record in records if record.facts.get("right")]
        for kind in settings(records, "evidence"):
            if kind.name != "hit":
                continue
            hit, hit_right, points = (
                of(chosen, kind, name) for chosen, name in ((records, "hit"), (right, "hit"), (records, "points"))
            )
            low, high = wilson(sum(hit.values()), len(hit))
            names = {"model": model, "players": kind.players, "game": kind.value, "setting": kind.setting}
            rows.append(
                names
                | {"n": len(hit), "hit_rate": mean(hit.values()), "low": low, "high": high}
                | {"n_right": len(hit_right), "hit_rate_right": mean(hit_right.values())}
                | {"n_points": len(points), "points": mean(points.values())}
            )
    return Table(
        "evidence",
        "Evidence: does the word that must decide rank first?",
        "`hit_rate`: all players of the evidence rank above all others (a tie is no hit), over all items whose "
        "evidence is known, whatever the model answered; `low` and `high` are its 95 % interval (Wilson); "
        "`hit_rate_right` counts items that were answered rightly. `points`: the middle of the first player lies "
        "inside of the evidence, which also pieces that are no words can do. `authors`, `ctc` and the presets have no "
        "players for sounds, and miss those. Settings are of items looked at closely.",
        ("model", "players", "game", "setting", "n", "hit_rate", "low", "high", "n_right", "hit_rate_right",
         "n_points", "points"),
        tuple(rows),
    )  # fmt: skip


def evidence_by_table(by_model: Mapping[str, Sequence[Record]], seed: int) -> Table:
    """The same, by what a question needs and by how a recording was made."""
    rows: list[dict[str, Cell]] = []
    for model, records in by_model.items():
        for what in ("category", "condition"):
            for name in sorted({getattr(record, what) for record in records}):
                chosen = [record for record in records if getattr(record, what) == name and record.error is None]
                right = [bool(record.facts["right"]) for record in chosen if record.facts.get("right") is not None]
                row: dict[str, Cell] = {"model": model, "by": what, "group": name, "n": len(chosen)}
                row["right"] = mean(right)
                for players in (TRUE, WORDS):
                    row[f"{players}_hit_rate"] = mean(
                        numbers(chosen, "evidence", "hit", players=players, value=SPOKEN).values()
                    )
                rows.append(row)
    return Table(
        "evidence_by",
        "Evidence by category and condition",
        f"Hit rates in the game {SPOKEN}, over words at their true times and over those that were aligned.",
        ("model", "by", "group", "n", "right", "true_hit_rate", "words_hit_rate"),
        tuple(rows),
    )


def values_table(by_model: Mapping[str, Sequence[Record]], seed: int) -> Table:
    """What other value functions make of the same words."""
    rows: list[dict[str, Cell]] = []
    for model, records in by_model.items():
        for kind in settings(records, "values"):
            worth = of(records, kind, "worth anything")
            changed = {"table": "sensitivity", "players": WORDS, "setting": f"value {kind.value}"}
            rows.append(
                {
                    "model": model,
                    "value": kind.value,
                    "n": len(worth),
                    "worth anything": mean(worth.values()),
                    "ρ with logprob": mean(numbers(records, name="Spearman's ρ", **changed).values()),
                    "same first player": mean(numbers(records, name="same first player", **changed).values()),
                    "gini": mean(_concentration(records, kind.value, "gini").values()),
                    "hit_rate": mean(
                        numbers(records, "evidence", "hit", players=kind.players, value=kind.value).values()
                    ),
                }
            )
    return Table(
        "values",
        "Other value functions on the same words",
        "Answers are generated for every coalition and compared with that of all players: TF-IDF cosine with a frozen "
        "idf, and cosine of the mean token embeddings. `worth anything`: some player's value differs from another's.",
        ("model", "value", "n", "worth anything", "ρ with logprob", "same first player", "gini", "hit_rate"),
        tuple(rows),
    )


def _concentration(records: Sequence[Record], value: str, name: str) -> dict[str, float]:
    return numbers(records, "concentration", name, players=WORDS, value=value, setting="identity")
