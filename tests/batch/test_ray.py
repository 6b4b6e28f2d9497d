"""Bundles on a pool of Ray actors: two on this machine, one of which dies on the way."""

import functools
import logging
import os
import sys
import time

import pytest

from sgpa_jax.api import Asked
from sgpa_jax.batch import Job, Runner, run_batch
from sgpa_jax.batch.actors import run_on_actors
from sgpa_jax.errors import SgpaError, UsageError

# Ray's own.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


class Mortal(Runner):
    """A runner that waits with the first bundle for another one, and dies when the last is first given to it."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        job.out.joinpath(f".actor-{os.getpid()}").touch()

    def run(self, bundle: int) -> int:
        for _ in range(600):
            if bundle > 0 or len(list(self.job.out.glob(".actor-*"))) > 1:
                break
            time.sleep(0.2)
        died = self.job.out / ".died"
        if bundle == len(self.bundles) - 1 and not died.exists():
            died.touch()
            os._exit(1)
        return super().run(bundle)


def refuse() -> Runner:
    """Make no worker."""
    raise UsageError("no such model")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Two cores of this machine, nothing else, and no token left in the home folder."""
    token = tmp_path_factory.mktemp("ray") / "token"
    token.write_text("0123456789abcdef" * 4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
        # Ray's own 15 never comes to its turn on a busy machine.
        patch.setenv("RAY_worker_niceness", "0")
        import ray

        ray.init(
            num_cpus=2,
            object_store_memory=2**27,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
        yield
        ray.shutdown()


def test_two_actors_write_the_tables_of_one_process_though_one_of_them_dies(
    cluster, tiny_folder, spoken_manifest, tables_differ, tmp_path
):
    manifest, asked = str(spoken_manifest(5, 12)), Asked(estimator="permutation", budget=64)
    here, there = (
        Job(
            manifest=manifest, out=tmp_path / name, model=str(tiny_folder("qwen2_audio")), dtype="float32", asked=asked
        )
        for name in ("here", "there")
    )  # fmt: skip
    seen = []
    there.out.mkdir()
    run_on_actors(functools.partial(Mortal, there), [0, 1], actors=2, progress=lambda *ended: seen.append(ended))
    assert sorted(seen) == [(0, 4), (1, 1)]
    assert there.out.joinpath(".died").exists() and len(list(there.out.glob(".actor-*"))) == 3
    assert run_batch(here).failed == 0
    assert tables_differ(here.out, there.out) == []


def test_what_a_worker_refuses_comes_back_as_its_sentence(cluster):
    with pytest.raises(SgpaError, match=r"^no such model$"):
        run_on_actors(refuse, [0], actors=1)


def test_nothing_to_do_asks_for_no_cluster():
    run_on_actors(refuse, [])


def test_without_ray_its_name_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match="needs Ray: pip install"):
        run_on_actors(refuse, [0])
