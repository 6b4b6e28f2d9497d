"""A progress bar on stderr, where somebody is looking."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sgpa_jax.batch import Progress

_LINE_EVERY_S = 60.0
"""Where nobody is looking a log is kept, of a line a minute."""


@contextmanager
def progress_bar(what: str = "coalitions") -> Iterator[Callable[[int, int], None] | None]:
    """Give a callback of (done, in all) that draws a bar called `what`; None where stderr is not a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)

        def advance(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield advance


@contextmanager
def batch_progress() -> Iterator[Callable[["Progress"], None]]:
    """Give a callback that tells how far a data set is: a bar on a terminal, else a line now and then."""
    if not sys.stderr.isatty():
        yield _Log()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("items", total=None)

        def advance(now: "Progress") -> None:
            bar.update(task, completed=now.done, total=now.items, description=_speeds(now))

        yield advance


class _Log:
    def __init__(self) -> None:
        self._told_s = time.monotonic()

    def __call__(self, now: "Progress") -> None:
        if time.monotonic() - self._told_s < _LINE_EVERY_S:
            return
        self._told_s = time.monotonic()
        left_s = (now.items - now.done) * now.seconds / max(now.done - now.before, 1)
        eta = f", about {left_s / 60:.0f} min left" if now.done > now.before else ""
        print(f"{now.done} of {now.items} items, {_speeds(now)}{eta}", file=sys.stderr, flush=True)


def _speeds(now: "Progress") -> str:
    items_per_s, coalitions_per_s = ((n / now.seconds) for n in (now.done - now.before, now.coalitions))
    failed = f", {now.failed} failed" if now.failed else ""
    return f"{items_per_s:.1f} items/s, {coalitions_per_s:,.0f} coalitions/s, {now.compiles} compiled{failed}"
