"""What a report says of concepts: which player fires which, and how much of the answer each of them carries."""

from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from sgpa_jax.explain import Explanation
from sgpa_jax.report.facts import number, player_name, readable

_MOST_WORDS = 3
_WORTH = 0.1
"""Players that do less than this share of what the strongest one does are left out."""


def concept_name(entry: dict[str, Any]) -> str:
    """Return what to call a concept: its name, or its latent's number where nobody has named it."""
    return readable(entry["name"]) if entry["name"] else f"latent {entry['latent']}"


def fired_by(explanation: Explanation, entry: dict[str, Any]) -> str:
    """Return the players that fire a concept most, or silence it: “dog” +3.1, “the” −0.4."""
    values_p = np.array(entry["values"])
    limit = float(np.abs(values_p).max()) or 1.0
    order = [p for p in np.argsort(-np.abs(values_p), kind="stable") if abs(values_p[p]) >= _WORTH * limit]
    return ", ".join(
        f"“{player_name(explanation, int(p))}” {number(float(values_p[p]), limit)}" for p in order[:_MOST_WORDS]
    )


def concept_table(explanation: Explanation) -> Table:
    """Return a row for each concept: its name, who fires it, and what it carries of the answer's log-probability."""
    concepts = [] if explanation.concepts is None else explanation.concepts["concepts"]
    carried = [entry["carries"] for entry in concepts if entry["carries"] is not None]
    limit = max(map(abs, carried), default=0.0) or 1.0
    rows = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    rows.add_column("concept", overflow="ellipsis", no_wrap=True, max_width=28)
    rows.add_column("latent", justify="right", style="dim", no_wrap=True)
    rows.add_column("fired by (activation, summed)", overflow="fold")
    if carried:
        rows.add_column("carries, nats", justify="right", no_wrap=True)
    for entry in concepts:
        carries = [] if not carried else ["–" if entry["carries"] is None else number(entry["carries"], limit)]
        rows.add_row(*map(Text, (concept_name(entry), str(entry["latent"]), fired_by(explanation, entry), *carries)))
    return rows


def concepts_in_words(explanation: Explanation) -> str:
    """Return the same as one text; empty where nobody asked for concepts."""
    told = explanation.concepts
    if told is None:
        return ""
    if not told["concepts"]:
        return "Nothing that was said fires any."
    parts = [f"{concept_name(entry)} by {fired_by(explanation, entry)}" for entry in told["concepts"]]
    where = "audio" if told["positions"] == "audio" else "the answer's"
    return f"{'; '.join(parts)} (activations summed over {where} positions after layer {told['after_layer']})."
