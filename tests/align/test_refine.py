"""Stage 3: edges lie where the sound changes, are shared, and do not run to the end of their windows."""

import dataclasses

import librosa
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgpa_jax.align import Emissions, align
from sgpa_jax.align.authors import authors_spans
from sgpa_jax.align.path import Path, Run
from sgpa_jax.align.refine import _at_least, refined_spans
from sgpa_jax.align.spectral import loudness_and_change, sharpness
from sgpa_jax.audio import Clip

RATE_HZ = 16000


def path_of(runs: list[tuple[int, int, int]], n_frames: int, *, blank: int | None = None) -> Path:
    """A path whose runs are (owner, first, end); no score prefers any side of an edge."""
    state_t = np.zeros(n_frames, np.int32)
    for state, (_, first, end) in enumerate(runs, start=1):
        state_t[first:end] = state
    emissions = Emissions(np.zeros((n_frames, 1), np.float32), 0.01, 0.0, ("sil",), blank)
    scores = np.zeros((n_frames, len(runs) + 1), np.float32)
    return Path(emissions, scores, state_t, tuple(Run(owner, first, end, 0.5) for owner, first, end in runs))


def two_tones(change_s: float, *, duration_s: float = 1.0, rate_hz: int = RATE_HZ) -> Clip:
    time_s = np.arange(round(duration_s * rate_hz)) / rate_hz
    wave_s = np.where(time_s < change_s, np.sin(2 * np.pi * 300 * time_s), np.sin(2 * np.pi * 2500 * time_s))
    return Clip((0.3 * wave_s).astype(np.float32), rate_hz)


def test_loudness_and_change_are_librosas():
    wave_s = np.random.default_rng(0).standard_normal(3000).astype(np.float32)
    loudness_f, change_f = loudness_and_change(wave_s, frame=256, hop=64, padding="constant")
    rms_f = librosa.feature.rms(y=wave_s, frame_length=256, hop_length=64, pad_mode="constant")[0]
    magnitude = np.abs(librosa.stft(wave_s, n_fft=256, hop_length=64, pad_mode="constant"))
    np.testing.assert_allclose(loudness_f, rms_f, rtol=1e-5)
    np.testing.assert_allclose(change_f, np.sum(np.diff(magnitude) ** 2, axis=0), rtol=1e-4)


@pytest.mark.parametrize("rate_hz", [8000, 16000, 24000, 44100])
def test_sharpness_peaks_at_the_change_at_any_rate(rate_hz):
    hop = round(0.002 * rate_hz)
    sharpness_f = sharpness(two_tones(0.5, rate_hz=rate_hz).wave_s, rate_hz, hop=hop)
    assert len(sharpness_f) == 1 + rate_hz // hop
    middle_f = slice(round(0.4 * rate_hz / hop), round(0.6 * rate_hz / hop))
    assert abs((middle_f.start + np.argmax(sharpness_f[middle_f])) * hop / rate_hz - 0.5) <= 0.0045


@pytest.mark.parametrize("wrong_by", [-1, 0, 1])
def test_a_shared_edge_moves_to_the_change(wrong_by):
    at = 50 + wrong_by
    spans = refined_spans(two_tones(0.5), path_of([(0, 10, at), (1, at, 90)], 100))
    assert spans[0].end_s == spans[1].start_s == pytest.approx(0.5, abs=0.0045)
    assert spans[0].ctc_end_s == pytest.approx(at / 100)
    assert spans[0].refined


def test_a_pause_belongs_to_nobody_and_a_short_gap_is_shared():
    clip = two_tones(0.5)
    long = refined_spans(clip, path_of([(0, 10, 40), (1, 60, 90)], 100))
    assert long[1].start_s - long[0].end_s > 0.15
    short = refined_spans(clip, path_of([(0, 10, 49), (1, 51, 90)], 100))
    assert short[0].end_s == short[1].start_s


