"""How far word edges lie from the truth: the same emissions without stage 3, with the authors' stage 3, and with ours.

An error is estimated − true time of one edge; every word has two. An edge that two words share is compared with both of
theirs, so that where the truth has a pause it cannot be right for both. Edges are of four places: between words that
touch ("joined"), at a pause ("pause"), and at the recording's first ("first") and last word ("last"). At the two outer
ones the authors' search runs to the end of its window, because frames beyond it are zeros: how far an edge was moved
outwards is kept for them. Axes: `W` words.
"""

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from sgpa_jax.align import EMISSIONS, align
from sgpa_jax.errors import AlignmentError
from sgpa_jax.study.cuts import note_cuts
from sgpa_jax.study.heard import Heard
from sgpa_jax.study.naive_edges import energy_edges, uniform_edges
from sgpa_jax.study.notes import Notes
from sgpa_jax.study.paired import COLUMNS, TESTS, Pair, rows_of
from sgpa_jax.study.records import ALIGNMENT, Record
from sgpa_jax.study.table import Cell, Table

STAGES = ("none", "authors", "sgpa")
"""What happens to the edges of the path: nothing, the authors' stage 3 and 4, ours."""

NAIVE = {"uniform": uniform_edges, "energy": energy_edges}
PLACES = ("joined", "pause", "first", "last")
WITHIN_MS = (10, 20, 50, 100)
ALL = "all"
"""Stands for every condition, or voice, together."""

_WINDOW_END_MS = 75
_TOUCH_S = 1e-4


def alignment_record(heard: Heard, key: str) -> Record:
    """Return the record of an item under `ALIGNMENT`: errors of edges where true times are known, and its cuts.

    Raises:
        AlignmentError: the transcript does not fit the recording.
    """
    began_s, item, notes = time.perf_counter(), heard.item, Notes()
    times = word_times(heard)
    if item.words:
        true_w2 = np.array([span[1:] for span in item.words])
        if any(len(found_w2) != len(true_w2) for found_w2 in times.values()):
            raise AlignmentError(
                f"the manifest gives times of {len(true_w2)} words for a transcript of "
                f"{len(item.transcript.split())}: expected one for each"
            )
        for (emission, stage), found_w2 in times.items():
            for place, errors in edge_errors_ms(found_w2, true_w2).items():
                notes.curve(f"error {emission} {stage} {place}", errors)
            raw_w2 = times.get((emission, "none"))
            if raw_w2 is not None and stage != "none":
                notes.curve(f"outwards {emission} {stage} first", [1000 * (raw_w2[0, 0] - found_w2[0, 0])])
                notes.curve(f"outwards {emission} {stage} last", [1000 * (found_w2[-1, 1] - raw_w2[-1, 1])])
    note_cuts(notes, heard, times)
    return Record(
        item=item.id,
        subject=ALIGNMENT,
        key=key,
        condition=item.condition,
        category=item.category,
        voice=item.voice,
        facts=notes.facts,
        measures=tuple(notes.measures),
        curves=notes.curves,
        seconds=round(time.perf_counter() - began_s, 3),
    )


def word_times(heard: Heard) -> dict[tuple[str, str], Float[np.ndarray, "W 2"]]:
    """Return start and end of every word by (emissions, stage 3); naive methods have the emissions "none".

    Raises:
        AlignmentError: the transcript does not fit the recording.
    """
    times: dict[tuple[str, str], Float[np.ndarray, "W 2"]] = {}
    clip, transcript, aligner = heard.clip, heard.item.transcript, heard.aligner
    kinds = [kind for kind in EMISSIONS if kind == "character" or (kind == "phone" and aligner.lexicon is not None)]
    for kind in kinds:
        for rules in ("sgpa", "authors"):
            words = align(clip, transcript, model=aligner, rules=rules, emission=kind).words
            times[kind, rules] = np.array([(word.start_s, word.end_s) for word in words])
            raw = [(word.ctc_start_s, word.ctc_end_s) for word in words]
            if rules == "sgpa" and all(start_s is not None for start_s, _ in raw):
                times[kind, "none"] = np.array(raw, float)
    n_words = len(transcript.split())
    for name, edges_of in NAIVE.items():
        edges_e = edges_of(clip, n_words)
        times["none", name] = np.stack([edges_e[:-1], edges_e[1:]], axis=1)
    return times


def edge_errors_ms(
    found_w2: Float[np.ndarray, "W 2"], true_w2: Float[np.ndarray, "W 2"]
) -> dict[str, Float[np.ndarray, "N"]]:
    """Return estimated − true time of every edge in milliseconds, by its place; places without any are left out."""
    late_w2 = 1000 * (found_w2 - true_w2)
    pause_g = true_w2[1:, 0] - true_w2[:-1, 1] > _TOUCH_S
    inner_g2 = np.stack([late_w2[:-1, 1], late_w2[1:, 0]], axis=1)
    places = {
        "joined": inner_g2[~pause_g].ravel(),
        "pause": inner_g2[pause_g].ravel(),
        "first": late_w2[:1, 0],
        "last": late_w2[-1:, 1],
    }
    return {place: errors for place, errors in places.items() if errors.size}


def alignment_tables(records: Sequence[Record], seed: int) -> list[Table]:
    """Return the tables of edges of the records under `ALIGNMENT`; those without true times take no part."""
    known = [record for record in records if record.subject == ALIGNMENT and record.curves]
    return [
        edges_table(known, "condition"),
        edges_table(known, "voice"),
        stages_table(known, seed),
        outer_table(known),
    ]


