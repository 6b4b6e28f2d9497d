"""Long recordings, cut between their players into as few pieces as a model hears at once.

Each cut lies in the middle of the longest pause that leaves the number of pieces as small as it can be.
"""

import itertools
from collections.abc import Sequence

import numpy as np

from sgpa_jax.audio import Clip
from sgpa_jax.errors import PlayerError, UsageError
from sgpa_jax.players.player import Players, describe


def cut_clip(clip: Clip, players: Players, longest_s: float) -> tuple[tuple[float, Clip], ...]:
    """Return the pieces of a recording with their starts in seconds, each at most `longest_s` long.

    No player that is heard is cut. A recording that is not longer is one piece, and itself.

    Args:
        clip: the recording.
        players: its stretches, at its own rate.
        longest_s: the longest piece.

    Raises:
        PlayerError: a player is longer than a piece.
        UsageError: `longest_s` is shorter than a sample, or the players are not those of this recording.
    """
    if not longest_s * clip.rate_hz >= 1:
        raise UsageError(f"pieces of {longest_s} s: expected a length of at least a sample")
    if (players.n_samples, players.rate_hz) != (len(clip.wave_s), clip.rate_hz):
        raise UsageError(
            f"players of {players.n_samples} samples at {players.rate_hz} Hz in a recording of {len(clip.wave_s)} at "
            f"{clip.rate_hz} Hz: give those of this very recording"
        )
    if clip.duration_s <= longest_s:
        return ((0.0, clip),)
    longest = int(longest_s * clip.rate_hz)
    edges = [0, *_cuts(_pauses(players, longest), players.n_samples, longest), players.n_samples]
    return tuple(
        (first / clip.rate_hz, Clip(clip.wave_s[first:last], clip.rate_hz, clip.path))
        for first, last in itertools.pairwise(edges)
    )


def _pauses(players: Players, longest: int) -> list[tuple[int, int]]:
    """Where nobody is cut, from sample to sample, both included: before, between and behind the players, in order."""
    owner_s, edges = players.owner_s(), [0]
    stretches = [(np.flatnonzero(owner_s == index)[[0, -1]].tolist(), players[index]) for index in players.heard]
    for (first, last), player in sorted(stretches, key=lambda stretch: stretch[0]):
        if last + 1 - first > longest:
            raise PlayerError(
                f"player {describe(player)} is longer than the {longest / players.rate_hz:.0f} s that the model hears "
                "at once: expected shorter players; take words instead"
            )
        edges += [first, last + 1]
    edges.append(len(owner_s))
    return list(zip(edges[::2], edges[1::2], strict=True))


def _cuts(pauses: Sequence[tuple[int, int]], n_samples: int, longest: int) -> list[int]:
    """Choose the cuts from the front, each no earlier than what is behind it allows."""
    earliest = [n_samples]
    while earliest[-1] > longest:
        at = earliest[-1] - longest
        earliest.append(next(max(first, at) for first, last in pauses if last >= at))
    cuts = [0]
    for low in reversed(earliest[1:]):
        high = min(cuts[-1] + longest, n_samples - 1)
        within = [(max(first, low), min(last, high), first > 0 and last < n_samples) for first, last in pauses]
        # Between two players rather than in the silence at an end, then where the pause is longest, then late.
        first, last, _ = max(
            (pause for pause in within if pause[0] <= pause[1]),
            key=lambda pause: (pause[2], pause[1] - pause[0], pause[1]),
        )
        cuts.append((first + last) // 2)
    return cuts[1:]
