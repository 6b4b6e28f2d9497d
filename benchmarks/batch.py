"""What does a data set's run lose against the bare engine, and what does it gain over a loop over `explain`?

Utterances of 3 to 12 words of the *pocket* model's world, as many of each length, are synthesised and run as `sgpa
batch` runs them: read, aligned, answered, explained exactly where the budget allows it, and written. `engine_share` is
what the run's coalitions a second are of the bare engine's, which is handed the same games when they are ready. The
loop is `explain` with its models loaded, utterance by utterance, over those of three to five words; it writes nothing.
Each has run once before it is timed: `ours_first_s` is that run with its compilation, `compiles` counts its programs,
`engine_programs` those of the engine: where sound is rendered two for each of `buckets` lengths at most, and with an
`--absence` of the decoder's input one for each shape of chunks. `memory_bytes` are the most that the process had held
after the first run and after the last one.
"""

import argparse
import resource
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import soundfile
from _harness import alternate, comparison, parser, report
from train import world
from train.speech import HELD_OUT_VOICES, RATE_HZ, draw_voice, synthesise

import sgpa_jax
from sgpa_jax.api import Answer, Asked, answered, game_of
from sgpa_jax.batch import Job, Progress, Runner, read_players, run_bundles
from sgpa_jax.estimators import first_coalitions
from sgpa_jax.games import ABSENCES, Game, HeardGame, evaluate_together
from sgpa_jax.games.trie import run_chunks
from sgpa_jax.games.waveform_programs import hear, read

WORDS, FEW_WORDS, BUDGET = range(3, 13), 5, 4096

Bundle = tuple[list[Game], list[np.ndarray]]


def main() -> None:
    """Synthesise, run both comparisons, print the table."""
    options = parser(__doc__)
    options.add_argument("--n", type=int, default=200, help="utterances")
    options.add_argument("--absence", choices=ABSENCES, default="silence", help="of a word")
    arguments = options.parse_args()
    n, budget = (20, 64) if arguments.quick else (arguments.n, BUDGET)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        lengths = [WORDS[number % len(WORDS)] for number in range(n)]
        spoken = [_spoken(number, length, arguments.seed, folder) for number, length in enumerate(lengths)]
        few = [row for row, length in zip(spoken, lengths, strict=True) if length <= FEW_WORDS]
        asked = Asked(budget=budget, absence=arguments.absence)
        rows = [_against_engine(spoken, folder, asked, arguments), _against_loop(few, folder, asked, arguments)]
        report("batch", rows, arguments)


def _spoken(number: int, n_words: int, seed: int, folder: Path) -> str:
    """Write an utterance, the first words of two commands, and return its row of a manifest."""
    rng = np.random.default_rng([400_000 + seed, number])
    while True:
        commands = [world.sample_command(rng, "test", sound=False) for _ in range(3)]
        text = " ".join([word for command in commands for word in command.words][:n_words])
        speech = synthesise(text, draw_voice(rng, HELD_OUT_VOICES))
        if speech is not None:
            soundfile.write(folder / f"{number}.wav", speech.wave_s, RATE_HZ)
            return f"{number},{number}.wav,{text}\n"


def _against_engine(
    rows: Sequence[str], folder: Path, asked: Asked, arguments: argparse.Namespace
) -> dict[str, object]:
    runner, memory = _runner(rows, folder, asked), list[int]()
    first = _run(runner, memory)
    engine: list[Any] = [hear, read, run_chunks]
    programs = sum(program._cache_size() for program in engine)
    bundles = _ready(runner)
    runs = {"run": partial(_run, runner, memory), "engine": partial(_evaluated, bundles)}
    timed = alternate(runs, 1 if arguments.quick else 2)
    row = comparison(f"{len(rows)} utterances", "bare engine", timed["run"], timed["engine"], float("nan"))
    return row | {
        "ours_first_s": first.seconds,
        "engine_share": timed["engine"].wall_s / timed["run"].wall_s,
        "engine_share_cpu": timed["engine"].cpu_s / timed["run"].cpu_s,
        "coalitions": first.coalitions,
        "coalitions_per_s": first.coalitions / timed["run"].wall_s,
        "items_per_s": len(rows) / timed["run"].wall_s,
        "compiles": first.compiles,
        "compiles_again": timed["run"].returned.compiles,
        "engine_programs": programs,
        "buckets": len(_buckets(bundles)),
        "memory_bytes": [memory[len(runner.bundles) - 1], memory[-1]],
    }


