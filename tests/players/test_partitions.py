"""Windows, energy segments and phrases: what each owns, and what is refused."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import sgpa_checkpoints
from hypothesis import given
from hypothesis import strategies as st

from sgpa_jax.align import Alignment, Word
from sgpa_jax.audio import Clip, read_clip
from sgpa_jax.errors import PlayerError, UsageError
from sgpa_jax.players import (
    NOBODY,
    Player,
    energy_players,
    group_by_phrase,
    phrase_players,
    window_players,
    word_players,
)

RATE_HZ = 16_000


@pytest.fixture(scope="module")
def demo():
    return read_clip(Path(sgpa_checkpoints.__file__).parent / "demo" / "demo.wav")


def beeps(*spans_s, duration_s=3.0, floor=1e-4, dips=()):
    """Tones above a floor of noise, quieter for 40 ms around every dip."""
    rng = np.random.default_rng(0)
    wave_s = floor * rng.standard_normal(round(duration_s * RATE_HZ))
    times_s = np.arange(wave_s.size) / RATE_HZ
    for start_s, end_s in spans_s:
        wave_s += 0.2 * np.sin(2 * np.pi * 500 * times_s) * ((times_s >= start_s) & (times_s < end_s))
    for dip_s in dips:
        wave_s[np.abs(times_s - dip_s) < 0.02] *= 0.1
    return Clip(wave_s.astype(np.float32), RATE_HZ)


def alignment_of(*words):
    return Alignment(
        tuple(Word(text, start_s, end_s, None, None, sure, True) for text, start_s, end_s, sure in words),
        3.0, " ".join(word[0] for word in words), "none", "", "given", "given", (),
    )  # fmt: skip


def spans_of(players):
    return np.array([player.span_s for player in players])


@given(st.integers(1, 60_000), st.floats(1e-3, 5.0), st.sampled_from([8000, 16_000, 44_100]))
def test_windows_own_every_sample_once(n_samples, window_s, rate_hz):
    players = window_players(Clip(np.zeros(n_samples, np.float32), rate_hz), window_s)
    owner_s = players.owner_s()
    assert (owner_s != NOBODY).all() and (np.diff(owner_s) >= 0).all() and owner_s[-1] == len(players) - 1
    lengths_s = np.diff(spans_of(players))[:, 0]
    np.testing.assert_allclose(lengths_s[:-1], window_s, rtol=1e-6)
    assert len(players) == 1 or 0.5 <= lengths_s[-1] / window_s + 1e-6 < 1.5 + 2e-6
    assert {player.kind for player in players} == {"window"} and players[0].label == "window 1"


@pytest.mark.parametrize("window_s", [0.0, -1.0, float("nan"), float("inf"), 1e-6])
def test_windows_of_no_length_are_refused(demo, window_s):
    with pytest.raises(UsageError, match="at least a sample"):
        window_players(demo, window_s)


def test_energy_segments_are_the_active_stretches():
    players = energy_players(beeps((0.3, 0.8), (1.2, 1.6), (2.0, 2.05)))
    np.testing.assert_allclose(spans_of(players), [(0.3, 0.8), (1.2, 1.6)], atol=0.02)
    assert players.labels == ("segment 1", "segment 2") and players[0].kind == "energy"


def test_long_stretches_are_cut_where_they_are_quietest():
    players = energy_players(beeps((0.5, 1.6), dips=(0.9, 1.3)))
    np.testing.assert_allclose(spans_of(players), [(0.5, 0.9), (0.9, 1.3), (1.3, 1.6)], atol=0.03)


def test_energy_segments_of_speech_share_edges_and_keep_their_lengths(demo):
    players = energy_players(demo)
    spans = spans_of(players)
    lengths = np.diff(spans)[:, 0]
    assert len(players) > 4 and (lengths >= 0.15 - 1e-9).all() and (lengths <= 0.6 + 1e-9).all()
    assert (spans[1:, 0] >= spans[:-1, 1]).all() and (spans[1:, 0] == spans[:-1, 1]).any()
    owner_s = players.owner_s()
    power = np.square(demo.wave_s)
    assert power[owner_s != NOBODY].sum() > 0.99 * power.sum() and (owner_s == NOBODY).mean() > 0.1
    louder = Clip(10 * demo.wave_s, demo.rate_hz)
    assert spans_of(energy_players(louder)).tolist() == spans.tolist()


def test_energy_segments_need_something_above_the_floor(demo):
    with pytest.raises(PlayerError, match="cut it into windows"):
        energy_players(beeps())
    with pytest.raises(UsageError, match="twice"):
        energy_players(demo, shortest_s=0.4, longest_s=0.5)


def test_words_are_phrases_between_pauses():
    alignment = alignment_of(
        ("turn", 0.3, 0.5, 0.9), ("it", 0.55, 0.7, 0.4), ("off", 1.0, 1.2, 0.8), ("please", 1.2, 1.5, 0.7)
    )
    silent = beeps()
    players = phrase_players(alignment, silent)
    assert players.labels == ("turn it", "off please") and {player.kind for player in players} == {"phrase"}
    assert [player.span_s for player in players] == [(0.3, 0.7), (1.0, 1.5)]
    assert [player.confidence for player in players] == [0.4, 0.7] and players[0].boundary_refined
    assert phrase_players(alignment, silent, pause_s=0.4).labels == ("turn it off please",)
    assert phrase_players(alignment, silent, pause_s=0.04).labels == ("turn", "it", "off please")


def test_sounds_stay_beside_phrases_and_part_them():
    alignment = alignment_of(("before", 0.2, 0.6, None), ("after", 1.0, 1.4, None))
    noisy = beeps((0.2, 0.6), (0.7, 0.9), (1.0, 1.4), (2.0, 2.5))
    players = phrase_players(alignment, noisy, pause_s=1.0)
    assert [(player.label, player.kind) for player in players] == [
        ("before", "phrase"), ("sound", "sound"), ("after", "phrase"), ("sound 2", "sound"),
    ]  # fmt: skip
    assert players[0].confidence is None
    assert phrase_players(alignment, noisy, pause_s=1.0, sounds=False).labels == ("before after",)


def test_groups_are_the_phrases_of_the_words():
    alignment = alignment_of(*((f"w{i}", 0.3 * i, 0.3 * i + 0.2 - 0.15 * (i % 3 == 1), 0.5) for i in range(8)))
    clip = beeps((2.5, 2.9))
    words = word_players(alignment, clip)
    groups = group_by_phrase(words)
    phrases = phrase_players(alignment, clip)
    assert groups == (0, 0, 1, 1, 1, 2, 2, 2, 3) and len(phrases) == 4
    for number, members in itertools.groupby(range(len(words)), key=groups.__getitem__):
        own = [words[index] for index in members]
        assert phrases[number].label == " ".join(player.label for player in own)
        assert phrases[number].span_s == (own[0].start_s, own[-1].end_s)


def test_text_is_grouped_where_nothing_parts_it():
    places = [(3, 5), (5, 6), (8, 9), (9, 10)]
    text = [Player("t", "text", tokens=place) for place in places]
    word, sound = Player("w", "word", 0.0, 0.1), Player("s", "sound", 0.1, 0.2)
    assert group_by_phrase([*text[:2], word, sound, sound, *text[2:]]) == (0, 0, 1, 2, 3, 4, 4)
    assert group_by_phrase(text) == (0, 0, 1, 1) and group_by_phrase([]) == ()
    with pytest.raises(UsageError, match="above zero"):
        group_by_phrase(text, pause_s=0.0)
