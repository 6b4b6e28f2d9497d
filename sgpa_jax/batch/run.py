"""A data set run bundle by bundle: what is finished is skipped, what was evaluated serves again, and nothing is lost.

`OUT/run.json` tells what the run is. While a bundle is on the device, a thread prepares the next one. Every bundle is
written as soon as it is finished, so that a run that is killed loses the one in flight and goes on behind the others.
"""

import fcntl
import functools
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax

from sgpa_jax.align import AcousticModel
from sgpa_jax.api import HEARD, OPTIONS, usual_prompt
from sgpa_jax.audio import Clip, read_clip
from sgpa_jax.batch.actors import run_on_actors
from sgpa_jax.batch.bundles import compose
from sgpa_jax.batch.compiles import programs_compiled
from sgpa_jax.batch.distributed import agree, is_first
from sgpa_jax.batch.evaluate import evaluate_bundle
from sgpa_jax.batch.job import Job
from sgpa_jax.batch.manifest import Manifest
from sgpa_jax.batch.outcome import Outcome
from sgpa_jax.batch.prepare import Ready, prepare_bundle
from sgpa_jax.batch.tables import RUN, TABLES, bundle_key, finished, keys_of, read_coalitions, read_run, write_part
from sgpa_jax.errors import SgpaError, UsageError, unknown_name
from sgpa_jax.files import atomic_write, sweep
from sgpa_jax.models import Model, load_aligner, load_model, mesh_shape, parse_mesh
from sgpa_jax.versions import versions

ENGINES = ("local", "ray")
"""Where bundles run: in this process (or these, under `jax.distributed`), or in Ray's actors."""

_OF_THE_ESTIMATE = ("estimand", "groups", "estimator", "budget", "tolerance", "interactions", "seed")
"""Settings that may change from one run to the next in the same folder: the coalitions serve again."""


@dataclass(frozen=True)
class Progress:
    """How far a run is: items done of so many, `before` of them by earlier runs, and what this one did and took."""

    done: int
    items: int
    before: int
    failed: int
    coalitions: int
    compiles: int
    seconds: float


class Runner:
    """A job's bundles, run one at a time; what an actor holds. The model is loaded when it is needed first.

    Raises:
        SgpaError: the manifest cannot be opened.
    """

    def __init__(self, job: Job) -> None:
        self.job, self.asked = job, job.asked
        self.manifest = job.open()
        self.bundles = compose(self.manifest)
        self._has_begun = False

    @cached_property
    def model(self) -> Model:
        """The audio language model; several processes share their coalitions between all devices, if not told else."""
        mesh = self.job.mesh or (f"data={jax.device_count()}" if jax.process_count() > 1 else None)
        placed = None if mesh is None else parse_mesh(mesh)
        return load_model(self.job.model, revision=self.job.revision, dtype=self.job.dtype, mesh=placed)

    @cached_property
    def aligner(self) -> AcousticModel:
        """What hears the words."""
        return load_aligner(self.job.aligner)

    @cached_property
    def told(self) -> dict[str, Any]:
        """What `run.json` holds."""
        asked = {name: getattr(self.asked, name) for name in OPTIONS}
        estimate = {name: asked.pop(name) for name in _OF_THE_ESTIMATE}
        game = {
            "manifest": self.manifest.key,
            "model": self.model.digest,
            "dtype": self.model.dtype,
            "aligner": self.aligner.digest,
            "prompt": usual_prompt(self.model, self.job.prompt),
            "transcript": self.job.transcript,
            "given_responses": self.job.given_responses,
            "channel": self.job.channel,
            **asked,
        }
        return {
            "key": _digest([game, estimate]),
            "bundles": len(self.bundles),
            "items": len(self.manifest),
            "model": {"name": self.model.name, "digest": self.model.digest, "dtype": self.model.dtype},
            "game": game,
            "estimate": estimate,
            "versions": versions(),
        }

    def begin(self) -> None:
        """Say in the folder what this run is.

        Raises:
            UsageError: another run is in it, or it cannot be written to.
        """
        path = self.job.out / RUN
        if path.exists():
            before = read_run(self.job.out).get("game")
            before = before if isinstance(before, dict) else {}
            others = [name for name, value in self.told["game"].items() if before.get(name) != value]
            if others:
                raise UsageError(
                    f"{self.job.out} holds a run of another {', '.join(others)}: choose another folder, or delete it"
                )
        agree("the run", self.told["key"])
        if is_first():
            atomic_write(path, json.dumps(self.told, ensure_ascii=False, indent=2) + "\n")
        self._has_begun = True

    def is_finished(self, bundle: int) -> bool:
        """Whether a bundle's tables are there, of this very run."""
        return finished(self.job.out, bundle, self._key(bundle))

    def prepare(self, bundle: int) -> list[Ready]:
        """Do the host's part of a bundle."""
        return prepare_bundle(self.manifest, self.bundles[bundle], self.model, self.aligner, self.job)

    def evaluate(
        self, bundle: int, ready: Sequence[Ready], *, progress: Callable[[int, int], None] | None = None
    ) -> list[Outcome]:
        """Do the device's part of a bundle."""
        kept = keys_of(self.job.out, "coalitions", bundle)
        # Of this very run, stopped before its items were written: counted anew, so that the tables are the same.
        is_own = kept is not None and kept.key == self._key(bundle)
        known = {} if is_own else read_coalitions(self.job.out, bundle)
        return evaluate_bundle(self.model, ready, self.asked, known=known, progress=progress)

    def write(self, bundle: int, outcomes: Sequence[Outcome]) -> None:
        """Write the tables of a bundle, in one process alone."""
        if is_first():
            write_part(self.job.out, bundle, outcomes, key=self._key(bundle))

    def run(self, bundle: int) -> int:
        """Run a bundle unless it is finished; return how many items it has."""
        if not self._has_begun:
            self.begin()
        if not self.is_finished(bundle):
            self.write(bundle, self.evaluate(bundle, self.prepare(bundle)))
        return len(self.bundles[bundle])

    def _key(self, bundle: int) -> str:
        return bundle_key(self.told["key"], bundle)


