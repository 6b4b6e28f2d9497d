"""`sgpa doctor`: is this installation whole, and would a checkpoint load on this machine?

Without `--model`: versions, devices, the models that ship, and a known answer. With it: whether its tensors fit its
configuration, and the memory that it needs, by headers alone.
"""

import hashlib
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from sgpa_jax.errors import CheckpointError, UsageError
from sgpa_jax.versions import versions

_WEIGHTS = np.array([1.0, 2.0, 3.0], np.float32)


def doctor(
    model: Annotated[
        str | None, typer.Option(metavar="NAME|FOLDER|HUB_ID", help="A checkpoint to judge by its headers.")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="The hub's branch, tag or commit.")] = None,
) -> None:
    """Check this installation, or with --model whether a checkpoint would load on this machine."""
    if model is not None:
        _judge(model, revision)
        return
    if revision is not None:
        raise UsageError("--revision belongs to a model of the hub; give it with --model ORGANISATION/NAME")
    for name, version in versions().items():
        _tell(name, version)
    for device in _devices():
        _tell("device", device)
    damaged = _damaged_files()
    if damaged:
        raise CheckpointError(f"shipped files are missing or damaged: {', '.join(damaged)}; install sgpa-jax again")
    _tell("shipped models", "whole")
    error = _self_test()
    _tell("Shapley values", f"of a known game, off by {error:.0e}")
    if error > 1e-5:
        raise typer.Exit(1)


def _judge(model: str, revision: str | None) -> None:
    """Tell what is known of a checkpoint, every problem on a line of its own."""
    from sgpa_jax.models import survey_model

    found = survey_model(model, revision=revision)
    _tell("checkpoint", f"{found.name} ({found.architecture})")
    _tell("parameters", f"{found.n_parameters / 1e6:,.1f} million, stored in {_size(found.stored_bytes)}")
    _tell("memory here", found.memory)
    for dtype, n_bytes in found.weight_bytes.items():
        mesh = found.meshes[dtype]
        fits = f"fits on the mesh {mesh}" if mesh else "does not fit on these devices"
        _tell(dtype, f"weights take {_size(n_bytes)}: {fits} (a tenth is left for activations)")
    for problem in found.problems:
        _tell("problem", problem)
    if found.problems:
        places = "1 place" if len(found.problems) == 1 else f"{len(found.problems)} places"
        raise CheckpointError(f"{found.name} would not load: it does not fit in {places}, each told above")
    _tell("tensors", "all fit the configuration")


def _tell(name: str, what: str) -> None:
    typer.echo(f"{name:<20} {what}")


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.2f} GB" if n_bytes >= 1e8 else f"{n_bytes / 1e6:.1f} MB"


def _devices() -> list[str]:
    import jax

    return [f"{device.platform} {device.id}: {device.device_kind}" for device in jax.local_devices()]


def _damaged_files() -> list[str]:
    """Names of shipped files whose sha256 is not the manifest's."""
    from sgpa_checkpoints import manifest, shipped_folder

    return [
        f"{name}/{file}"
        for name, told in manifest()["folders"].items()
        for file, sha256 in told["files"].items()
        if _sha256(shipped_folder(name) / file) != sha256
    ]


def _sha256(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def _self_test() -> float:
    """Largest error, on this machine's device, for a game whose values are known: wᵢ Σw for v = (Σw)²."""
    from sgpa_kernels import exact_shapley

    from sgpa_jax.players import all_coalitions

    worth = (all_coalitions(len(_WEIGHTS)) @ _WEIGHTS) ** 2
    return float(np.abs(np.asarray(exact_shapley(worth)) - _WEIGHTS * _WEIGHTS.sum()).max())
