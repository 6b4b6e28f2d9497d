"""Taking words out of training utterances: what is gone, what stays, and where it stays."""

import numpy as np
import pytest
from train.absence import take_out
from train.speech import RATE_HZ, Span, Utterance

EDGES_S = ((0.2, 0.5), (0.5, 0.9), (1.2, 1.6))
TOLERANCE_S = 0.026


@pytest.fixture
def utterance():
    """Three words of constant level 0.25, 0.5, 0.75 and a sound of level 1.0, with almost silent stretches between."""
    wave_s = np.full(int(2.4 * RATE_HZ), 0.001, np.float32)
    spans = [Span(f"w{i}", start_s, end_s) for i, (start_s, end_s) in enumerate(EDGES_S)]
    sound = Span("beep", 1.9, 2.2)
    for level, span in zip((0.25, 0.5, 0.75, 1.0), [*spans, sound], strict=True):
        wave_s[round(span.start_s * RATE_HZ) : round(span.end_s * RATE_HZ)] = level
    return Utterance(wave_s, tuple(spans), (), (sound,))


def take(utterance, absent, mode, *, sound_absent=False, seed=0):
    return take_out(utterance, absent, sound_absent=sound_absent, mode=mode, rng=np.random.default_rng(seed))


def seconds_at(wave_s, level):
    return np.sum(np.isclose(wave_s, level)) / RATE_HZ


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("mode", ["silence", "noise", "delete"])
def test_only_absent_words_go(utterance, mode, seed):
    left_s = take(utterance, [False, True, False], mode, seed=seed).wave_s
    assert seconds_at(left_s, 0.5) <= 2 * TOLERANCE_S
    assert seconds_at(left_s, 0.25) == pytest.approx(0.3, abs=TOLERANCE_S)
    assert seconds_at(left_s, 0.75) == pytest.approx(0.4, abs=1e-9)
    assert seconds_at(left_s, 1.0) == pytest.approx(0.3, abs=1e-9)


def test_silence_is_exact_zero_and_keeps_all_times(utterance):
    left = take(utterance, [True, True, False], "silence")
    assert len(left.wave_s) == len(utterance.wave_s)
    assert left.words == utterance.words
    # The edge that two absent words share leaves nothing between them.
    assert not left.wave_s[round(0.23 * RATE_HZ) : round(0.87 * RATE_HZ)].any()


def test_noise_has_the_level_of_the_background(utterance):
    left = take(utterance, [False, True, False], "noise")
    inside_s = left.wave_s[round(0.55 * RATE_HZ) : round(0.85 * RATE_HZ)]
    assert np.sqrt(np.mean(inside_s**2)) == pytest.approx(0.001, rel=0.1)


def test_deletion_moves_what_follows(utterance):
    left = take(utterance, [False, True, False], "delete")
    cut_s = utterance.duration_s - left.duration_s
    assert cut_s == pytest.approx(0.4, abs=2 * TOLERANCE_S)
    assert left.words[1].end_s - left.words[1].start_s <= 2 * TOLERANCE_S
    assert left.words[2].start_s == pytest.approx(1.2 - cut_s, abs=1e-3)
    start = round(left.words[2].start_s * RATE_HZ)
    assert left.wave_s[start - 2] < 0.01 < 0.75 == left.wave_s[start + 2]
    assert left.sounds[0].start_s == pytest.approx(1.9 - cut_s, abs=1e-3)


def test_a_sound_can_be_absent(utterance):
    left = take(utterance, [False] * 3, "delete", sound_absent=True)
    assert seconds_at(left.wave_s, 1.0) <= TOLERANCE_S
    assert seconds_at(left.wave_s, 0.5) == pytest.approx(0.4, abs=1e-9)


def test_nothing_absent_changes_nothing(utterance):
    assert take(utterance, [False] * 3, "delete") is utterance
    assert take(utterance, [True] * 3, "none") is utterance


def test_an_utterance_cut_to_nothing_is_a_quarter_of_silence():
    wave_s = np.ones(RATE_HZ, np.float32)
    left = take(Utterance(wave_s, (Span("w", 0.0, 1.0),), ()), [True], "delete", seed=3)
    assert len(left.wave_s) == RATE_HZ // 4
