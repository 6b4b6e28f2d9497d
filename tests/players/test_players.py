"""`Players` and `word_players`: who owns which sample, and what is refused."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgpa_jax.align import Alignment, Word
from sgpa_jax.audio import Clip
from sgpa_jax.errors import PlayerError
from sgpa_jax.players import Player, Players, all_coalitions, word_players

RATE_HZ = 1000


def players_of(*spans: tuple[float, float], n_samples: int = 1000) -> Players:
    return Players(tuple(Player(str(i), "word", *span) for i, span in enumerate(spans)), n_samples, RATE_HZ)


def alignment_of(*words: tuple[str, float, float]) -> Alignment:
    return Alignment(
        words=tuple(Word(text, start_s, end_s, None, None, 0.5, True) for text, start_s, end_s in words),
        duration_s=1.0,
        transcript=" ".join(text for text, _, _ in words),
        aligner="none",
        digest="",
        rules="given",
        emission="given",
        notes=(),
    )


def test_every_sample_has_the_owner_whose_time_it_is():
    players = players_of((0.1, 0.2), (0.2, 0.5), (0.75, 1.0))
    owner_s = players.owner_s()
    assert owner_s.dtype == np.int32 and owner_s.shape == (1000,)
    expected = [-1] * 100 + [0] * 100 + [1] * 300 + [-1] * 250 + [2] * 250
    assert owner_s.tolist() == expected
    assert len(players) == 3 and players[1].start_s == 0.2 and players.labels == ("0", "1", "2")
    assert [player.label for player in players] == ["0", "1", "2"]


@given(st.lists(st.integers(1, 400), min_size=1, max_size=12), st.sampled_from([8000, 16000, 22050, 44100]))
def test_players_that_tile_the_recording_leave_no_hole(steps, rate_hz):
    edges_s = np.cumsum([0, *steps]) / 997.0
    n_samples = math.ceil(edges_s[-1] * rate_hz)
    spans = zip(edges_s[:-1].tolist(), edges_s[1:].tolist(), strict=True)
    players = Players(tuple(Player("w", "word", *span) for span in spans), n_samples, rate_hz)
    counts = np.bincount(players.owner_s() + 1, minlength=len(steps) + 1)
    assert counts[0] <= 1 and (abs(counts[1:] - np.array(steps) / 997.0 * rate_hz) <= 1).all()


@pytest.mark.parametrize(
    "spans, message",
    [
        ([], "no players"),
        ([(0.1, 0.3), (0.2, 0.4)], "overlap"),
        ([(0.1, 0.1)], "not an interval"),
        ([(0.2, 0.1)], "not an interval"),
        ([(math.nan, 0.1)], "not an interval"),
        ([(0.1, math.inf)], "not an interval"),
        ([(0.1001, 0.1002)], "no sample"),
        ([(0.9, 1.5)], "outside"),
        ([(-0.5, 0.1)], "outside"),
    ],
)
def test_refuses(spans, message):
    with pytest.raises(PlayerError, match=message):
        players_of(*spans)


def test_times_that_were_rounded_may_run_over_the_ends():
    owner_s = players_of((-0.01, 0.5), (0.5, 1.01)).owner_s()
    assert (owner_s == [0] * 500 + [1] * 500).all()


def test_words_become_players_in_order_of_time():
    wave_s = np.zeros(RATE_HZ, np.float32)
    wave_s[400:600] = np.sin(np.arange(200))
    clip = Clip(wave_s, RATE_HZ)
    alignment = alignment_of(("late", 0.7, 0.9), ("early", 0.0, 0.3))
    assert word_players(alignment, clip, sounds=False).labels == ("early", "late")
    players = word_players(alignment, clip)
    assert players.labels == ("early", "sound", "late")
    assert [player.kind for player in players] == ["word", "sound", "word"]
    assert players[0].confidence == 0.5 and players[0].boundary_refined and players[1].confidence is None


def test_all_coalitions_counts_in_binary():
    masks_cp = all_coalitions(3)
    assert masks_cp.dtype == bool and masks_cp.shape == (8, 3)
    assert not masks_cp[0].any() and masks_cp[-1].all() and masks_cp[0b110].tolist() == [False, True, True]
    assert len(np.unique(all_coalitions(10), axis=0)) == 1024