def _against_loop(rows: Sequence[str], folder: Path, asked: Asked, arguments: argparse.Namespace) -> dict[str, object]:
    runner = _runner(rows, folder, asked)
    runs = {"run": partial(_run, runner, []), "loop": partial(_explained, runner)}
    timed = alternate(runs, 1 if arguments.quick else 5)
    found = {row["id"]: [] for row in _players(runner)}
    for row in _players(runner):
        found[row["id"]].append(row["value"])
    differences = [np.abs(np.array(found[id]) - values).max() for id, values in timed["loop"].returned.items()]
    case = f"{len(rows)} utterances of at most {FEW_WORDS} words"
    row = comparison(case, "loop over explain", timed["run"], timed["loop"], float(max(differences)))
    return row | {"items_per_s": len(rows) / timed["run"].wall_s}


def _runner(rows: Sequence[str], folder: Path, asked: Asked) -> Runner:
    manifest = folder / f"{len(rows)}.csv"
    manifest.write_text("id,audio,transcript\n" + "".join(rows), encoding="utf-8")
    return Runner(Job(manifest=str(manifest), out=folder / f"out-{len(rows)}", asked=asked))


def _run(runner: Runner, memory: list[int]) -> Progress:
    """Run everything from nothing; note the memory that was held at most after every bundle."""
    shutil.rmtree(runner.job.out, ignore_errors=True)
    done = 0

    def note(now: Progress) -> None:
        nonlocal done
        if now.done > done:
            done = now.done
            memory.append(1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)

    return run_bundles(runner, range(len(runner.bundles)), progress=note)


def _ready(runner: Runner) -> list[Bundle]:
    """Return the games of every bundle and their coalitions, with nothing left to do but to evaluate them."""
    model, asked, key = runner.model, runner.asked, jax.random.key(runner.asked.seed)
    found = []
    for bundle in range(len(runner.bundles)):
        several = [one.prepared for one in runner.prepare(bundle) if one.prepared is not None]
        answers = answered(model, several, asked)
        games = [
            game_of(model, one, answer, asked)
            for one, answer in zip(several, answers, strict=True)
            if isinstance(answer, Answer)
        ]
        masks = [first_coalitions(one.estimator, len(one.players), one.budget, key=key) for one in several]
        found.append((games, masks))
    return found


def _evaluated(bundles: Sequence[Bundle]) -> None:
    for games, masks in bundles:
        for game in games:
            game.forget()
        evaluate_together(games, masks)


def _explained(runner: Runner) -> dict[str, np.ndarray]:
    found = {}
    for index in range(len(runner.manifest)):
        row = runner.manifest.row(index)
        assert isinstance(row.audio, Path)
        x = sgpa_jax.explain(
            row.audio, transcript=row.transcript, model=runner.model, aligner=runner.aligner,
            absence=runner.asked.absence,
        )  # fmt: skip
        found[row.id] = x.values[:, 0]
    return found


def _players(runner: Runner) -> list[dict[str, Any]]:
    return [row for table in read_players(runner.job.out) for row in table.to_pylist()]


def _buckets(bundles: Sequence[Bundle]) -> Counter[int]:
    """Count the games by the mel frames that all of their players are heard in."""
    games = [game for several, _ in bundles for game in several if isinstance(game, HeardGame)]
    return Counter(int(game.engine.frames_alone(np.ones((1, game.n_players), bool))[0]) for game in games)


if __name__ == "__main__":
    main()
