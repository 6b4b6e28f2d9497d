"""Render the spoken-command world to disk: the training and test data of the *pocket* model.

``python -m train.commands --out DIR --utterances N --split train --seed 0 --shard i/n``, run in
``checkpoints``, writes numbered pairs of files, each under its name only when complete, the ``.jsonl`` before the
``.npz``: ``train-0000.npz`` and ``train-0000.jsonl``, ``train-0001…``; shard i of n writes the numbers congruent to i
modulo n, and skips those that exist. ``--split test`` writes one pair, ``test.npz`` and ``test.jsonl``.

``.npz`` (``numpy.savez``, uncompressed; E examples, W spoken words of all of them, S samples of all of them; 16 kHz):

=================== =========== =======================================================================================
``rate_hz``         int64[]     16000
``waves``           int16[S]    example e is ``waves[offsets[e] : offsets[e + 1]]``, 32768 full scale, at most 5 s
``offsets``         int64[E+1]
``word_offsets``    int64[E+1]  the words of e are ``[word_offsets[e] : word_offsets[e + 1]]`` of the next four
``word_ids``        int32[W]    ``world.TOKEN_IDS`` of the word; words outside the world have the id of ``<unk>``
``word_start_s``    float32[W]  seconds from the start of the example, as rendered (after a deletion: shifted)
``word_end_s``      float32[W]  half open; a deleted word has an (almost) empty span where it was cut out
``word_present``    bool[W]     False: the word is not to be heard (its span silent, deleted or filled with noise)
``sound``           int8[E]     index into ``world.SOUNDS`` of the non-speech sound, -1 for none
``sound_start_s``   float32[E]  its span (0, 0 without a sound; almost empty when deleted)
``sound_end_s``     float32[E]
``sound_present``   bool[E]     False when there is no sound, or when it is absent
``in_world``        bool[E]     False: foreign sentences, noise, silence, a sound alone
``absence``         int8[E]     index into ``absence.MODES``: 0 none, 1 silence, 2 delete, 3 noise
``utterance``       int32[E]    number of the utterance; examples that share the synthesised speech share it
=================== =========== =======================================================================================

``.jsonl``, line e describes example e: ``{"transcript": "make the lamp red", "category": "plain" | "negation" |
"correction" | "binding" | "outside", "voice": "espeak/gmw/en-US", "sound": "beep" | null, "absence": "none" |
"silence" | "delete" | "noise", "questions": [{"text": "what colour ?", "answer": "red", "full_answer": "red",
"evidence": [[3]], "category": "plain"}, …]}``. ``answer`` is the right answer to the audio *as rendered*,
``full_answer`` the one with nothing absent; both are words separated by spaces. ``evidence`` has one list per word of
``full_answer``: the indices of the spoken words that must all be heard (for binding the device, then the value), ``-1``
standing for the sound; it is empty where no word is evidence (slot not mentioned, ``in domain ?``). For a question's
``category`` see ``world.Question``. To take more words away while training: ``world.answer_given``.
"""

from __future__ import annotations

import argparse
import io
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sgpa_jax.models.aligner import parse_lexicon

from . import world
from .absence import MODES, take_out
from .augment import augment, sound
from .sentences import Sentences
from .speech import (
    HELD_OUT_ENGINE_VOICES,
    HELD_OUT_VOICES,
    RATE_HZ,
    TRAIN_VOICES,
    Span,
    Utterance,
    Voice,
    draw_voice,
    synthesise,
)

LEXICON = Path(__file__).parents[1] / "sgpa_checkpoints" / "pocket_aligner" / "lexicon.txt.gz"
VARIANTS = 3
QUESTIONS = 5
TEST_QUESTIONS = 16  # more than any command has: all of them, and one about what it does not mention
UTTERANCES_PER_FILE = 100
FOREIGN_SHARE = 0.12
HELD_OUT_ENGINE_SHARE = 0.2
_LONGEST_SPEECH_S = 4.2
_LONGEST_S = 5.0
_TEST_GROUPS = (*world.CATEGORIES, "sound")


@dataclass(frozen=True, eq=False)
class Example:
    """One rendered recording with the questions about it; ``command`` is None outside the world."""

    utterance: Utterance
    present: tuple[bool, ...]
    sound_present: bool
    absence: str
    command: world.Command | None
    voice: Voice | None
    questions: tuple[world.Question, ...]
    answers: tuple[tuple[str, ...], ...]
    number: int


