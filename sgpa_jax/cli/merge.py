"""`sgpa merge`: one folder out of the shards of a data set's run."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sgpa_jax.batch import Standing


def merge(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Folders that sgpa batch --shard wrote.")],
    out: Annotated[Path, typer.Option(metavar="OUT", help="Folder for all of their tables; what it holds stays.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print nothing but JSON.")] = False,
) -> None:
    """Join the shards of one run, and say which bundles are missing; the exit code is 3 while any is."""
    from sgpa_jax.batch import merge as merged

    found = merged(folders, out)
    show_data_set(found, out, as_json=as_json)
    if found.missing:
        raise typer.Exit(3)


def show_data_set(found: "Standing", out: Path, *, as_json: bool) -> None:
    """Write the page of a data set, and print how far that is and where the page lies."""
    from sgpa_jax.batch import write_page

    path = write_page(out)
    if as_json:
        typer.echo(json.dumps({**found._asdict(), "page": str(path)}))
        return
    typer.echo(f"{found.bundles - len(found.missing):,} of {found.bundles:,} bundles, {found.items:,} items")
    if found.failed:
        typer.echo(f"failed: {found.failed:,} items, each with its reason in the table of items", err=True)
    if found.missing:
        typer.echo(f"missing: bundles {_spans(found.missing)}; run their shards again, and merge", err=True)
    typer.echo(path)


def _spans(numbers: tuple[int, ...]) -> str:
    """Say which numbers those are in ascending order: "3, 7–9"."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][-1] + 1:
            spans[-1][1:] = [number]
        else:
            spans.append([number])
    return ", ".join("–".join(map(str, span)) for span in spans)
