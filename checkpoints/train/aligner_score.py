"""How far the pocket aligner's word boundaries lie from the truth on held-out voices, by a plain Viterbi in numpy.

The trainers measure with their own search, not with `sgpa_jax.align`, so that a number here is a property of the
weights: words are phone sequences of the lexicon (all pronunciations compete) with optional silence around each, and
every phone lasts 40 ms or more where the utterance is long enough for that.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sgpa_jax.audio import Clip
from sgpa_jax.models.aligner import PocketAligner

from . import aligner_data as data
from .phones import PHONES
from .speech import RATE_HZ

N_PER_SET = 60
HOLD_FRAMES = 4


def measure(folder: Path, sentences: data.Sentences, seed: int) -> dict[str, dict[str, float]]:
    """Return, per test set, phone frame accuracy and the distribution of boundary errors of the aligner in `folder`."""
    aligner = PocketAligner.from_folder(folder)
    results = {}
    for name in data.TEST_SETS:
        errors_ms, right, total = [], 0, 0
        for utterance in data.test_utterances(sentences, seed, name, N_PER_SET):
            emission = aligner.emissions([Clip(utterance.wave_s, RATE_HZ)])[0]["phone"]
            log_probs_fv = emission.log_probs_tv
            labels_f = data.example(utterance).phone_f
            prior_v = aligner.config.prior_weight * np.array(aligner.config.log_prior)
            right += int(((log_probs_fv + prior_v).argmax(-1) == labels_f).sum())
            total += len(labels_f)
            words = [word.label for word in utterance.words]
            found = word_times(log_probs_fv, [aligner.lexicon[word] for word in words], emission.frame_s)
            true = [(word.start_s, word.end_s) for word in utterance.words]
            errors_ms.append(1000 * np.abs(np.array(found) - np.array(true)).ravel())
        errors = np.concatenate(errors_ms)
        results[name] = {
            "n": len(errors),
            "phone_accuracy": round(right / total, 4),
            "median_ms": round(float(np.median(errors)), 2),
            "mean_ms": round(float(errors.mean()), 2),
            **{f"within_{ms}ms": round(float((errors <= ms).mean()), 4) for ms in (20, 50, 100)},
        }
    return results


def word_times(
    log_probs_fv: np.ndarray, pronunciations: Sequence[Sequence[Sequence[str]]], frame_s: float
) -> list[tuple[float, float]]:
    """Return start and end of each word in seconds on the best path through its phones.

    Edges are moved inside their frame to where the log-probabilities of the two phones cross between frame centres.
    """
    longest = sum(max(map(len, spoken)) for spoken in pronunciations)
    labels, owners, before = _graph(pronunciations, max(1, min(HOLD_FRAMES, len(log_probs_fv) // longest)))
    score_fs = log_probs_fv[:, labels]
    path_f = _viterbi(score_fs, before, [*before[-1], len(before) - 1])
    times = []
    for word in range(len(pronunciations)):
        frames = np.flatnonzero(np.array(owners)[path_f] == word)
        times.append(tuple(_edge(score_fs, path_f, int(edge)) * frame_s for edge in (frames[0], frames[-1] + 1)))
    return times


def _graph(
    pronunciations: Sequence[Sequence[Sequence[str]]], hold: int
) -> tuple[list[int], list[int], list[list[int]]]:
    """Label, word (-1 silence) and predecessors of every state, `hold` a phone; state 0 is the leading silence."""
    labels, owners, before = [0], [-1], [[]]
    exits = [0, -1]
    for word, spoken in enumerate(pronunciations):
        ends = []
        for phones in spoken:
            for position, phone in enumerate(phone for phone in phones for _ in range(hold)):
                before.append(list(exits) if position == 0 else [len(labels) - 1])
                labels.append(PHONES.index(phone))
                owners.append(word)
            ends.append(len(labels) - 1)
        labels.append(0)
        owners.append(-1)
        before.append(ends)
        exits = [*ends, len(labels) - 1]
    return labels, owners, before


def _viterbi(score_fs: np.ndarray, before: list[list[int]], last: list[int]) -> np.ndarray:
    """Best state of every frame; -1 among the predecessors means that the path may begin there."""
    n_frames, n_states = score_fs.shape
    width = 1 + max(len(states) for states in before)
    came_sp = np.array(
        [[s, *(b for b in states if b >= 0), *[n_states] * width][:width] for s, states in enumerate(before)]
    )
    total = np.full(n_states + 1, -np.inf)
    starts = [s for s, states in enumerate(before) if -1 in states or s == 0]
    total[starts] = score_fs[0, starts]
    back_fs = np.zeros((n_frames, n_states), int)
    for frame in range(1, n_frames):
        options = total[came_sp]
        choice = options.argmax(1)
        back_fs[frame] = came_sp[np.arange(n_states), choice]
        total[:-1] = options[np.arange(n_states), choice] + score_fs[frame]
    path = [max(last, key=lambda state: total[state])]
    for frame in range(n_frames - 1, 0, -1):
        path.append(int(back_fs[frame, path[-1]]))
    return np.array(path[::-1])


def _edge(score_fs: np.ndarray, path_f: np.ndarray, edge: int) -> float:
    """Where between the centres of frames `edge - 1` and `edge` the two states are equally likely, in frames."""
    if edge in (0, len(path_f)):
        return float(edge)
    old, new = path_f[edge - 1], path_f[edge]
    lead = score_fs[edge - 1, old] - score_fs[edge - 1, new]
    lag = score_fs[edge, new] - score_fs[edge, old]
    if lead + lag <= 0:
        return float(edge)
    return edge - 0.5 + float(np.clip(lead / (lead + lag), 0.0, 1.0))
