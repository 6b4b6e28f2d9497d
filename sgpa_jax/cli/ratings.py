"""`sgpa concepts sheet` and `sgpa concepts ratings`: a sheet on which people rate concepts' names, and what it says."""

import json
from pathlib import Path
from typing import Annotated

import typer

from sgpa_jax.cli.options import Seed
from sgpa_jax.errors import UsageError


def sheet(
    banks: Annotated[
        list[str],
        typer.Argument(
            metavar="[SOURCE=]DIR...", help="Folders of named concepts; raters do not see which source is whose."
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for ratings.csv, and items.csv that tells sources.")],
    raters: Annotated[str, typer.Option(metavar="NAME,NAME...", help="Who rates; each gets all items.")],
    items: Annotated[int, typer.Option(min=1, help="Concepts of each source, drawn from those with a name.")] = 20,
    seed: Seed = 0,
) -> None:
    """Write a sheet for people to rate, from 1 to 5, how well names fit what they hear."""
    import jax

    from sgpa_jax import concepts as room

    found = {}
    for told in banks:
        source, folder = told.split("=", 1) if "=" in told else (Path(told).name, told)
        if source in found:
            raise UsageError(f"two sources are called {source!r}: tell them apart as SOURCE=DIR")
        found[source] = room.ConceptBank.load(folder)
    names = [name.strip() for name in raters.split(",") if name.strip()]
    path = room.write_sheet(found, out, raters=names, n_items=items, key=jax.random.key(seed))
    typer.echo(path)


def ratings(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of `sgpa concepts sheet`.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what a sheet that was filled in, in part or whole, comes to: mean, spread and raters' agreement."""
    from sgpa_jax import concepts as room

    found = room.read_ratings(folder)
    if as_json:
        typer.echo(json.dumps({source: part.to_dict() for source, part in found.items()}))
        return
    for source, part in found.items():
        typer.echo(
            f"{source}: {part.mean:.2f} ± {part.sd:.2f}, alpha {part.alpha:.2f}; {part.n_ratings} ratings of "
            f"{part.n_items} items by {part.n_raters} raters"
        )
