"""The closed spoken-command world of the *pocket* model: commands, questions about them, right answers, their evidence.

Pure Python, no audio. A command is one utterance filled from a template ("do not make the lamp red make it blue").
Every question about it has exactly one right answer, and the words without which nobody could know that answer are its
evidence. Some pairs of slot values are held out: the train split never speaks them, every test command speaks at least
one.
"""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

SLOTS: dict[str, tuple[str, ...]] = {
    "colour": ("red", "blue", "green", "yellow", "white", "black", "orange", "purple"),
    "room": ("kitchen", "bedroom", "garage", "office", "hallway", "garden", "attic", "cellar"),
    "device": ("lamp", "fan", "heater", "radio", "door", "window", "curtain", "screen"),
    # Without "one", "two" and "four", which sound like words of the templates.
    "number": (
        *("three", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
        *("twenty", "thirty", "fifty"),
    ),
    "name": ("anna", "peter", "maria", "oliver", "susan", "victor", "emma"),
    "day": ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"),
    "state": ("on", "off"),
}
SOUNDS = ("beep", "hiss", "clicks", "bell", "chirp")
CATEGORIES = ("plain", "negation", "correction", "binding")
UNKNOWN = "unknown"
SOUND_EVIDENCE = -1
PROBE = "in domain ?"

# The order in which "what to do ?" lists what is known.
_ORDER = ("device", "colour", "state", "number", "room", "name", "day")

# {slot} is a value that holds, {-slot} one that is taken back; a value belongs to the last device before it.
_TEMPLATES: dict[str, tuple[str, ...]] = {
    "plain": (
        "make the {device} {colour}",
        "paint the {device} {colour}",
        "turn the {device} {state}",
        "turn {state} the {device}",
        "switch the {device} {state}",
        "set the {device} to {number}",
        "put the {device} at {number}",
        "call {name} on {day}",
        "call {name} this {day} at {number}",
        "remind {name} about the {device}",
        "remind {name} on {day} about the {device}",
        "{name} wants the {device} {colour}",
    ),
    "negation": (
        "do not make the {device} {-colour} make it {colour}",
        "do not make it {-colour} make it {colour}",
        "not the {-colour} one the {colour} one",
        "not the {-colour} {device} make it {colour}",
        "do not set the {device} to {-number} set it to {number}",
        "do not call {-name} call {name}",
        "do not call {name} on {-day} call on {day}",
        "turn {state} the {device} not in the {-room} in the {room}",
    ),
    "correction": (
        "make the {device} {-colour} no wait {colour}",
        "make the {device} {-colour} i mean {colour}",
        "paint the {device} {-colour} sorry {colour}",
        "set the {device} to {-number} no wait {number}",
        "set the {device} to {-number} i mean {number}",
        "call {-name} no wait {name}",
        "call {-name} i mean {name} on {day}",
        "call {name} on {-day} no wait {day}",
        "turn {state} the {device} in the {-room} i mean the {room}",
        "make the {-device} no wait the {device} {colour}",
    ),
    "binding": (
        "the {device} is {colour} and the {device} is {colour}",
        "make the {device} {colour} and the {device} {colour}",
        "paint the {device} {colour} and make the {device} {colour}",
        "set the {device} to {number} and the {device} to {number}",
        "the {device} is at {number} and the {device} at {number}",
        "put the {device} at {number} and the {device} at {number}",
    ),
}
_TAILS = {"room": ("in the {room}",), "day": ("this {day}",), "name": ("for {name}", "with {name}")}
_MOST_WORDS = 11

_WORDINGS: dict[str, tuple[str, ...]] = {
    "colour": ("what colour ?", "which colour ?", "what is the colour ?"),
    "room": ("which room ?", "in which room ?", "what room is it ?"),
    "device": ("which device ?", "what device is it ?", "what is the device ?"),
    "number": ("what number ?", "which number ?", "what is the number ?"),
    "name": ("who ?", "who is it ?", "what is the name ?"),
    "day": ("which day ?", "on which day ?", "what day is it ?"),
    "state": ("on or off ?", "is it on or off ?"),
    "sound": ("what sound ?", "which sound ?", "what is the sound ?"),
    "colour of": ("colour of the {device} ?", "what is the colour of the {device} ?", "what colour is the {device} ?"),
    "number of": ("number of the {device} ?", "what is the number of the {device} ?", "what number is the {device} ?"),
    "several": ("what to do ?", "what should i do ?", "what is to do ?"),
    "domain": (PROBE,),
    "outside": ("what is the <unk> ?", "why is it <unk> ?", "<unk> the <unk> ?", "which <unk> is it ?"),
}
_CHAT_WORDS = ("system", "you", "are", "a", "helpful", "assistant", ".", "user", "audio", "1", "2", "3", ":", "?")
SPECIAL_TOKENS = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    *("<|audio_bos|>", "<|audio_eos|>", "<|AUDIO|>", "<unk>"),
)

