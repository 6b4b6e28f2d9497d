"""A study from end to end: the manifest is read, models are loaded, records are made, and everything is written."""

from collections.abc import Callable, Sequence
from pathlib import Path

import sgpa_checkpoints

from sgpa_jax.models import load_aligner, load_model
from sgpa_jax.study.corpus import read_corpus
from sgpa_jax.study.heard import HeardOnce
from sgpa_jax.study.parity import parity_table
from sgpa_jax.study.records import Record, RecordFolder
from sgpa_jax.study.references import reference_corpus
from sgpa_jax.study.run import alignment_part, model_part, run_parts
from sgpa_jax.study.settings import Settings
from sgpa_jax.study.write import about, write_study

RECORDS, CORPUS = "records", "corpus"


def shipped_corpus() -> Path:
    """Return the manifest of the small corpus that ships."""
    return Path(sgpa_checkpoints.__file__).parent / "study_corpus" / "manifest.jsonl"


def study_corpus(
    manifest: str | Path,
    models: Sequence[str | Path],
    out: str | Path,
    *,
    aligner: str | Path = "pocket",
    dtype: str | None = None,
    authors_data: str | Path | None = None,
    limit: int | None = None,
    settings: Settings | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Record], list[Path]]:
    """Study a corpus under some models and write what was found.

    Args:
        manifest: see `read_corpus`; or a folder of a reference corpus such as TIMIT, see `reference_corpus`.
        models: shipped names, folders or hub ids, whose names differ.
        out: gets the folder `records`, from which a stopped study goes on, the tables (`tables.md`, `tables.json`,
            `tables/*.csv`), `figures/*.png`, and `index.html`.
        aligner: hears the words, a shipped name, a folder or a hub id.
        dtype: of the models, see `load_model`.
        authors_data: a folder of the authors' recordings with their segments, see `parity_table`.
        limit: of the manifest's rows, only the first so many.
        settings: what is computed.
        progress: called with (records there, records in all).

    Returns:
        The records of what failed, and the files that were written.

    Raises:
        SgpaError: the manifest, a model or the folder cannot be used.
    """
    settings = Settings() if settings is None else settings
    out = Path(out)
    manifest = Path(manifest)
    if manifest.is_dir():
        manifest = reference_corpus(manifest, out / CORPUS)
    items = read_corpus(manifest)[:limit]
    hears = HeardOnce(load_aligner(aligner))
    loaded = [load_model(model, dtype=dtype) for model in models]
    parts = [alignment_part(hears), *(model_part(model, hears, settings) for model in loaded)]
    records = run_parts(items, parts, hears, RecordFolder(out / RECORDS), progress)
    told = about(manifest, len(items), loaded, hears, settings)
    more = () if authors_data is None else [parity_table(authors_data, hears)]
    failed = [record for record in records if record.error is not None]
    return failed, write_study(out, records, told, settings.seed, more)