def make_examples(number: int, *, split: str, seed: int, sentences: Sentences) -> Iterator[Example]:
    """The examples made from utterance ``number``: a function of its arguments only, whichever shard it runs in."""
    rng = np.random.default_rng([seed, split == "test", number])
    held_out = HELD_OUT_ENGINE_VOICES if rng.random() < HELD_OUT_ENGINE_SHARE else HELD_OUT_VOICES
    voices = TRAIN_VOICES if split == "train" else held_out
    if rng.random() < FOREIGN_SHARE:
        command, speech, voice = None, *_foreign_speech(rng, sentences, voices)
    else:
        fixed = {} if split == "train" else _test_group(number)
        command, speech, voice = _spoken_command(rng, split, voices, **fixed)
    taken_out = split == "train" and command is not None
    for _ in range(VARIANTS if split == "train" else 1):
        mode = str(rng.choice(MODES, p=(0.55, 0.15, 0.15, 0.15))) if taken_out else "none"
        yield _render(rng, speech, command, voice, mode, number, QUESTIONS if split == "train" else TEST_QUESTIONS)


def write_examples(stem: Path, examples: Sequence[Example]) -> None:
    """Write ``stem.jsonl`` and then ``stem.npz``, each under its final name only when it is complete."""
    lines = "".join(json.dumps(_description(example)) + "\n" for example in examples)
    _write(stem.with_suffix(".jsonl"), lines.encode())
    buffer = io.BytesIO()
    np.savez(buffer, **_arrays(examples))  # pyright: ignore[reportArgumentType]
    _write(stem.with_suffix(".npz"), buffer.getbuffer())


def main() -> None:
    """Command line: see the module's docstring."""
    parser = argparse.ArgumentParser(description="render the spoken-command world")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--utterances", type=int, required=True)
    parser.add_argument("--split", choices=("train", "test"), default="train")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shard", default="0/1", help="i/n: write only the files whose number is i modulo n")
    given = parser.parse_args()
    shard, shards = map(int, given.shard.split("/"))
    given.out.mkdir(parents=True, exist_ok=True)
    sentences = Sentences(parse_lexicon(LEXICON.read_bytes()))
    per_file = UTTERANCES_PER_FILE if given.split == "train" else given.utterances
    for file_number, first in enumerate(range(0, given.utterances, per_file)):
        stem = given.out / (f"train-{file_number:04d}" if given.split == "train" else "test")
        if file_number % shards != shard or stem.with_suffix(".npz").exists():
            continue
        made: list[Example] = []
        for number in range(first, min(first + per_file, given.utterances)):
            made += make_examples(number, split=given.split, seed=given.seed, sentences=sentences)
        write_examples(stem, made)
        print(f"{stem}.npz: {len(made)} examples", flush=True)


def _spoken_command(
    rng: np.random.Generator, split: str, voices: Sequence[Voice], **fixed: Any
) -> tuple[world.Command, Utterance, Voice]:
    while True:
        command, voice = world.sample_command(rng, split, **fixed), draw_voice(rng, voices)
        speech = synthesise(" ".join(command.words), voice)
        if speech is not None and len(speech.words) == len(command.words):
            speech = _trimmed(speech)
            if speech.duration_s <= _LONGEST_SPEECH_S:
                return command, speech, voice


def _test_group(number: int) -> dict[str, Any]:
    group = _TEST_GROUPS[number % len(_TEST_GROUPS)]
    return {"sound": True} if group == "sound" else {"category": group, "sound": False}


def _foreign_speech(
    rng: np.random.Generator, sentences: Sentences, voices: Sequence[Voice]
) -> tuple[Utterance, Voice | None]:
    """A sentence that is no command, or (a quarter) no speech at all."""
    if rng.random() < 0.25:
        level = rng.choice([0.0, 10 ** rng.uniform(-3, -1)])
        noise_s = level * rng.standard_normal(int(rng.uniform(0.5, 3.0) * RATE_HZ))
        return Utterance(noise_s.astype(np.float32), (), ()), None
    while True:
        voice, text = draw_voice(rng, voices), _foreign_text(rng, sentences)
        speech = synthesise(text, voice)
        if speech is not None:
            speech = _trimmed(speech)
            if speech.duration_s <= _LONGEST_SPEECH_S:
                return speech, voice


