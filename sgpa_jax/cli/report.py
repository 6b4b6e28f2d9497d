"""`sgpa report`: the page of an explanation that was saved."""

from pathlib import Path
from typing import Annotated

import typer

import sgpa_jax
from sgpa_jax.cli.inputs import with_recording
from sgpa_jax.cli.options import Channel


def report(
    explanation: Annotated[Path, typer.Argument(metavar="X.json", help="Explanation that was saved.")],
    out: Annotated[Path, typer.Option(metavar="X.html", help="Page to write.")],
    audio: Annotated[
        Path | None, typer.Option(metavar="AUDIO", help="Its recording; default: the file it was made from.")
    ] = None,
    channel: Channel = "mix",
) -> None:
    """Make the page to look at and listen to from a saved explanation and its recording."""
    with_recording(sgpa_jax.Explanation.load(explanation), audio, channel).to_html(out)
    typer.echo(out)