def run_batch(
    job: Job,
    *,
    shard: tuple[int, int] = (0, 1),
    engine: str = "local",
    actors: int | None = None,
    fail_fast: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> Progress:
    """Explain a data set into Parquet tables, going on where an earlier run of the same folder stopped.

    Args:
        job: what is run.
        shard: (i, N): only every N-th bundle from number i on; `merge` joins the folders of all shards.
        engine: one of `ENGINES`.
        actors: of the engine `ray`; None: as many as the cluster has room for.
        fail_fast: stop at the first item that fails, instead of recording why; of the engine `local`.
        progress: called after every batch of coalitions, and after every bundle.

    Returns:
        How far the run came.

    Raises:
        SgpaError: what cannot be loaded; a folder that holds another run, that another process is writing to, or that
            cannot be written to; or the first failing item.
    """
    if engine not in ENGINES:
        raise unknown_name("engine", engine, ENGINES)
    if fail_fast and engine == "ray":
        raise UsageError("the engine ray runs bundles side by side and records failures: leave --fail-fast out")
    if job.transcript is not None and job.transcript not in HEARD:
        raise UsageError(
            f"the transcript is {job.transcript!r}: expected {' or '.join(HEARD)}, who writes what the rows do not tell"
        )
    runner = Runner(job)
    own = range(shard[0], len(runner.bundles), shard[1])
    # Ray's driver looks for no device: its actors need them.
    with _locked(job.out, shard) if engine == "ray" or is_first() else nullcontext():
        if engine == "ray":
            return _run_on_ray(runner, own, actors, progress)
        return run_bundles(runner, own, fail_fast=fail_fast, progress=progress)


def run_bundles(
    runner: Runner,
    own: Sequence[int],
    *,
    fail_fast: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> Progress:
    """Run bundles in this process, the next one prepared while one is on the device; see `run_batch`."""
    runner.begin()
    left = [bundle for bundle in own if not runner.is_finished(bundle)]
    agree("the bundles that are finished", str(left))
    n_items, n_left = (sum(len(runner.bundles[bundle]) for bundle in some) for some in (own, left))
    now = _Counted(n_items, n_items - n_left)

    def evaluated(done: int, _: int) -> None:
        now.of_bundle = done
        if progress is not None:
            progress(now.progress())

    # Several processes run what they share in one order, which a thread would not keep to.
    ahead = jax.process_count() == 1 or runner.job.transcript != "auto:model"
    with ThreadPoolExecutor(1) as host:
        prepare = partial(host.submit, runner.prepare) if ahead else partial(_Later, runner.prepare)
        following: Any = prepare(left[0]) if left else None
        for place, bundle in enumerate(left):
            ready = following.result()
            following = prepare(left[place + 1]) if place + 1 < len(left) else None
            outcomes = runner.evaluate(bundle, ready, progress=evaluated)
            wrong = next((outcome for outcome in outcomes if outcome.error is not None), None)
            if fail_fast and wrong is not None:
                raise SgpaError(f"{wrong.id}: {wrong.error}")
            runner.write(bundle, outcomes)
            now.add(outcomes)
            if progress is not None:
                progress(now.progress())
    return now.progress()


def _run_on_ray(
    runner: Runner, own: Sequence[int], actors: int | None, progress: Callable[[Progress], None] | None
) -> Progress:
    now = _Counted(sum(len(runner.bundles[bundle]) for bundle in own), 0)

    def ended(_: int, n_items: int) -> None:
        now.done += n_items
        if progress is not None:
            progress(now.progress())

    job, devices = runner.job, 1 if runner.job.mesh is None else math.prod(mesh_shape(runner.job.mesh))
    # Actors have folders of their own to start from.
    where = str(Path(job.manifest).absolute()) if Path(job.manifest).exists() else job.manifest
    job = replace(job, manifest=where, out=job.out.absolute())
    run_on_actors(partial(Runner, job), own, actors=actors, devices=devices, progress=ended)
    return now.progress()


def recordings(job: Job) -> Callable[[str], Clip]:
    """Return what gives a job's recordings by their items' ids; it opens the manifest when it is asked first."""

    @functools.cache
    def opened() -> tuple[Manifest, dict[str, int]]:
        manifest = job.open()
        return manifest, {id: index for index, id in enumerate(manifest.ids)}

    def clip_of(id: str) -> Clip:
        manifest, index_of = opened()
        return read_clip(manifest.row(index_of[id]).audio, channel=job.channel)

    return clip_of


class _Counted:
    """What a run has done so far."""

    def __init__(self, items: int, before: int) -> None:
        self.items = items
        self.done = self.before = before
        self.failed = self.coalitions = self.of_bundle = 0
        self._began_s, self._compiled = time.perf_counter(), programs_compiled()

    def add(self, outcomes: Sequence[Outcome]) -> None:
        self.done += len(outcomes)
        self.failed += sum(outcome.error is not None for outcome in outcomes)
        explained = (outcome.explanation for outcome in outcomes if outcome.explanation is not None)
        self.coalitions += sum(explanation.evaluations["unique"] for explanation in explained)
        self.of_bundle = 0

    def progress(self) -> Progress:
        return Progress(
            done=self.done,
            items=self.items,
            before=self.before,
            failed=self.failed,
            coalitions=self.coalitions + self.of_bundle,
            compiles=programs_compiled() - self._compiled,
            seconds=time.perf_counter() - self._began_s,
        )


class _Later(NamedTuple):
    """What a future is, computed when it is asked for."""

    run: Callable[[int], list[Ready]]
    bundle: int

    def result(self) -> list[Ready]:
        return self.run(self.bundle)


@contextmanager
def _locked(out: Path, shard: tuple[int, int]) -> Iterator[None]:
    """Keep other processes from running the same shard in the same folder, and clear away what killed ones left."""
    path = out / f".lock-{shard[0]}-of-{shard[1]}"
    try:
        out.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}; choose a folder that can be written to") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UsageError(
                f"another process is writing to {out}: wait for it, or choose another folder or shard"
            ) from error
        for name in ("", "pages", *TABLES):
            sweep(out / name)
        yield


def _digest(told: Any) -> str:
    return hashlib.sha256(json.dumps(told, sort_keys=True, allow_nan=False).encode()).hexdigest()
