"""The jitted search against brute force over all paths, a slow numpy search, and itself under padding."""

import itertools

import numpy as np
import pytest
from jax import export

from sgpa_jax.align.alignment import Emissions
from sgpa_jax.align.path import find_paths
from sgpa_jax.align.pronounce import Pronunciation
from sgpa_jax.align.topology import Topology, ctc_topology, phone_topology
from sgpa_jax.align.transcript import Token
from sgpa_jax.align.viterbi import best_paths, search
from sgpa_jax.errors import AlignmentError

CTC = {"<blank>": 0, "a": 1, "b": 2, "|": 3}
PHONES = {"sil": 0, "a": 1, "b": 2, "c": 3}


def ctc(*words: str) -> Topology:
    return ctc_topology([Token(word, (word,)) for word in words], CTC, blank=0)


def random_log_probs(seed: int, n_frames: int, n_labels: int = 4) -> np.ndarray:
    probability_tv = np.random.default_rng(seed).dirichlet(np.full(n_labels, 0.5), n_frames)
    return np.log(probability_tv + 1e-6).astype(np.float32)


def slow_search(log_probs_tv: np.ndarray, topology: Topology) -> tuple[np.ndarray, float]:
    """Viterbi as one would write it on a board; the first of several best predecessors wins, the last of the ends."""
    n_frames, n_states = len(log_probs_tv), len(topology.label_s)
    total = np.full((n_frames, n_states), -np.inf, np.float32)
    came_from = np.zeros((n_frames, n_states), int)
    for t in range(n_frames):
        for state in range(n_states):
            heard = log_probs_tv[t, topology.label_s[state]]
            if t == 0:
                total[t, state] = heard if topology.enter_s[state] else -np.inf
                continue
            best = -np.inf
            for before in topology.before_sk[state]:
                if before >= 0 and total[t - 1, before] > best:
                    best, came_from[t, state] = total[t - 1, before], before
            total[t, state] = np.float32(best) + heard
    state = max(np.flatnonzero(topology.leave_s), key=lambda s: (total[-1, s], s))
    path, score = [state], float(total[-1, state])
    for t in range(n_frames - 1, 0, -1):
        path.append(came_from[t, path[-1]])
    return np.array(path[::-1]), score


