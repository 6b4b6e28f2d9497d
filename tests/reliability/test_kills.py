"""Commands that are killed with signal 9 at random moments and run again: they end as if nothing had happened.

Moments are drawn from a seed: half of them a time, half of them a number of accesses to the command's files. Nothing
that is there after a kill is taken for a whole that it is not, no file stays half written, nothing finished is redone.
"""

import itertools
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from sgpa_jax.align import Alignment, Word, write_alignment
from sgpa_jax.audio import Clip, write_wav
from sgpa_jax.batch import read_items, read_players, read_run, standing
from sgpa_jax.batch.tables import TABLES, bundles_in, part, read_table
from sgpa_jax.errors import SgpaError
from sgpa_jax.files import PARTIAL
from sgpa_jax.models import load_model
from sgpa_jax.models.fill import DTYPES
from sgpa_jax.sae import load_sae

KILLED, FIRST = -9, {"OMP_NUM_THREADS": "1", "JAX_PLATFORMS": "cpu", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., dict[str, Any]]]:
    """Runs a command in a fork of a warm process; programs are compiled once for all of them."""
    cache, notes = tmp_path_factory.mktemp("programs"), tmp_path_factory.mktemp("notes") / "stderr"
    flags = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    environment = os.environ | FIRST | {"JAX_COMPILATION_CACHE_DIR": str(cache), "XLA_FLAGS": flags}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    with (
        notes.open("w") as stderr,
        subprocess.Popen(
            [sys.executable, Path(__file__).with_name("worker.py")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment,
        ) as worker,
    ):  # fmt: skip
        assert worker.stdin is not None and worker.stdout is not None
        # A fork of a process with threads might wait forever for a lock that one of them held.
        assert json.loads(worker.stdout.readline()) == {"threads": 1}, notes.read_text()

        def run(**told: Any) -> dict[str, Any]:
            assert worker.stdin is not None and worker.stdout is not None
            worker.stdin.write(json.dumps(told) + "\n")
            worker.stdin.flush()
            answer = json.loads(worker.stdout.readline())
            assert answer["code"] in (0, KILLED), notes.read_text()[-4000:]
            return answer

        yield run
        worker.stdin.close()


@pytest.fixture
def survives(ask: Callable[..., dict[str, Any]], kills: int, tmp_path: Path) -> Callable[..., None]:
    """Kills a command until it has been killed often enough, beginning anew where it got to its end."""

    def check(
        command: str,
        arguments: Callable[[Path], list[str]],
        result: Callable[[Path], Any],
        standing: Callable[[Path], Any],
        equal: Callable[[Any, Any], None],
    ) -> None:
        def run(folder: Path, **moment: Any) -> dict[str, Any]:
            return ask(command=command, arguments=arguments(folder / "out"), folder=str(folder), **moment)

        rng, n_killed, first = random.Random(command), 0, tmp_path / "first"
        run(first)
        expected, names = result(first / "out"), _names(first)
        straight = run(tmp_path / "second")  # with programs that are compiled already, as all that follow
        for attempt in itertools.count():
            folder, answer = tmp_path / f"attempt {attempt}", {"code": KILLED}
            while answer["code"] == KILLED:
                moment = {}
                if n_killed < kills:
                    by_time = {"after_s": rng.uniform(0.0, straight["seconds"])}
                    moment = rng.choice((by_time, {"at_event": rng.randint(1, straight["events"])}))
                before = standing(folder / "out")
                answer = run(folder, **moment)
                n_killed += answer["code"] == KILLED
                after = standing(folder / "out")
                assert all(after.get(name) == was for name, was in before.items()), moment
            equal(result(folder / "out"), expected)
            assert _names(folder) == names
            if n_killed >= kills:
                return

    return check


def _names(folder: Path) -> list[str]:
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if "ocdbt" not in path.as_posix()]
    assert not any(name.endswith(PARTIAL) or "tmp" in name for name in names)
    return sorted(name for name in names if "/d/" not in name)


def test_sae_train(survives: Callable[..., None], activations: Path):
    def result(out: Path) -> Any:
        run = load_sae(out)
        rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
        return (
            run.step,
            run.sae.w_enc_md,
            run.sae.w_dec_md,
            run.silent_m,
            [row["step"] for row in rows],
            [row["loss"] for row in rows],
        )

    def readable(out: Path) -> dict[str, Any]:
        try:
            load_sae(out)
        except SgpaError as error:
            assert "damaged" not in str(error)
        return {}

    def equal(found: Any, expected: Any) -> None:
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_array_equal(a, b)

    survives("train", lambda out: [str(activations), str(out)], result, readable, equal)


def test_convert(survives: Callable[..., None]):
    def result(out: Path) -> Any:
        import jax

        model = load_model(out)
        return [np.asarray(leaf) for leaf in jax.tree.leaves(model.state)]

    def whole(out: Path) -> dict[str, Any]:
        """Either nothing is there, or all."""
        if out.exists():
            assert len(result(out)) > 0
        return {}

    def equal(found: Any, expected: Any) -> None:
        for a, b in zip(found, expected, strict=True):
            assert a.dtype in DTYPES.values()
            np.testing.assert_array_equal(a, b)

    survives("convert", lambda out: ["pocket", str(out)], result, whole, equal)


def test_batch(survives: Callable[..., None], recordings: Path):
    def result(out: Path) -> Any:
        told = read_run(out)
        assert standing(out).missing == ()
        tables = [pa.concat_tables(rows) for rows in (read_items(out), read_players(out))]
        games = pa.concat_tables([read_table(out, "coalitions", bundle) for bundle in bundles_in(out, "coalitions")])
        return told, tables[0].drop_columns(["seconds"]), tables[1], games

    def finished(out: Path) -> dict[str, Any]:
        """The parts of finished bundles, which are never written again."""
        paths = (part(out, name, bundle) for bundle in bundles_in(out) for name in TABLES)
        return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in paths}

    def equal(found: Any, expected: Any) -> None:
        for a, b in zip(found, expected, strict=True):
            assert a == b

    def arguments(out: Path) -> list[str]:
        return ["batch", str(recordings), "--out", str(out), "--budget", "16"]

    survives("sgpa", arguments, result, finished, equal)


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """A data set of six recordings, each with two words that are placed already."""
    folder, rng = tmp_path / "recordings", np.random.default_rng(0)
    for n in range(6):
        write_wav(folder / f"{n}.wav", Clip((0.1 * rng.standard_normal(16_000)).astype(np.float32), 16_000))
        words = Word("turn", 0.1, 0.4), Word("red", 0.5, 0.8)
        told = Alignment(words, 1.0, "turn red", "given", "", "given", "given")
        write_alignment(told, folder / f"{n}.TextGrid", format="textgrid")
    return folder
