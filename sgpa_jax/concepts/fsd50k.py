"""Corpora in FSD50K's layout (Fonseca et al., arXiv 2010.00475): two folders of recordings, and what they hold.

`FSD50K.dev_audio/` and `FSD50K.eval_audio/` hold `{fname}.wav`; `FSD50K.ground_truth/` holds `dev.csv` (fname, labels,
mids, split: train or val), `eval.csv` (fname, labels, mids) and `vocabulary.csv` (a number, label and mid a row, no
header). Labels are comma-joined and already tell of all ancestors in the ontology. Axes: `N` clips, `J` classes.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from sgpa_jax.errors import UsageError
from sgpa_jax.sae import Recording

_TRUTH = "FSD50K.ground_truth"
_LEVEL = 0.05


@dataclass(frozen=True)
class FSD50K:
    """A corpus: its classes in the vocabulary's order, and its recordings, to be harvested as they are.

    Attributes:
        classes: the labels.
        dev, eval: the recordings of the two halves, with their labels; nothing is tuned on `eval`.
        validation: ids of the recordings of `dev` that FSD50K sets aside.
    """

    classes: tuple[str, ...]
    dev: tuple[Recording, ...] = field(repr=False)
    eval: tuple[Recording, ...] = field(repr=False)
    validation: frozenset[str] = field(repr=False)


def read_fsd50k(folder: str | Path) -> FSD50K:
    """Read a corpus; the recordings themselves are not looked at.

    Raises:
        UsageError: a table is missing or damaged, names a label that the vocabulary lacks, or has no rows.
    """
    folder = Path(folder)
    path = folder / _TRUTH / "vocabulary.csv"
    rows = _rows(path)
    if not all(len(row) >= 2 for row in rows):
        raise UsageError(f"{path} has a row without a label; expected rows of number, label and mid")
    classes = tuple(row[1] for row in rows)
    (dev, splits), (evaluated, _) = (_recordings(folder, half, classes) for half in ("dev", "eval"))
    validation = frozenset(clip.id for clip, split in zip(dev, splits, strict=True) if split == "val")
    return FSD50K(classes, dev, evaluated, validation)


def truth(labels: Sequence[Sequence[str]], classes: Sequence[str]) -> Bool[np.ndarray, "N J"]:
    """Which clips have which classes; labels that are no classes are passed over."""
    place = {label: j for j, label in enumerate(classes)}
    true_nj = np.zeros((len(labels), len(classes)), bool)
    for n, known in enumerate(labels):
        true_nj[n, [place[label] for label in known if label in place]] = True
    return true_nj


def implied_classes(true_nj: Bool[np.ndarray, "N J"]) -> Bool[np.ndarray, "J J"]:
    """Which classes [i, j] a class i brings with it: itself, and all j that every clip of i has, as of an ontology.

    Where that may be chance (clips of i drawn from all: 5 % over all pairs), it is not taken for more.
    """
    n_j, n_classes = true_nj.sum(axis=0), true_nj.shape[1]
    always_jj = true_nj.T.astype(np.int64) @ true_nj == n_j[:, None]
    chance_jj = n_j[:, None] * np.log(np.maximum(n_j, 1)[None] / len(true_nj))
    surely_jj = chance_jj < np.log(_LEVEL / max(n_classes * (n_classes - 1), 1))
    return (always_jj & surely_jj) | np.eye(n_classes, dtype=bool)


def _recordings(folder: Path, half: str, classes: tuple[str, ...]) -> tuple[tuple[Recording, ...], tuple[str, ...]]:
    path = folder / _TRUTH / f"{half}.csv"
    header, *rows = _rows(path)
    wanted = ["fname", "labels", *(["split"] if half == "dev" else [])]
    if missing := [name for name in wanted if name not in header]:
        raise UsageError(f"{path} lacks the column {missing[0]!r}; expected FSD50K's columns fname, labels, mids")
    if not rows or any(len(row) != len(header) for row in rows):
        raise UsageError(f"{path} has no rows, or one with another number of columns than its header; fetch it again")
    known, table, recordings = set(classes), [dict(zip(header, row, strict=True)) for row in rows], []
    for row in table:
        labels = tuple(label for label in row["labels"].split(",") if label)
        if foreign := [label for label in labels if label not in known]:
            raise UsageError(f"{path} gives {row['fname']} the label {foreign[0]!r}, which vocabulary.csv lacks")
        audio = folder / f"FSD50K.{half}_audio" / f"{row['fname']}.wav"
        recordings.append(Recording(row["fname"], audio, labels))
    return tuple(recordings), tuple(row.get("split", "") for row in table)


def _rows(path: Path) -> list[list[str]]:
    try:
        rows = list(csv.reader(path.read_text(encoding="utf-8-sig").splitlines()))
    except (OSError, ValueError, csv.Error) as error:
        raise UsageError(f"cannot read {path} ({error}); give a folder in FSD50K's layout") from error
    if not rows:
        raise UsageError(f"{path} is empty; fetch it again")
    return rows
