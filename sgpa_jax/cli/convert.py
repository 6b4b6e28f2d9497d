"""`sgpa convert`: a checkpoint's parameters laid out once, in a folder that loads like any other."""

from pathlib import Path
from typing import Annotated

import typer


def convert(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="Folder with safetensors weights, or a hub id.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write.")],
    dtype: Annotated[str | None, typer.Option(help="bfloat16 or float32; default: what it loads in.")] = None,
    revision: Annotated[str | None, typer.Option(help="The hub's branch, tag or commit.")] = None,
) -> None:
    """Convert a checkpoint to our own layout."""
    from sgpa_jax.models import convert_model

    typer.echo(convert_model(folder, out, revision=revision, dtype=dtype))
