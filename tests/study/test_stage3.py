"""The paper's stage 3 at the edges of words: it finds the quiet moment, and only inside of its gap."""

import numpy as np
import pytest

from sgpa_jax.align import Alignment, Word
from sgpa_jax.audio import Clip
from sgpa_jax.study.stage3 import paper_alignment

RATE_HZ = 16_000


@pytest.fixture
def clip() -> Clip:
    """A tone of a second with a dip of 20 ms around 0.45 s, between silences."""
    time_s = np.arange(int(1.4 * RATE_HZ)) / RATE_HZ
    wave_s = 0.5 * np.sin(2 * np.pi * 220 * time_s)
    wave_s[(time_s < 0.2) | (time_s >= 1.2) | (np.abs(time_s - 0.65) < 0.01)] *= 0.001
    return Clip(wave_s.astype(np.float32), RATE_HZ)


def raw(*spans_s: tuple[float, float]) -> Alignment:
    words = tuple(Word(str(n), *span_s) for n, span_s in enumerate(spans_s))
    return Alignment(words, 1.4, " ".join(word.text for word in words), "x", "", "none", "character")


def test_an_edge_goes_to_the_quiet_moment_of_its_gap(clip: Clip):
    words = paper_alignment(raw((0.25, 0.55), (0.75, 1.15)), clip).words
    assert words[0].end_s == words[1].start_s == pytest.approx(0.65, abs=0.012)


def test_an_edge_without_a_gap_stays(clip: Clip):
    for margin_s in (0.02, 0.2):
        words = paper_alignment(raw((0.25, 0.6), (0.6, 1.15)), clip, margin_s=margin_s).words
        assert words[0].end_s == words[1].start_s == 0.6


def test_outer_edges_reach_as_far_as_the_margin_lets_them(clip: Clip):
    spans = raw((0.25, 0.6), (0.6, 1.15))
    near, far = (paper_alignment(spans, clip, margin_s=margin_s).words for margin_s in (0.01, 0.04))
    assert near[0].start_s == pytest.approx(0.25, abs=0.021)
    assert far[0].start_s < 0.2 and far[-1].end_s > 1.2


def test_words_stay_in_order_and_inside(clip: Clip):
    words = paper_alignment(raw((0.0, 0.01), (0.01, 0.02), (0.02, 1.4)), clip).words
    edges_s = [edge_s for word in words for edge_s in (word.start_s, word.end_s)]
    assert edges_s == sorted(edges_s) and edges_s[0] >= 0 and edges_s[-1] <= clip.duration_s
    assert paper_alignment(raw((0.2, 1.2)), clip, alpha=0.5).rules == "paper, α 0.5, δ 40 ms"