# Pairs of kinds whose combinations are held out. Equal kinds stand for two values of one utterance, in spoken order.
_PAIRED = {("device", "colour"): 1, ("device", "room"): 3, ("device", "number"): 5, ("name", "day"): 2}
_TWICE = {"colour": 2, "number": 3, "room": 5, "name": 6, "day": 4, "device": 3}


@dataclass(frozen=True)
class Fact:
    """One slot value in a command: where it is spoken, and the index of the device word it belongs to, if any."""

    slot: str
    value: str
    index: int
    device: int | None = None


@dataclass(frozen=True)
class Command:
    """One utterance: its words, what holds after it (``facts``), what it took back, and a sound beside it."""

    words: tuple[str, ...]
    facts: tuple[Fact, ...]
    retracted: tuple[Fact, ...]
    category: str
    sound: str | None


@dataclass(frozen=True)
class Question:
    """A question with its right answer to the whole command.

    ``evidence`` holds, for each answer word, the indices of the spoken words that must all be heard (``SOUND_EVIDENCE``
    for the sound); it is empty where no word is evidence. ``category`` says what answering needs: a command category,
    "sound", "owner" (the value of a named device where there is but one), "several" (answer words), "unmentioned" or
    "domain".
    """

    text: str
    answer: tuple[str, ...]
    evidence: tuple[tuple[int, ...], ...]
    category: str


def is_held_out(kind: tuple[str, str], values: tuple[str, str]) -> bool:
    """Whether the train split must not speak this pair, about an eighth of all pairs.

    The rule looks at the difference of the two positions only: every value loses (nearly) as many partners as any
    other, so holding out pairs leaves no value more frequent than another.
    """
    shift = _TWICE.get(kind[0]) if kind[0] == kind[1] else _PAIRED.get(kind)
    if shift is None:
        return False
    one, other = (SLOTS[slot] for slot in kind)
    return (one.index(values[0]) - other.index(values[1])) % min(len(one), len(other)) == shift


def held_out_pairs(command: Command) -> list[tuple[str, str]]:
    """The held-out pairs of values that the command speaks."""
    mentions = sorted(command.facts + command.retracted, key=lambda fact: fact.index)
    pairs = []
    for one, other in combinations(mentions, 2):
        for first, second in ((one, other),) if one.slot == other.slot else ((one, other), (other, one)):
            if is_held_out((first.slot, second.slot), (first.value, second.value)):
                pairs.append((first.value, second.value))
    return pairs


def sample_command(
    rng: np.random.Generator, split: str, *, category: str | None = None, sound: bool | None = None
) -> Command:
    """Draw a command of ``split`` "train" (no held-out pair) or "test" (at least one), perhaps of a given category."""
    category = category or str(rng.choice(CATEGORIES, p=(0.45, 0.125, 0.125, 0.30)))
    has_sound = rng.random() < 0.25 if sound is None else sound
    kind = str(rng.choice(SOUNDS)) if has_sound else None
    while True:
        pattern = _draw_pattern(rng, category)
        for _ in range(40):  # a pattern that speaks no pair at all is never right for the test split
            command = _fill(rng, pattern, category, kind)
            if bool(held_out_pairs(command)) == (split == "test"):
                return command


