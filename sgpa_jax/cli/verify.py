"""`sgpa verify`: does a checkpoint give here, stage by stage, what the reference implementation makes of it?"""

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import sgpa_jax
from sgpa_jax.cli.inputs import shipped_demo
from sgpa_jax.errors import CheckpointError

if TYPE_CHECKING:
    from sgpa_jax.models import Stage, Verification


def verify(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="Folder with safetensors weights, or a hub id.")],
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16, on both sides.")] = "float32",
    audio: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Recording of speech; default: the demo that ships.")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="The hub's branch, tag or commit.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Run a checkpoint beside the reference implementation, and transcribe a recording with it."""
    from sgpa_jax.models import verify_model

    demo, words, _ = shipped_demo()
    found = verify_model(folder, sgpa_jax.read_clip(audio or demo), revision=revision, dtype=dtype)
    said = words if audio is None else None
    if as_json:
        typer.echo(json.dumps(_as_dict(found, said), ensure_ascii=False, allow_nan=False))
    else:
        _show(found, said)
    worst = found.first_divergence
    if worst is not None:
        raise CheckpointError(
            f"{found.name} diverges from {found.reference} first at {worst.name}, by {worst.error:.1e} where "
            f"{worst.tolerance:.0e} is allowed in {found.dtype}; report it with this output"
        )


def _heard(found: "Verification") -> str:
    from sgpa_jax.align import greedy_transcript

    if found.heard is not None:
        return found.heard
    assert found.emissions is not None
    return greedy_transcript(found.emissions)


def _show(found: "Verification", said: str | None) -> None:
    typer.echo(f"{found.name} ({found.architecture}) beside {found.reference}, in {found.dtype}")
    typer.echo("error: relative, at the worst position, each stage fed with the reference's; carried: fed with our own")
    typer.echo(f"{'stage':<20} {'max |Δ|':>9} {'scale':>9} {'error':>9} {'allowed':>9} {'carried':>9}")
    for stage in found.stages:
        figures = (stage.difference, stage.scale, stage.error, stage.tolerance)
        carried = "" if stage.carried is None else f"{stage.carried:.1e}"
        verdict = "same" if stage.within else "DIVERGES"
        typer.echo(f"{stage.name:<20} {' '.join(f'{x:9.1e}' for x in figures)} {carried:>9}  {verdict}")
    for note in found.notes:
        typer.echo(f"note: {note}")
    if found.request is not None:
        typer.echo(f"asked  {found.request.text or found.request.system}")
    typer.echo(f"heard  {_heard(found)}")
    if said is not None:
        typer.echo(f"said   {said}")


def _as_dict(found: "Verification", said: str | None) -> dict[str, Any]:
    worst = found.first_divergence
    return {
        "name": found.name,
        "architecture": found.architecture,
        "dtype": found.dtype,
        "reference": found.reference,
        "stages": [_stage(stage) for stage in found.stages],
        "first_divergence": None if worst is None else worst.name,
        "asked": None if found.request is None else found.request._asdict(),
        "heard": _heard(found),
        "said": said,
        "notes": found.notes,
    }


def _stage(stage: "Stage") -> dict[str, Any]:
    """A stage as JSON, where what is infinite is null."""
    figures = {key: getattr(stage, key) for key in ("difference", "scale", "error", "carried", "tolerance")}
    finite = {key: x if x is not None and math.isfinite(x) else None for key, x in figures.items()}
    return {"name": stage.name, **finite, "within": stage.within}
