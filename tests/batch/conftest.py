"""Outcomes of small games that are really estimated, data sets of them, and a comparison of two data sets' tables."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pyarrow.parquet as parquet
import pytest
import soundfile

from sgpa_jax.align.textgrid import format_textgrid
from sgpa_jax.archive import estimator_facts, game_key
from sgpa_jax.audio import Clip
from sgpa_jax.batch import RUN, Coalitions, Outcome, write_part
from sgpa_jax.batch.tables import bundle_key
from sgpa_jax.estimators import estimate
from sgpa_jax.explain import ClipInfo, Explanation, Transcript
from sgpa_jax.games import Game
from sgpa_jax.players import Player

RATE_HZ = 8000


def outcome(
    id: str, *, n_players: int = 4, estimator: str = "exact", budget: int = 64, seed: int = 0, value: str = "logprob",
    labels: Sequence[str] = ("make", "the", "lamp", "blue", "not", "red", "and", "so"), **changes: Any,
) -> Outcome:  # fmt: skip
    """Return what a game of two outputs, different for every id, comes to; `changes` are of its explanation."""
    rng = np.random.default_rng(list(id.encode()))
    worth_p, pairs_pp = rng.normal(size=n_players), rng.normal(size=(n_players, n_players)) * 0.2

    def fn(masks_cp: np.ndarray) -> np.ndarray:
        total_c = masks_cp @ worth_p + np.einsum("cp,pq,cq->c", masks_cp, pairs_pp, masks_cp)
        return np.stack([total_c, 0.5 * total_c], axis=1)

    game = Game(fn, n_players, jit=False)
    found = estimate(game, estimator, budget=budget, key=jax.random.key(seed))
    known_cp, outputs = game.known()
    row_of = {row.tobytes(): index for index, row in enumerate(known_cp)}
    sample_s = np.array([row_of[row.tobytes()] for row in found.masks_cp], np.int32)
    key = game_key({"id": id, "players": n_players})
    clip = Clip(np.sin(np.arange(RATE_HZ, dtype=np.float32) / 9), RATE_HZ)
    step = 1 / n_players
    fields: dict[str, Any] = {
        "clip": ClipInfo.of(clip),
        "transcript": Transcript(" ".join(labels[:n_players]), "given"),
        "messages": ({"role": "user", "content": "which?"},),
        "response": "blue",
        "in_domain": True,
        "model": {"name": "pocket", "digest": "00ff", "dtype": "float32"},
        "aligner": {"name": "pocket", "digest": "ff00", "rules": "sgpa", "emission": "phone", "notes": []},
        "game": {"value": value, "readout": "response", "absence": "silence", "key": key},
        "estimand": found.estimand,
        "estimator": estimator_facts(found, seed),
        "engine": "waveform",
        "outputs": ({"name": "response", "kind": "response"}, {"name": "blue", "kind": "token"}),
        "players": tuple(
            Player(labels[p], "word", p * step, (p + 1) * step, 0.9 - 0.1 * p / n_players, p % 2 == 0)
            for p in range(n_players)
        ),
        "values": found.values_pk,
        "standard_errors": found.standard_errors_pk,
        "empty_value": found.empty_value_k,
        "full_value": found.full_value_k,
        "efficiency_gap": found.efficiency_gap_k,
        "evaluations": vars(found.evaluations),
        "timings": {"evaluate": 0.25},
        "versions": {"jax": "0"},
    }
    coalitions = Coalitions(key, known_cp, outputs, sample_s, found.coalition_values_ck)
    return Outcome(id, f"{id}.wav", Explanation(**(fields | changes)), coalitions, None, 0.5)


def failed(id: str, error: str = "the recording is silent: give one with speech") -> Outcome:
    return Outcome(id, f"{id}.wav", None, None, error, 0.125)


def answered(id: str) -> Outcome:
    """Return an outcome whose outputs are the token ids of responses."""
    one = outcome(id, value="tfidf")
    assert one.coalitions is not None
    ids = tuple(tuple(range(n % 5)) for n in range(len(one.coalitions.masks_cp)))
    return replace(one, coalitions=replace(one.coalitions, outputs=ids))


def write_run(out: Path, bundles: Sequence[Sequence[Outcome] | None], *, key: str = "run") -> Path:
    """Write a data set of bundles; None is one that is missing."""
    told = {"key": key, "bundles": len(bundles), "model": {"name": "pocket"}, "settings": {"budget": 64}}
    out.mkdir(parents=True, exist_ok=True)
    (out / RUN).write_text(json.dumps(told))
    for bundle, outcomes in enumerate(bundles):
        if outcomes is not None:
            write_part(out, bundle, outcomes, key=bundle_key(key, bundle))
    return out


def differences(first: Path, second: Path) -> list[str]:
    """Return what differs between the tables of two data sets, but for what they took."""
    files = [{str(path.relative_to(out)) for path in out.glob("*/*.parquet")} for out in (first, second)]
    found = [f"{name} is in one alone" for name in sorted(files[0] ^ files[1])]
    for name in sorted(files[0] & files[1]):
        tables = [parquet.read_table(out / name) for out in (first, second)]
        if name.startswith("items"):
            tables = [table.drop_columns("seconds") for table in tables]
        if not tables[0].equals(tables[1], check_metadata=True):
            found.append(f"{name} differs")
    return found


@pytest.fixture(scope="session")
def tables_differ() -> Callable[[Path, Path], list[str]]:
    """What differs between the tables of two data sets, but for what they took: nothing, where they are equal."""
    return differences


@pytest.fixture(scope="session")
def bundles() -> list[list[Outcome]]:
    """Three bundles: exact ones, one that failed, one of responses, and two that are sampled."""
    return [
        [outcome("a"), outcome("b", n_players=3), failed("c")],
        [answered("d"), outcome("e", n_players=8, estimator="permutation"), outcome("f", n_players=1)],
        [outcome("g", n_players=8, estimator="permutation"), failed("h", "no such file: 'h.wav'")],
    ]


@pytest.fixture
def run(bundles: list[list[Outcome]], tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", bundles)


@pytest.fixture(scope="session")
def make_outcome() -> Callable[..., Outcome]:
    return outcome


@pytest.fixture(scope="session")
def make_run() -> Callable[..., Path]:
    return write_run


@pytest.fixture(scope="session")
def spoken_manifest(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int, int], Path]:
    """A manifest of so many recordings of noise, each of so many words, with the words' times and an answer."""

    def write(n_items: int, n_words: int) -> Path:
        folder, rng, duration_s = tmp_path_factory.mktemp("spoken"), np.random.default_rng(0), 0.125 * n_words
        rows = []
        for item in range(n_items):
            wave = (0.1 * rng.standard_normal(int(16000 * duration_s))).astype(np.float32)
            soundfile.write(folder / f"{item}.wav", wave, 16000)
            words = [(0.125 * n, 0.125 * (n + 1), "lamp") for n in range(n_words)]
            (folder / f"{item}.TextGrid").write_text(format_textgrid("words", words, duration_s))
            row = {"id": str(item), "audio": f"{item}.wav", "alignment": f"{item}.TextGrid", "response": "red"}
            rows.append(row | {"transcript": " ".join(["lamp"] * n_words)})
        path = folder / "manifest.jsonl"
        path.write_text("\n".join(map(json.dumps, rows)))
        return path

    return write
