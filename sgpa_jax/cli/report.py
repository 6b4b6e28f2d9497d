"""`sgpa report`: the page of an explanation that was saved."""

from pathlib import Path
from typing import Annotated

import typer

import sgpa_jax
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
    loaded = sgpa_jax.Explanation.load(explanation)
    source = audio or Path(loaded.clip.path or "")
    if audio is None and not source.is_file():
        typer.echo("note: the recording is not where it was, so the page is silent: give it with --audio", err=True)
    else:
        loaded = loaded.with_wave(sgpa_jax.read_clip(source, channel=channel))
    loaded.to_html(out)
    typer.echo(out)
