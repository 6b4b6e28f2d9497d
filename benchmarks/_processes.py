"""One mesh over the devices of two processes against one process alone, each process held to a core of its own.

As many virtual devices for each process, the same coalitions: half of the speed-up is the scaling efficiency.
"""

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

DEVICES_EACH = 4


def process_row(case: str, n_players: int, width: int, repeats: int, seed: int) -> dict[str, object]:
    """Return the row that compares two processes with one."""
    cores = sorted(os.sched_getaffinity(0))
    row: dict[str, object] = {"case": case, "peer": "one_process", "devices": 2 * DEVICES_EACH, "cores": len(cores)}
    with tempfile.TemporaryDirectory() as folder:
        alone, both = (_run(cores[:n], Path(folder), (n_players, width, repeats, seed)) for n in (1, 2))
        values = [np.load(Path(folder) / f"{n}.npy") for n in (1, 2)]
    row |= {
        "coalitions": 2**n_players,
        "ours_s": max(found["wall_s"] for found in both),
        "peer_s": alone[0]["wall_s"],
        "ours_cpu_s": sum(found["cpu_s"] for found in both),
        "peer_cpu_s": alone[0]["cpu_s"],
        "max_abs_diff": float(np.abs(values[1] - values[0]).max()),
    }
    ratio = float(alone[0]["wall_s"]) / float(max(found["wall_s"] for found in both))
    # Two processes on one core can only take turns.
    efficiency = ratio / 2 if len(cores) > 1 else None
    work = float(alone[0]["cpu_s"]) / sum(float(found["cpu_s"]) for found in both)
    return row | {"ratio": ratio, "efficiency": efficiency, "efficiency_cpu": work}


def _run(cores: list[int], folder: Path, sizes: tuple[int, ...]) -> list[dict[str, float]]:
    """Run as many processes as there are cores; return what each has measured."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    flags = f"--xla_force_host_platform_device_count={DEVICES_EACH} --xla_cpu_multi_thread_eigen=false"
    environment = os.environ | {
        "XLA_FLAGS": f"{flags} intra_op_parallelism_threads=1", "JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1",
        "JAX_COORDINATOR_ADDRESS": address, "JAX_COORDINATOR_BIND_ADDRESS": address,
        "JAX_NUM_PROCESSES": str(len(cores)),
    }  # fmt: skip
    running = [
        subprocess.Popen(
            [sys.executable, __file__, str(folder), str(core), *map(str, sizes)], text=True, stdout=subprocess.PIPE,
            env=environment | {"JAX_PROCESS_ID": str(index)},
        )
        for index, core in enumerate(cores)
    ]  # fmt: skip
    said = [process.communicate()[0] for process in running]
    if any(process.returncode for process in running):
        raise RuntimeError(f"{len(cores)} processes on this machine did not come to an end: see above")
    return [json.loads(text.splitlines()[-1]) for text in said]


def _measure(folder: str, core: str, n_players: str, width: str, repeats: str, seed: str) -> None:
    os.sched_setaffinity(0, {int(core)})
    import jax
    from _ours import Ours
    from _toys import qwen2_toy
    from jax.sharding import Mesh

    from sgpa_jax.batch.distributed import join
    from sgpa_jax.players import all_coalitions

    join()
    mesh, masks_cp = Mesh(np.array(jax.devices()), ("data",)), all_coalitions(int(n_players))
    ours = Ours(qwen2_toy(int(n_players), width=int(width), seed=int(seed)), "attention")
    values = ours(masks_cp, mesh)
    walls_s, cpus_s = [], []
    for _ in range(int(repeats)):
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        ours(masks_cp, mesh)
        walls_s.append(time.perf_counter() - wall_s)
        cpus_s.append(time.process_time() - cpu_s)
    if jax.process_index() == 0:
        np.save(Path(folder) / f"{jax.process_count()}.npy", values)
    print(json.dumps({"wall_s": statistics.median(walls_s), "cpu_s": statistics.median(cpus_s)}))


if __name__ == "__main__":
    _measure(*sys.argv[1:])
