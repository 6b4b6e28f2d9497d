"""What `sgpa explain` leaves behind: an answer on the terminal, and four files or none at all."""

import importlib.util
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console

from sgpa_jax.errors import UsageError

if TYPE_CHECKING:
    from sgpa_jax.align import Alignment
    from sgpa_jax.explain import Explanation


def check_folder(folder: Path) -> None:
    """Make sure, before any work is done, that the files can be made and written to `folder`.

    Raises:
        UsageError: they could not.
    """
    nearest = _nearest(folder)
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise UsageError(f"cannot write to {folder}: {nearest} is no folder that can be written to; choose another one")
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError("explanation.png needs matplotlib: pip install 'sgpa-jax[plot]'")


def write_files(explanation: "Explanation", folder: Path) -> list[Path]:
    """Write the files of an explanation to `folder` and return their paths; none appears before all are complete.

    Raises:
        UsageError: the folder cannot be written to.
    """
    from sgpa_jax.align import write_alignment
    from sgpa_jax.report import save_picture, write_page

    try:
        with tempfile.TemporaryDirectory(dir=_nearest(folder), prefix=".sgpa-") as scratch:
            complete = Path(scratch)
            explanation.save(complete / "explanation.json")
            write_page(explanation, complete / "explanation.html")
            save_picture(explanation, complete / "explanation.png")
            write_alignment(_words(explanation), complete / "alignment.TextGrid", format="textgrid")
            folder.mkdir(parents=True, exist_ok=True)
            return [path.replace(folder / path.name) for path in sorted(complete.iterdir())]
    except OSError as error:
        raise UsageError(f"cannot write to {folder}: {error.strerror}; choose another folder") from error


def show(explanation: "Explanation", *, as_json: bool) -> None:
    """Print an explanation as a table, coloured on a terminal, or as JSON; somebody always gets to see its warnings."""
    from sgpa_jax.report import notices, table

    for note in explanation.aligner["notes"]:
        typer.echo(f"note: {note}", err=True)
    on_terminal = sys.stdout.isatty()
    if as_json or not on_terminal:
        for notice in notices(explanation):
            typer.echo(f"warning: {notice}", err=True)
    if as_json:
        typer.echo(explanation.to_json(), nl=False)
    elif on_terminal:
        Console().print(table(explanation))
    else:
        typer.echo(explanation.summary())


def show_plan(cost: dict[str, Any], *, as_json: bool) -> None:
    """Print what an explanation would cost, one line for each figure or as JSON."""
    if as_json:
        typer.echo(json.dumps(cost, ensure_ascii=False))
        return
    for name, told in cost.items():
        typer.echo(f"{name.replace('_', ' '):<18} {' · '.join(told) if isinstance(told, list) else told}")


def _nearest(folder: Path) -> Path:
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())


def _words(explanation: "Explanation") -> "Alignment":
    """The alignment that was explained: the players that are heard, but for the sounds."""
    from sgpa_jax.align import Alignment, Word

    x = explanation
    words = tuple(
        Word(p.label, p.start_s, p.end_s, None, None, p.confidence, p.boundary_refined)
        for p in x.players
        if p.start_s is not None and p.end_s is not None and p.kind != "sound"
    )
    told = {key: x.aligner[key] for key in ("digest", "rules", "emission")}
    return Alignment(
        words=words,
        duration_s=x.clip.duration_s,
        transcript=x.transcript.text,
        aligner=x.aligner["name"],
        notes=tuple(x.aligner["notes"]),
        **told,
    )
