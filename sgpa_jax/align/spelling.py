"""How a written word is said: numbers, money, years, times, symbols and abbreviations become words of letters.

Second half of stage 1 (SGPA, section 3.1), where the original drops every character that the acoustic model lacks.
Numbers are spelled by the library num2words, the rest by the tables below. English only.
"""

import re
from collections.abc import Collection
from decimal import Decimal

from sgpa_jax.align.letters import ENGLISH, folded

_CURRENCIES = {
    "$": ("dollar", "dollars", "cent", "cents"),
    "£": ("pound", "pounds", "penny", "pence"),
    "€": ("euro", "euros", "cent", "cents"),
    "¥": ("yen", "yen", "sen", "sen"),
}
_SCALES = {"k": "thousand", "m": "million", "bn": "billion", "b": "billion", "tn": "trillion"}
_SCALE_WORDS = frozenset(("hundred", "thousand", "million", "billion", "trillion"))
_SYMBOLS = {
    "&": "and", "+": "plus", "=": "equals", "%": "percent", "@": "at", "×": "times", "÷": "divided by",
    "°c": "degrees celsius", "°f": "degrees fahrenheit", "°": "degrees", "§": "section", "−": "minus",
    **{sign: names[1] for sign, names in _CURRENCIES.items()},
}  # fmt: skip
_UNITS = {
    "am": "a m", "pm": "p m", "km": "kilometers", "cm": "centimeters", "mm": "millimeters", "kg": "kilograms",
    "mg": "milligrams", "g": "grams", "ft": "feet", "lb": "pounds", "lbs": "pounds", "oz": "ounces",
    "mph": "miles an hour", "min": "minutes", "hz": "hertz", "khz": "kilohertz", "ms": "milliseconds",
    "gb": "gigabytes", "mb": "megabytes",
}  # fmt: skip
_ABBREVIATIONS = {
    "mr": "mister", "mrs": "missus", "dr": "doctor", "prof": "professor", "jr": "junior", "sr": "senior",
    "vs": "versus", "etc": "et cetera", "approx": "approximately", "dept": "department", "gov": "governor",
    "gen": "general", "capt": "captain", "lt": "lieutenant", "sgt": "sergeant", "rev": "reverend", "hon": "honorable",
    "ave": "avenue", "blvd": "boulevard", "mt": "mount", "ft": "fort", "inc": "incorporated", "ltd": "limited",
    "corp": "corporation", "bros": "brothers", "vol": "volume", "jan": "january", "feb": "february", "aug": "august",
    "sept": "september", "oct": "october", "nov": "november", "dec": "december",
}  # fmt: skip
_UNDOTTED = frozenset(("mr", "mrs", "dr", "jr", "vs", "etc", "st"))
"""These abbreviations are no words of their own, so they are known without their dot."""
_FRACTIONS = {
    "1/2": "one half", "1/3": "one third", "2/3": "two thirds", "1/4": "one quarter", "3/4": "three quarters",
}  # fmt: skip
_DASHES = str.maketrans(dict.fromkeys("‒–—―", "-"))
_NUMBER = r"\d+(?:,\d{3})*(?:\.\d+)?"
_PIECE = re.compile(
    rf"""(?P<money>[$£€¥])(?P<amount>{_NUMBER})(?:(?P<scale>bn|tn|[kmb])(?![a-z]))?
    | (?P<hour>[01]?\d|2[0-3]):(?P<minute>[0-5]\d)(?!\d)
    | (?P<decade>\d*\d0)'?s(?![a-z])
    | (?P<ordinal>\d[\d,]*)(?:st|nd|rd|th)(?![a-z])
    | (?P<fraction>[123]/[234])(?![\d/])
    | (?P<number>{_NUMBER})(?:(?P<unit>{"|".join(sorted(_UNITS, key=len, reverse=True))})(?![a-z]))?
    | (?P<number_sign>\#(?=\d))
    | (?P<minus>(?<![\w.])-(?=[\d$£€¥]))
    | (?P<symbol>°[cf](?![a-z])|[{re.escape("".join(s for s in _SYMBOLS if len(s) == 1))}])
    | (?P<initials>(?:[a-z]\.){{2,}}[a-z]?)
    | (?P<word>[^\W\d_](?:[^\W\d_]|')*|'[^\W\d_](?:[^\W\d_]|')*)""",
    re.VERBOSE,
)
_LONGEST_NUMBER = 15
"""Digits of the longest number that is said as one; longer ones are said digit by digit."""


