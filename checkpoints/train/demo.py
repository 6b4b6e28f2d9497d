"""Make the shipped demo: a synthesised command, its transcript and a question about it.

``python -m train.demo``, run in ``checkpoints``, writes ``sgpa_checkpoints/demo/demo.wav`` (16 kHz, PCM16) and
``demo.json`` (``{"transcript", "prompt", "answer"}``). The voice is CMU Flite's slt, the command one of the kind that
the pocket model knows: a colour is taken back, so that the last word must decide half of the answer.
"""

import json
from pathlib import Path

import numpy as np

from sgpa_jax.audio import Clip, write_wav
from sgpa_jax.files import atomic_write

from .augment import pad
from .speech import RATE_HZ, Voice, synthesise

FOLDER = Path(__file__).parents[1] / "sgpa_checkpoints" / "demo"
TRANSCRIPT = "do not make the lamp red make it blue"
PROMPT = "What to do?"
ANSWER = "lamp blue"
VOICE = Voice("flite", "slt", rate=0.9)
PEAK = 0.7


def main() -> None:
    """Write both files."""
    speech = synthesise(TRANSCRIPT, VOICE)
    if speech is None:
        raise RuntimeError(f"flite's voice {VOICE.name} cut {TRANSCRIPT!r} into other words")
    wave_s = pad(speech, np.random.default_rng(0)).wave_s
    write_wav(FOLDER / "demo.wav", Clip(wave_s * (PEAK / np.abs(wave_s).max()), RATE_HZ))
    about = {"transcript": TRANSCRIPT, "prompt": PROMPT, "answer": ANSWER}
    atomic_write(FOLDER / "demo.json", json.dumps(about, indent=2) + "\n")


if __name__ == "__main__":
    main()
