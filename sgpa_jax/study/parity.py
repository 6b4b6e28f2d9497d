"""Do the authors' rules, as we have them, give the authors' own segments? On their recordings, with their aligner.

`manifest.json` of the folder lists recordings with the segments that the authors published (their output, no truth).
With facebook/wav2vec2-large-960h, which made them, at least `TARGET` of all word edges should lie within a frame of its
emissions (20 ms and a sample). With any other aligner the table says how far two aligners are apart, and no more.
"""

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
from jaxtyping import Float

from sgpa_jax.align import AcousticModel, align
from sgpa_jax.audio import read_clip
from sgpa_jax.errors import AlignmentError, UsageError
from sgpa_jax.study.table import Cell, Table

WITHIN_S = 0.021
TARGET = 0.95


def parity_table(folder: str | Path, aligner: AcousticModel) -> Table:
    """Align every recording of `folder` by the authors' rules, and compare with the authors' segments.

    Raises:
        UsageError: the folder has no manifest with their segments.
    """
    path = Path(folder) / "manifest.json"
    try:
        items = json.loads(path.read_text("utf-8"))["items"]
        listed = [(item["file"], item["subset"], item["transcript"], item["authors_sgpa_segments"]) for item in items]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError(
            f"cannot use {path} ({type(error).__name__}: {error}): expected the authors' recordings with their segments"
        ) from error
    away: dict[str, list[np.ndarray]] = defaultdict(list)
    counts: dict[str, dict[str, int]] = defaultdict(lambda: {"clips": 0, "without": 0, "failed": 0})
    for file, subset, transcript, segments in listed:
        for group in (subset, "all"):
            counts[group]["clips"] += 1
            counts[group]["without"] += not segments
        if not segments:
            continue
        try:
            apart_s = _apart_s(Path(folder) / file, transcript, segments, aligner)
        except AlignmentError:
            for group in (subset, "all"):
                counts[group]["failed"] += 1
            continue
        for group in (subset, "all"):
            away[group].append(apart_s)
    rows = [_row(group, counts[group], away[group]) for group in [*dict.fromkeys(row[1] for row in listed), "all"]]
    return Table(
        "parity",
        f"The authors' segments and ours by their rules, aligned by {aligner.name}",
        f"`n` word edges; `within 21 ms`: share that is no farther from theirs, to be at least {TARGET:.0%} with "
        "facebook/wav2vec2-large-960h, which theirs were made with. Their segments are no truth. `without`: recordings "
        "they publish no segments of; `failed`: those whose transcript could not be aligned, or has another number of "
        "words.",
        ("subset", "clips", "without", "failed", "n", "within 21 ms", "median_ms", "p95_ms"),
        tuple(rows),
    )


def _apart_s(path: Path, transcript: str, segments: list, aligner: AcousticModel) -> Float[np.ndarray, "N"]:
    words = align(read_clip(path), transcript, model=aligner, rules="authors", unspellable="merge").words
    if len(words) != len(segments):
        raise AlignmentError(f"{len(words)} words were aligned where the authors have {len(segments)} segments")
    ours = np.array([(word.start_s, word.end_s) for word in words])
    theirs = np.array([(segment["start_sec"], segment["end_sec"]) for segment in segments])
    return np.abs(ours - theirs).ravel()


def _row(group: str, counts: dict[str, int], apart: list[Float[np.ndarray, "N"]]) -> dict[str, Cell]:
    row: dict[str, Cell] = {"subset": group, **counts, "n": 0}
    if apart:
        apart_s = np.concatenate(apart)
        row |= {
            "n": len(apart_s),
            "within 21 ms": float((apart_s <= WITHIN_S).mean()),
            "median_ms": float(1000 * np.median(apart_s)),
            "p95_ms": float(1000 * np.percentile(apart_s, 95)),
        }
    return row
