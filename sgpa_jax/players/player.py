"""The players of a prompt: stretches of its recording and runs of its text, none of which overlap.

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

KINDS = ("word", "sound", "phrase", "window", "energy", "native", "text")
"""What a player can be: all but `text` are stretches of the recording."""

_SLACK_S = 0.02
"""How far a player may run over the recording's ends: alignment files round their times."""


@dataclass(frozen=True)
class Player:
    """One stretch of a recording, or one run of a prompt's text, that can be there or not.

    Attributes:
        label: the word or words, "sound", "sound 2" …, "window 1" …, or what the text's tokens spell.
        kind: one of `KINDS`.
        start_s, end_s: half-open interval in seconds; None for text.
        confidence: of the word's alignment, in [0, 1], where the aligner tells.
        boundary_refined: whether the word's edges were moved onto spectral changes.
        tokens: half-open interval of positions in the prompt; None for what is heard.
    """

    label: str
    kind: str
    start_s: float | None = None
    end_s: float | None = None
    confidence: float | None = None
    boundary_refined: bool = False
    tokens: tuple[int, int] | None = None

    @property
    def is_text(self) -> bool:
        """Whether it is read, and not heard."""
        return self.kind == "text"

    @property
    def span_s(self) -> tuple[float, float]:
        """When it is heard, half-open, in seconds.

        Raises:
            PlayerError: it is text.
        """
        if self.start_s is None or self.end_s is None:
            raise PlayerError(f"player {describe(self)} has no times: expected one that is heard")
        return self.start_s, self.end_s


@dataclass(frozen=True, eq=False)
class Players:
    """All players of one prompt, in a fixed order.

    Raises:
        PlayerError: there is no player, or one is empty, overlaps another or lies outside of the recording.
    """

    players: tuple[Player, ...]
    n_samples: int
    rate_hz: int

    def __post_init__(self) -> None:
        """Check the players by giving each its samples or its tokens."""
        if not self.players:
            raise PlayerError("there are no players: expected at least one word or sound in the recording")
        self._owner_s.setflags(write=False)
        self._check_text()

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

    @property
    def heard(self) -> tuple[int, ...]:
        """Indices of the players that are stretches of the recording."""
        return tuple(index for index, player in enumerate(self.players) if not player.is_text)

    @property
    def text(self) -> tuple[int, ...]:
        """Indices of the players that are text of the prompt."""
        return tuple(index for index, player in enumerate(self.players) if player.is_text)

    def owner_s(self) -> Int[np.ndarray, "S"]:
        """Return the index of the player that owns each sample, int32[S]; `NOBODY` (-1) where none does.

        Players that are text own none.
        """
        return self._owner_s

    @cached_property
    def _owner_s(self) -> Int[np.ndarray, "S"]:
        owner_s = np.full(self.n_samples, NOBODY, np.int32)
        for index in self.heard:
            player = self.players[index]
            first, last = self._samples(player)
            taken = owner_s[first:last]
            # One sample may be shared: two edges that differ by less than a sample can round apart.
            if np.count_nonzero(taken != NOBODY) > 1:
                other = self.players[int(taken[taken != NOBODY][0])]
                raise PlayerError(
                    f"players {describe(other)} and {describe(player)} overlap: expected each moment to belong "
                    "to one; use an alignment without overlaps"
                )
            owner_s[first:last] = np.where(taken == NOBODY, index, taken)
            if not (owner_s[first:last] == index).any():
                raise PlayerError(f"player {describe(player)} holds no sample: expected a longer stretch; merge it")
        return owner_s

    def _samples(self, player: Player) -> tuple[int, int]:
        duration_s, (start_s, end_s) = self.n_samples / self.rate_hz, player.span_s
        if not (math.isfinite(start_s) and math.isfinite(end_s) and start_s < end_s):
            raise PlayerError(f"player {describe(player)} is not an interval: expected a start before its end")
        if start_s < -_SLACK_S or end_s > duration_s + _SLACK_S:
            raise PlayerError(
                f"player {describe(player)} lies outside of the recording of {duration_s:.3f} s: "
                "expected times inside of it; check that the alignment belongs to it"
            )
        # Rounding both ends the same way keeps shared edges shared.
        first, last = (round(edge_s * self.rate_hz) for edge_s in (start_s, end_s))
        return max(first, 0), min(last, self.n_samples)

    def _check_text(self) -> None:
        taken_until, before = 0, None
        for player in sorted((self.players[index] for index in self.text), key=lambda player: player.tokens or (0, 0)):
            if player.tokens is None or not 0 <= player.tokens[0] < player.tokens[1]:
                raise PlayerError(
                    f"player {describe(player)} holds no token: expected a run of positions of the prompt"
                )
            if player.tokens[0] < taken_until and before is not None:
                raise PlayerError(
                    f"players {describe(before)} and {describe(player)} overlap: expected each token to belong to one"
                )
            taken_until, before = player.tokens[1], player


def describe(player: Player) -> str:
    """Return a player's label and place, for messages."""
    if player.start_s is None or player.end_s is None:
        return f"{player.label!r} (tokens {player.tokens})"
    return f"{player.label!r} ({player.start_s:.3f}–{player.end_s:.3f} s)"
