"""Cuts: as many pieces as words, edges that move together, and who is the evidence."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgpa_jax.align import Alignment, Word
from sgpa_jax.audio import Clip
from sgpa_jax.errors import PlayerError
from sgpa_jax.players import Player, Players, spoken_players
from sgpa_jax.study.corpus import SOUND, Item, Span
from sgpa_jax.study.partitions import (
    SHORTEST_S,
    evidence_players,
    hits,
    jittered,
    pieces,
    points,
    random_edges,
    true_players,
)

CLIP = Clip(np.ones(16_000, np.float32), 16_000)
ITEM = Item(
    "x", CLIP.path, "make it red", evidence=(2,), sounds=(Span("beep", 0.8, 0.95),),  # pyright: ignore
    words=(Span("make", 0.0, 0.2), Span("it", 0.2, 0.3), Span("red", 0.4, 0.7)),
)  # fmt: skip


@given(st.integers(1, 30), st.floats(0.2, 5), st.integers(0, 2**32))
def test_random_pieces_fill_the_recording(n_players: int, duration_s: float, seed: int):
    edges_s = random_edges(duration_s, n_players, np.random.default_rng(seed))
    assert len(edges_s) == n_players + 1
    assert (edges_s[0], edges_s[-1]) == (0, duration_s)
    assert np.diff(edges_s).min() >= min(SHORTEST_S, duration_s / (2 * n_players)) - 1e-9


def test_random_pieces_are_not_uniform_ones():
    lengths = np.diff([random_edges(2.0, 5, np.random.default_rng(seed)) for seed in range(400)], axis=1)
    np.testing.assert_allclose(lengths.mean(axis=0), 0.4, atol=0.04)
    assert lengths.std() > 0.2


@given(st.sampled_from([0.02, 0.05, 0.3]), st.integers(0, 2**32))
def test_jitter_keeps_order_and_shared_edges(jitter_s: float, seed: int):
    players = true_players(ITEM, CLIP)
    moved = jittered(players, jitter_s, np.random.default_rng(seed))
    spans_s = np.array([player.span_s for player in moved])
    assert moved.labels == players.labels
    assert spans_s[0, 1] == spans_s[1, 0]
    assert (np.diff(spans_s.ravel()) >= -1e-9).all() and (spans_s[:, 1] - spans_s[:, 0] >= SHORTEST_S / 5 - 1e-9).all()
    assert spans_s.min() >= 0 and spans_s.max() <= CLIP.duration_s
    if jitter_s == 0.02:
        before_s = np.array([player.span_s for player in players])
        away_s = np.abs(spans_s - before_s)[before_s > 0.1]
        np.testing.assert_allclose(away_s, jitter_s)


def test_words_that_run_into_the_next_end_there():
    words = (Word("a", 0.1, 0.16), Word("b", 0.14, 0.5), Word("c", 0.6, 0.9))
    alignment = Alignment(words, 1.0, "a b c", "x", "", "authors", "character")
    assert [player.span_s for player in spoken_players(alignment, CLIP)] == [(0.1, 0.14), (0.14, 0.5), (0.6, 0.9)]


def test_evidence_is_counted_among_words_and_overlaps_among_sounds():
    players = true_players(ITEM, CLIP)
    assert [player.kind for player in players] == ["word", "word", "word", "sound"]
    assert evidence_players(players, ITEM) == {2}
    of_sound = Item("x", ITEM.path, "make it red", evidence=(SOUND,), words=ITEM.words, sounds=ITEM.sounds)
    assert evidence_players(players, of_sound) == {3}
    heard = Players((*players.players[:3], Player("sound", "sound", 0.72, 0.79)), 16_000, 16_000)
    assert evidence_players(heard, of_sound) is None
    assert hits(np.array([0.0, 0, 0, 1]), heard, of_sound) is False
    fewer = Players(players.players[:2], 16_000, 16_000)
    assert evidence_players(fewer, ITEM) is None
    assert hits(np.array([1.0, 0]), fewer, Item("x", ITEM.path, "make it red")) is None
    assert hits(np.array([0.0, 0, 1, 0]), players, ITEM) is True
    assert hits(np.array([1.0, 0, 1, 0]), players, ITEM) is False


def test_a_piece_points_where_its_middle_is():
    cut = pieces(np.array([0.0, 0.45, 0.8, 1.0]), CLIP)
    assert points(np.array([0.0, 1, 0]), cut, ITEM) is True
    assert points(np.array([1.0, 0, 0]), cut, ITEM) is False
    assert points(np.array([1.0, 0, 0]), cut, Item("x", ITEM.path, "make it red")) is None


def test_true_players_need_true_times():
    with pytest.raises(PlayerError, match="no times of words"):
        true_players(Item("x", ITEM.path, "make it red"), CLIP)
