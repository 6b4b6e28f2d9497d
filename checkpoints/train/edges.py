"""Learns the weights of the aligner's edges (`sgpa_jax/align/edges.py`), on the training voices alone.

A log-linear model over the moments of each window, fitted by maximum likelihood to true edges that are moved by a
normally distributed error: without it, what eSpeak's formants teach fails on Flite's recorded voices, and the other way
round. Half of the utterances are Flite's; all are heard clean, noisy, in a room, fast, and
with everything at once.

    python -m train.edges            # a minute; prints the weights of both kinds of emissions
"""

import argparse
from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from scipy.optimize import minimize

from sgpa_jax.align.aligner import topology
from sgpa_jax.align.edges import EdgeFinder, Window
from sgpa_jax.align.letters import letter_columns
from sgpa_jax.align.path import Path, find_paths
from sgpa_jax.align.refine import edge_windows, spoken
from sgpa_jax.align.transcript import read_transcript
from sgpa_jax.audio import Clip
from sgpa_jax.models import load_aligner

from .aligner_data import training_utterances
from .augment import augment
from .sentences import Sentences
from .speech import RATE_HZ, Utterance

CONDITIONS = ("clean", "noise", "reverb", "fast", "train")
BLUR_S = 0.005
_BLURRED = 3
_PENALTY = 1e-3
_NEAR_S = 0.002

Example = tuple[Window, float]
"""A window and the true edge."""


def main() -> None:
    """Synthesise, align, learn, and print."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--n", type=int, default=120, help="utterances a seed, each in five conditions (default: 120)")
    options.add_argument("--seeds", type=int, nargs="+", default=[7, 8], help="(default: 7 8)")
    arguments = options.parse_args()
    found: dict[tuple[str, str], list[Example]] = defaultdict(list)
    for seed in arguments.seeds:
        for kind, utterance, path in _paths(arguments.n, seed):
            for window, true_s in examples(utterance, path):
                found[kind, window.kind].append((window, true_s))
    for (kind, side), known in sorted(found.items()):
        weights = learn(known, np.random.default_rng(arguments.seeds[0]))
        print(kind, side, len(known), tuple(float(round(weight, 2)) for weight in weights))


def examples(utterance: Utterance, path: Path) -> Iterator[Example]:
    """Yield the windows of an utterance with their true edges; where words that touch seem apart there is none."""
    find, words = EdgeFinder(Clip(utterance.wave_s, RATE_HZ), path), utterance.words
    starts, ends = edge_windows(find, spoken(path))
    for number, (window, word) in enumerate(zip(starts, words, strict=True)):
        if window.kind == "start" or word.start_s - words[number - 1].end_s < 1 / RATE_HZ:
            yield window, word.start_s
    yield from ((window, word.end_s) for window, word in zip(ends, words, strict=True) if window.kind == "end")


def learn(known: Sequence[Example], rng: np.random.Generator) -> np.ndarray:
    """Return the weights under which blurred true edges are likeliest; edges outside of their windows take no part."""
    longest = max(len(window.at_g) for window, _ in known)
    chosen, places = [], []
    for window, true_s in known:
        for blur_s in rng.normal(0, BLUR_S, _BLURRED):
            away_g = np.abs(window.at_g - (true_s + blur_s))
            if len(away_g) and away_g.min() <= _NEAR_S:
                chosen.append(window.features_gn)
                places.append(int(away_g.argmin()))
    features_egn = np.stack([np.pad(own, ((0, longest - len(own)), (0, 0))) for own in chosen]).astype(np.float32)
    inside_eg = np.arange(longest) < np.array([len(own) for own in chosen])[:, None]
    place_e = np.array(places)
    true_n = np.take_along_axis(features_egn, place_e[:, None, None], axis=1).sum(axis=0)[0]

    def loss(weights_n: np.ndarray) -> tuple[float, np.ndarray]:
        total_eg = np.where(inside_eg, features_egn @ weights_n.astype(np.float32), -np.inf)
        log_sum_e = np.logaddexp.reduce(total_eg, axis=1)
        posterior_eg = np.exp(total_eg - log_sum_e[:, None])
        likelihood = np.take_along_axis(total_eg, place_e[:, None], axis=1)[:, 0] - log_sum_e
        slope_n = (np.einsum("eg,egn->n", posterior_eg, features_egn) - true_n) / len(place_e)
        penalty = _PENALTY * np.square(weights_n).sum()
        return float(penalty - likelihood.mean()), (slope_n + 2 * _PENALTY * weights_n).astype(float)

    return minimize(loss, np.zeros(features_egn.shape[2]), jac=True, method="L-BFGS-B").x


def _paths(n: int, seed: int) -> Iterator[tuple[str, Utterance, Path]]:
    model = load_aligner("pocket")
    spoken_by = training_utterances(Sentences(model.lexicon or {}), seed, n)
    for condition in CONDITIONS:
        rng = np.random.default_rng(seed)
        for utterance in (augment(utterance, rng, condition=condition) for utterance in spoken_by):
            heard = model.emissions([Clip(utterance.wave_s, RATE_HZ)])[0]
            text = read_transcript(
                " ".join(word.label for word in utterance.words), alphabet=letter_columns(heard["character"])
            )
            for kind, emissions in heard.items():
                yield kind, utterance, find_paths([emissions], [topology(text, emissions, model)])[0]


if __name__ == "__main__":
    main()