def spoken_words(token: str, previous: str, following: str, alphabet: Collection[str] = ENGLISH) -> tuple[str, ...]:
    """Return the lower-case words in which `token` is said; its neighbours ("" at the ends) decide ambiguous cases.

    Letters outside of `alphabet` lose their accents and keep their script (nothing is filtered here); a token of
    punctuation alone gives none.
    """
    text = _plain(token, alphabet)
    abbreviated = _abbreviation(text, token, following)
    if abbreviated:
        return tuple(abbreviated.split())
    words: list[str] = []
    for match in _PIECE.finditer(text):
        words += _piece(match, following)
    core, before = text.strip(".,;:!?\"'()"), _plain(previous)
    money = _PIECE.search(before)
    if core in _SCALE_WORDS and money and money["money"] and not money["scale"]:
        words.append(_CURRENCIES[money["money"]][1])
    return tuple(words)


def _plain(token: str, alphabet: Collection[str] = ENGLISH) -> str:
    """Fold `token`, with written fractions apart from their number and any dash as a hyphen."""
    return folded(re.sub(r"(?<=\d)(?=[¼½¾⅓⅔])", " and ", token), alphabet).translate(_DASHES)


def _abbreviation(text: str, token: str, following: str) -> str:
    core = text.strip(",;:!?\"'()[]")
    stem = core.rstrip(".")
    dotted = core.endswith(".")
    if not dotted and stem not in _UNDOTTED:
        return ""
    if stem == "st":
        return "saint" if following[:1].isupper() and not token.endswith((",", ";")) else "street"
    if stem == "no":
        return "number" if following[:1].isdecimal() else ""
    # At the end of a sentence "gen." or "oct." may be a word with a full stop; only what no sentence ends with is sure.
    return _ABBREVIATIONS.get(stem, "") if stem in _UNDOTTED or following else ""


def _piece(match: re.Match[str], following: str) -> list[str]:
    kind, text = match.lastgroup, match.group()
    if match["money"]:
        return _money(match["money"], match["amount"], match["scale"], following)
    if match["hour"]:
        return _time(int(match["hour"]), match["minute"], following)
    if match["decade"]:
        return _plural(_number(match["decade"]))
    if match["ordinal"]:
        return _digits_or(match["ordinal"], "ordinal")
    if match["number"]:
        return _number(match["number"]) + _UNITS.get(match["unit"] or "", "").split()
    if kind == "initials":
        return list(text.replace(".", ""))
    if kind == "word":
        return [text]
    return {"fraction": _FRACTIONS.get(text, text), "number_sign": "number", "minus": "minus"}.get(
        kind or "", _SYMBOLS.get(text, "")
    ).split()


def _money(sign: str, amount: str, scale: str | None, following: str) -> list[str]:
    one, many, small_one, small_many = _CURRENCIES[sign]
    if scale:
        return [*_number(amount, year=False), _SCALES[scale], many]
    if following.strip(".,;:!?\"'()").lower() in _SCALE_WORDS:
        return _number(amount, year=False)
    whole, _, part = amount.partition(".")
    if len(part) not in (0, 2):
        return [*_number(amount, year=False), many]
    words = [*_number(whole, year=False), one if whole == "1" else many]
    if int(part or 0):
        words += ["and", *_number(str(int(part))), small_one if int(part) == 1 else small_many]
    return words


def _time(hour: int, minute: str, following: str) -> list[str]:
    words = _number(str(hour))
    if minute == "00":
        half_day = _plain(following).replace(".", "").strip(",;:!?") in ("am", "pm", "oclock", "o'clock")
        return words if half_day else [*words, "o'clock"]
    return [*words, *(("oh",) if minute[0] == "0" else ()), *_number(str(int(minute)))]


def _number(text: str, *, year: bool = True) -> list[str]:
    """Cardinal words of digits with grouping commas and a decimal point; four digits from 1100 to 2099 are a year."""
    if year and re.fullmatch(r"1[1-9]\d\d|20\d\d", text):
        return _digits_or(text, "year")
    return _digits_or(text, "cardinal")


def _digits_or(text: str, kind: str) -> list[str]:
    from num2words import num2words

    digits = text.replace(",", "")
    if len(digits) > _LONGEST_NUMBER or re.match(r"0\d", digits):
        spoken = " ".join(num2words(int(digit)) for digit in digits if digit.isdigit())
    elif "." in digits:
        spoken = num2words(Decimal(digits))
    else:
        spoken = num2words(int(digits), to=kind)
    return re.findall(r"[a-z]+", spoken.lower())


def _plural(words: list[str]) -> list[str]:
    last = words[-1]
    return [*words[:-1], last[:-1] + "ies" if last.endswith("y") else last + "s"]
