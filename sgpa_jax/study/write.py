"""The files of a study: tables in three formats, figures, and one page that holds all of it."""

import os
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax

from sgpa_jax.files import atomic_write
from sgpa_jax.models import Model
from sgpa_jax.study.figures import study_figures
from sgpa_jax.study.heard import HeardOnce
from sgpa_jax.study.page import page
from sgpa_jax.study.records import ALIGNMENT, Record
from sgpa_jax.study.settings import Settings
from sgpa_jax.study.summaries import grouped
from sgpa_jax.study.table import Table, as_json
from sgpa_jax.study.tables import study_tables
from sgpa_jax.versions import versions

SCHEMA = "sgpa-jax/study/1"


def about(
    manifest: Path, n_items: int, models: Sequence[Model], aligner: HeardOnce, settings: Settings
) -> dict[str, Any]:
    """Return what the tables were made from, and by what: enough to make them again."""
    device = jax.devices()[0]
    return {
        "schema": SCHEMA,
        "command": shlex.join(["sgpa", *sys.argv[1:]]),
        "corpus": manifest.parent.name + "/" + manifest.name,
        "items": n_items,
        "models": [{"name": model.name, "digest": model.digest, "dtype": model.dtype} for model in models],
        "aligner": {"name": aligner.name, "digest": aligner.digest},
        "settings": asdict(settings),
        "hardware": f"{os.cpu_count()} cores ({_processor()}), {device.platform} {device.device_kind}",
        "versions": versions(),
    }


def write_study(
    out: Path, records: Sequence[Record], told: Mapping[str, Any], seed: int, more: Sequence[Table] = ()
) -> list[Path]:
    """Write everything that records tell, and `more` tables, and return the paths.

    Raises:
        UsageError: the folder cannot be written to.
    """
    tables = [*study_tables(records, seed), *more]
    figures = study_figures(grouped(record for record in records if record.subject != ALIGNMENT))
    written = {f"tables/{table.name}.csv": table.csv() for table in tables}
    written["tables.md"] = _head(told) + "\n".join(table.markdown() for table in tables)
    written["tables.json"] = as_json(tables, told)
    written["index.html"] = page(tables, figures, told)
    pictures = {f"figures/{name}.png": png for name, (_, png) in figures.items()}
    paths = []
    for name, content in {**pictures, **written}.items():
        atomic_write(out / name, content)
        paths.append(out / name)
    return paths


def _head(told: Mapping[str, Any]) -> str:
    models = ", ".join(f"{model['name']} ({model['digest'][:12]}, {model['dtype']})" for model in told["models"])
    lines = [
        "# Study",
        "",
        f"- Command: `{told['command']}`",
        f"- Corpus: {told['corpus']}, {told['items']} items; seed {told['settings']['seed']}",
        f"- Models: {models}; aligner {told['aligner']['name']} ({told['aligner']['digest'][:12]})",
        f"- Hardware: {told['hardware']}",
        f"- Software: {', '.join(f'{name} {version}' for name, version in told['versions'].items())}",
        "",
    ]
    return "\n".join(lines) + "\n"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
