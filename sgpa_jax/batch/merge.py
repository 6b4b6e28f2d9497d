"""Joining the shards of one run, which were computed in several folders, into one."""

import json
from collections.abc import Sequence
from pathlib import Path

from sgpa_jax.batch.tables import RUN, Standing, finished_bundles, read_run, share_parts, standing
from sgpa_jax.errors import UsageError
from sgpa_jax.files import atomic_write


def merge(folders: Sequence[Path], out: Path) -> Standing:
    """Put the finished bundles of several folders of one run into `out`, and return how far it is then.

    Files are shared and not copied where the disk allows it. What `out` holds already stays, so that shards may be
    joined one after the other; nothing is written before everything was looked at.

    Raises:
        UsageError: a folder holds no run, or another one than the first; a part is damaged; or `out` cannot be
            written to.
    """
    if not folders:
        raise UsageError("there is nothing to merge: expected the folders of a run's shards")
    held = [Path(out)] if (Path(out) / RUN).exists() else []
    sources = [*held, *(Path(folder) for folder in folders)]
    runs = [read_run(folder) for folder in sources]
    for folder, run in zip(sources, runs, strict=True):
        if (run["key"], run["bundles"]) != (runs[0]["key"], runs[0]["bundles"]):
            raise UsageError(
                f"{folder} is of another run than {sources[0]}: expected shards of one manifest, model and settings"
            )
    found: dict[int, Path] = {}
    for folder in sources:
        for bundle in finished_bundles(folder):
            found.setdefault(bundle, folder)
    atomic_write(Path(out) / RUN, json.dumps(runs[0], indent=1, ensure_ascii=False) + "\n")
    for bundle, folder in sorted(found.items()):
        if folder not in held:
            share_parts(folder, Path(out), bundle)
    return standing(out)
