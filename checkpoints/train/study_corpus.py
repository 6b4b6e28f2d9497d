"""Render the corpus of `sgpa study`: held-out commands with questions, evidence, and exact times of words and phones.

``python -m train.study_corpus --out DIR --utterances 200``, run in ``checkpoints``; without options, the small corpus
that ships. Values and voices are combined as the *pocket* models never heard them. Utterance n is of category n modulo
5 (plain, negation, correction, binding, with a sound beside it) and of condition n modulo 4 (``mixed`` as in the
training, ``clean``, ``noise`` of 5 to 20 dB, ``reverb`` of 0.2 to 0.6 s), and its question is one of its category. A
recording is FLAC with 16 bits at 16 kHz, and a row of ``manifest.jsonl`` what `sgpa_jax.study` reads.
"""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from sgpa_jax.files import atomic_write

from . import world
from .augment import augment, pad, place
from .speech import HELD_OUT_VOICES, RATE_HZ, Span, Utterance, Voice, draw_voice, synthesise

SHIPPED = Path(__file__).parents[1] / "sgpa_checkpoints" / "study_corpus"
SHIPPED_UTTERANCES = 16
CATEGORIES = (*world.CATEGORIES, "sound")
CONDITIONS = {"mixed": "train", "clean": "clean", "noise": "noise", "reverb": "reverb"}
# The trainers take small seeds, the benchmarks 100,000: nobody has seen these.
_FIRST_SEED = 300_000
_LONGEST_S = 4.9


def main() -> None:
    """Command line: see the module's docstring."""
    parser = argparse.ArgumentParser(description="render the corpus of sgpa study")
    parser.add_argument("--out", type=Path, default=SHIPPED)
    parser.add_argument("--utterances", type=int, default=SHIPPED_UTTERANCES)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rows = [render(number, seed=given.seed, folder=given.out) for number in range(given.utterances)]
    atomic_write(given.out / "manifest.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    print(f"{given.out / 'manifest.jsonl'}: {len(rows)} utterances")


def render(number: int, *, seed: int, folder: Path) -> dict[str, Any]:
    """Write the recording of utterance `number` and return its row; both are functions of the arguments."""
    rng = np.random.default_rng([_FIRST_SEED + seed, number])
    category = CATEGORIES[number % len(CATEGORIES)]
    condition = list(CONDITIONS)[number % len(CONDITIONS)]
    utterance, command, voice = _spoken(rng, category, CONDITIONS[condition])
    fitting = [asked for asked in world.questions(rng, command) if asked.category == category and asked.evidence]
    question = fitting[rng.integers(len(fitting))]
    name = f"{number:04d}-{category}-{condition}"
    buffer = io.BytesIO()
    soundfile.write(buffer, utterance.wave_s, RATE_HZ, format="FLAC", subtype="PCM_16")
    atomic_write(folder / f"{name}.flac", buffer.getvalue())
    return {
        "id": name,
        "audio": f"{name}.flac",
        "transcript": " ".join(command.words),
        "prompt": question.text,
        "response": " ".join(question.answer),
        "evidence": sorted({index for needed in question.evidence for index in needed}),
        "condition": condition,
        "category": category,
        "voice": f"{voice.engine}/{voice.name}",
        "words": _rows(utterance.words),
        "sounds": _rows(utterance.sounds),
        "phones": _rows(utterance.phones),
    }


def _spoken(rng: np.random.Generator, category: str, condition: str) -> tuple[Utterance, world.Command, Voice]:
    """A command of the category that has a question of it, as it was recorded."""
    fixed: dict[str, Any] = {"sound": True} if category == "sound" else {"category": category, "sound": False}
    while True:
        command, voice = world.sample_command(rng, "test", **fixed), draw_voice(rng, HELD_OUT_VOICES)
        asked = {question.category for question in world.questions(rng, command) if question.evidence}
        speech = synthesise(" ".join(command.words), voice)
        if category not in asked or speech is None or len(speech.words) != len(command.words):
            continue
        utterance = speech if command.sound is None else place(speech, command.sound, rng)
        utterance = augment(pad(utterance, rng), rng, condition=condition)
        if utterance.duration_s <= _LONGEST_S:
            return utterance, command, voice


def _rows(spans: tuple[Span, ...]) -> list[tuple[str, float, float]]:
    # To a hundredth of a millisecond, which is less than a sample; a pause can be shorter still.
    rows = [(span.label, round(span.start_s, 5), round(span.end_s, 5)) for span in spans]
    return [(label, start_s, end_s) for label, start_s, end_s in rows if start_s < end_s]


if __name__ == "__main__":
    main()
