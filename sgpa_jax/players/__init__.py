"""Players: which stretch of a recording or run of text belongs to whom, and what is heard when only some take part."""

from sgpa_jax.players.coalitions import all_coalitions
from sgpa_jax.players.cuts import cut_clip
from sgpa_jax.players.groups import GROUPS, groups_of
from sgpa_jax.players.partitions import energy_players, window_players
from sgpa_jax.players.phrases import group_by_phrase, phrase_players
from sgpa_jax.players.player import KINDS, NOBODY, PADDING, Player, Players, describe
from sgpa_jax.players.render import ABSENCES, ambient_noise, as_pcm16, join_kept, render_coalition
from sgpa_jax.players.sounds import sound_events
from sgpa_jax.players.text import UNITS, join_players, text_players
from sgpa_jax.players.words import spoken_players, word_players

__all__ = [
    "ABSENCES",
    "GROUPS",
    "KINDS",
    "NOBODY",
    "PADDING",
    "UNITS",
    "Player",
    "Players",
    "all_coalitions",
    "ambient_noise",
    "as_pcm16",
    "cut_clip",
    "describe",
    "energy_players",
    "group_by_phrase",
    "groups_of",
    "join_kept",
    "join_players",
    "phrase_players",
    "render_coalition",
    "sound_events",
    "spoken_players",
    "text_players",
    "window_players",
    "word_players",
]
