"""A small explanation: two words, an answer of one token, a tone of half a second."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from sgpa_jax.audio import Clip
from sgpa_jax.explain import ClipInfo, Explanation, Transcript
from sgpa_jax.players import Player


def make(**changes: Any) -> Explanation:
    """Return an explanation with `changes`."""
    clip = Clip(0.5 * np.sin(2 * np.pi * 440 * np.arange(4000, dtype=np.float32) / 8000), 8000, "tone.wav")
    values = np.array([[1.5, 1.25], [-0.5, 0.1]])
    fields: dict[str, Any] = {
        "clip": ClipInfo.of(clip),
        "wave": clip,
        "transcript": Transcript("yes no", "given"),
        "messages": (
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Which?"},
        ),
        "response": "yes",
        "in_domain": None,
        "model": {"name": "pocket", "digest": "00ff", "dtype": "float32"},
        "aligner": {"name": "pocket", "digest": "ff00", "rules": "sgpa", "emission": "phone", "notes": ["A note."]},
        "game": {"value": "logprob", "readout": "response", "absence": "silence", "level": 0.5},
        "estimand": "shapley",
        "estimator": {"name": "exact", "budget": 4096, "seed": 0},
        "engine": "waveform",
        "outputs": ({"name": "response", "kind": "response"}, {"name": "yes", "kind": "token"}),
        "players": (Player("yes", "word", 0.0, 0.2, 0.9, True), Player("no", "word", 0.25, 0.5)),
        "values": values,
        "standard_errors": np.zeros((2, 2)),
        "empty_value": np.array([-2.0, -1.5]),
        "full_value": np.array([-1.0, -0.15]),
        "efficiency_gap": np.array([0.0, 1e-9]),
        "evaluations": {"requested": 4, "unique": 4, "model_forwards": 4},
        "timings": {"total": 0.25},
        "versions": {"jax": "0.10.2"},
        "warnings": ("A warning.",),
    }
    return Explanation(**(fields | changes))


@pytest.fixture(scope="session")
def make_explanation() -> Callable[..., Explanation]:
    return make