def collapsed(labels: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(label for label, _ in itertools.groupby(labels) if label != 0)


@pytest.mark.parametrize("words", [("a",), ("ab",), ("aa",), ("a", "b"), ("ab", "b")])
@pytest.mark.parametrize("seed", range(3))
def test_ctc_path_is_the_best_of_all_that_collapse_to_the_text(words, seed):
    log_probs_tv = random_log_probs(seed, 6)
    target = tuple(CTC[c] for c in "|".join(words))
    scores = [
        sum(log_probs_tv[t, label] for t, label in enumerate(labels))
        for labels in itertools.product(range(4), repeat=6)
        if collapsed(labels) == target
    ]
    topology = ctc(*words)
    [(path_t, score)] = search([log_probs_tv], [topology])
    assert score == pytest.approx(max(scores), abs=1e-4)
    labels = tuple(topology.label_s[path_t])
    assert collapsed(labels) == target
    assert sum(log_probs_tv[t, label] for t, label in enumerate(labels)) == pytest.approx(score, abs=1e-4)


def reference_alignment(log_probs_tv: np.ndarray, labels: list[int], *, blank: int) -> list[int]:
    """Label of every frame by the published algorithm (torchaudio's `forced_align`), written out step by step.

    Over blank, label, blank … a path stays, goes one step, or jumps over a blank between two different labels; on ties
    in this order, and at the end the last blank before the last label.
    """
    extended = [blank]
    for label in labels:
        extended += [label, blank]
    last = len(extended) - 1
    best = [[-np.inf] * len(extended) for _ in log_probs_tv]
    moves = [[0] * len(extended) for _ in log_probs_tv]
    best[0][0] = log_probs_tv[0][extended[0]]
    best[0][1] = log_probs_tv[0][extended[1]]
    for t in range(1, len(log_probs_tv)):
        for s in range(len(extended)):
            stay = best[t - 1][s]
            step = best[t - 1][s - 1] if s >= 1 else -np.inf
            may_jump = s >= 2 and extended[s] != blank and extended[s] != extended[s - 2]
            jump = best[t - 1][s - 2] if may_jump else -np.inf
            if stay >= step and stay >= jump:
                chosen, moves[t][s] = stay, 0
            elif step >= jump:
                chosen, moves[t][s] = step, 1
            else:
                chosen, moves[t][s] = jump, 2
            best[t][s] = log_probs_tv[t][extended[s]] + chosen
    s = last if best[-1][last] >= best[-1][last - 1] else last - 1
    path = []
    for t in reversed(range(len(log_probs_tv))):
        path.append(extended[s])
        s -= moves[t][s]
    return path[::-1]


@pytest.mark.parametrize("words", [("ab",), ("aab", "b"), ("abba", "aa"), ("b", "bb", "ab"), ("a",)])
@pytest.mark.parametrize("ties", [False, True])
def test_ctc_paths_are_those_of_the_published_algorithm(words, ties):
    topology, labels = ctc(*words), [CTC[c] for c in "|".join(words)]
    for seed in range(12):
        n_frames = topology.fewest_frames() + 2 * seed
        log_probs_tv = random_log_probs(seed, n_frames)
        if ties:
            log_probs_tv = np.random.default_rng(seed).integers(-3, 0, (n_frames, 4)).astype(np.float32)
        [(path_t, _)] = search([log_probs_tv], [topology])
        assert list(topology.label_s[path_t]) == reference_alignment(log_probs_tv, labels, blank=0)


def topologies() -> list[Topology]:
    two_ways = (Pronunciation(("a", "b")), Pronunciation(("c",)))
    letters = (Pronunciation(("a", "b", "c"), skippable=True),)
    phones = [phone_topology([(0, two_ways), (1, letters)], PHONES, hold=hold) for hold in (1, 2)]
    return [ctc("aab", "a"), ctc("b"), *phones]


def test_a_batch_of_unequal_clips_equals_the_slow_search():
    log_probs = [random_log_probs(seed, n_frames) for seed, n_frames in enumerate((9, 23, 17, 40))]
    for own_tv, topology, (path_t, score) in zip(log_probs, topologies(), search(log_probs, topologies()), strict=True):
        slow_path_t, slow_score = slow_search(own_tv, topology)
        np.testing.assert_array_equal(path_t, slow_path_t)
        assert score == pytest.approx(slow_score, abs=1e-3)


def test_padding_changes_nothing():
    log_probs_tv, topology = random_log_probs(1, 12), topologies()[2]
    arrays = (topology.label_s, topology.before_sk, topology.enter_s, topology.leave_s)
    state_bt, score_b = best_paths(log_probs_tv[None], np.array([12], np.int32), *(array[None] for array in arrays))
    [(path_t, score)] = search([log_probs_tv], [topology])
    np.testing.assert_array_equal(path_t, np.asarray(state_bt)[0])
    assert score == float(score_b[0])


def test_ties_stay_then_take_the_nearer_and_end_in_the_blank():
    topology = ctc("ab")
    [(path_t, _)] = search([np.zeros((5, 4), np.float32)], [topology])
    # Every path is as good: read from the end it stays as long as it can.
    np.testing.assert_array_equal(path_t, slow_search(np.zeros((5, 4), np.float32), topology)[0])
    assert path_t[-1] == len(topology.label_s) - 1


def test_the_search_is_exported_for_tpu():
    log_probs_tv, topology = random_log_probs(1, 12), topologies()[2]
    arrays = (topology.label_s, topology.before_sk, topology.enter_s, topology.leave_s)
    arguments = (log_probs_tv[None], np.array([12], np.int32), *(array[None] for array in arrays))
    assert export.export(best_paths, platforms=["tpu"])(*arguments).platforms == ("tpu",)


def test_equal_letters_need_a_blank_between_them():
    assert ctc("aa").fewest_frames() == 3
    assert ctc("ab").fewest_frames() == 2
    assert ctc("a", "a").fewest_frames() == 3


def test_owners_are_explicit():
    topology = ctc_topology([Token("$5", ("b", "aa")), Token("a", ("a",))], CTC, blank=0)
    labels = [(label, owner) for label, owner in zip(topology.label_s, topology.owner_s, strict=True) if label]
    assert labels == [(2, 0), (3, -1), (1, 0), (1, 0), (3, -1), (1, 1)]


def test_phones_choose_a_pronunciation_and_silence_is_optional():
    words = [(0, (Pronunciation(("a", "b")), Pronunciation(("c",)))), (1, (Pronunciation(("b",)),))]
    topology = phone_topology(words, PHONES, hold=1)
    said = [0, 3, 3, 0, 0, 2, 2]
    log_probs_tv = np.log(np.where(np.eye(4)[said], 0.9, 0.1 / 3)).astype(np.float32)
    [path] = find_paths([emissions(log_probs_tv, blank=None)], [topology])
    assert [(run.owner, run.first, run.end) for run in path.runs] == [(-1, 0, 1), (0, 1, 3), (-1, 3, 5), (1, 5, 7)]
    assert [round(run.confidence, 3) for run in path.runs] == [0.9, 0.9, 0.9, 0.9]


def test_phones_last_as_long_as_they_must():
    topology = phone_topology([(0, (Pronunciation(("a", "b")),))], PHONES, hold=3)
    assert topology.fewest_frames() == 6
    log_probs_tv = np.log(np.where(np.eye(4)[[0, 1, 2, 2, 2, 2, 2, 2]], 0.9, 0.1 / 3)).astype(np.float32)
    [path] = find_paths([emissions(log_probs_tv, blank=None)], [topology])
    assert [run.end - run.first for run in path.runs if run.owner == 0] == [3, 5]


def test_letters_may_be_silent():
    topology = phone_topology([(0, (Pronunciation(("a", "b", "c"), skippable=True),))], PHONES, hold=1)
    for said in ([1, 3], [2, 3], [1, 2], [1, 2, 3]):
        log_probs_tv = np.log(np.where(np.eye(4)[[0, *said, 0]], 0.9, 0.1 / 3)).astype(np.float32)
        [path] = find_paths([emissions(log_probs_tv, blank=None)], [topology])
        assert list(topology.label_s[path.state_t]) == [0, *said, 0]
    assert topology.fewest_frames() == 1


def test_too_few_frames_and_impossible_labels_are_told():
    with pytest.raises(AlignmentError, match=r"at least 0\.03 s, and 0\.02 s"):
        find_paths([emissions(random_log_probs(0, 2), blank=0)], [ctc("aa")])
    with pytest.raises(AlignmentError, match="probability zero"):
        log_probs_tv = random_log_probs(0, 4)
        log_probs_tv[:, 1] = -np.inf
        find_paths([emissions(log_probs_tv, blank=0)], [ctc("a")])


def emissions(log_probs_tv: np.ndarray, *, blank: int | None) -> Emissions:
    return Emissions(log_probs_tv, 0.01, 0.0, tuple(CTC if blank is not None else PHONES), blank)
