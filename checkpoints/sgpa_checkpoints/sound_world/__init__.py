"""A synthetic world of sounds and voices: clips made by numpy alone, and everything that is true of them."""

from sgpa_checkpoints.sound_world.absent import MODES, among, without
from sgpa_checkpoints.sound_world.clips import Event, SoundClip, event_mask, sound_clip
from sgpa_checkpoints.sound_world.corpus import write_corpus, write_fsd50k
from sgpa_checkpoints.sound_world.ontology import ANCESTORS, EMOTIONS, GENDERS, GROUPS, LEAVES
from sgpa_checkpoints.sound_world.questions import (
    FEEL,
    FIRST,
    IS_THERE,
    LAST,
    NOBODY,
    NOTHING,
    WHAT,
    WHO,
    WORDS,
    questions,
)

__all__ = [
    "ANCESTORS",
    "EMOTIONS",
    "FEEL",
    "FIRST",
    "GENDERS",
    "GROUPS",
    "IS_THERE",
    "LAST",
    "LEAVES",
    "MODES",
    "NOBODY",
    "NOTHING",
    "WHAT",
    "WHO",
    "WORDS",
    "Event",
    "SoundClip",
    "among",
    "event_mask",
    "questions",
    "sound_clip",
    "without",
    "write_corpus",
    "write_fsd50k",
]
