"""Where a manifest's files may lie: in its own folder, however they are spelled and whatever links lead there."""

import os
from pathlib import Path

from sgpa_jax.errors import UsageError


def locate(name: str, folder: Path, *, allow_outside: bool = False) -> Path:
    """Return where a file is that a manifest names, from the manifest's folder on; it need not be there.

    Args:
        name: as the manifest spells it.
        folder: the manifest's.
        allow_outside: whether it may be absolute, or lead out of the folder.

    Raises:
        UsageError: it may not.
    """
    path = folder / name
    if allow_outside:
        return path
    if os.path.isabs(name) or not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
        raise UsageError(
            f"{name!r} lies outside of {folder}, where a manifest's files have to be; move it there, or say that it "
            "may be read (--allow-outside)"
        )
    return path
