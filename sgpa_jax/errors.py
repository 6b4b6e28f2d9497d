"""Every error a user can cause, each told in one sentence: what was given, what was expected, what to do.

The command line turns any `SgpaError` into that sentence on stderr and exit code 2; anything else is our own fault.
"""

import difflib
from collections.abc import Iterable


class SgpaError(Exception):
    """Root of all errors caused by what was given to us."""


class AudioError(SgpaError):
    """A recording that cannot be read, or that holds nothing to explain."""


class AlignmentError(SgpaError):
    """A transcript that cannot be aligned with its recording, or an alignment file that cannot be used."""


class PlayerError(SgpaError):
    """Players that overlap, are empty or lie outside the recording."""


class BudgetError(SgpaError):
    """A budget of evaluations too small for the estimator that was asked for."""


class CheckpointError(SgpaError):
    """Weights, a configuration or a tokenizer that are missing, damaged or of another architecture."""


class ExplanationError(SgpaError):
    """A saved explanation that cannot be read."""


class UsageError(SgpaError):
    """An argument outside of what is offered."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """Return the error for a name that we do not offer, naming the nearest ones that we do."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5) or known
    return UsageError(f"unknown {kind} {name!r}: expected one of {', '.join(near)}")
