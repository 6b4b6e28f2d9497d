"""eSpeak NG as a source of speech with exact phone times, driven through ctypes on libespeak-ng.

The library calls back with blocks of samples and with events; a PHONEME event carries the sample at which the phone
begins and the position in the text of the word it belongs to. Words go in separated by zero-width spaces, because a
plain space lets the dictionary merge pairs such as "in the" into one word that has only one time; after punctuation,
where nothing merges, a space or a new line keeps the mark from being read aloud. The library holds global state, so
use one process per worker; the phase its oscillators are left in makes a repeated request differ by some samples.
"""

from __future__ import annotations

import ctypes
import functools
from itertools import pairwise

import numpy as np

from .phones import Segment, from_espeak, split

_SEPARATOR, _AFTER_COMMA, _AFTER_STOP = "\u200b", " ", "\n"
_SYNCHRONOUS, _PHONEME_EVENTS, _UTF8 = 2, 1, 1
_END_OF_LIST, _PHONEME = 0, 7
_RATE, _PITCH = 1, 3
_DEFAULT_RATE_WPM, _DEFAULT_PITCH = 175, 50


def synthesise(words: list[str], name: str, rate: float, pitch: float) -> tuple[np.ndarray, int, list[Segment]]:
    """Speak `words` with the voice file `name`, for example "gmw/en-US+f3".

    Returns the float32 wave, its rate in Hz, and the phones in order of time with the index of their word.
    Raises RuntimeError when the library fails or lacks the accent (it ignores a variant that it lacks).
    """
    engine = _engine()
    engine.choose(name, rate, pitch)
    text, owner_of = _join(words)
    wave_s, events = engine.speak(text)
    # American vowels swallow the r that colours them; the other accents make it a phone of its own, or drop it.
    rhotic = "en-US" in name and "nyc" not in name
    segments = []
    for (mnemonic, position, start), (following, _, end) in pairwise([*events, ("", 0, len(wave_s))]):
        phones = from_espeak(mnemonic, rhotic=rhotic and not following.startswith("r"))
        if end > start:
            owner = None if phones == ("sil",) else owner_of.get(position)
            segments += split(phones, start / engine.rate_hz, end / engine.rate_hz, owner)
    return wave_s, engine.rate_hz, segments


class _Engine:
    def __init__(self) -> None:
        self._library = ctypes.CDLL("libespeak-ng.so.1")
        self.rate_hz = self._library.espeak_Initialize(_SYNCHRONOUS, 0, None, _PHONEME_EVENTS)
        if self.rate_hz <= 0:
            raise RuntimeError("libespeak-ng could not be initialised; install Debian's espeak-ng-data")
        self._blocks: list[np.ndarray] = []
        self._events: list[tuple[str, int, int]] = []
        self._voice: str | None = None
        self._callback = _CALLBACK(self._receive)
        self._library.espeak_SetSynthCallback(self._callback)

    def choose(self, name: str, rate: float, pitch: float) -> None:
        if name != self._voice:
            if self._library.espeak_SetVoiceByName(name.encode()) != 0:
                raise RuntimeError(f"eSpeak has no voice file {name!r}; see `espeak-ng --voices=en`")
            self._voice = name
        self._library.espeak_SetParameter(_RATE, round(_DEFAULT_RATE_WPM * rate), 0)
        self._library.espeak_SetParameter(_PITCH, round(_DEFAULT_PITCH * pitch), 0)

    def speak(self, text: str) -> tuple[np.ndarray, list[tuple[str, int, int]]]:
        self._blocks, self._events = [], []
        data = text.encode()
        if self._library.espeak_Synth(data, len(data) + 1, 0, 1, 0, _UTF8, None, None) != 0:
            raise RuntimeError(f"eSpeak could not speak {text!r}")
        samples = np.concatenate(self._blocks) if self._blocks else np.zeros(0, np.int16)
        return samples.astype(np.float32) / 32768, self._events

    def _receive(self, wave, count: int, events) -> int:
        if wave and count > 0:
            self._blocks.append(np.ctypeslib.as_array(wave, (count,)).copy())
        index = 0
        while events[index].type != _END_OF_LIST:
            event = events[index]
            if event.type == _PHONEME:
                self._events.append((event.id.string.decode(), event.text_position - 1, event.sample))
            index += 1
        return 0


class _Id(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Id),
    ]


_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


@functools.cache
def _engine() -> _Engine:
    return _Engine()


def _join(words: list[str]) -> tuple[str, dict[int, int]]:
    """The text to speak and, for each character position in it, the index of the word there."""
    text, owner_of = "", {}
    for index, word in enumerate(words):
        owner_of.update({len(text) + i: index for i in range(len(word))})
        text += word + (_AFTER_STOP if word[-1] in ".!?" else _SEPARATOR if word[-1].isalnum() else _AFTER_COMMA)
    return text, owner_of
