"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

Audio = Annotated[Path, typer.Argument(metavar="AUDIO", help="Recording of speech: WAV, FLAC, MP3 or Ogg.")]
TRANSCRIPT_HELP = "What is said, or @FILE that holds it; auto: what the aligner hears."
Aligner = Annotated[str, typer.Option(metavar="NAME|FOLDER|HUB_ID", help="Acoustic model that finds the words.")]
Language = Annotated[str | None, typer.Option(help="Language of the transcript, if the aligner's letters do not say.")]
Rules = Annotated[str, typer.Option(help="How words get their edges: sgpa, or authors for the paper's own code.")]
Unspellable = Annotated[str, typer.Option(help="Words that cannot be spelled: error, merge or interpolate.")]
Channel = Annotated[str, typer.Option(help="mix averages the channels; 0, 1, … picks one.")]
