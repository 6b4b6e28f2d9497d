"""`sgpa study`: a corpus and some models in; tables, figures and one page out, every number with its n."""

from pathlib import Path
from typing import Annotated

import typer

from sgpa_jax.cli.options import Aligner, Dtype, Seed
from sgpa_jax.cli.progress import progress_bar
from sgpa_jax.errors import UsageError


def study(
    manifest: Annotated[
        Path | None,
        typer.Argument(
            metavar="MANIFEST",
            help="JSON lines or CSV: audio, transcript, and what else is known; or a folder such as TIMIT's.",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for records, tables, figures and the page.")] = Path(
        "study"
    ),
    demo: Annotated[bool, typer.Option("--demo", help="Study the small corpus that ships.")] = False,
    model: Annotated[
        list[str] | None, typer.Option(metavar="NAME|FOLDER|HUB_ID", help="Audio language model; may be repeated.")
    ] = None,
    aligner: Aligner = "pocket",
    dtype: Dtype = None,
    authors_data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The authors' recordings with their segments: are ours the same?"),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the manifest's first so many rows.")] = None,
    budget: Annotated[int, typer.Option(min=32, help="Coalitions for a cut; exact where all fit.")] = 512,
    share: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the items that also get the dear measures.")
    ] = 0.25,
    seed: Seed = 0,
) -> None:
    """Measure a corpus under one or more models: alignment, concentration, profiles, faithfulness, sensitivity.

    One record an item and model is kept in DIR/records: a stopped study goes on from there and ends with the same
    tables. An item that fails is told with its reason, and the exit code is then 3.
    """
    from sgpa_jax.study import Settings, shipped_corpus, study_corpus

    if demo == (manifest is not None):
        raise UsageError("expected either a MANIFEST, or --demo to study the small corpus that ships")
    settings = Settings(budget=budget, close_share=share, seed=seed)
    with progress_bar("records") as progress:
        failed, paths = study_corpus(
            manifest or shipped_corpus(),
            model or ["pocket", "pocket-lfm2"],
            out,
            aligner=aligner,
            dtype=dtype,
            authors_data=authors_data,
            limit=limit,
            settings=settings,
            progress=progress,
        )
    for path in paths:
        typer.echo(path)
    for record in failed:
        typer.echo(f"failed: {record.item} ({record.subject}): {record.error}", err=True)
    if failed:
        raise typer.Exit(3)
