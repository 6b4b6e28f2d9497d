"""What the world can be asked, and the right answers, in a closed vocabulary of lower-case words.

Every question has one right answer, which follows from a clip's events: lists are in the ontology's order, and which
sound comes first is asked only where it is plain. A clip with no events is one in which there is nothing.
"""

from sgpa_checkpoints.sound_world.clips import SoundClip
from sgpa_checkpoints.sound_world.ontology import EMOTIONS, GENDERS, GROUPS, LEAVES

WHAT, WHO, FEEL = "what do you hear ?", "who speaks ?", "how does the voice feel ?"
FIRST, LAST = "which sound comes first ?", "which sound comes last ?"
IS_THERE = "is there {} ?"
NOTHING, NOBODY = "nothing", "nobody"

_ASKED = " ".join((WHAT, WHO, FEEL, FIRST, LAST, IS_THERE.replace("{}", "")))
_SAID = (*LEAVES.values(), *GROUPS.values(), *GENDERS, *EMOTIONS, NOTHING, NOBODY, "and", "yes", "no")
WORDS: tuple[str, ...] = tuple(dict.fromkeys((*_SAID, *_ASKED.split())))
"""All words of questions and answers."""

_APART_S = 0.25


def questions(clip: SoundClip) -> tuple[tuple[str, str], ...]:
    """Every question that a clip can be asked, with its right answer."""
    heard = set(clip.labels)
    who, feel = clip.voice or (NOBODY, NOBODY)
    asked = [(WHAT, " and ".join(word for label, word in LEAVES.items() if label in heard) or NOTHING)]
    asked += [(WHO, who), (FEEL, feel)]
    asked += [(IS_THERE.format(word), "yes" if label in heard else "no") for label, word in (LEAVES | GROUPS).items()]
    starts_s = [event.start_s for event in clip.events]
    if not starts_s:
        return (*asked, (FIRST, NOTHING), (LAST, NOTHING))
    words = [LEAVES[event.label] for event in clip.events]
    if len(starts_s) == 1 or starts_s[1] - starts_s[0] >= _APART_S:
        asked.append((FIRST, words[0]))
    if len(starts_s) == 1 or starts_s[-1] - starts_s[-2] >= _APART_S:
        asked.append((LAST, words[-1]))
    return tuple(asked)
