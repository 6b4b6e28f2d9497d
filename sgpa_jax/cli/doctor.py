"""`sgpa doctor`: is this installation whole? Versions, devices, the models that ship, and a known answer."""

import hashlib
from pathlib import Path

import numpy as np
import typer

from sgpa_jax.errors import CheckpointError
from sgpa_jax.versions import versions

_WEIGHTS = np.array([1.0, 2.0, 3.0], np.float32)


def doctor() -> None:
    """Show versions and devices, compare the models that ship with their digests, and compute a known answer."""
    for name, version in versions().items():
        typer.echo(f"{name:<20} {version}")
    for device in _devices():
        typer.echo(f"{'device':<20} {device}")
    damaged = _damaged_files()
    if damaged:
        raise CheckpointError(f"shipped files are missing or damaged: {', '.join(damaged)}; install sgpa-jax again")
    typer.echo(f"{'shipped models':<20} whole")
    error = _self_test()
    typer.echo(f"{'Shapley values':<20} of a known game, off by {error:.0e}")
    if error > 1e-5:
        raise typer.Exit(1)


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
