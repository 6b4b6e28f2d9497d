"""`sgpa verify`: a table or JSON, the words heard beside those said, and a sentence where a fault is."""

import json
from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp
import pytest
from typer.testing import Result

from sgpa_jax.models import fill

pytestmark = pytest.mark.filterwarnings("ignore")  # transformers' own

Run = Callable[..., Result]


def test_the_shipped_model_agrees_and_answers(sgpa: Run):
    result = sgpa("verify", "pocket")
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0].startswith("pocket (qwen2_audio) beside transformers")
    assert sum(line.endswith("same") for line in lines) == 15
    assert lines[-3:] == ["asked  what to do ?", "heard  lamp blue", "said   do not make the lamp red make it blue"]


def test_a_fault_is_named_in_one_sentence_and_in_json(sgpa: Run, wav: Path, monkeypatch: pytest.MonkeyPatch):
    stream = fill.stream

    def broken(*args):
        for path, array in stream(*args):
            yield path, array * jnp.nan if path == "decoder.layers.1.gate.kernel" else array

    monkeypatch.setattr(fill, "stream", broken)
    result = sgpa("verify", "pocket", "--audio", wav, "--json")
    assert result.exit_code == 2
    found = json.loads(result.stdout)
    assert found["first_divergence"] == "decoder.layers.1"
    assert (found["said"], found["asked"]["text"]) == (None, "what to do ?")
    errors = {stage["name"]: stage["error"] for stage in found["stages"]}
    assert errors["decoder.layers.1"] is None, "what is not finite has no number in JSON"
    assert errors["decoder.layers.2"] < 2e-5
    assert "first at decoder.layers.1, by inf where 2e-05 is allowed in float32" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_what_cannot_be_verified_is_told_in_one_sentence(sgpa: Run, tmp_path: Path):
    for arguments, told in (
        (("poket",), "pocket"),
        ((tmp_path,), "config.json"),
        (("pocket", "--dtype", "float16"), "float16"),
        (("pocket", "--audio", tmp_path / "none.wav"), "none.wav"),
    ):
        result = sgpa("verify", *arguments)
        assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1), result.stderr
        assert told in result.stderr
