"""Words of captions, names and class labels, and when a text and a label say the same.

FSD50k's labels are AudioSet's with "and" and underscores for commas and spaces: `Male_speech_and_man_speaking` has the
two readings "male speech" and "man speaking". Axes: `N` texts, `J` labels.
"""

import re
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Bool

_WORD = re.compile(r"[a-z0-9]+(?:'[a-z]+)?")
_JOINT = re.compile(r"[,;:.!?]|\b(?:and|or|so|then|while|with|followed by)\b")
_STOP = frozenset(
    re.findall(
        r"\w+",
        "a an are as at be been being by can clip during for from had has have hear heard in into is it its of on over "
        "recording some sound sounding sounds that the their there this to was were which",
    )
)
_LONGEST = 3


def tokens(text: str) -> list[str]:
    """Words in small letters, without punctuation."""
    return _WORD.findall(text.casefold().replace("_", " "))


def ngrams(text: str, longest: int = _LONGEST) -> Iterator[str]:
    """Runs of one to `longest` words that neither begin nor end with a word that says nothing of a sound.

    They never run over punctuation, or over words that join what is heard ("and", "then").
    """
    for phrase in _JOINT.split(text.casefold().replace("_", " ")):
        words = tokens(phrase)
        for first in range(len(words)):
            for last in range(first + 1, min(first + longest, len(words)) + 1):
                if words[first] not in _STOP and words[last - 1] not in _STOP:
                    yield " ".join(words[first:last])


def readings(label: str) -> frozenset[str]:
    """What a label says in words: as a whole, and each of the parts between its "and"s."""
    whole = " ".join(tokens(label))
    return frozenset({whole, *(part for part in whole.split(" and ") if part)})


def matching_label(name: str, labels: Sequence[str]) -> int | None:
    """Number of the label that says what the name says, or what is in it; None if none does.

    The whole goes before a part, and what the name says before what it has among its words: of these the longest, then
    the last, which in English is what the others qualify ("angry female speech", "water drip").
    """
    said = " ".join(tokens(name))
    for fits in (lambda label: said == " ".join(tokens(label)), lambda label: said in readings(label)):
        for number, label in enumerate(labels):
            if fits(label):
                return number
    held = [
        (len(reading.split()), f" {said} ".rindex(f" {reading} "), -number)
        for number, label in enumerate(labels)
        for reading in readings(label)
        if f" {reading} " in f" {said} "
    ]
    return -max(held)[2] if held else None


def mentions(texts: Sequence[str], labels: Sequence[str]) -> Bool[np.ndarray, "N J"]:
    """Whether a text has the words of a label, in one of its readings, in order."""
    padded = [f" {' '.join(tokens(text))} " for text in texts]
    said = [[f" {reading} " for reading in readings(label)] for label in labels]
    return np.array([[any(part in text for part in parts) for parts in said] for text in padded], bool).reshape(
        len(texts), len(labels)
    )
