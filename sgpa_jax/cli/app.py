"""The command `sgpa`, and the one place where errors become exit codes.

0 fine, 2 bad input (one sentence on stderr, no traceback), 130 interrupted, 1 our own fault (Python's traceback).
"""

import io
import sys
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

import sgpa_jax
from sgpa_jax.cli.align import align
from sgpa_jax.cli.batch import batch
from sgpa_jax.cli.concepts import concepts
from sgpa_jax.cli.convert import convert
from sgpa_jax.cli.doctor import doctor
from sgpa_jax.cli.explain import explain
from sgpa_jax.cli.merge import merge
from sgpa_jax.cli.refold import refold
from sgpa_jax.cli.report import report
from sgpa_jax.cli.sae import sae
from sgpa_jax.cli.steer import steer
from sgpa_jax.cli.study import study
from sgpa_jax.cli.verify import verify
from sgpa_jax.errors import SgpaError


class SentenceGroup(TyperGroup):
    """A group of commands that tells what was wrong with its input in one sentence."""

    def main(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Run a command and exit."""
        try:
            code = super().main(*args, **{**kwargs, "standalone_mode": False})
        except (SgpaError, TyperException) as error:
            # What a file holds may be part of the sentence, and must not steer the terminal.
            told = " ".join(_sentence(error).split())
            typer.echo(f"sgpa: {''.join(c if c.isprintable() else '�' for c in told)}", err=True)
            code = 2
        sys.exit(code or 0)


app = typer.Typer(
    cls=SentenceGroup,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _command in (explain, align, batch, merge, report, refold, steer, study, convert, doctor, verify):
    app.command()(_command)
app.add_typer(sae, name="sae")
app.add_typer(concepts, name="concepts")


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    """Which words of a recording made an audio language model answer as it did."""
    if version:
        typer.echo(f"sgpa-jax {sgpa_jax.__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main() -> None:
    """Run the command line; the entry point of `sgpa`."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal that cannot show a bar or a letter gets a question mark for it, not a traceback.
        sys.stdout.reconfigure(errors="replace")
    app()


def _sentence(error: SgpaError | TyperException) -> str:
    if isinstance(error, SgpaError):
        return str(error)
    context = getattr(error, "ctx", None)
    hint = f"; see {context.command_path} --help" if context else ""
    return error.format_message().rstrip(".") + hint