def questions(rng: np.random.Generator, command: Command) -> list[Question]:
    """Every question that makes sense about the command, each in one wording drawn from its paraphrases.

    In order: those about what the command says (first the ones that need its category), then "what to do ?", then one
    about a device that was not mentioned, then slots not mentioned, the probe, and a question of foreign words.
    """
    spoken = list(_spoken_questions(rng, command))
    spoken.sort(key=lambda question: question.category in ("plain", "sound", "owner"))
    if command.category != "binding":
        ordered = sorted(command.facts, key=lambda fact: _ORDER.index(fact.slot))[:4]
        answer = tuple(fact.value for fact in ordered)
        spoken.append(Question(_wording(rng, "several"), answer, tuple((fact.index,) for fact in ordered), "several"))
    mentioned = {fact.slot for fact in command.facts + command.retracted}
    devices = {fact.value for fact in command.facts + command.retracted if fact.slot == "device"}
    for slot in ("colour", "number"):
        if slot in mentioned and devices:
            stranger = str(rng.choice([device for device in SLOTS["device"] if device not in devices]))
            spoken.append(_unmentioned(_wording(rng, f"{slot} of").format(device=stranger)))
    missing = [slot for slot in SLOTS if slot not in mentioned] + (["sound"] if command.sound is None else [])
    spoken += [_unmentioned(_wording(rng, str(slot))) for slot in rng.permutation(missing)]
    spoken.append(Question(PROBE, ("yes",), (), "domain"))
    spoken.append(_unmentioned(_wording(rng, "outside")))
    return spoken


def choose_questions(rng: np.random.Generator, asked: Sequence[Question], n: int) -> list[Question]:
    """Choose up to ``n``: those that need the command's category, then mostly what it says, and one unmentioned."""
    weights = {"plain": 4.0, "sound": 4.0, "several": 2.0, "owner": 1.0, "domain": 1.5}
    unmentioned = [question for question in asked if question.category == "unmentioned"]
    pool = [question for question in asked if question.category != "unmentioned"]
    times = [rng.exponential() / weights.get(question.category, 50.0) for question in pool]
    chosen = [pool[i] for i in np.argsort(times)[: n - 1]]
    return [*chosen, unmentioned[rng.integers(len(unmentioned))]]


def sample_questions(rng: np.random.Generator, command: Command, n: int) -> list[Question]:
    """Up to ``n`` different questions about the command."""
    return choose_questions(rng, questions(rng, command), n)


def sound_question(rng: np.random.Generator, sound: str) -> Question:
    """A question about the non-speech sound beside a command."""
    return Question(_wording(rng, "sound"), (sound,), ((SOUND_EVIDENCE,),), "sound")


def foreign_questions(rng: np.random.Generator, n: int) -> list[Question]:
    """``n`` questions about audio that is no command: the probe first, answered "no"; all else is "unknown"."""
    kinds = [kind for kind in _WORDINGS if kind not in ("domain", "sound")]
    drawn = [str(kind) for kind in rng.choice(kinds, size=n - 1, replace=False)]
    texts = [_wording(rng, kind).format(device=rng.choice(SLOTS["device"])) for kind in drawn]
    return [Question(PROBE, ("no",), (), "domain"), *(_unmentioned(text) for text in texts)]


def answer_given(question: Question, present: Collection[int], sound_present: bool) -> tuple[str, ...]:
    """The right answer when only the words ``present`` (indices), and perhaps the sound, can be heard."""
    if question.text == PROBE:
        return question.answer if present else ("no",)
    heard = set(present) | ({SOUND_EVIDENCE} if sound_present else set())
    if not question.evidence:
        return question.answer
    answer = tuple(
        word if heard.issuperset(needed) else UNKNOWN
        for word, needed in zip(question.answer, question.evidence, strict=True)
    )
    return answer if set(answer) != {UNKNOWN} else (UNKNOWN,)


def is_settled(command: Command, question: Question, present: Sequence[bool], *, mode: str) -> bool:
    """Whether what is left of the command (``mode``: how the rest was taken out) settles the question's answer.

    It does not when the rest sounds like another command: "make the lamp red" left of "make the lamp red no wait blue",
    or, where words are cut out, "the lamp is green" left of "the lamp is red and the fan is green". The probe needs
    most words or none.
    """
    if question.text == PROBE:
        return not any(present) or sum(present) >= len(present) / 2
    for needed in question.evidence:
        value = max(needed)
        if value < 0 or present[value]:
            continue
        for before in command.retracted:
            between = present[min(before.index, value) + 1 : max(before.index, value)]
            denied = command.category == "negation" and present[command.words.index("not")]
            rival = present[before.index] and command.words[value] in SLOTS[before.slot]
            if rival and not denied and not any(between):
                return False
        if mode == "delete" and len(needed) == 2 and present[needed[0]]:
            later = [fact for fact in command.facts if fact.index > value and fact.device not in (None, needed[0])]
            if any(present[fact.index] and not any(present[value : fact.index]) for fact in later):
                return False
    if mode == "delete" and question.category == "several":
        known = {present[index] for needed in question.evidence for index in needed}
        return len(known) == 1
    return True


