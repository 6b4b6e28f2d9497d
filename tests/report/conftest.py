"""A made-up explanation to report on: seven words and a beep, an answer of one word, a voice made of harmonics."""

from typing import Any

import numpy as np
import pytest

from sgpa_jax.audio import Clip
from sgpa_jax.explain import ClipInfo, Explanation, Transcript
from sgpa_jax.players import Player

RATE_HZ = 16_000
WORDS = [
    ("make", 0.12, 0.38),
    ("the", 0.38, 0.50),
    ("lamp", 0.50, 0.86),
    ("blue", 0.86, 1.22),
    ("and", 1.30, 1.44),
    ("not", 1.44, 1.70),
    ("red", 1.70, 2.02),
]
BEEP = ("sound", 2.16, 2.40)
VALUES = [
    [0.21, 0.20, 0.01],
    [0.04, 0.03, 0.01],
    [0.92, 0.90, 0.02],
    [4.36, 4.30, 0.06],
    [-0.11, -0.12, 0.01],
    [0.78, 0.80, -0.02],
    [-1.47, -1.50, 0.03],
    [0.02, 0.01, 0.01],
]


def speech() -> Clip:
    """Return 2.5 s that look like speech: a burst of noise and gliding formants for every word, and a beep."""
    rng = np.random.default_rng(0)
    wave_s = 0.003 * rng.standard_normal(int(2.5 * RATE_HZ))
    for i, (_, start_s, end_s) in enumerate(WORDS):
        first, last = int(start_s * RATE_HZ), int(end_s * RATE_HZ)
        time_s = np.arange(last - first) / RATE_HZ
        rise = np.linspace(0, 1, last - first)
        pitch_hz = 135 - 25 * rise + 6 * i
        phase = 2 * np.pi * np.cumsum(pitch_hz) / RATE_HZ
        voice = np.zeros_like(time_s)
        for harmonic in range(1, 36):
            frequency_hz = harmonic * pitch_hz
            gain = sum(
                weight * np.exp(-(((frequency_hz - formant_hz - slope * rise) / 130) ** 2))
                for weight, formant_hz, slope in [
                    (1.0, 300 + 70 * (i * 3 % 7), 120),
                    (0.5, 1000 + 190 * (i * 5 % 7), 420 - 140 * (i % 5)),
                    (0.25, 2500 + 60 * i, -150),
                ]
            )
            voice += gain * np.sin(harmonic * phase)
        burst = rng.standard_normal(time_s.size) * np.exp(-time_s / 0.018)
        wave_s[first:last] += (0.24 * voice + 0.10 * burst) * np.sin(np.pi * rise) ** 0.5
    first, last = (int(edge_s * RATE_HZ) for edge_s in BEEP[1:])
    wave_s[first:last] += 0.15 * np.sin(2 * np.pi * 1400 * np.arange(last - first) / RATE_HZ)
    return Clip((0.8 * wave_s / np.abs(wave_s).max()).astype(np.float32), RATE_HZ, "lamp.wav")


def explanation(**changes: Any) -> Explanation:
    """Return an exact explanation of the clip, with `changes`."""
    clip = speech()
    values = np.array(VALUES)
    full = np.array([-0.12, -0.11, -0.01])
    spans = [("word", *word) for word in WORDS] + [("sound", *BEEP)]
    fields: dict[str, Any] = {
        "clip": ClipInfo.of(clip),
        "wave": clip,
        "transcript": Transcript("make the lamp blue and not red", "given"),
        "messages": ({"role": "user", "content": "What colour should the lamp be?"},),
        "response": "blue",
        "in_domain": True,
        "model": {"name": "pocket", "digest": "5f70bf18a086007016e948b04aed3b82103a36be", "dtype": "float32"},
        "aligner": {
            "name": "pocket", "digest": "c0ffee", "rules": "sgpa", "emission": "phone",
            "notes": ["“lamp” begins where two sounds melt into each other."],
        },
        "game": {"value": "logprob", "readout": "response", "absence": "silence"},
        "estimand": "shapley",
        "estimator": {"name": "exact", "budget": 4096, "seed": 0},
        "engine": "waveform",
        "outputs": (
            {"name": "response", "kind": "response"},
            {"name": " blue", "kind": "token"},
            {"name": "<|im_end|>", "kind": "token"},
        ),
        "players": tuple(
            Player(label, kind, start_s, end_s, 0.97 if kind == "word" else None, kind == "word")
            for kind, label, start_s, end_s in spans
        ),
        "values": values,
        "standard_errors": np.zeros_like(values),
        "empty_value": full - values.sum(axis=0),
        "full_value": full,
        "efficiency_gap": np.array([2.2e-7, -1e-7, 0.0]),
        "evaluations": {"requested": 256, "unique": 256, "model_forwards": 256},
        "timings": {"align": 0.21, "evaluate": 0.64, "total": 0.93},
        "versions": {"sgpa-jax": "0.1.0", "jax": "0.10.2"},
    }  # fmt: skip
    return Explanation(**(fields | changes))


def estimated(**changes: Any) -> Explanation:
    """Return the same explanation, as if its values had been sampled."""
    errors = 0.04 + 0.06 * np.abs(np.array(VALUES))
    return explanation(
        standard_errors=errors,
        estimator={"name": "permutation", "budget": 4096, "seed": 0},
        evaluations={"requested": 4098, "unique": 211, "model_forwards": 211},
        **changes,
    )


@pytest.fixture(scope="session")
def exact_explanation() -> Explanation:
    return explanation()


@pytest.fixture(scope="session")
def estimated_explanation() -> Explanation:
    return estimated()


@pytest.fixture(scope="session")
def hostile_explanation() -> Explanation:
    return hostile()


HOSTILE = '<script>window.hacked=1</script></script><img src=x onerror="window.hacked=2">'


def hostile() -> Explanation:
    """Return an explanation in which everybody's text wants to be something else."""
    players = [
        Player(label, "word", start_s, end_s)
        for label, (_, start_s, end_s) in zip(
            [HOSTILE, "$x^{", "[bold red]", "<!--", "\x1b[31m", "‮gnihton", "{{7*7}}"], WORDS, strict=True
        )
    ]
    return explanation(
        players=tuple(players),
        values=np.array(VALUES[:7]),
        standard_errors=np.zeros((7, 3)),
        transcript=Transcript(HOSTILE, HOSTILE),
        messages=({"role": "user", "content": HOSTILE + " $1 $$ ${answer}"},),
        response=HOSTILE + " [/] $\\frac",
        outputs=(
            {"name": "response", "kind": "response"},
            {"name": HOSTILE, "kind": "token"},
            {"name": "<!--<script>", "kind": "token"},
        ),
        model={"name": HOSTILE, "digest": HOSTILE, "dtype": "float32"},
        game={"value": HOSTILE, "readout": {"a": HOSTILE}, "absence": HOSTILE},
        warnings=(HOSTILE,),
    )
