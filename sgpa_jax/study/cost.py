"""What words save over native tokens: evaluations and seconds of the same estimator on the same recordings.

The paper's estimator (Neyman, 3 n² evaluations) is run on both cuts of a recording into the game of log-probabilities
with hidden players, which both cuts can play. Each game is played twice from nothing and the second time counts, so
that compiling costs neither side. The budget is quadratic in the number of players, and that is where the paper's
speed-up comes from: its table is set beside ours with what each of its numbers counts.
"""

import time
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np

from sgpa_jax.estimators import estimate, paper_budget
from sgpa_jax.explain import bootstrap_interval, matched, ratio_of_means
from sgpa_jax.games import Game
from sgpa_jax.study.notes import Notes
from sgpa_jax.study.partitions import NATIVE, WORDS
from sgpa_jax.study.records import Record, numbers
from sgpa_jax.study.table import Cell, Table

TABLE = "cost"
COUNTED = {
    "players": "n",
    "requested": "evaluations that the estimator asked for, in both of its phases, repeated coalitions included",
    "computed": "different coalitions among them: what the model has to compute",
    "forwards": "what the model computed, padding of batches included",
    "seconds": "wall time without compiling",
}
ESTIMATOR = "neyman"

_Paper = tuple[str, int, float, float, float, float]
_PAPER_RUNS: tuple[_Paper, ...] = (
    ("SGPA, male voice", 100, 7.08, 80.6, 137.5, 142.4),
    ("SGPA, female voice", 100, 7.08, 80.7, 137.5, 142.9),
    ("SGPA, original voices", 100, 7.08, 79.8, 137.5, 137.6),
    ("SGPA, LibriSpeech", 100, 4.68, 21.7, 28.6, 28.9),
    ("native tokens, male voice", 10, 28.6, 1984.2, 2497.2, 2416.0),
    ("native tokens, female voice", 10, 31.1, 2364.2, 2946.0, 2820.7),
    ("native tokens, original voices", 10, 48.7, 6321.6, 7441.6, 7362.1),
    ("native tokens, LibriSpeech", 10, 30.2, 2306.4, 2871.6, 2653.6),
)
"""Recordings, players, recorded calls, true budget and seconds of a run, as its repository's results have them."""

_FEWEST = 2


def note_cost(notes: Notes, games: Mapping[str, Callable[[], Game]], seed: int) -> None:
    """Run the paper's estimator on a game of each cut and note what it cost.

    Args:
        notes: of the item.
        games: by the cut's name, what makes its game anew; nothing that it evaluated may be kept.
        seed: of the estimator.
    """
    for name, make in games.items():
        for _ in range(2):
            game = make()
            began_s = time.perf_counter()
            found = estimate(game, ESTIMATOR, budget=paper_budget(game.n_players), key=jax.random.key(seed))
            seconds = time.perf_counter() - began_s
        spent = found.evaluations
        counted = (game.n_players, spent.requested, spent.unique, spent.model_forwards, seconds)
        for what, number in zip(COUNTED, counted, strict=True):
            notes.add(TABLE, what, number, players=name)


def cost_table(by_model: Mapping[str, Sequence[Record]], seed: int) -> Table:
    """Native tokens and words, on the recordings that have both, and how many times as much the first cost."""
    rows: list[dict[str, Cell]] = []
    for model, records in by_model.items():
        for what in COUNTED:
            native, words = (numbers(records, TABLE, what, players=cut) for cut in (NATIVE, WORDS))
            n_pairs = len(set(native) & set(words))
            row: dict[str, Cell] = {"model": model, "counted": what, "n": n_pairs}
            if n_pairs >= _FEWEST:
                _, native_i, words_i = matched(native, words)
                low, high = bootstrap_interval(ratio_of_means, native_i, words_i, key=jax.random.key(seed))
                row |= {
                    "native tokens": float(native_i.mean()),
                    "words": float(words_i.mean()),
                    "ratio": float(ratio_of_means(native_i, words_i)),
                    "low": low,
                    "high": high,
                }
            rows.append(row)
    told = "; ".join(f"`{what}`: {meaning}" for what, meaning in COUNTED.items())
    return Table(
        TABLE,
        "What native tokens and words cost with the same estimator",
        f"Means over the same n recordings, and their ratio with its 95 % bootstrap interval. Estimator: {ESTIMATOR}, "
        f"with the paper's budget for the number of players. {told}.",
        ("model", "counted", "n", "native tokens", "words", "ratio", "low", "high"),
        tuple(rows),
    )


def paper_cost_table() -> Table:
    """The paper's own cost table, recomputed from its results, with the ratios of what is comparable."""
    rows: list[dict[str, Cell]] = [
        {
            "run": run,
            "n": n,
            "players": players,
            "recorded calls": calls,
            "true evaluations": budget,
            "seconds": seconds,
        }
        for run, n, players, calls, budget, seconds in _PAPER_RUNS
    ]
    half = len(_PAPER_RUNS) // 2
    for sgpa, native in zip(_PAPER_RUNS[:half], _PAPER_RUNS[half:], strict=True):
        players, calls, budget, seconds = (float(np.divide(native[at], sgpa[at])) for at in range(2, 6))
        voice = sgpa[0].removeprefix("SGPA, ")
        rows.append(
            {"run": f"native ÷ SGPA, {voice}: other recordings", "n": None, "players": players,
             "recorded calls": calls, "true evaluations": budget, "seconds": seconds}
        )  # fmt: skip
    for voice, budget, seconds in (("male", 50.8, 47.7), ("female", 59.9, 55.5), ("original", 151.0, 170.0)):
        rows.append(
            {"run": f"native ÷ SGPA, {voice} voice: the 10 recordings that have both", "n": 10,
             "true evaluations": budget, "seconds": seconds}
        )  # fmt: skip
    return Table(
        "paper_cost",
        "The paper's cost table, with what its numbers count",
        "Means of the repository's runs (LFM2-Audio-1.5B, about one second an evaluation, hardware unknown). "
        "`recorded calls` are those of the estimator's second phase alone wherever there were two, which is what the "
        "paper prints; `true evaluations` are of both. It divides means of 10 recordings by those of 100 others.",
        ("run", "n", "players", "recorded calls", "true evaluations", "seconds"),
        tuple(rows),
    )
