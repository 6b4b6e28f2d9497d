"""One run on the devices of several processes: finding the others, joining them, and agreeing with them.

Every process runs the same plan on one mesh, whose devices belong to all of them, and process 0 alone writes. What
tells a process that it is one of several stands in its environment, and nothing else is asked:

| launcher | how it is known |
|---|---|
| `variables` | `JAX_COORDINATOR_ADDRESS`, `JAX_NUM_PROCESSES` above 1 and `JAX_PROCESS_ID` |
| `slurm` | a step of several tasks: `srun` set `SLURM_STEP_NODELIST` and `SLURM_STEP_NUM_TASKS` above 1 |
| `tpu` | JAX found TPU chips, and several hosts are named, or a Cloud TPU VM's metadata server is to be asked |
| `kubernetes` | a pod of an indexed Job: `KUBERNETES_SERVICE_HOST` and `JOB_COMPLETION_INDEX` |

A laptop has none of these. `JAX_NUM_PROCESSES=1` keeps a process to itself anywhere.
"""

import hashlib
import os
from collections.abc import Mapping

import jax
import numpy as np
from jax.experimental.multihost_utils import process_allgather

from sgpa_jax.errors import UsageError

_DETECTED_AS = {"slurm": "slurm", "kubernetes": "k8s", "tpu": None}
"""By what JAX finds the coordinator of a launcher; None: by what it finds itself."""

_LEAVING_S = 30
"""How long a process that ends waits for the others, which may be stuck where one of them failed."""


def join() -> bool:
    """Join the other processes of this run before anything runs on JAX; return whether there are any.

    Nothing happens where there are none, or where `jax.distributed` is initialised already.

    Raises:
        UsageError: the variables are incomplete, the others do not answer, or JAX has looked for devices already.
    """
    if jax.distributed.is_initialized():
        return jax.process_count() > 1
    found = launcher(os.environ, jax.config.jax_platforms or "")  # pyright: ignore[reportAttributeAccessIssue]
    if found is None:
        return False
    settings: dict[str, object] = {"cluster_detection_method": _DETECTED_AS.get(found)}
    if found == "variables":
        settings = {**_from_variables(os.environ), "cluster_detection_method": "deactivate"}
    try:
        jax.distributed.initialize(**settings, shutdown_timeout_seconds=_LEAVING_S)  # pyright: ignore[reportArgumentType]
    except (RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise UsageError(
            f"this process is one of several ({found}) but cannot join the others: {reason.rstrip('.')}; "
            "start them together before JAX is used, or set JAX_NUM_PROCESSES=1 to run it alone"
        ) from error
    return jax.process_count() > 1


def launcher(environment: Mapping[str, str], platforms: str) -> str | None:
    """Return what started this process as one of several, as the environment tells; None: nothing did.

    `platforms` is what `jax.config.jax_platforms` holds: `tpu` stands there where chips and libtpu were found.
    """
    if environment.get("JAX_NUM_PROCESSES") == "1":
        return None
    if "JAX_COORDINATOR_ADDRESS" in environment:
        return "variables"
    # The tasks of the step and not of the job: a shell within an allocation is no step of several.
    if "SLURM_STEP_NODELIST" in environment and _count(environment, "SLURM_STEP_NUM_TASKS") > 1:
        return "slurm"
    if "tpu" in platforms.split(","):
        hosts = environment.get("TPU_PROCESS_ADDRESSES") or environment.get("TPU_WORKER_HOSTNAMES")
        several = "," in hosts if hosts is not None else "TPU_SKIP_MDS_QUERY" not in environment
        return "tpu" if several or _count(environment, "MEGASCALE_NUM_SLICES") > 1 else None
    if "KUBERNETES_SERVICE_HOST" in environment and "JOB_COMPLETION_INDEX" in environment:
        return "kubernetes"
    return None


def is_first() -> bool:
    """Whether this is the process that writes and speaks for all of them."""
    return jax.process_index() == 0


def agree(subject: str, said: str) -> None:
    """Compare what every process says, and go on where all say the same; one process always agrees with itself.

    Processes that differ in what they are about to run would wait for each other for ever.

    Raises:
        UsageError: they differ; in every process.
    """
    if jax.process_count() == 1:
        return
    digest = np.frombuffer(hashlib.sha256(said.encode()).digest(), np.uint8)
    digests = np.asarray(process_allgather(digest))
    others = np.flatnonzero((digests != digests[:1]).any(axis=1)).tolist()
    if others:
        raise UsageError(
            f"the processes of this run differ in {subject}: {others} from process 0; give all of them the same "
            "arguments, and files that all of them see"
        )


def _from_variables(environment: Mapping[str, str]) -> dict[str, object]:
    index, count = (environment.get(name, "") for name in ("JAX_PROCESS_ID", "JAX_NUM_PROCESSES"))
    if not (index.isascii() and index.isdigit() and count.isascii() and count.isdigit() and int(index) < int(count)):
        raise UsageError(
            f"JAX_COORDINATOR_ADDRESS is set with JAX_PROCESS_ID={index!r} and JAX_NUM_PROCESSES={count!r}: expected "
            "how many processes there are, and this one's number from 0; set all three, or none"
        )
    address = environment["JAX_COORDINATOR_ADDRESS"]
    return {"coordinator_address": address, "num_processes": int(count), "process_id": int(index)}


def _count(environment: Mapping[str, str], name: str) -> int:
    value = environment.get(name, "")
    return int(value) if value.isascii() and value.isdigit() else 1
