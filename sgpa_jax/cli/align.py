"""`sgpa align`: when each word of a recording is said."""

from pathlib import Path
from typing import Annotated

import typer

import sgpa_jax
from sgpa_jax.cli.inputs import read_transcript
from sgpa_jax.cli.options import TRANSCRIPT_HELP, Aligner, Audio, Channel, Language, Rules, Unspellable


def align(
    audio: Audio,
    transcript: Annotated[str, typer.Option(metavar="TEXT|@FILE|auto", help=TRANSCRIPT_HELP)],
    aligner: Aligner = "pocket",
    language: Language = None,
    rules: Rules = "sgpa",
    unspellable: Unspellable = "error",
    channel: Channel = "mix",
    format: Annotated[str, typer.Option(help="json, textgrid, audacity or csv.")] = "json",
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="File to write; default: stdout.")] = None,
) -> None:
    """Find when each word of a recording is said."""
    from sgpa_jax.align import check_format, format_alignment

    check_format(format)
    words = read_transcript(transcript)
    clip = sgpa_jax.read_clip(audio, channel=channel)
    alignment = sgpa_jax.align(clip, words, aligner=aligner, rules=rules, unspellable=unspellable, language=language)
    for note in alignment.notes:
        typer.echo(f"note: {note}", err=True)
    if out is None:
        typer.echo(format_alignment(alignment, format), nl=False)
    else:
        sgpa_jax.write_alignment(alignment, out, format=format)
