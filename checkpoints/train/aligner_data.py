"""Training and test data of the pocket aligner: synthesised sentences as log-mel frames with exact phone labels.

Shard `k` of a seed depends on nothing but the two numbers, so generation can be interrupted and continued. Every
synthesised utterance is kept in several augmented versions; test sets use voices, an engine and sentences of their own.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from sgpa_jax.files import atomic_write
from sgpa_jax.models.aligner import FRAME_S, HOP_SAMPLES, RATE_HZ, count_frames, log_mel

from .augment import augment, change_speed, pad, place
from .phones import PHONES
from .sentences import Sentences
from .speech import HELD_OUT_ENGINE_VOICES, HELD_OUT_VOICES, TRAIN_VOICES, Utterance, Voice, draw_voice, synthesise

CHARACTERS = ("<blank>", "|", "'", *"abcdefghijklmnopqrstuvwxyz")
MAX_FRAMES = 640
UTTERANCES_PER_SHARD = 400
VERSIONS = 2
SOUND_KINDS = ("beep", "hiss", "clicks", "bell", "chirp")
# name -> voices, condition of `augment`
TEST_SETS = {
    "clean": (HELD_OUT_VOICES, "clean"),
    "noise": (HELD_OUT_VOICES, "noise"),
    "reverb": (HELD_OUT_VOICES, "reverb"),
    "fast": (HELD_OUT_VOICES, "fast"),
    "unseen_engine": (HELD_OUT_ENGINE_VOICES, "clean"),
    "train": (HELD_OUT_VOICES, "train"),
}
_TEST_STREAM = 10**6
# Flite's voices come from recorded people: heard more often than `draw_voice` alone would have it.
_FLITE_VOICES = tuple(voice for voice in TRAIN_VOICES if voice.engine == "flite")


@dataclass(frozen=True, eq=False)
class Example:
    """Log-mel frames float16[F, M] of 10 ms, the phone at each frame's centre int8[F], the text as characters."""

    mel_fm: np.ndarray
    phone_f: np.ndarray
    character_n: np.ndarray


def write_shard(path: Path, sentences: Sentences, seed: int, index: int) -> None:
    """Synthesise and augment shard `index` and write it to `path` (.npz)."""
    rng = np.random.default_rng([seed, index])
    examples: list[Example] = []
    while len(examples) < UTTERANCES_PER_SHARD * VERSIONS:
        voices = _FLITE_VOICES if rng.random() < 0.3 else TRAIN_VOICES
        utterance = _speak(sentences, rng, voices)
        examples += [example(_vary(utterance, rng)) for _ in range(VERSIONS)]
    buffer = io.BytesIO()
    np.savez(
        buffer,
        mel=np.concatenate([e.mel_fm for e in examples]),
        phone=np.concatenate([e.phone_f for e in examples]),
        character=np.concatenate([e.character_n for e in examples]),
        n_frames=np.array([len(e.mel_fm) for e in examples]),
        n_characters=np.array([len(e.character_n) for e in examples]),
    )
    atomic_write(path, buffer.getvalue())


def read_shard(path: Path) -> list[Example]:
    """Return the examples of a shard that fit the longest batch."""
    with np.load(path) as file:
        frames, characters = np.cumsum(file["n_frames"])[:-1], np.cumsum(file["n_characters"])[:-1]
        parts = (
            np.split(file["mel"], frames),
            np.split(file["phone"], frames),
            np.split(file["character"], characters),
        )
    return [Example(*fields) for fields in zip(*parts, strict=True) if len(fields[0]) <= MAX_FRAMES]


def test_utterances(sentences: Sentences, seed: int, name: str, n: int) -> list[Utterance]:
    """Return `n` utterances of the named test set; the same sentences and voices in every condition of an engine."""
    voices, condition = TEST_SETS[name]
    rng = np.random.default_rng([seed, _TEST_STREAM])
    utterances = [_speak(sentences, rng, voices) for _ in range(n)]
    return [augment(utterance, rng, condition=condition) for utterance in utterances]


def training_utterances(sentences: Sentences, seed: int, n: int) -> list[Utterance]:
    """Return `n` utterances of training voices, every second one in a voice of Flite."""
    rng = np.random.default_rng([seed, _TEST_STREAM])
    return [_speak(sentences, rng, _FLITE_VOICES if number % 2 else TRAIN_VOICES) for number in range(n)]


def example(utterance: Utterance) -> Example:
    """Turn an utterance into what the network is trained on."""
    n_samples = len(utterance.wave_s)
    n_frames = count_frames(n_samples)
    padded_s = np.zeros(-(-n_samples // (RATE_HZ // 2)) * (RATE_HZ // 2), np.float32)
    padded_s[:n_samples] = utterance.wave_s
    assert len(padded_s) % HOP_SAMPLES == 0
    centres_s = (np.arange(n_frames) + 0.5) * FRAME_S
    ends_s = np.array([span.end_s for span in utterance.phones[:-1]])
    labels = np.array([PHONES.index(span.label) for span in utterance.phones], np.int8)
    text = "|".join(word.label for word in utterance.words)
    return Example(
        mel_fm=np.asarray(_log_mel(padded_s[None]))[0, :n_frames].astype(np.float16),
        phone_f=labels[np.searchsorted(ends_s, centres_s, side="right")],
        character_n=np.array([CHARACTERS.index(letter) for letter in text], np.int8),
    )


_log_mel = jax.jit(log_mel)


def _speak(sentences: Sentences, rng: np.random.Generator, voices: Sequence[Voice]) -> Utterance:
    """Draw sentences until one comes out of the synthesiser with exact times; commas make it pause now and then."""
    while True:
        words = sentences.draw(rng).split()
        for position in rng.integers(len(words), size=rng.choice(3, p=(0.6, 0.25, 0.15))):
            words[position] = words[position].rstrip(",") + ","
        utterance = synthesise(" ".join(words), draw_voice(rng, voices))
        if utterance is not None:
            return utterance


def _vary(utterance: Utterance, rng: np.random.Generator) -> Utterance:
    """Another size of speaker, more silence and sounds around the words, then a random room, channel and noise."""
    if rng.random() < 0.6:
        utterance = change_speed(utterance, rng.uniform(0.84, 1.2))
    if rng.random() < 0.6:
        utterance = pad(utterance, rng)
    for _ in range(rng.choice(3, p=(0.7, 0.2, 0.1))):
        utterance = place(utterance, SOUND_KINDS[rng.integers(len(SOUND_KINDS))], rng)
    return augment(utterance, rng, condition="train")
