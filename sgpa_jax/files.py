"""Writing files so that nothing partial is ever left, to a temporary name that is then renamed, and nothing runs.

What a process that was killed could not clear away ends in `PARTIAL`, and is cleared away by whoever goes on.
"""

import contextlib
import fcntl
import os
import re
import shutil
import tempfile
import time
import zlib
from pathlib import Path

from sgpa_jax.errors import UsageError

PARTIAL = ".partial"
"""How the names of files and folders end that are not complete yet, but for what Orbax adds; they begin with a dot."""

_FORMULA = re.compile(r"'*[=+\-@\t\r]")


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
        descriptor, temporary = tempfile.mkstemp(PARTIAL, f".{path.name[:100]}.", path.parent)
        with os.fdopen(descriptor, "wb") as file:
            # Some file systems know no locks; there `sweep` must not be called while others write.
            with contextlib.suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.write(payload)
            file.flush()
            # Or a machine that dies may leave the new name on an empty file.
            os.fsync(file.fileno())
        # mkstemp makes private files; what we write is meant to be read like any other file of its owner.
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}; choose a folder that can be written to") from error
    finally:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)


def sweep(folder: Path) -> None:
    """Remove from a folder what killed processes left half written there; files that are being written stay."""
    for path in [*folder.glob(f".*{PARTIAL}*")]:
        if path.is_dir():
            remove_folder(path)
        elif not _is_being_written(path):
            path.unlink(missing_ok=True)


def remove_folder(folder: Path) -> None:
    """Remove a folder, if need be in several attempts: threads of a library that failed may still be writing to it."""
    for _ in range(50):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.1)
    raise UsageError(f"cannot write {folder.parent}: {folder.name} cannot be removed from it; remove it by hand")


def checksums(folder: Path) -> dict[str, list[int]]:
    """Return length and CRC of every file below a folder, by its path from there."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            crc = n_bytes = 0
            with path.open("rb") as file:
                while block := file.read(2**24):
                    crc, n_bytes = zlib.crc32(block, crc), n_bytes + len(block)
            found[path.relative_to(folder).as_posix()] = [n_bytes, crc]
    return found


def to_cell(text: str) -> str:
    """Return a text as a cell of a CSV file: behind an apostrophe where a spreadsheet would take it for a formula."""
    return f"'{text}" if _FORMULA.match(text) else text


def from_cell(cell: str) -> str:
    """Return the text that `to_cell` made a cell of."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def _is_being_written(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        pass
    return False
