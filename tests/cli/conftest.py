from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

import sgpa_jax
from sgpa_jax.cli import app
from sgpa_jax.explain import ClipInfo, Explanation, Transcript
from sgpa_jax.players import Player

RATE_HZ = 16_000


@pytest.fixture
def sgpa() -> Callable[..., Result]:
    """Run the command line in this process."""

    def run(*arguments: object) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="sgpa")

    return run


@pytest.fixture
def wav(tmp_path: Path) -> Path:
    """Two seconds of a tone."""
    clip = sgpa_jax.Clip(0.1 * np.sin(np.arange(2 * RATE_HZ, dtype=np.float32) / 10), RATE_HZ)
    path = tmp_path / "tone.wav"
    sgpa_jax.write_wav(path, clip)
    return path


@pytest.fixture
def explanation(wav: Path) -> Explanation:
    """Two words and a sound, an answer of one token."""
    clip = sgpa_jax.read_clip(wav)
    return Explanation(
        clip=ClipInfo.of(clip),
        wave=clip,
        transcript=Transcript("lamp red", "given"),
        messages=({"role": "user", "content": "which colour?"},),
        response="red",
        in_domain=True,
        model={"name": "pocket", "digest": "00", "dtype": "float32"},
        aligner={"name": "pocket", "digest": "00", "rules": "sgpa", "emission": "phone", "notes": ["'lamp' is odd"]},
        game={"value": "logprob", "readout": "response log-probability", "absence": "silence"},
        estimand="shapley",
        estimator={"name": "exact", "budget": 4096, "seed": 0},
        engine="waveform",
        outputs=({"name": "response", "kind": "response"}, {"name": "red", "kind": "token"}),
        players=(
            Player("lamp", "word", 0.2, 0.6, 0.9, True),
            Player("red", "word", 0.6, 1.0, 0.8, True),
            Player("sound", "sound", 1.2, 1.5),
        ),
        values=np.array([[0.5, 0.5], [2.0, 2.0], [-0.1, -0.1]]),
        standard_errors=np.zeros((3, 2)),
        empty_value=np.array([-3.0, -3.0]),
        full_value=np.array([-0.6, -0.6]),
        efficiency_gap=np.zeros(2),
        evaluations={"requested": 8, "unique": 8, "model_forwards": 8},
        timings={"evaluate": 0.5},
        versions={"sgpa_jax": "0"},
    )


@pytest.fixture
def asked(explanation: Explanation, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Stand in for the library: what it was asked last, as `.clip` and `.options`; the answer is always the same."""
    seen = SimpleNamespace()

    def explain(clip: Any, **options: Any) -> Explanation:
        seen.clip, seen.options = clip, options
        return explanation

    monkeypatch.setattr(sgpa_jax, "explain", explain, raising=False)
    return seen
