"""`sgpa steer`: what is asked of the library, what is printed, and bad input in a sentence."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from typer.testing import Result

from sgpa_jax import concepts, models
from sgpa_jax.audio import Clip, write_wav
from sgpa_jax.concepts import Concept, ConceptBank, Dose, DoseResponse, LatentEdit, Steered
from sgpa_jax.models import Response
from sgpa_jax.sae import SAEConfig, SAEState

Run = Callable[..., Result]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The library stood in for, with what it was asked."""
    told, zeros = SimpleNamespace(), jnp.zeros(4)
    sae = SAEState(jnp.ones((4, 2)), zeros, jnp.ones((4, 2)), jnp.zeros(2), zeros, SAEConfig(width=2, n_latents=4, k=1))
    model = SimpleNamespace(name="toy", world=None, prepare=lambda clip, prompt: (clip.duration_s, prompt))
    trained = SimpleNamespace(sae=sae, folded=sae, layer=1)

    def steer(network: Any, batch: Any, edit: LatentEdit, strengths: list[float], **options: Any) -> Steered:
        vars(told).update(batch=batch, edit=edit, strengths=strengths, options=options)
        said = tuple((Response((1,), f"at {strength:g}", ()),) for strength in strengths)
        return Steered(np.array(strengths), said, np.array(strengths)[:, None] / 10, np.zeros((len(said), 1)))

    def dose_response(network: Any, sae: SAEState, task: Any, **options: Any) -> DoseResponse:
        vars(told).update(task=task, options=options)
        dose = Dose(2.0, 6.0, 0.25, 9, 0.8, 0.9, {"nobody": 0.1}, 0.05, -0.1)
        return DoseResponse(
            "female",
            "male",
            (3, 1),
            (0.75, 0.25),
            0.97,
            3.0,
            {"concept": 2.0},
            {"concept": (dose,)},
            {"concept": (dose,)},
        )

    monkeypatch.setattr(models, "load_model", lambda name: model)
    monkeypatch.setattr(concepts, "autoencoder_of", lambda network, folder: trained)
    monkeypatch.setattr(concepts, "steer", steer)
    monkeypatch.setattr(concepts, "dose_response", dose_response)
    return told


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    rows = []
    for n, answer in enumerate(("female", "male", "male", None)):
        write_wav(tmp_path / f"{n}.wav", Clip(0.1 * np.ones(1600, np.float32), 16_000))
        rows.append({"audio": f"{n}.wav", "prompt": "who?"} | ({"response": answer} if answer else {}))
    path = tmp_path / "clips.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_recording_is_answered_at_every_strength(sgpa: Run, wav: Path, asked: SimpleNamespace):
    options = ("--latent", 3, "--prompt", "who?", "--strengths", "0,2.5", "--operation", "clamp", "--mode", "replace")
    result = sgpa("steer", wav, "--sae", "runs", *options, "--positions", "response", "--max-new-tokens", 5)
    assert result.exit_code == 0, result.output
    assert (asked.batch, asked.strengths) == ([(2.0, "who?")], [0.0, 2.5])
    assert (asked.edit.operation, asked.edit.mode, asked.edit.latents.tolist()) == ("clamp", "replace", [3])
    assert asked.options == {"after_layer": 1, "positions": "response", "max_new_tokens": 5}
    assert result.stdout.startswith("latent 3\n")
    assert [line.split() for line in result.stdout.splitlines()[2:]] == [
        ["0", "0.0%", "at", "0"],
        ["2.5", "25.0%", "at", "2.5"],
    ]
    told = json.loads(sgpa("steer", wav, "--sae", "runs", *options, "--json").stdout)
    assert told["answers"][1] == {"strength": 2.5, "change": 0.25, "answer": "at 2.5"}


