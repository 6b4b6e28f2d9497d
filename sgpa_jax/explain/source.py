"""What was explained: which recording, told by its digest, and which words somebody says are in it."""

import os
from dataclasses import dataclass

from sgpa_jax.audio import Clip


@dataclass(frozen=True)
class ClipInfo:
    """A recording's identity, without its samples.

    Attributes:
        path: the file it was read from, if any.
        sha256: `Clip.sha256` of the recording that was explained.
        duration_s: its length in seconds.
        rate_hz: its samples per second.
    """

    path: str | None
    sha256: str
    duration_s: float
    rate_hz: int

    @classmethod
    def of(cls, clip: Clip) -> "ClipInfo":
        """Return the identity of `clip`."""
        # A file name may hold bytes that no text encoding knows; JSON cannot.
        path = None if clip.path is None else os.fsencode(clip.path).decode("utf-8", errors="replace")
        return cls(path, clip.sha256, clip.duration_s, clip.rate_hz)


@dataclass(frozen=True)
class Transcript:
    """The words of a recording and where they come from.

    Attributes:
        text: the words.
        source: "given" by the caller, "aligned file" when they came with their times, "heard by the
            aligner" or "heard by the model".
    """

    text: str
    source: str
