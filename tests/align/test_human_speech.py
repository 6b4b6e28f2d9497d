"""Recordings of people, from the folder that SGPA_SPEECH_DATA names, with the aligner that ships."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from sgpa_jax.align import align
from sgpa_jax.audio import read_clip
from sgpa_jax.models import load_aligner

FOLDER = os.environ.get("SGPA_SPEECH_DATA")
N_CLIPS = 12


@pytest.mark.skipif(not FOLDER, reason="SGPA_SPEECH_DATA names no folder with recordings of people")
def test_words_lie_near_where_another_aligner_puts_them():
    folder = Path(FOLDER or "")
    items = json.loads((folder / "manifest.json").read_text())["items"]
    model = load_aligner("pocket")
    distances_s = []
    for item in [item for item in items if item["subset"] == "libri"][:N_CLIPS]:
        clip = read_clip(folder / item["file"])
        words = align(clip, item["transcript"], model=model).words
        assert [word.text for word in words] == item["transcript"].split()
        assert all(0 <= word.start_s < word.end_s <= clip.duration_s for word in words)
        # No truth either, and words may be off by a lot here and there: the median is what the two must agree on.
        for word, other in zip(words, item["authors_sgpa_segments"] or (), strict=False):
            distances_s.append((word.start_s + word.end_s - other["start_sec"] - other["end_sec"]) / 2)
    assert np.median(np.abs(distances_s)) <= 0.05
