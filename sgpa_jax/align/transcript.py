"""Stage 1 (SGPA, section 3.1): a transcript becomes words with, for each, the letters in which it is said.

Words are split at white space and keep their punctuation for display. What belongs to which word is explicit from here
on (every spoken word hangs on its written one), so that a digit or a symbol can never swallow its neighbours.
"""

import unicodedata
from collections.abc import Collection
from dataclasses import dataclass, replace

from sgpa_jax.align.letters import folded, is_english, shown, written_words
from sgpa_jax.align.spelling import spoken_words
from sgpa_jax.errors import AlignmentError, unknown_name

UNSPELLABLE = ("error", "merge", "interpolate")
"""What happens to a word without a single letter to say: refused, joined to its neighbour, or placed by its length."""

_LONGEST_INITIALISM = 5


@dataclass(frozen=True)
class Token:
    """A written word, the lower-case words it is said in (none: it has no letters), and whether it may be initials."""

    text: str
    spoken: tuple[str, ...]
    initials: bool = False


@dataclass(frozen=True)
class Transcript:
    """The words of a text in order, and plain sentences on what was done to them."""

    text: str
    tokens: tuple[Token, ...]
    notes: tuple[str, ...] = ()


def read_transcript(
    text: str, *, alphabet: Collection[str], unspellable: str = "error", language: str | None = None
) -> Transcript:
    """Return the words of `text`, spelled in `alphabet` (lower-case characters, perhaps with the apostrophe).

    Numbers, symbols and abbreviations are said in English where `language` is "en", or where it is None and the letters
    are a to z; in other languages only what is written in letters can be spelled.

    Raises:
        AlignmentError: the text is empty, is written in another alphabet, or holds a word that cannot be spelled and
            `unspellable` is "error".
        UsageError: there is no such policy.
    """
    if unspellable not in UNSPELLABLE:
        raise unknown_name("policy for unspellable words", unspellable, UNSPELLABLE)
    _check_text(text)
    written = text.split()
    all_capitals = text.upper() == text
    english = is_english(alphabet, language)
    notes: list[str] = []
    tokens = []
    for number, word in enumerate(written):
        previous = written[number - 1] if number else ""
        following = written[number + 1] if number + 1 < len(written) else ""
        words = spoken_words(word, previous, following, alphabet) if english else written_words(word, alphabet)
        spoken, dropped = _spell(words, alphabet)
        if spoken and dropped:
            notes.append(f"{word!r} was aligned without {dropped!r}, which the aligner cannot spell")
        tokens.append(Token(word, spoken, not all_capitals and _is_initialism(word)))
    if not any(token.spoken for token in tokens):
        raise AlignmentError(_nothing_spelled(text, alphabet))
    missing = [token.text for token in tokens if not token.spoken]
    if missing and unspellable == "error":
        raise AlignmentError(
            f"the transcript holds {missing[0]!r}, and the aligner cannot spell {_characters(missing[0])}, only "
            f"{shown(alphabet)}: write out how it is said, or choose unspellable='merge' or 'interpolate'"
        )
    if missing and unspellable == "merge":
        notes += [f"{word!r} cannot be spelled and was joined to its neighbour" for word in missing]
        tokens = _merged(tokens)
    return Transcript(text, tuple(tokens), tuple(notes))


def _check_text(text: str) -> None:
    if not isinstance(text, str):
        raise AlignmentError(f"the transcript is of type {type(text).__name__}: expected text; pass a string")
    if not text.split():
        raise AlignmentError("the transcript is empty: expected the words that are said in the recording")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise AlignmentError(
            f"the transcript holds {text[error.start]!r}, which is half of a character: save it as UTF-8 again"
        ) from error


def _spell(words: tuple[str, ...], alphabet: Collection[str]) -> tuple[tuple[str, ...], str]:
    """Keep what the alphabet has; return it with the letters that were lost."""
    kept = ["".join(c for c in word if c in alphabet) for word in words]
    lost = "".join(c for word in words for c in word if c not in alphabet and c.isalnum())
    return tuple(word for word in kept if any(c.isalnum() for c in word)), lost


def _is_initialism(word: str) -> bool:
    core = "".join(c for c in word if c.isalpha())
    return 1 < len(core) <= _LONGEST_INITIALISM and core.isupper()


def _merged(tokens: list[Token]) -> list[Token]:
    """Append the text of each unspellable word to the word before it; at the beginning put it before the first one."""
    merged: list[Token] = []
    waiting: list[str] = []
    for token in tokens:
        if token.spoken:
            merged.append(replace(token, text=" ".join([*waiting, token.text])))
            waiting = []
        elif merged:
            merged[-1] = replace(merged[-1], text=f"{merged[-1].text} {token.text}")
        else:
            waiting.append(token.text)
    return merged


def _nothing_spelled(text: str, alphabet: Collection[str]) -> str:
    start = text.strip()[:30]
    plain = folded(text, alphabet)
    letter = next((c for c in plain if c.isalpha()), "")
    if letter:
        script = unicodedata.name(letter, "an unknown script").split()[0].capitalize()
        return (
            f"the transcript {start!r} is written in {script} letters, and this aligner spells with {shown(alphabet)}: "
            "write it in those, or use an aligner of its language"
        )
    if any(c.isalnum() for c in plain):
        return (
            f"the transcript {start!r} holds no letters, and this aligner cannot spell {_characters(start)}, only "
            f"{shown(alphabet)}: write out how it is said"
        )
    return f"the transcript {start!r} holds no word: expected the words that are said in the recording"


def _characters(text: str) -> str:
    """The first few different characters of `text`, quoted."""
    return ", ".join(map(repr, list(dict.fromkeys(text.replace(" ", "")))[:8]))
