"""The players of a recording: labelled stretches of time that never overlap.

Axes: `S` samples, `P` players.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Int

from sgpa_jax.errors import PlayerError

NOBODY = -1
"""Owner of the samples that are always heard: silence between the players."""

PADDING = -2
"""Owner of the samples that are never heard: what was appended to reach a common shape."""

_SLACK_S = 0.02
"""How far a player may run over the recording's ends: alignment files round their times."""


@dataclass(frozen=True)
class Player:
    """One stretch of a recording that can be there or not.

    Attributes:
        label: the word, or "sound", "sound 2" …
        kind: "word" or "sound".
        start_s, end_s: half-open interval in seconds.
        confidence: of the word's alignment, in [0, 1], where the aligner tells.
        boundary_refined: whether the word's edges were moved onto spectral changes.
    """

    label: str
    kind: str
    start_s: float
    end_s: float
    confidence: float | None = None
    boundary_refined: bool = False


@dataclass(frozen=True, eq=False)
class Players:
    """All players of one recording, in a fixed order.

    Raises:
        PlayerError: there is no player, or one is empty, overlaps another or lies outside of the recording.
    """

    players: tuple[Player, ...]
    n_samples: int
    rate_hz: int

    def __post_init__(self) -> None:
        """Check the players by giving each its samples."""
        if not self.players:
            raise PlayerError("there are no players: expected at least one word or sound in the recording")
        self._owner_s.setflags(write=False)

    def __len__(self) -> int:
        return len(self.players)

    def __iter__(self) -> Iterator[Player]:
        return iter(self.players)

    def __getitem__(self, index: int) -> Player:
        return self.players[index]

    @property
    def labels(self) -> tuple[str, ...]:
        """The players' labels, in order."""
        return tuple(player.label for player in self.players)

    def owner_s(self) -> Int[np.ndarray, "S"]:
        """Return the index of the player that owns each sample, int32[S]; `NOBODY` (-1) where none does."""
        return self._owner_s

    @cached_property
    def _owner_s(self) -> Int[np.ndarray, "S"]:
        owner_s = np.full(self.n_samples, NOBODY, np.int32)
        for index, player in enumerate(self.players):
            first, last = self._samples(player)
            taken = owner_s[first:last]
            # One sample may be shared: two edges that differ by less than a sample can round apart.
            if np.count_nonzero(taken != NOBODY) > 1:
                other = self.players[int(taken[taken != NOBODY][0])]
                raise PlayerError(
                    f"players {_describe(other)} and {_describe(player)} overlap: expected each moment to belong "
                    "to one; use an alignment without overlaps"
                )
            owner_s[first:last] = np.where(taken == NOBODY, index, taken)
            if not (owner_s[first:last] == index).any():
                raise PlayerError(f"player {_describe(player)} holds no sample: expected a longer stretch; merge it")
        return owner_s

    def _samples(self, player: Player) -> tuple[int, int]:
        duration_s = self.n_samples / self.rate_hz
        if not (math.isfinite(player.start_s) and math.isfinite(player.end_s) and player.start_s < player.end_s):
            raise PlayerError(f"player {_describe(player)} is not an interval: expected a start before its end")
        if player.start_s < -_SLACK_S or player.end_s > duration_s + _SLACK_S:
            raise PlayerError(
                f"player {_describe(player)} lies outside of the recording of {duration_s:.3f} s: "
                "expected times inside of it; check that the alignment belongs to it"
            )
        # Rounding both ends the same way keeps shared edges shared.
        first, last = (round(edge_s * self.rate_hz) for edge_s in (player.start_s, player.end_s))
        return max(first, 0), min(last, self.n_samples)


def _describe(player: Player) -> str:
    return f"{player.label!r} ({player.start_s:.3f}–{player.end_s:.3f} s)"
