"""The engine `ray`: bundles of a data set run by a pool of Ray Data actors, each of which holds a replica of the model.

An actor takes one bundle after another and writes its tables itself, so that nothing but a bundle's number travels.
Ray starts an actor that died anew and gives its bundle to another; what is finished already is skipped there, as it is
in any run that goes on. A cluster is joined where `RAY_ADDRESS` names one or the caller has called `ray.init`; else one
is started on this machine and stopped at the end, without dashboard and without telling Ray's makers.
"""

import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np

from sgpa_jax.errors import SgpaError, UsageError

_STORE_BYTES, _RETRIES = 2**27, 3
"""Ray's shared memory on this machine, where numbers of bundles lie alone; how often one is tried again elsewhere."""


class Worker(Protocol):
    """What runs bundles in an actor, with a model that is loaded once."""

    def run(self, bundle: int) -> int:
        """Run a bundle and write its tables, unless that is done already; return how many items it has."""
        ...


def run_on_actors(
    worker: Callable[[], Worker],
    bundles: Sequence[int],
    *,
    actors: int | None = None,
    devices: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Run bundles on as many actors as the cluster has room for.

    Args:
        worker: called once in every actor; it is pickled, so that it names files and settings and holds no model.
        bundles: their numbers.
        actors: how many; None: one, and more where the cluster has room or makes it.
        devices: accelerators of an actor, which count as Ray counts GPUs, or TPU chips; a processor's core where the
            cluster has neither.
        progress: called with (bundle, its items) for every bundle that ends.

    Raises:
        UsageError: Ray is not installed, or cannot be reached.
        SgpaError: what a worker raised; its other bundles may have been run or not.
    """
    if not bundles:
        return
    ray = _ray()
    with _cluster(ray):
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        # A bundle is long: none waits at one actor while another is idle.
        sizes = {"size": actors} if actors else {"min_size": 1}
        pool = ray.data.ActorPoolStrategy(**sizes, max_tasks_in_flight_per_actor=1)
        numbers = ray.data.from_items([{"bundle": bundle} for bundle in bundles], override_num_blocks=len(bundles))
        with warnings.catch_warnings():
            # Ray tells of another way to come for the number of retries, which it does not offer yet.
            warnings.simplefilter("ignore", DeprecationWarning)
            ran = numbers.map_batches(
                _Actor, fn_constructor_args=(worker,), batch_size=1, compute=pool, max_task_retries=_RETRIES,
                **_room(ray.cluster_resources(), devices),
            )  # fmt: skip
        try:
            for row in ran.iter_rows():
                if row["error"]:
                    raise SgpaError(row["error"])
                if progress is not None:
                    progress(int(row["bundle"]), int(row["items"]))
        except ray.exceptions.RayActorError as error:
            raise UsageError(
                f"a bundle's actor died {1 + _RETRIES} times, as it does without memory for the model: take fewer "
                "actors, or see Ray's logs"
            ) from error


class _Actor:
    """What Ray Data keeps in an actor. Errors of ours travel as text: Ray would wrap them, or try again."""

    def __init__(self, worker: Callable[[], Worker]) -> None:
        try:
            self._worker = worker()
        except SgpaError as error:
            self._worker = _Refusing(error)

    def __call__(self, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        (bundle,) = batch["bundle"].tolist()
        items, error = 0, ""
        try:
            items = self._worker.run(bundle)
        except SgpaError as raised:
            error = str(raised)
        return {"bundle": np.array([bundle]), "items": np.array([items]), "error": np.array([error])}


class _Refusing:
    """A worker that could not be made."""

    def __init__(self, error: SgpaError) -> None:
        self._error = error

    def run(self, bundle: int) -> int:
        raise self._error


def _ray() -> Any:
    # Ray asks for this before it counts its users, when it is imported.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise UsageError("the engine 'ray' needs Ray: pip install 'sgpa-jax[ray]', or choose 'local'") from error
    return ray


@contextmanager
def _cluster(ray: Any) -> Iterator[None]:
    """Be in a cluster; one that was started for this is stopped."""
    if ray.is_initialized():
        yield
        return
    own = {} if "RAY_ADDRESS" in os.environ else {"include_dashboard": False, "object_store_memory": _STORE_BYTES}
    try:
        ray.init(log_to_driver=False, **own)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UsageError(f"no Ray cluster can be reached or started: {str(error).partition(chr(10))[0]}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _room(cluster: Mapping[str, float], devices: int) -> dict[str, Any]:
    """What an actor takes of a cluster."""
    if cluster.get("GPU"):
        return {"num_gpus": devices}
    if cluster.get("TPU"):
        return {"resources": {"TPU": devices}}
    return {"num_cpus": 1}
