"""How a spoken word sounds: its pronunciations in the lexicon, or else what its letters can stand for.

A word outside the lexicon becomes a chain of letters in which each stands for any of several phones and may be silent.
That is no letter-to-sound rule: which phones, and which letters are silent, is left to the recording.
Axes: `T` frames, `W` labels and letters.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from sgpa_jax.align.alignment import Emissions

_VOWELS = "aa ae ah ao aw ay eh er ey ih iy ow oy uh uw"
_PHONES_OF_LETTER = {
    **dict.fromkeys("aeo", _VOWELS), "i": f"{_VOWELS} y", "u": f"{_VOWELS} w y", "y": f"{_VOWELS} y", "b": "b p",
    "c": "k s ch sh", "d": "d t jh dh", "f": "f v", "g": "g jh zh k ng f", "h": "hh", "j": "jh y zh hh", "k": "k g",
    "l": "l", "m": "m", "n": "n ng", "p": "p f b", "q": "k", "r": "r er", "s": "s z sh zh", "t": "t th dh d ch sh",
    "v": "v f", "w": "w v uw ow", "x": "k s g z sh", "z": "z s zh t",
}  # fmt: skip
_HISSING = frozenset(("s", "z", "sh", "zh", "ch", "jh"))
_VOICELESS = frozenset(("p", "t", "k", "f", "th"))

Lexicon = Mapping[str, tuple[tuple[str, ...], ...]]


@dataclass(frozen=True)
class Pronunciation:
    """A sequence of labels; `skippable` ones are letters, any single one of which may be silent."""

    labels: tuple[str, ...]
    skippable: bool = False


def pronunciations(word: str, lexicon: Lexicon, *, initials: bool = False) -> tuple[Pronunciation, ...]:
    """Return how `word` may sound, best known first; the last one is of letters when the lexicon lacks the word.

    A possessive is its owner with the ending it takes, and `initials` may be said letter by letter.
    """
    known = _known(word, lexicon)
    if known:
        return tuple(Pronunciation(phones) for phones in known)
    letters = [letter for letter in word if letter in _PHONES_OF_LETTER]
    chain = Pronunciation(tuple(f"<{letter}>" for letter in letters), skippable=True)
    if not initials or any(letter not in lexicon for letter in letters):
        return (chain,)
    named = tuple(phone for letter in letters for phone in lexicon[letter][-1])
    return (Pronunciation(named), chain)


def is_known(word: str, lexicon: Lexicon) -> bool:
    """Tell whether the lexicon says how `word` sounds."""
    return bool(_known(word, lexicon))


def columns(emissions: Emissions) -> dict[str, int]:
    """Return the column of each label; among phones "<a>" … "<z>" follow them, see `heard`."""
    letters = [f"<{letter}>" for letter in _PHONES_OF_LETTER] if emissions.blank is None else []
    return {label: column for column, label in enumerate([*emissions.labels, *letters])}


def heard(emissions: Emissions) -> Float[np.ndarray, "T W"]:
    """Return float32 log-probabilities of all `columns`: a letter's is the mean over its phones."""
    if emissions.blank is not None:
        return emissions.log_probs_tv
    column = columns(emissions)
    letters = []
    for phones in _PHONES_OF_LETTER.values():
        chosen = [column[phone] for phone in phones.split() if phone in column]
        letters.append(np.logaddexp.reduce(emissions.log_probs_tv[:, chosen], axis=1) - np.log(max(1, len(chosen))))
    return np.concatenate([emissions.log_probs_tv, np.stack(letters, axis=1)], axis=1).astype(np.float32)


def _known(word: str, lexicon: Lexicon) -> tuple[tuple[str, ...], ...]:
    for form in (word, word.strip("'"), word.replace("'", "")):
        if form in lexicon:
            return lexicon[form]
    owner = word.removesuffix("'s")
    if owner == word or owner not in lexicon:
        return ()
    return tuple((*phones, *_possessive(phones[-1])) for phones in lexicon[owner])


def _possessive(last: str) -> tuple[str, ...]:
    if last in _HISSING:
        return ("ih", "z")
    return ("s",) if last in _VOICELESS else ("z",)
