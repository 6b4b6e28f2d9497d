"""What the benchmarks share: arguments, what they ran on, timing that is fair to both sides, a table and a JSON file.

The file is `{"benchmark", "hardware", "versions", "seed", "rows"}`, and `"notes"` where a benchmark has to say
something about the whole. A comparison is a row with `case`, `peer`, `ours_s`, `peer_s` and `ratio` (above 1: we are
faster).
"""

import argparse
import json
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.table import Table

from sgpa_jax.files import atomic_write
from sgpa_jax.versions import versions

Row = Mapping[str, object]
_PEERS = ("torch", "transformers", "shapiq", "pocketsphinx")


@dataclass(frozen=True)
class Timing:
    """Seconds of a call: the first one (compilation included), then medians, and what the last one returned."""

    first_s: float
    wall_s: float
    cpu_s: float
    returned: Any


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return the arguments that every benchmark has; `description` is the script's docstring."""
    options = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    options.add_argument("--json", type=Path, metavar="FILE", help="also write the results to this file")
    options.add_argument("--quick", action="store_true", help="fewer repetitions: about a minute on two cores")
    options.add_argument("--seed", type=int, default=0, help="decides every random draw (default: 0)")
    return options


def alternate(calls: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, Timing]:
    """Time `calls` against each other: each once to compile, then `repeats` rounds in which they take turns."""
    first_s = {}
    for name, call in calls.items():
        first_s[name], _, _ = _timed(call)
    measured: dict[str, list[tuple[float, float, Any]]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            measured[name].append(_timed(call))
    return {
        name: Timing(
            first_s[name],
            statistics.median(wall_s for wall_s, _, _ in rounds),
            statistics.median(cpu_s for _, cpu_s, _ in rounds),
            rounds[-1][2],
        )
        for name, rounds in measured.items()
    }


def comparison(case: str, peer_name: str, ours: Timing, peer: Timing, max_abs_diff: float) -> dict[str, object]:
    """Return the row that compares our `Timing` with a peer's; `max_abs_diff` is between the values of the two."""
    return {
        "case": case,
        "peer": peer_name,
        "ours_s": ours.wall_s,
        "peer_s": peer.wall_s,
        "ratio": peer.wall_s / ours.wall_s,
        "ours_cpu_s": ours.cpu_s,
        "peer_cpu_s": peer.cpu_s,
        "ours_first_s": ours.first_s,
        "peer_first_s": peer.first_s,
        "max_abs_diff": max_abs_diff,
    }


def report(
    benchmark: str,
    rows: Sequence[Row],
    arguments: argparse.Namespace,
    notes: Mapping[str, object] | None = None,
    columns: Sequence[str] | None = None,
) -> None:
    """Print the rows as a table and write them to `--json`, if given; a number that is not finite becomes null.

    The table has `columns`, by default all that occur; the file has all in any case.
    """
    machine = hardware()
    # Without a terminal rich would fold the table into 80 columns.
    console = Console(width=None if sys.stdout.isatty() else 200)
    console.print(_table(benchmark, rows, columns))
    for name, note in (notes or {}).items():
        console.print(f"{name}: {note}", markup=False, highlight=False)
    console.print(f"{machine['cpu']}, {machine['cores']} cores, load {machine['load_average']}; seed {arguments.seed}")
    if arguments.json is None:
        return
    found = {
        "benchmark": benchmark,
        "hardware": machine,
        "versions": versions() | _peer_versions(),
        "seed": arguments.seed,
        "rows": rows,
    }
    if notes:
        found["notes"] = notes
    atomic_write(arguments.json, json.dumps(_plain(found), indent=1, allow_nan=False) + "\n")


def hardware() -> dict[str, object]:
    """Return what this runs on, and how busy it is with other things (runnable processes over the last minute)."""
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": platform.platform(),
        "devices": [device.device_kind for device in jax.devices()],
        "load_average": round(os.getloadavg()[0], 1),
    }


def _timed(call: Callable[[], Any]) -> tuple[float, float, Any]:
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    returned = jax.block_until_ready(call())
    return time.perf_counter() - wall_s, time.process_time() - cpu_s, returned


def _cpu() -> str:
    names = Path("/proc/cpuinfo")
    lines = names.read_text().splitlines() if names.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _peer_versions() -> dict[str, str]:
    found = {}
    for name in _PEERS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def _table(title: str, rows: Sequence[Row], shown: Sequence[str] | None) -> Table:
    table = Table(title=title)
    found = dict.fromkeys(name for row in rows for name in row)
    columns = [name for name in shown or found if name in found]
    for name in columns:
        numeric = all(isinstance(row.get(name, 0), int | float) for row in rows)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_shown(row.get(name, "")) for name in columns))
    return table


def _shown(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
