"""The letters of an acoustic model, and text brought to them: what a vocabulary has stays, the rest is made plain.

Nothing here knows a language. Marks, hyphens and whatever else a vocabulary holds are letters inside of words; accents
that it lacks are dropped, and letters that it lacks are kept, so that the caller can tell which ones they are.
"""

import unicodedata
from collections.abc import Collection

from sgpa_jax.align.alignment import Emissions

SEPARATOR = "|"
"""The label between words."""

ENGLISH = frozenset("abcdefghijklmnopqrstuvwxyz")

_LIKE = str.maketrans(
    {"ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "đ": "d", "ð": "d", "þ": "th", "ł": "l", "ı": "i", "ς": "σ", "⁄": "/"}
    | dict.fromkeys("’‘ʼ`´＇", "'")
    | dict.fromkeys("‐‑", "-")
)


def letter_columns(emissions: Emissions) -> dict[str, int]:
    """Return the column of every character that can be spelled, in lower case whatever the labels are in."""
    names = {name: column for column, name in enumerate(emissions.labels) if column != emissions.blank}
    single = {name: column for name, column in names.items() if len(name) == 1 and name != SEPARATOR}
    lowered = {low: column for name, column in single.items() if len(low := name.lower()) == 1}
    # An apostrophe that a vocabulary writes its own way serves for the plain one.
    alike = {like: column for name, column in lowered.items() if len(like := name.translate(_LIKE)) == 1}
    # Where a vocabulary has both cases the lower one counts.
    return alike | lowered | {name: column for name, column in single.items() if name == name.lower()}


def is_english(alphabet: Collection[str], language: str | None) -> bool:
    """Tell whether to say numbers and symbols in English: as `language` has it, or where all letters are a to z."""
    if any(c.isdecimal() for c in alphabet):
        return False
    return language.split("-")[0] == "en" if language else {c for c in alphabet if c.isalpha()} == ENGLISH


def folded(text: str, alphabet: Collection[str]) -> str:
    """Return `text` in lower case, what `alphabet` lacks made plain: accents, ligatures, quotes, foreign digits."""
    composed = unicodedata.normalize("NFC", text.lower())
    return "".join(c if c in alphabet else _plain(c, alphabet) for c in composed)


def written_words(token: str, alphabet: Collection[str]) -> tuple[str, ...]:
    """Return the lower-case words of letters in `token`, of whatever script; punctuation alone gives none."""
    text = folded(token, alphabet)
    parts = "".join(c if c == "'" or c in alphabet or _is_letter(c) else " " for c in text).split()
    edges = "".join({c for c in text if not _is_letter(c)})
    return tuple(word for part in parts if (word := part.strip(edges)))


def shown(alphabet: Collection[str]) -> str:
    """Return an alphabet for people to read, neighbours as ranges, long ones cut short."""
    letters = sorted(c for c in alphabet if c.isalpha())
    ranges: list[list[str]] = []
    for letter in letters:
        if ranges and ord(letter) == ord(ranges[-1][-1]) + 1:
            ranges[-1].append(letter)
        else:
            ranges.append([letter])
    parts = [part for run in ranges for part in ([f"{run[0]}–{run[-1]}"] if len(run) > 2 else run)]
    return ", ".join([*parts[:8], *(["…"] if len(parts) > 8 else [])]) or "none"


def _plain(c: str, alphabet: Collection[str]) -> str:
    pieces = unicodedata.normalize("NFKD", c.translate(_LIKE)).lower().translate(_LIKE)
    kept = (p for p in pieces if p in alphabet or unicodedata.category(p) not in ("Mn", "Cf"))
    return "".join(str(unicodedata.decimal(p)) if p.isdecimal() and p not in alphabet else p for p in kept)


def _is_letter(c: str) -> bool:
    return c.isalnum() or unicodedata.category(c).startswith("M")
