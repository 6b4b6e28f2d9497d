"""Writing files so that nothing partial is ever left: to a temporary name in the same folder, then renamed."""

import os
import tempfile
from pathlib import Path

from sgpa_jax.errors import UsageError


def atomic_write(path: str | os.PathLike[str], data: bytes | str) -> None:
    """Write `data` to `path` (text as UTF-8), creating missing folders; the old file stays whole until the new one is.

    Raises:
        UsageError: the folder cannot be made or written to.
    """
    path = Path(path)
    payload = data.encode("utf-8") if isinstance(data, str) else data
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(descriptor, "wb") as file:
            file.write(payload)
        # mkstemp makes private files; what we write is meant to be read like any other file of its owner.
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}; choose a folder that can be written to") from error
    finally:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)
