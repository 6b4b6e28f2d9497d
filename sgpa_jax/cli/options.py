"""Options that several commands share."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

Audio = Annotated[Path, typer.Argument(metavar="AUDIO", help="Recording of speech: WAV, FLAC, MP3 or Ogg.")]
TRANSCRIPT_HELP = "What is said, or @FILE that holds it; auto: what the aligner hears."
Aligner = Annotated[str, typer.Option(metavar="NAME|FOLDER|HUB_ID", help="Acoustic model that finds the words.")]
Language = Annotated[str | None, typer.Option(help="Language of the transcript, if the aligner's letters do not say.")]
Rules = Annotated[str, typer.Option(help="How words get their edges: sgpa, or authors for the paper's own code.")]
Unspellable = Annotated[str, typer.Option(help="Words that cannot be spelled: error, merge or interpolate.")]
Channel = Annotated[str, typer.Option(help="mix averages the channels; 0, 1, … picks one.")]
Estimand = Annotated[str, typer.Option(help="What the values are: shapley, banzhaf, or owen (within --groups).")]
Groups = Annotated[str | None, typer.Option(help="Groups of players for owen: phrases, modality or turns.")]
EstimatorName = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="auto, exact, permutation, kernelshap, leverage, svarm, complementary, neyman, unbiased_kernelshap, "
        "gaussian or proxy.",
    ),
]


System = Annotated[str | None, typer.Option(metavar="TEXT", help="System turn, if not the model's own.")]
ModelName = Annotated[str, typer.Option(metavar="NAME|FOLDER|HUB_ID", help="Audio language model to explain.")]
Revision = Annotated[str | None, typer.Option(help="The hub's branch, tag or commit of the model.")]
Dtype = Annotated[
    str | None, typer.Option(help="float32 or bfloat16; else float32 for what ships, bfloat16 for others.")
]
MeshText = Annotated[
    str | None, typer.Option(metavar="data=N,model=M", help="Devices: N groups share coalitions, M the weights.")
]
PlayersKind = Annotated[
    str,
    typer.Option(
        metavar="KIND",
        help="Who plays: words, speech (without sounds), phrases, energy, native, windows:0.5 (seconds), or none.",
    ),
]
TextPlayers = Annotated[str, typer.Option(help="The question's text as players beside them: words, tokens or none.")]
Absence = Annotated[
    str,
    typer.Option(
        help="How a word is absent: silence, noise, delete, mel_delete, embedding, attention, drop, drop_keep."
    ),
]
TextAbsence = Annotated[
    str, typer.Option(help="How text is absent: attention, drop, drop_keep, or replace by a neutral token.")
]
Baseline = Annotated[str, typer.Option(help="For the absence embedding: mean, zero or silence.")]
Value = Annotated[
    str,
    typer.Option(help="A coalition's worth: logprob, mean_logprob, tfidf, tfidf_per_phase, response_embedding."),
]
ToleranceText = Annotated[
    str | None,
    typer.Option(metavar="X|top:N", help="Stop once standard errors are at most X, or the N largest are in order."),
]
MaxNewTokens = Annotated[int, typer.Option(min=1, help="Tokens of the longest answer.")]
Long = Annotated[
    str,
    typer.Option(help="A recording longer than the model's window: refuse, or windows, several clips of it."),
]


def parse_budget(text: str) -> int | str:
    """Read a number of coalitions, or the word `paper`."""
    if text != "paper" and not (text.isascii() and text.isdigit() and int(text)):
        raise typer.BadParameter(f"{text!r} is neither a number of coalitions nor paper")
    return text if text == "paper" else int(text)


Budget = Annotated[
    str,
    typer.Option(
        metavar="N|paper",
        parser=parse_budget,
        help="Coalitions that may be evaluated; paper: the 3 P² of SGPA's paper.",
    ),
]
Interactions = Annotated[
    str | None,
    typer.Option(
        metavar="INDEX:ORDER", help="Also what groups of players do together, such as k-SII:2; wants all coalitions."
    ),
]
Preset = Annotated[
    str | None,
    typer.Option(
        metavar="paper|authors",
        help="Options that belong together: what SGPA's text says, or what its authors' code does.",
    ),
]


def given(context: typer.Context, preset: str | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options, without those that nobody gave where a preset is to choose them."""
    if preset is None:
        return dict(options)
    from sgpa_jax.api import PRESETS

    chosen = PRESETS.get(preset, {})

    def is_left(name: str) -> bool:
        # By its name: typer brings its own copy of click's enumeration along.
        source = context.get_parameter_source(name)
        return name in chosen and source is not None and source.name == "DEFAULT"

    return {name: option for name, option in options.items() if not is_left(name)}


Seed = Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Decides every random draw.")]
