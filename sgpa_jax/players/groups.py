"""Groups of players, for values that respect them (Owen's)."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from sgpa_jax.errors import UsageError, unknown_name
from sgpa_jax.players.phrases import group_by_phrase
from sgpa_jax.players.player import Player

if TYPE_CHECKING:
    from sgpa_jax.models import ModelInputs

GROUPS = ("phrases", "modality", "turns")
"""Words that no pause separates; what is heard and what is read; or what stands in one turn of the conversation."""


def groups_of(
    groups: str | None, players: Iterable[Player], inputs: "ModelInputs | None" = None
) -> tuple[int, ...] | None:
    """Return each player's group, counted from 0 in the order of the players; None without a name.

    Args:
        groups: one of `GROUPS`.
        players: who is grouped.
        inputs: the prompt, which alone knows its turns.

    Raises:
        UsageError: an unknown name, or turns without a prompt.
    """
    if groups is None:
        return None
    if groups not in GROUPS:
        raise unknown_name("grouping", groups, GROUPS)
    if groups == "phrases":
        return group_by_phrase(players)
    if groups == "modality":
        names = [int(player.is_text) for player in players]
    elif inputs is None:
        raise UsageError("turns are known of a prompt alone: group by phrases or modality")
    else:
        heard_in = int(inputs.turn_t[(inputs.clip_t >= 0).argmax()])
        names = [heard_in if player.tokens is None else int(inputs.turn_t[player.tokens[0]]) for player in players]
    number = {name: index for index, name in enumerate(dict.fromkeys(names))}
    return tuple(number[name] for name in names)