def tokenise(text: str) -> list[str]:
    """Lower-case words, punctuation isolated, special tokens kept whole."""
    return [part if part in SPECIAL_TOKENS else part.lower() for part in re.findall(r"<[^<>\s]+>|\w+|[^\w\s]", text)]


def token_ids(text: str) -> list[int]:
    """Ids of ``tokenise(text)``; words outside the vocabulary become ``<unk>``."""
    return [TOKEN_IDS.get(token, TOKEN_IDS["<unk>"]) for token in tokenise(text)]


def _draw_pattern(rng: np.random.Generator, category: str) -> list[str]:
    while True:
        pattern = str(rng.choice(_TEMPLATES[category]))
        for slot in rng.permutation(list(_TAILS)):
            # "not the red lamp make it blue" has a room, a day or a name only after its end; one tail keeps it natural.
            if rng.random() < 0.25 and f"{slot}}}" not in pattern:
                pattern += " " + str(rng.choice(_TAILS[str(slot)]))
        if rng.random() < 0.2:
            pattern = f"please {pattern}" if rng.random() < 0.7 else f"{pattern} please"
        if 4 <= len(pattern.split()) <= _MOST_WORDS:
            return pattern.split()


def _fill(rng: np.random.Generator, pattern: Sequence[str], category: str, sound: str | None) -> Command:
    words: list[str] = []
    facts: list[Fact] = []
    retracted: list[Fact] = []
    for index, part in enumerate(pattern):
        if not part.startswith("{"):
            words.append(part)
            continue
        slot = part.strip("{-}")
        used = {fact.value for fact in facts + retracted if fact.slot == slot}
        words.append(str(rng.choice([value for value in SLOTS[slot] if value not in used])))
        (retracted if part.startswith("{-") else facts).append(Fact(slot, words[-1], index))
    facts = [_with_device(fact, facts) if fact.slot in ("colour", "number") else fact for fact in facts]
    return Command(tuple(words), tuple(facts), tuple(retracted), category, sound)


def _with_device(fact: Fact, facts: Sequence[Fact]) -> Fact:
    devices = [other.index for other in facts if other.slot == "device" and other.index < fact.index]
    return Fact(fact.slot, fact.value, fact.index, max(devices, default=None))


def _spoken_questions(rng: np.random.Generator, command: Command) -> Iterator[Question]:
    slots = [fact.slot for fact in command.facts]
    taken_back = {fact.slot for fact in command.retracted}
    for fact in command.facts:
        category = command.category if fact.slot in taken_back else "plain"
        if slots.count(fact.slot) == 1:
            yield Question(_wording(rng, fact.slot), (fact.value,), ((fact.index,),), category)
        if fact.device is not None:
            text = _wording(rng, f"{fact.slot} of").format(device=command.words[fact.device])
            category = "binding" if command.category == "binding" else "owner"
            yield Question(text, (fact.value,), ((fact.device, fact.index),), category)
    if command.sound is not None:
        yield sound_question(rng, command.sound)


def _unmentioned(text: str) -> Question:
    return Question(text, (UNKNOWN,), (), "unmentioned")


def _wording(rng: np.random.Generator, kind: str) -> str:
    return str(rng.choice(_WORDINGS[kind]))


def _vocabulary() -> tuple[str, ...]:
    templates = [text for group in (*_TEMPLATES.values(), *_TAILS.values(), *_WORDINGS.values()) for text in group]
    words = {word for text in templates for word in text.split() if not word.startswith(("{", "<"))}
    words |= {value for values in SLOTS.values() for value in values}
    return tuple(sorted(words | {*SOUNDS, *_CHAT_WORDS, UNKNOWN, "yes", "no", "please"}))


VOCABULARY = _vocabulary()
TOKENS = SPECIAL_TOKENS + VOCABULARY
TOKEN_IDS = {token: index for index, token in enumerate(TOKENS)}