def test_digital_silence_gives_nothing_to_refine_by():
    spans = refined_spans(Clip(np.zeros(RATE_HZ, np.float32), RATE_HZ), path_of([(0, 10, 50), (1, 50, 90)], 100))
    assert [(span.start_s, span.end_s, span.refined) for span in spans.values()] == [
        (pytest.approx(0.1), pytest.approx(0.5), False),
        (pytest.approx(0.5), pytest.approx(0.9), False),
    ]


def outer_moves_s(spans_of, quiet: float, n: int = 40) -> np.ndarray:
    """How far both edges of a loud noise from 0.3 to 0.7 s in a quieter one move outwards."""
    rng = np.random.default_rng(0)
    moves = []
    for _ in range(n):
        wave_s = 0.1 * rng.standard_normal(RATE_HZ).astype(np.float32)
        wave_s[: round(0.3 * RATE_HZ)] *= quiet
        wave_s[round(0.7 * RATE_HZ) :] *= quiet
        span = spans_of(Clip(wave_s, RATE_HZ), path_of([(0, 30, 70)], 100))[0]
        moves += [0.3 - span.start_s, span.end_s - 0.7]
    return np.array(moves)


def test_outer_edges_do_not_run_to_the_end_of_their_window():
    assert np.abs(outer_moves_s(refined_spans, quiet=0.01)).max() <= 0.006
    # Where nothing changes they stay about where they are, on no side of it.
    moves_s = outer_moves_s(refined_spans, quiet=1.0)
    assert np.mean(np.abs(moves_s) > 0.013) < 0.1
    assert abs(moves_s.mean()) < 0.002


def test_the_authors_outer_edges_do():
    # Known of the original: frames beyond the window are zeros, so its ends look quiet and still.
    assert np.mean(outer_moves_s(authors_spans, quiet=0.01) > 0.07) > 0.5


def test_the_authors_words_leave_out_separators_and_grow_to_the_right():
    clip = two_tones(0.5)
    spans = authors_spans(clip, path_of([(0, 20, 22), (-1, 40, 42), (1, 60, 80)], 100, blank=0))
    assert spans[0].end_s < spans[1].start_s
    assert spans[0].end_s - spans[0].start_s >= 0.05 - 1 / RATE_HZ
    assert all((span.start_s * RATE_HZ) == pytest.approx(round(span.start_s * RATE_HZ)) for span in spans.values())


def test_the_authors_edges_between_touching_labels_never_move():
    spans = authors_spans(two_tones(0.5), path_of([(0, 10, 52), (1, 52, 90)], 100, blank=0))
    assert spans[0].end_s == spans[1].start_s == pytest.approx(0.52)


def test_a_receptive_field_offset_moves_the_words(spoken, model):
    late = dataclasses.replace(model, offset_s=0.005)
    for word, moved in zip(
        align(spoken, "No said the tree", model=model).words,
        align(spoken, "No said the tree", model=late).words,
        strict=True,
    ):
        assert moved.start_s == pytest.approx(word.start_s, abs=0.012)
        assert moved.ctc_start_s is not None
        assert moved.ctc_start_s == pytest.approx(round((moved.ctc_start_s - 0.005) * 100) / 100 + 0.005)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=12).map(sorted), st.booleans())
def test_widened_words_stay_in_order_inside_of_the_clip(edges_s, shared):
    n = len(edges_s) // 2
    starts_s, ends_s = (edges_s[:-1], edges_s[1:]) if shared else (edges_s[: 2 * n : 2], edges_s[1 : 2 * n : 2])
    wide_starts_s, wide_ends_s = _at_least(list(starts_s), list(ends_s), 1.0)
    shortest_s = min(0.05, 1.0 / len(starts_s))
    assert wide_starts_s[0] >= 0 and wide_ends_s[-1] <= 1
    assert all(end - start >= shortest_s - 1e-9 for start, end in zip(wide_starts_s, wide_ends_s, strict=True))
    assert all(end <= start for end, start in zip(wide_ends_s[:-1], wide_starts_s[1:], strict=True))
    if shared:
        assert wide_ends_s[:-1] == wide_starts_s[1:]
