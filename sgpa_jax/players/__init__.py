"""Players: which stretch of a recording belongs to whom, and what a recording sounds like when only some take part."""

from sgpa_jax.players.coalitions import all_coalitions
from sgpa_jax.players.player import NOBODY, PADDING, Player, Players
from sgpa_jax.players.render import ABSENCES, ambient_noise, join_kept, render_coalition
from sgpa_jax.players.words import sound_events, word_players

__all__ = [
    "ABSENCES",
    "NOBODY",
    "PADDING",
    "Player",
    "Players",
    "all_coalitions",
    "ambient_noise",
    "join_kept",
    "render_coalition",
    "sound_events",
    "word_players",
]