def test_a_manifest_gives_dose_and_response(sgpa: Run, manifest: Path, asked: SimpleNamespace):
    options = ("--source", "female", "--target", "male", "--strengths", "0,1,2", "--collateral", manifest)
    result = sgpa("steer", manifest, "--sae", "runs", *options)
    assert result.exit_code == 0, result.output
    assert (asked.task.labels, asked.task.classes) == (("female", "male", "male"), ("female", "male"))
    assert (asked.options["strengths"], asked.options["latents"]) == ([1.0, 2.0], None)
    assert asked.options["collateral"].labels == asked.task.labels
    assert "latents 3 (75%), 1 (25%)" in result.stdout
    row = next(line.split() for line in result.stdout.splitlines() if line.startswith("concept "))
    assert row == ["concept", "2", "25.0%", "0.80", "0.70", "0.90", "0.05", "-0.10", "0.80"]
    told = json.loads(sgpa("steer", manifest, "--sae", "runs", *options, "--json").stdout)
    assert told["methods"]["concept"]["reported"]["selectivity"] == pytest.approx(0.7)


def test_a_name_turns_all_latents_that_have_it(
    sgpa: Run, wav: Path, asked: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
):
    told = [Concept(3, "sad male speech", mean=3.0), Concept(0, "male speech", mean=1.0), Concept(1, "dog", mean=5.0)]
    bank = ConceptBank({}, {}, tuple(told))
    monkeypatch.setattr(ConceptBank, "load", lambda folder: bank)
    monkeypatch.setattr(ConceptBank, "check", lambda bank, trained: None)
    result = sgpa("steer", wav, "--sae", "runs", "--concept", "Male speech")
    assert result.exit_code == 0, result.output
    assert "latents 3 (75%), 0 (25%)" in result.stdout and asked.edit.latents.tolist() == [3, 0]
    opposite = sgpa("steer", wav, "--sae", "runs", "--concept", "male speech", "--against", "dog", "--json")
    assert json.loads(opposite.stdout)["shares"] == asked.edit.shares.tolist() == [0.375, 0.125, -0.5]
    same = sgpa("steer", wav, "--sae", "runs", "--concept", "male", "--against", "speech")
    assert same.exit_code == 2 and "'male' and 'speech' are the same concepts" in same.stderr
    # One alone is turned whatever is known of it; how several share the strength has to be known.
    bank = ConceptBank({}, {}, (Concept(3, "dog"), Concept(0, "bell"), Concept(1, "bell")))
    assert "latent 3\n" in sgpa("steer", wav, "--sae", "runs", "--concept", "dog").stdout
    unknown = sgpa("steer", wav, "--sae", "runs", "--concept", "bell")
    assert unknown.exit_code == 2 and "does not tell how the concepts called 'bell' fire" in unknown.stderr


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("tone.wav", "--latent", "1", "--concept", "dog"), "either --latent, a number, or --concept"),
        (("tone.wav", "--latent", "1", "--against", "dog"), "say with --concept which one is to be turned up"),
        (("tone.wav",), "no latent was given to turn"),
        (("tone.wav", "--latent", "1,1.5"), "latent 1.5 was asked for, but there are 4"),
        (("tone.wav", "--latent", "4"), "latent 4 was asked for, but there are 4"),
        (("tone.wav", "--latent", "1", "--strengths", "1,x"), "strengths are '1,x'"),
        (("tone.wav", "--latent", "1", "--strengths", "nan"), "strengths are 'nan'"),
        (("tone.wav", "--latent", "1", "--operation", "double"), "unknown operation 'double'"),
        (("tone.wav", "--latent", "1", "--source", "a", "--target", "b"), "a manifest goes with --source"),
        (("clips.jsonl", "--latent", "1"), "a manifest goes with --source"),
        (("clips.jsonl", "--source", "female", "--target", "child"), "has the response 'child'"),
        (("clips.jsonl", "--source", "female", "--target", "male", "--mode", "replace"), "in both modes"),
        (("clips.jsonl", "--source", "female", "--target", "male", "--strengths", "0"), "no strength is above zero"),
        (("gone.wav", "--latent", "1"), "gone.wav"),
        (("tone.wav", "--concept", "dog"), "holds no concepts"),
    ],
)
def test_bad_input_is_a_sentence(
    sgpa: Run, wav: Path, manifest: Path, asked: SimpleNamespace, arguments: tuple[str, ...], complaint: str
):
    result = sgpa("steer", wav.parent / arguments[0], *arguments[1:], "--sae", wav.parent)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1), result.output
    assert complaint in result.stderr
