"""The path that parity with the authors runs, with an aligner of random weights: its numbers mean nothing."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sgpa_jax.align import align
from sgpa_jax.audio import Clip, read_clip, write_wav
from sgpa_jax.errors import UsageError
from sgpa_jax.models import load_aligner
from sgpa_jax.study.parity import TARGET, parity_table

SPEECH, LARGE_960H = os.environ.get("SGPA_SPEECH_DATA"), os.environ.get("SGPA_WAV2VEC2_960H")


def test_segments_are_compared_word_by_word(tmp_path: Path, tiny_folder: Callable[[str], Path]):
    aligner = load_aligner(str(tiny_folder("wav2vec2")))
    rng, items = np.random.default_rng(0), []
    for number, late_s in enumerate((0.0, 0.02, 0.05)):
        path = tmp_path / f"{number}.wav"
        write_wav(path, Clip(0.1 * rng.standard_normal(16_000).astype(np.float32), 16_000))
        words = align(read_clip(path), "No more", model=aligner, rules="authors").words
        segments = [{"start_sec": word.start_s + late_s, "end_sec": word.end_s} for word in words]
        items.append({"file": path.name, "subset": "a", "transcript": "No more", "authors_sgpa_segments": segments})
    items.append({**items[0], "authors_sgpa_segments": None})
    items.append({**items[0], "subset": "b", "authors_sgpa_segments": segments[:1]})
    (tmp_path / "manifest.json").write_text(json.dumps({"items": items}))
    table = parity_table(tmp_path, aligner)
    rows = {row["subset"]: row for row in table.rows}
    assert rows["a"]["n"] == 12 and rows["a"]["within 21 ms"] == pytest.approx(10 / 12)
    assert (rows["a"]["clips"], rows["a"]["without"], rows["b"]["failed"]) == (4, 1, 1)
    assert rows["b"]["n"] == 0 and "within 21 ms" not in rows["b"]
    assert rows["all"]["n"] == 12


def test_a_folder_without_segments_is_refused(tmp_path: Path):
    (tmp_path / "manifest.json").write_text('{"items": [{"file": "a.wav"}]}')
    with pytest.raises(UsageError, match="expected the authors' recordings"):
        parity_table(tmp_path, None)  # pyright: ignore[reportArgumentType]


@pytest.mark.skipif(not (SPEECH and LARGE_960H), reason="SGPA_SPEECH_DATA and SGPA_WAV2VEC2_960H do not both name one")
def test_the_authors_rules_give_the_authors_segments():
    (everything,) = (
        row for row in parity_table(SPEECH or "", load_aligner(LARGE_960H or "")).rows if row["subset"] == "all"
    )
    share = everything["within 21 ms"]
    assert isinstance(share, float) and share >= TARGET
