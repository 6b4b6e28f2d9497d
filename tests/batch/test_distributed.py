"""Processes that find and join each other, and one run on the devices of two of them."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from jax.sharding import Mesh

from sgpa_jax.audio import Clip
from sgpa_jax.batch import Job, run_batch
from sgpa_jax.batch.distributed import agree, join, launcher
from sgpa_jax.errors import UsageError
from sgpa_jax.games import speech_game
from sgpa_jax.models import load_model, parse_mesh
from sgpa_jax.players import Player, Players, all_coalitions

SLURM = {"SLURM_STEP_NODELIST": "node[1-2]", "SLURM_STEP_NUM_TASKS": "2"}
GKE = {"TPU_WORKER_HOSTNAMES": "host-0,host-1", "TPU_SKIP_MDS_QUERY": "true", "KUBERNETES_SERVICE_HOST": "10.0.0.1"}
POD = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "0"}


@pytest.mark.parametrize(
    ("environment", "platforms", "expected"),
    [
        ({}, "", None),
        ({"JAX_COORDINATOR_ADDRESS": "10.0.0.1:1234"}, "", "variables"),
        (SLURM, "", "slurm"),
        (SLURM | {"JAX_NUM_PROCESSES": "1"}, "", None),
        (SLURM | {"SLURM_STEP_NUM_TASKS": "1"}, "", None),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2"}, "", None),
        (GKE, "tpu,cpu", "tpu"),
        (GKE, "cpu", None),
        (GKE | {"TPU_WORKER_HOSTNAMES": "host-0"}, "tpu,cpu", None),
        (GKE | {"TPU_WORKER_HOSTNAMES": "host-0", "MEGASCALE_NUM_SLICES": "2"}, "tpu,cpu", "tpu"),
        ({}, "tpu,cpu", "tpu"),
        ({"TPU_SKIP_MDS_QUERY": "1"}, "tpu,cpu", None),
        (POD, "cuda,cpu", "kubernetes"),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "", None),
    ],
)
def test_what_says_that_a_process_is_one_of_several(environment, platforms, expected):
    assert launcher(environment, platforms) == expected


def test_a_process_alone_joins_nobody_and_agrees_with_itself(monkeypatch):
    for name in ("JAX_COORDINATOR_ADDRESS", "SLURM_STEP_NODELIST", "JOB_COMPLETION_INDEX"):
        monkeypatch.delenv(name, raising=False)
    assert join() is False
    agree("anything", "at all")


def test_variables_that_are_incomplete_are_told(monkeypatch):
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "127.0.0.1:1234")
    monkeypatch.setenv("JAX_NUM_PROCESSES", "2")
    with pytest.raises(UsageError, match="JAX_PROCESS_ID=''"):
        join()


def test_joining_after_jax_was_used_is_told(monkeypatch):
    """Devices were looked for long ago in this process."""
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "127.0.0.1:1234")
    monkeypatch.setenv("JAX_NUM_PROCESSES", "2")
    monkeypatch.setenv("JAX_PROCESS_ID", "1")
    assert len(parse_mesh("data=8").devices) == 8
    with pytest.raises(UsageError, match="cannot join the others"):
        join()


def test_two_processes_of_four_devices_find_what_one_finds(tiny_folder, spoken_manifest, tables_differ, tmp_path):
    """Tables, with weights cut as well, and the trie's values; what the two disagree in is told to both."""
    folder, manifest = tiny_folder("qwen2_audio"), spoken_manifest(6, 3)
    found = _together(Path(__file__), str(folder), str(manifest), str(tmp_path))
    assert all("differ in the seed: [1] from process 0" in said for said in found), found
    assert run_batch(_job(folder, manifest, tmp_path / "one")).failed == 0
    assert tables_differ(tmp_path / "one", tmp_path / "two") == []
    alone = _values(folder, None)
    assert alone.std(axis=0).max() > 1e-3
    for process in range(2):
        np.testing.assert_allclose(np.load(tmp_path / f"{process}.npy"), alone, atol=1e-5)


def _together(script: Path, *arguments: str) -> list[str]:
    """Run a script in two processes of four devices each; return what each has printed."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    flags = "--xla_force_host_platform_device_count=4 --xla_cpu_multi_thread_eigen=false"
    environment = os.environ | {
        "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "JAX_NUM_PROCESSES": "2", "OMP_NUM_THREADS": "1",
        "JAX_COORDINATOR_ADDRESS": address, "JAX_COORDINATOR_BIND_ADDRESS": address,
        "PYTHONPATH": os.pathsep.join(sys.path),
    }  # fmt: skip
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), *arguments], env=environment | {"JAX_PROCESS_ID": str(index)}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for index in range(2)
    ]  # fmt: skip
    try:
        said = [process.communicate(timeout=300) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], said
    return [out for out, _ in said]


def _values(folder: Path, mesh: Mesh | None) -> np.ndarray:
    """Values of all coalitions by the trie, which tables of what is heard leave out."""
    model = load_model(folder, dtype="float32", mesh=mesh)
    rng, rate_hz = np.random.default_rng(0), model.rate_hz
    clip = Clip((0.1 * rng.standard_normal(rate_hz // 2)).astype(np.float32), rate_hz)
    words = tuple(Player(f"word {i}", "word", 0.125 * i, 0.125 * (i + 1)) for i in range(4))
    inputs = model.prepare(clip, "which lamp?", response="red")
    game = speech_game(model, inputs, Players(words, len(clip.wave_s), rate_hz), absence="attention")
    return game.values(all_coalitions(4))


def _job(folder: Path, manifest: Path, out: Path) -> Job:
    return Job(manifest=str(manifest), out=out, model=str(folder), dtype="float32", mesh="data=4,model=2")


def _main(folder: str, manifest: str, out: str) -> None:
    import jax

    assert join() and join()
    index = jax.process_index()
    assert (jax.process_count(), len(jax.devices()), len(jax.local_devices())) == (2, 8, 4)
    try:
        agree("the seed", str(index))
    except UsageError as error:
        print(error)
    with pytest.raises(UsageError, match="leaves out some of the 8 devices of 2 processes"):
        parse_mesh("data=4")
    np.save(Path(out) / f"{index}.npy", _values(Path(folder), parse_mesh("data=8")))
    run_batch(_job(Path(folder), Path(manifest), Path(out) / "two"))


if __name__ == "__main__":
    _main(*sys.argv[1:])
