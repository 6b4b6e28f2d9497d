"""The checkpoints that ship in this package, each an ordinary folder, and the manifest that says how good they are."""

import hashlib
from pathlib import Path
from typing import Any

from sgpa_checkpoints.folder import FormatError, read_json

_HERE = Path(__file__).parent


def shipped_names() -> tuple[str, ...]:
    """Names of the shipped folders."""
    return tuple(sorted(manifest()["folders"]))


def shipped_folder(name: str) -> Path:
    """Return the path of a shipped folder.

    Raises:
        FormatError: nothing of that name ships.
    """
    if name not in shipped_names():
        raise FormatError(f"no checkpoint called {name!r} ships; expected one of {', '.join(shipped_names())}")
    return _HERE / name


def manifest() -> dict[str, Any]:
    """Read the manifest: per folder its files' sha256, seed, data recipe and measured quality."""
    return read_json(_HERE / "manifest.json")


def folder_digest(folder: Path) -> str:
    """Return a sha256 over the names and contents of the files of a model folder that decide its outputs."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.suffix in {".json", ".safetensors", ".gz", ".jinja"}:
            digest.update(path.name.encode())
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
