"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

Audio = Annotated[Path, typer.Argument(metavar="AUDIO", help="Recording of speech: WAV, FLAC, MP3 or Ogg.")]
Transcript = Annotated[str | None, typer.Option(metavar="TEXT|@FILE", help="What is said, or @FILE that holds it.")]
Aligner = Annotated[str, typer.Option(metavar="NAME|FOLDER", help="Acoustic model that finds the words.")]
Rules = Annotated[str, typer.Option(help="How words get their edges: sgpa, or authors for the paper's own code.")]
Unspellable = Annotated[str, typer.Option(help="Words that cannot be spelled: error, merge or interpolate.")]
Channel = Annotated[str, typer.Option(help="mix averages the channels; 0, 1, … picks one.")]