def edges_table(records: Sequence[Record], by: str) -> Table:
    """How far edges are from the truth, by each method, for every condition or every voice and for all together."""
    rows: list[dict[str, Cell]] = []
    for group, members in _groups(records, by).items():
        for emission, stage in _methods(members):
            errors = {place: _pooled(members, emission, stage, [place]) for place in PLACES}
            late = np.concatenate(list(errors.values()))
            row: dict[str, Cell] = {
                by: group,
                "emissions": emission,
                "stage 3": stage,
                "items": len(members),
                "n": len(late),
                "median_ms": float(np.median(np.abs(late))),
                "mean_ms": float(np.abs(late).mean()),
                **{f"within {limit} ms": float((np.abs(late) <= limit).mean()) for limit in WITHIN_MS},
                "late_ms": float(np.median(late)),
                **{f"{place}_ms": float(np.median(np.abs(own))) for place, own in errors.items() if own.size},
            }
            rows.append(row)
    limits, places = (f"within {limit} ms" for limit in WITHIN_MS), (f"{place}_ms" for place in PLACES)
    columns = (by, "emissions", "stage 3", "items", "n", "median_ms", "mean_ms", *limits, "late_ms", *places)
    return Table(
        f"edges_by_{by}",
        f"Distance of word edges from the truth, by {by}",
        "`n` edges of `items` recordings; medians and means of |estimated − true|, `late_ms` the median with its sign. "
        "Stage 3 `none` is the path as it is. `joined`, `pause`, `first` and `last` are medians of edges of one place.",
        columns,
        tuple(rows),
    )


def stages_table(records: Sequence[Record], seed: int) -> Table:
    """Whether our stage 3 beats the path and the authors' stage 3 on the same emissions, condition by condition."""
    pairs, found = [], []
    for group, members in _groups(records, "condition").items():
        for emission in dict.fromkeys(emission for emission, stage in _methods(members) if stage == "sgpa"):
            for rival in ("none", "authors"):
                ours, theirs = (_pooled(members, emission, stage, PLACES) for stage in ("sgpa", rival))
                if not theirs.size:
                    continue
                medians = [float(np.median(np.abs(late))) for late in (ours, theirs)]
                shares = [float((np.abs(late) <= 20).mean()) for late in (ours, theirs)]
                found.append(
                    {"edges": len(ours), "median_ms": medians[0], "other median_ms": medians[1],
                     "within 20 ms": shares[0], "other within 20 ms": shares[1],
                     "both better": medians[0] < medians[1] and shares[0] > shares[1]}
                )  # fmt: skip
                names = {"condition": group, "emissions": emission, "other": rival}
                pairs.append(Pair(names, *(_shares(members, emission, stage) for stage in ("sgpa", rival))))
    rows = [row | told for row, told in zip(rows_of(pairs, lambda _: None, seed), found, strict=True)]
    return Table(
        "stage_3",
        "Our stage 3 against the path alone and against the authors' stage 3",
        "The same emissions, the same path. Medians and shares are of all edges together; the test compares the share "
        "of a recording's edges within 20 ms. " + TESTS,
        ("condition", "emissions", "other", "edges", "median_ms", "other median_ms", "within 20 ms",
         "other within 20 ms", "both better", *COLUMNS),
        tuple(rows),
    )  # fmt: skip


def outer_table(records: Sequence[Record]) -> Table:
    """Where stage 3 puts the start of the first and the end of the last word: does it run to the end of its window?"""
    rows: list[dict[str, Cell]] = []
    for emission, stage in _methods(records):
        if stage not in STAGES or stage == "none":
            continue
        for place in ("first", "last"):
            moved = _curve(records, f"outwards {emission} {stage} {place}")
            late = _pooled(records, emission, stage, [place])
            raw = _pooled(records, emission, "none", [place])
            if moved.size:
                rows.append(
                    {"emissions": emission, "stage 3": stage, "edge": place, "n": len(moved),
                     "outwards_ms": float(np.median(moved)),
                     "to the window's end": float((moved >= _WINDOW_END_MS).mean()),
                     "median_ms": float(np.median(np.abs(late))),
                     "path alone median_ms": float(np.median(np.abs(raw)))}
                )  # fmt: skip
    return Table(
        "outer_edges",
        "The recording's first and last edge",
        f"`outwards_ms`: median move away from the words; `to the window's end`: share moved outwards by "
        f"{_WINDOW_END_MS} ms or more of the authors' 80, where zero padding makes frames look silent. `median_ms`: "
        "distance from the truth.",
        ("emissions", "stage 3", "edge", "n", "outwards_ms", "to the window's end", "median_ms",
         "path alone median_ms"),
        tuple(rows),
    )  # fmt: skip


def _groups(records: Sequence[Record], by: str) -> dict[str, list[Record]]:
    found: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        found[getattr(record, by) or "–"].append(record)
    return {**found, ALL: list(records)} if len(found) != 1 else dict(found)


def _methods(records: Iterable[Record]) -> list[tuple[str, str]]:
    names = (name.split() for record in records for name in record.curves if name.startswith("error "))
    return list(dict.fromkeys((emission, stage) for _, emission, stage, _ in names))


def _curve(records: Iterable[Record], name: str) -> Float[np.ndarray, "N"]:
    return np.array([point for record in records for point in record.curves.get(name, ())], float)


def _pooled(records: Iterable[Record], emission: str, stage: str, places: Sequence[str]) -> Float[np.ndarray, "N"]:
    records = list(records)
    return np.concatenate([_curve(records, f"error {emission} {stage} {place}") for place in places])


def _shares(records: Iterable[Record], emission: str, stage: str) -> Mapping[str, float]:
    own = {record.item: np.abs(_pooled([record], emission, stage, PLACES)) for record in records}
    return {item: float((late <= 20).mean()) for item, late in own.items() if late.size}
