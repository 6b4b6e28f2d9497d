"""`sgpa refold`: other values from the coalitions of a finished run, be it of a recording or a data set."""

from pathlib import Path
from typing import Annotated

import typer

from sgpa_jax.cli.inputs import with_recording
from sgpa_jax.cli.merge import show_data_set
from sgpa_jax.cli.options import Channel, Estimand, EstimatorName, Groups, Interactions, Seed
from sgpa_jax.cli.outputs import check_folder, show, write_files
from sgpa_jax.cli.progress import progress_bar
from sgpa_jax.errors import UsageError


def refold(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder that sgpa explain --out or sgpa batch wrote.")],
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
    """Estimate again from the coalitions that a run has evaluated.

    Of a data set all tables are made anew in --out, which can be stopped and called again; where items fail, each with
    its reason, or bundles are missing, the exit code is 3.
    """
    from sgpa_jax.archive import refold_explanation
    from sgpa_jax.batch import RUN, refold_dataset

    if (folder / RUN).exists():
        if out is None or audio is not None:
            raise UsageError(f"{folder} is of a data set: expected a new folder with --out, and no --audio")
        with progress_bar("bundles") as progress:
            found = refold_dataset(
                folder, out, estimator=estimator, estimand=estimand, groups=groups, interactions=interactions,
                seed=seed, progress=progress,
            )  # fmt: skip
        show_data_set(found, out, as_json=as_json)
        if found.failed or found.missing:
            raise typer.Exit(3)
        return
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
