"""What can be heard in the world: 24 sound classes under seven others, named as FSD50k names them.

The strings are labels of FSD50k's vocabulary. Each class also has one word, by which captions, questions and answers
call it.
"""

LEAVES: dict[str, str] = {
    "Bark": "bark",
    "Meow": "meow",
    "Chirp_and_tweet": "bird",
    "Cricket": "cricket",
    "Siren": "siren",
    "Telephone": "telephone",
    "Doorbell": "doorbell",
    "Rain": "rain",
    "Drip": "drip",
    "Stream": "stream",
    "Waves_and_surf": "waves",
    "Piano": "piano",
    "Organ": "organ",
    "Trumpet": "trumpet",
    "Bass_drum": "drum",
    "Engine": "engine",
    "Mechanical_fan": "fan",
    "Buzz": "buzz",
    "Tick-tock": "clock",
    "Knock": "knock",
    "Typing": "typing",
    "Shatter": "glass",
    "Female_speech_and_woman_speaking": "woman",
    "Male_speech_and_man_speaking": "man",
}
"""Label and word of every class."""

_MEMBERS = {
    "Animal": ("Bark", "Meow", "Chirp_and_tweet", "Cricket"),
    "Alarm": ("Siren", "Telephone", "Doorbell"),
    "Water": ("Rain", "Drip", "Stream", "Waves_and_surf"),
    "Musical_instrument": ("Piano", "Organ", "Trumpet", "Bass_drum"),
    "Mechanisms": ("Engine", "Mechanical_fan", "Buzz", "Tick-tock"),
    "Domestic_sounds_and_home_sounds": ("Knock", "Typing", "Shatter"),
    "Human_voice": ("Female_speech_and_woman_speaking", "Male_speech_and_man_speaking"),
}

ANCESTORS: dict[str, str] = {leaf: ancestor for ancestor, leaves in _MEMBERS.items() for leaf in leaves}
"""The class above each."""

GROUPS: dict[str, str] = {
    "Animal": "animal",
    "Alarm": "alarm",
    "Water": "water",
    "Musical_instrument": "music",
    "Mechanisms": "machine",
    "Domestic_sounds_and_home_sounds": "household",
    "Human_voice": "voice",
}
"""Label and word of the classes above."""

GENDERS = {"woman": "Female_speech_and_woman_speaking", "man": "Male_speech_and_man_speaking"}
"""Word and label of who may speak."""

EMOTIONS = ("neutral", "happy", "sad", "angry")


def with_ancestors(leaves: set[str]) -> tuple[str, ...]:
    """Labels of classes and of those above them, classes first, each in the ontology's order."""
    above = {ANCESTORS[leaf] for leaf in leaves}
    return (*(leaf for leaf in LEAVES if leaf in leaves), *(group for group in GROUPS if group in above))
