"""CMU Flite as a source of speech with exact phone times, driven through ctypes on libflite.

The relation "Segment" of a finished utterance lists the phones with their end times; SylStructure leads from a phone
to its syllable and word, and the relation "Token" from the word to the token of the text. Pitch is changed by playing
the wave faster or slower (after a compensating change of duration), which moves the formants as another speaker's
would be. The library holds global state: use one process per worker.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterator

import numpy as np

from .phones import Segment, from_radio, split


def synthesise(words: list[str], name: str, rate: float, pitch: float) -> tuple[np.ndarray, int, list[Segment]]:
    """Speak `words` with the voice `name` (slt, rms, awb or kal16).

    Returns the float32 wave, its rate in Hz, and the phones in order of time with the index of their word (no phones
    when Flite cut the text into other words). Raises OSError when the voice's library is not installed.
    """
    library, voice = _library(), _voice(name)
    features = ctypes.cast(voice, ctypes.POINTER(_VoiceHead)).contents.features
    library.flite_feat_set_float(features, b"duration_stretch", pitch / rate)
    ctypes.CDLL(None).srand(0)  # the voices take their noise from rand(): the same request gives the same wave
    utterance = library.flite_synth_text(" ".join(words).encode(), voice)
    try:
        wave = ctypes.cast(library.utt_wave(utterance), ctypes.POINTER(_Wave)).contents
        wave_s = np.ctypeslib.as_array(wave.samples, (wave.count,)).astype(np.float32) / 32768
        index_of: dict[int | None, int] = {
            token: index for index, token in enumerate(_items(library, utterance, b"Token"))
        }
        segments, start_s = [], 0.0
        for item in _items(library, utterance, b"Segment"):
            end_s = library.item_feat_float(item, b"end") / pitch
            label = library.item_feat_string(item, b"name").decode()
            segments += split(from_radio(label), start_s, end_s, index_of.get(_token_of(library, item)))
            start_s = end_s
        rate_hz = round(wave.rate_hz * pitch)
    finally:
        library.delete_utterance(utterance)
    return wave_s, rate_hz, segments if len(index_of) == len(words) else []


class _VoiceHead(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("features", ctypes.c_void_p)]


class _Wave(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_char_p),
        ("rate_hz", ctypes.c_int),
        ("count", ctypes.c_int),
        ("channels", ctypes.c_int),
        ("samples", ctypes.POINTER(ctypes.c_short)),
    ]


@functools.cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL("libflite.so.1", mode=ctypes.RTLD_GLOBAL)
    pointer, text = ctypes.c_void_p, ctypes.c_char_p
    for name, result, arguments in (
        ("flite_synth_text", pointer, [text, pointer]),
        ("flite_feat_set_float", None, [pointer, text, ctypes.c_float]),
        ("utt_wave", pointer, [pointer]),
        ("utt_relation", pointer, [pointer, text]),
        ("relation_head", pointer, [pointer]),
        ("item_next", pointer, [pointer]),
        ("item_parent", pointer, [pointer]),
        ("item_as", pointer, [pointer, text]),
        ("item_feat_float", ctypes.c_float, [pointer, text]),
        ("item_feat_string", text, [pointer, text]),
        ("delete_utterance", None, [pointer]),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    library.flite_init()
    return library


@functools.cache
def _voice(name: str) -> int:
    _library()
    voice = ctypes.CDLL(f"libflite_cmu_us_{name}.so.1", mode=ctypes.RTLD_GLOBAL)
    register = getattr(voice, f"register_cmu_us_{name}")
    register.restype, register.argtypes = ctypes.c_void_p, [ctypes.c_char_p]
    return register(None)


def _items(library: ctypes.CDLL, utterance: int, relation: bytes) -> Iterator[int]:
    item = library.relation_head(library.utt_relation(utterance, relation))
    while item:
        yield item
        item = library.item_next(item)


def _token_of(library: ctypes.CDLL, segment: int) -> int | None:
    """Segment -> syllable -> word -> token; None for a pause, which hangs from no syllable."""
    item = library.item_as(segment, b"SylStructure")
    for _ in range(2):
        item = item and library.item_parent(item)
    item = item and library.item_as(item, b"Token")
    return item and library.item_parent(item)
