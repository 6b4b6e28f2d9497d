"""`sgpa refold`: other values from the coalitions of a finished run, without its model."""

from pathlib import Path
from typing import Annotated

import typer

from sgpa_jax.cli.inputs import with_recording
from sgpa_jax.cli.options import Channel, Estimand, EstimatorName, Groups, Interactions, Seed
from sgpa_jax.cli.outputs import check_folder, show, write_files


def refold(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder that sgpa explain --out wrote.")],
    estimator: EstimatorName = "auto",
    estimand: Estimand = "shapley",
    groups: Groups = None,
    interactions: Interactions = None,
    seed: Seed = 0,
    audio: Annotated[
        Path | None, typer.Option(metavar="AUDIO", help="Its recording; default: the file it was made from.")
    ] = None,
    channel: Channel = "mix",
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for the new files; DIR itself is kept.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print nothing but JSON.")] = False,
) -> None:
    """Estimate again from the coalitions that a run has evaluated."""
    from sgpa_jax.archive import refold_explanation

    if out is not None:
        check_folder(out)
    explanation = refold_explanation(
        folder, estimator=estimator, estimand=estimand, groups=groups, interactions=interactions, seed=seed
    )
    if out is not None:
        explanation = with_recording(explanation, audio, channel)
    paths = [] if out is None else write_files(explanation, out)
    show(explanation, as_json=as_json)
    if not as_json:
        for path in paths:
            typer.echo(path)
