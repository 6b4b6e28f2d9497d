"""`sound_events` on synthetic recordings: what is a sound, and what is not."""

import numpy as np
import pytest

from sgpa_jax.audio import Clip
from sgpa_jax.players import sound_events

RATE_HZ = 16_000
RNG_SEED = 7


def noise(duration_s: float, level: float) -> np.ndarray:
    return level * np.random.default_rng(RNG_SEED).standard_normal(round(duration_s * RATE_HZ))


def recording(*events: tuple[str, float, float, float], duration_s: float = 3.0, floor: float = 1e-4) -> Clip:
    """Return ambient noise with events (kind, start_s, end_s, level) in it."""
    wave_s = noise(duration_s, floor)
    for kind, start_s, end_s, level in events:
        part = slice(round(start_s * RATE_HZ), round(end_s * RATE_HZ))
        times_s = np.arange(part.stop - part.start) / RATE_HZ
        if kind == "tone":
            wave_s[part] += level * np.sin(2 * np.pi * 800 * times_s)
        elif kind == "tail":
            wave_s[part] += noise(end_s - start_s, level)[: times_s.size] * 10 ** (-3 * times_s / 0.5)
        else:
            wave_s[part] += noise(end_s - start_s, level)[: times_s.size]
    return Clip(wave_s, RATE_HZ)


def spans_of(clip: Clip, *words: tuple[float, float]) -> list[tuple[float, float]]:
    return [event.span_s for event in sound_events(clip, words)]


def test_finds_leading_trailing_and_sounds_in_between():
    clip = recording(
        ("tone", 0.1, 0.4, 0.2), ("speech", 0.6, 1.0, 0.1), ("tone", 1.3, 1.6, 0.05), ("speech", 1.8, 2.2, 0.1),
        ("tone", 2.5, 3.0, 0.2),
    )  # fmt: skip
    events = sound_events(clip, [(0.6, 1.0), (1.8, 2.2)])
    assert [event.label for event in events] == ["sound", "sound 2", "sound 3"]
    assert {event.kind for event in events} == {"sound"}
    found = np.array([(event.start_s, event.end_s) for event in events])
    np.testing.assert_allclose(found, [(0.1, 0.4), (1.3, 1.6), (2.5, 3.0)], atol=0.02)


@pytest.mark.parametrize("rate_hz", [8000, 22_050, 44_100])
def test_times_do_not_drift_with_the_rate(rate_hz):
    wave_s = np.zeros(rate_hz * 20)
    wave_s[rate_hz * 19 : rate_hz * 19 + rate_hz // 2] = 0.1 * np.sin(np.arange(rate_hz // 2) * 0.3)
    np.testing.assert_allclose(spans_of(Clip(wave_s, rate_hz)), [(19.0, 19.5)], atol=0.015)


@pytest.mark.parametrize("gain", [0.01, 1.0, 30.0])
def test_gain_changes_nothing(gain):
    clip = recording(("tone", 0.1, 0.4, 0.02), ("speech", 0.6, 1.0, 0.01))
    assert spans_of(Clip(clip.wave_s * gain, RATE_HZ), (0.6, 1.0)) == spans_of(clip, (0.6, 1.0)) != []


@pytest.mark.parametrize("floor", [0.0, 1e-4, 0.02])
def test_words_in_silence_or_steady_noise_have_no_sound(floor):
    clip = recording(("speech", 0.5, 1.0, 0.2), ("speech", 1.5, 2.0, 0.2), floor=floor)
    assert spans_of(clip, (0.5, 1.0), (1.5, 2.0)) == []


def test_reverberation_after_a_word_is_not_a_sound():
    clip = recording(("speech", 0.5, 1.0, 0.2), ("tail", 1.0, 2.5, 0.2))
    assert spans_of(clip, (0.5, 1.0)) == []


def test_a_sound_after_reverberation_is_found_without_it():
    clip = recording(("speech", 0.5, 1.0, 0.2), ("tail", 1.0, 2.5, 0.2), ("tone", 1.4, 1.9, 0.2))
    found = spans_of(clip, (0.5, 1.0))
    assert len(found) == 1 and found[0][0] == pytest.approx(1.4, abs=0.03)


def test_a_steady_sound_right_after_a_word_is_found():
    clip = recording(("speech", 0.5, 1.0, 0.2), ("tone", 1.0, 1.5, 0.2))
    np.testing.assert_allclose(spans_of(clip, (0.5, 1.0)), [(1.03, 1.5)], atol=0.03)


@pytest.mark.parametrize("kind, level", [("tone", 0.02), ("burst", 0.08)])
def test_a_sound_in_noise_is_found(kind, level):
    """The tone adds 2 dB to the noise's level; the burst has its colour."""
    clip = recording(("speech", 0.3, 1.0, 0.1), (kind, 1.6, 2.1, level), floor=0.02)
    np.testing.assert_allclose(spans_of(clip, (0.3, 1.0)), [(1.6, 2.1)], atol=0.03)


@pytest.mark.parametrize("swells_hz", [0.5, 1.0, 2.0])
def test_swelling_noise_is_no_sound(swells_hz):
    """By 15 dB, from its quietest to its loudest."""
    clip = recording(("speech", 0.8, 1.6, 0.1), floor=0.02)
    swell_s = 1 + 0.7 * np.sin(2 * np.pi * swells_hz * np.arange(clip.wave_s.size) / RATE_HZ)
    assert spans_of(Clip(clip.wave_s * swell_s, RATE_HZ), (0.8, 1.6)) == []


def test_a_sound_with_less_noise_than_the_pauses_around_it_is_found():
    clip = recording(("speech", 0.5, 1.0, 0.2), ("tone", 1.4, 2.6, 0.05))
    wave_s = np.where(
        np.abs(np.arange(clip.wave_s.size) / RATE_HZ - 2.0) < 0.6, clip.wave_s - noise(3.0, 1e-4), clip.wave_s
    )
    np.testing.assert_allclose(spans_of(Clip(wave_s, RATE_HZ), (0.5, 1.0)), [(1.4, 2.6)], atol=0.03)


def test_short_clicks_are_not_sounds_but_many_in_a_row_are_one():
    assert spans_of(recording(("tone", 0.5, 0.6, 0.2), ("tone", 1.0, 1.1, 0.2))) == []
    row = recording(*[("tone", start_s, start_s + 0.05, 0.2) for start_s in (0.5, 0.6, 0.7, 0.8)])
    np.testing.assert_allclose(spans_of(row), [(0.5, 0.85)], atol=0.03)


def test_sounds_never_touch_words_whose_edges_are_a_little_off():
    clip = recording(("speech", 0.5, 1.0, 0.2))
    assert spans_of(clip, (0.52, 0.98)) == []
    for start_s, end_s in spans_of(clip, (0.7, 0.8)):
        assert end_s <= 0.67 + 1e-9 or start_s >= 0.83 - 1e-9


@pytest.mark.parametrize("n_samples", [1, 100, 320, 16_000])
def test_silence_and_scraps_hold_no_sound(n_samples):
    assert sound_events(Clip(np.zeros(n_samples), RATE_HZ), []) == ()