def _foreign_text(rng: np.random.Generator, sentences: Sentences) -> str:
    """Plain English, English with some words of the world in it, or a command whose slots hold foreign words."""
    kind = rng.choice(3, p=(0.5, 0.3, 0.2))
    words = sentences.draw(rng).split()[:9]
    foreign = [word for word in words if word not in world.TOKEN_IDS] or ["nothing"]
    if kind == 1:
        for index in rng.choice(len(words), size=max(1, len(words) // 4), replace=False):
            words[index] = str(rng.choice(world.SLOTS[str(rng.choice(list(world.SLOTS)))]))
    if kind == 2:
        command = world.sample_command(rng, "train", sound=False)
        slots = {fact.index for fact in command.facts + command.retracted}
        words = [str(rng.choice(foreign)) if i in slots else word for i, word in enumerate(command.words)]
    return " ".join(words)


def _render(
    rng: np.random.Generator,
    speech: Utterance,
    command: world.Command | None,
    voice: Voice | None,
    mode: str,
    number: int,
    n_questions: int,
) -> Example:
    if command is not None:
        kind, asked = command.sound, world.questions(rng, command)
    else:
        kind = str(rng.choice(world.SOUNDS)) if not speech.words and rng.random() < 0.5 else None
        asked = world.foreign_questions(rng, QUESTIONS)
        if kind is not None:
            asked[1] = world.sound_question(rng, kind)
    absent, sound_absent = _draw_absent(rng, len(speech.words), kind, asked, mode)
    utterance = _recorded(rng, speech, kind, absent, sound_absent, mode)
    while utterance.duration_s > _LONGEST_S:
        utterance = _recorded(rng, speech, kind, absent, sound_absent, mode)
    present = tuple(not gone for gone in absent)
    sound_present = kind is not None and not sound_absent
    if command is not None:
        asked = [q for q in asked if world.is_settled(command, q, present, mode=mode)]
        asked = world.choose_questions(rng, asked, n_questions)
    heard = {i for i, here in enumerate(present) if here}
    answers = tuple(world.answer_given(question, heard, sound_present) for question in asked)
    return Example(utterance, present, sound_present, mode, command, voice, tuple(asked), answers, number)


def _recorded(
    rng: np.random.Generator, speech: Utterance, kind: str | None, absent: Sequence[bool], sound_absent: bool, mode: str
) -> Utterance:
    utterance = _composed(rng, speech, kind)
    # A coalition's noise continues that of the recording; its silence and its cuts are as often older as younger.
    if mode == "noise" or rng.random() < 0.5:
        utterance = augment(utterance, rng, condition="train")
        return take_out(utterance, absent, sound_absent=sound_absent, mode=mode, rng=rng)
    utterance = take_out(utterance, absent, sound_absent=sound_absent, mode=mode, rng=rng)
    return augment(utterance, rng, condition="train")


def _draw_absent(
    rng: np.random.Generator, n_words: int, kind: str | None, asked: Sequence[world.Question], mode: str
) -> tuple[list[bool], bool]:
    """Which words are absent, and whether the sound is: at random, the evidence of a question, all but that, or all."""
    if mode == "none":
        return [False] * n_words, False
    way = rng.choice(("random", "evidence", "rest", "all"), p=(0.6, 0.25, 0.08, 0.07))
    if way == "random":
        share = rng.uniform(0.1, 0.9)
        gone = rng.random(n_words + 1) < share
    elif way == "all":
        gone = np.ones(n_words + 1, bool)
        gone[-1] = rng.random() < 0.5
    else:
        evidence = [sorted({i for needed in q.evidence for i in needed}) for q in asked if q.evidence]
        chosen = evidence[rng.integers(len(evidence))]
        gone = np.full(n_words + 1, way == "rest")
        if way == "evidence":
            chosen = rng.choice(chosen, size=rng.integers(1, len(chosen) + 1), replace=False).tolist()
        gone[chosen] = way == "evidence"
    return [bool(g) for g in gone[:-1]], bool(gone[-1]) and kind is not None


def _composed(rng: np.random.Generator, speech: Utterance, kind: str | None) -> Utterance:
    """Silence before and after, and the sound on one side of the speech."""
    parts: list[np.ndarray] = []
    spans: dict[str, tuple[int, int]] = {}

    def put(name: str, wave_s: np.ndarray) -> None:
        start = sum(map(len, parts))
        spans[name] = (start, start + len(wave_s))
        parts.append(wave_s)

    put("lead", _silence(rng, 0.03, 0.35))
    order = ["speech"] if kind is None else ["sound", "speech"] if rng.random() < 0.5 else ["speech", "sound"]
    for position, name in enumerate(order):
        if position:
            put("gap", _silence(rng, 0.08, 0.3))
        put(name, speech.wave_s if name == "speech" else sound(str(kind), rng).astype(np.float32))
    put("tail", _silence(rng, 0.03, 0.35))
    shift_s = spans["speech"][0] / RATE_HZ
    words = tuple(Span(w.label, w.start_s + shift_s, w.end_s + shift_s) for w in speech.words)
    sounds = () if kind is None else (Span(kind, spans["sound"][0] / RATE_HZ, spans["sound"][1] / RATE_HZ),)
    return Utterance(np.concatenate(parts), words, (), sounds)


def _silence(rng: np.random.Generator, shortest_s: float, longest_s: float) -> np.ndarray:
    return np.zeros(int(rng.uniform(shortest_s, longest_s) * RATE_HZ), np.float32)


def _trimmed(speech: Utterance) -> Utterance:
    """Without the synthesiser's own pauses at both ends."""
    first = max(0, int((speech.words[0].start_s - 0.02) * RATE_HZ))
    last = int((speech.words[-1].end_s + 0.06) * RATE_HZ)
    words = tuple(Span(w.label, w.start_s - first / RATE_HZ, w.end_s - first / RATE_HZ) for w in speech.words)
    return Utterance(speech.wave_s[first:last], words, ())


def _description(example: Example) -> dict[str, Any]:
    rows = zip(example.questions, example.answers, strict=True)
    return {
        "transcript": " ".join(word.label for word in example.utterance.words),
        "category": example.command.category if example.command else "outside",
        "voice": f"{example.voice.engine}/{example.voice.name}" if example.voice else "",
        "sound": example.utterance.sounds[0].label if example.utterance.sounds else None,
        "absence": example.absence,
        "questions": [
            {
                "text": question.text,
                "answer": " ".join(answer),
                "full_answer": " ".join(question.answer),
                "evidence": [list(needed) for needed in question.evidence],
                "category": question.category,
            }
            for question, answer in rows
        ],
    }


def _arrays(examples: Sequence[Example]) -> dict[str, np.ndarray]:
    waves = [np.round(np.clip(e.utterance.wave_s, -1, 1) * 32767).astype(np.int16) for e in examples]
    words = [word for e in examples for word in e.utterance.words]
    sounds = [e.utterance.sounds[0] if e.utterance.sounds else None for e in examples]
    unknown = world.TOKEN_IDS["<unk>"]
    return {
        "rate_hz": np.array(RATE_HZ),
        "waves": np.concatenate(waves),
        "offsets": np.cumsum([0, *map(len, waves)]),
        "word_offsets": np.cumsum([0, *(len(e.utterance.words) for e in examples)]),
        "word_ids": np.array([world.TOKEN_IDS.get(word.label, unknown) for word in words], np.int32),
        "word_start_s": np.array([word.start_s for word in words], np.float32),
        "word_end_s": np.array([word.end_s for word in words], np.float32),
        "word_present": np.array([here for e in examples for here in e.present], bool),
        "sound": np.array([-1 if span is None else world.SOUNDS.index(span.label) for span in sounds], np.int8),
        "sound_start_s": np.array([0.0 if span is None else span.start_s for span in sounds], np.float32),
        "sound_end_s": np.array([0.0 if span is None else span.end_s for span in sounds], np.float32),
        "sound_present": np.array([e.sound_present for e in examples], bool),
        "in_world": np.array([e.command is not None for e in examples], bool),
        "absence": np.array([MODES.index(e.absence) for e in examples], np.int8),
        "utterance": np.array([e.number for e in examples], np.int32),
    }


def _write(path: Path, data: bytes | memoryview) -> None:
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_bytes(data)
    os.replace(temporary, path)


if __name__ == "__main__":
    main()
