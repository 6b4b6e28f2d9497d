"""The path of a clip, and the runs of frames that its labels hold on it.

A run's confidence is the mean posterior of its label over its frames, as in the original. Axes: `T` frames, `S` states.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float, Int

from sgpa_jax.align.alignment import Emissions
from sgpa_jax.align.pronounce import heard
from sgpa_jax.align.topology import Topology
from sgpa_jax.align.viterbi import search
from sgpa_jax.errors import AlignmentError

_LARGEST = 2**28
"""Frames times states that one search may have."""


@dataclass(frozen=True)
class Run:
    """A label on the path: its word (-1: nobody's), its frames [first, end), and its mean posterior."""

    owner: int
    first: int
    end: int
    confidence: float


@dataclass(frozen=True, eq=False)
class Path:
    """Where a transcript lies in a clip.

    Attributes:
        emissions: what was searched.
        score_ts: float32[T, S], the log-probability of each state's label in each frame.
        state_t: int32[T], the state of each frame.
        runs: labels in order, blanks left out.
    """

    emissions: Emissions
    score_ts: Float[np.ndarray, "T S"]
    state_t: Int[np.ndarray, "T"]
    runs: tuple[Run, ...]


def find_paths(emissions: Sequence[Emissions], topologies: Sequence[Topology]) -> list[Path]:
    """Return the best path of every clip.

    Raises:
        AlignmentError: a transcript needs more frames than its clip has, or has no path with a probability above zero,
            or a clip is too long to be searched at once.
    """
    for own, topology in zip(emissions, topologies, strict=True):
        _check_fit(own, topology)
    log_probs = [heard(own) for own in emissions]
    found = search(log_probs, topologies)
    paths = []
    for own, heard_tw, topology, (state_t, score) in zip(emissions, log_probs, topologies, found, strict=True):
        if not np.isfinite(score):
            raise AlignmentError(
                "the transcript has probability zero in this recording: expected the words that are said in it; "
                "check that the two belong together"
            )
        score_ts = heard_tw[:, topology.label_s]
        paths.append(Path(own, score_ts, state_t, tuple(_runs(own, topology, score_ts, state_t))))
    return paths


def _check_fit(emissions: Emissions, topology: Topology) -> None:
    n_frames, needed = len(emissions.log_probs_tv), topology.fewest_frames()
    if needed > n_frames:
        raise AlignmentError(
            f"the transcript cannot fit the recording: its labels take at least {needed * emissions.frame_s:.2f} s, "
            f"and {n_frames * emissions.frame_s:.2f} s were given; check that the two belong together"
        )
    if n_frames * len(topology.label_s) > _LARGEST:
        raise AlignmentError(
            f"the recording of {n_frames * emissions.frame_s:.0f} s with its transcript is too long to be aligned at "
            "once: split both at a pause and align the pieces"
        )


def _runs(
    emissions: Emissions, topology: Topology, score_ts: Float[np.ndarray, "T S"], state_t: Int[np.ndarray, "T"]
) -> list[Run]:
    # Where a prior was divided out the rows do not sum to one.
    scale_t = np.logaddexp.reduce(emissions.log_probs_tv, axis=1)
    posterior_t = np.exp(score_ts[np.arange(len(state_t)), state_t] - scale_t)
    edges = [0, *(np.flatnonzero(np.diff(topology.unit_s[state_t])) + 1), len(state_t)]
    return [
        Run(int(topology.owner_s[state_t[first]]), int(first), int(end), min(1.0, float(posterior_t[first:end].mean())))
        for first, end in pairwise(edges)
        if topology.label_s[state_t[first]] != emissions.blank
    ]
