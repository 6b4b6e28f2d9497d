"""Phrases: words that no pause separates, as players of their own or as groups of words.

A pause is a gap of at least `pause_s` between two words as they were aligned, or a gap with a sound event in it.
"""

import itertools
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from sgpa_jax.audio import Clip
from sgpa_jax.errors import UsageError
from sgpa_jax.players.player import Player, Players
from sgpa_jax.players.words import word_players

if TYPE_CHECKING:
    from sgpa_jax.align import Alignment

PAUSE_S = 0.2
"""A gap of this length or more is a pause: shorter ones are mostly the closures of plosives."""


def phrase_players(alignment: "Alignment", clip: Clip, *, pause_s: float = PAUSE_S, sounds: bool = True) -> Players:
    """Return the phrases of `alignment` and, unless `sounds` is false, the sounds around its words, ordered by time.

    A phrase's label is its words, its confidence that of the least certain of them.

    Raises:
        PlayerError: there is neither a word nor a sound, or words are empty, overlap or lie outside of the clip.
        UsageError: `pause_s` is not positive.
    """
    words = word_players(alignment, clip, sounds=sounds)
    groups = group_by_phrase(words, pause_s=pause_s)
    members = [
        [words[index] for index, _ in pairs]
        for _, pairs in itertools.groupby(enumerate(groups), key=lambda pair: pair[1])
    ]
    return Players(tuple(map(_joined, members)), words.n_samples, words.rate_hz)


def group_by_phrase(players: Iterable[Player], *, pause_s: float = PAUSE_S) -> tuple[int, ...]:
    """Return the number of each player's phrase, counted from 0 in the order of the players.

    Neighbouring words are one phrase unless a pause separates them, and neighbouring text is one unless a token of
    nobody does; all other players are groups of their own.

    Raises:
        UsageError: `pause_s` is not positive.
    """
    if not pause_s > 0:
        raise UsageError(f"a pause of {pause_s} s separates nothing: expected a length above zero, such as {PAUSE_S}")
    groups: list[int] = []
    before: Player | None = None
    for player in players:
        joins = before is not None and _follows(before, player, pause_s)
        groups.append((groups[-1] if groups else -1) + (not joins))
        before = player
    return tuple(groups)


def _follows(before: Player, player: Player, pause_s: float) -> bool:
    if before.kind != player.kind:
        return False
    if before.tokens is not None and player.tokens is not None:
        return before.tokens[1] == player.tokens[0]
    return player.kind == "word" and player.span_s[0] - before.span_s[1] < pause_s


def _joined(members: Sequence[Player]) -> Player:
    first, last = members[0], members[-1]
    if first.kind != "word":
        return first
    told = [member.confidence for member in members if member.confidence is not None]
    return Player(
        " ".join(member.label for member in members),
        "phrase",
        first.start_s,
        last.end_s,
        min(told) if len(told) == len(members) else None,
        first.boundary_refined and last.boundary_refined,
    )
