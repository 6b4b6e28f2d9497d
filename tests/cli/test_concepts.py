"""`sgpa concepts`: from an autoencoder to pages, on a tiny model; bad input told in a sentence."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from sgpa_jax import sae as room
from sgpa_jax.audio import Clip, write_wav
from sgpa_jax.cli import app
from sgpa_jax.concepts import Concept, ConceptBank, Representative
from sgpa_jax.models import load_model


@pytest.fixture(scope="module")
def sgpa() -> Callable[..., Result]:
    return lambda *arguments: CliRunner().invoke(app, ["concepts", *map(str, arguments)], prog_name="sgpa")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, tiny_folder) -> Path:
    """Eight clips of tones or noise with labels and captions, harvested, and an autoencoder after a step."""
    folder, rng, rows = tmp_path_factory.mktemp("work"), np.random.default_rng(0), []
    for n in range(8):
        kind, time_s = ("tone", "noise")[n % 2], np.arange(8000) / 16_000
        wave_s = np.sin(2 * np.pi * (300 + 40 * n) * time_s) if kind == "tone" else rng.standard_normal(8000)
        write_wav(folder / f"{n}.wav", Clip((0.1 * wave_s).astype(np.float32), 16_000))
        rows.append({"audio": f"{n}.wav", "id": f"c{n}", "labels": [kind], "caption": f"a {kind} is heard"})
    (folder / "clips.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    model = load_model(tiny_folder("qwen2_audio"), dtype="float32")
    config = room.HarvestConfig(layers=(0,), batch=8)
    store = room.harvest(model, room.read_manifest(folder / "clips.jsonl"), folder / "act", config)
    sizes = {"kind": "topk", "k": 4, "n_steps": 1, "batch": 16, "learning_rate": 1e-3}
    recipe = room.recipe_of("recommended", store.width, expansion=2, compute="float32", seed=0, **sizes)
    room.train(store, 0, recipe, folder / "sae", paths=room.Paths())
    return folder


def test_ranked_named_evaluated_and_shown(sgpa: Callable[..., Result], work: Path, tmp_path: Path):
    sae, act, manifest = work / "sae", work / "act", work / "clips.jsonl"
    result = sgpa("rank", sae, act, "--clips", manifest, "--p", 2, "--keep", 5)
    assert result.exit_code == 0 and "5 concepts of" in result.stdout, result.output
    bank = ConceptBank.load(sae)
    assert (len(bank), len(bank.concepts[0].top), bank.concepts[0].top[0].path is not None) == (5, 2, True)

    result = sgpa("name", sae, "--captions", manifest, "--held-out", act)
    assert result.exit_code == 0 and "of 5 concepts have names, detection" in result.stdout, result.output
    assert ConceptBank.load(sae).concepts[0].captions[0].endswith("is heard")

    result = sgpa("evaluate", sae, "--dev", act, "--eval", act, "--resamples", 2, "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert list(told) == ["A", "B", "C"] and told["B"]["n_classes"] == 2 and 0 < told["B"]["figures"]["mAP"] <= 1
    result = sgpa("evaluate", sae, "--dev", act, "--eval", act, "--resamples", 0, "--protocols", "B")
    assert "B mAP" in result.stdout and " to " not in result.stdout

    by_mean = sgpa("evaluate", sae, "--dev", act, "--eval", act, "--resamples", 0, "--scorer", "mean", "--json")
    assert {part["facts"]["scorer"] for part in json.loads(by_mean.stdout).values()} == {"mean"}
    assert {part["facts"]["scorer"] for part in told.values()} == {"representativeness"}

    result = sgpa("report", sae, act, "--out", tmp_path / "pages", "--limit", 2)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [str(tmp_path / "pages" / "index.html"), "2 pages of 5 concepts"]
    (first, _) = sorted((tmp_path / "pages").glob("latent-*.html"))
    text = first.read_text("utf-8")
    assert text.count("<audio") == 4 and text.count('class="activation"') == 4


def test_names_are_rated_by_people(sgpa: Callable[..., Result], tmp_path: Path):
    clips = (Representative("a", Path("/sounds/a.wav"), 1.0, 1.0),)
    for source in ("latents", "raw"):
        concepts = tuple(Concept(latent, f"{source} {latent}", top=clips) for latent in range(3))
        ConceptBank({}, {}, concepts).save(tmp_path / source)
    asked = ("sheet", tmp_path / "latents", f"base={tmp_path / 'raw'}", "--raters", "ann, bob", "--items", 2)
    result = sgpa(*asked, "--out", tmp_path / "out")
    sheet = tmp_path / "out" / "ratings.csv"
    assert (result.exit_code, result.stdout.strip()) == (0, str(sheet)), result.output
    header, *rows = sheet.read_text().splitlines()
    assert len(rows) == 8 and "latents" not in header
    sheet.write_text("\n".join([header, *(f"{row}{5 if 'latents' in row else 2}" for row in rows)]))

    result = sgpa("ratings", tmp_path / "out")
    assert "latents: 5.00 ± 0.00, alpha nan; 4 ratings of 2 items by 2 raters" in result.stdout, result.output
    told = json.loads(sgpa("ratings", tmp_path / "out", "--json").stdout)
    assert told["base"]["mean"] == 2 and told["base"]["alpha"] is None
    for arguments, complaint in (
        ((*asked, "--out", tmp_path / "out"), "may have been filled in"),
        ((*asked, tmp_path / "latents", "--out", tmp_path / "new"), "two sources are called 'latents'"),
        (("ratings", tmp_path), "cannot read"),
    ):
        result = sgpa(*arguments)
        assert (result.exit_code, result.stderr.count("\n")) == (2, 1) and complaint in result.stderr, result.output


def test_bad_input_is_a_sentence(sgpa: Callable[..., Result], work: Path, tmp_path: Path):
    sae, act, manifest = work / "sae", work / "act", work / "clips.jsonl"
    other = tmp_path / "other.jsonl"
    other.write_text('{"audio": "0.wav"}\n')
    embedder = ("--embedder", tmp_path)
    for arguments, complaint in (
        (("rank", tmp_path, act), "holds no autoencoder"),
        (("rank", sae, tmp_path), "holds no"),
        (("rank", sae, act, "--p", 9), "no latent fires in 9 clips"),
        (("rank", sae, act, "--scorer", "men"), "unknown scorer 'men'"),
        (("rank", sae, act, *embedder), "say with --clips where they are"),
        (("rank", sae, act, "--clips", manifest, *embedder), "holds no embedder.safetensors"),
        (("name", tmp_path, "--captions", manifest), "holds no concepts"),
        (("evaluate", sae, "--dev", act, "--eval", act, "--protocols", "B,D"), "unknown protocol 'D'"),
        (("report", sae, act, "--bank", tmp_path, "--out", tmp_path / "pages"), "holds no concepts"),
    ):
        result = sgpa(*arguments)
        assert (result.exit_code, result.stderr.count("\n")) == (2, 1), (arguments, result.output)
        assert complaint in result.stderr, (arguments, result.stderr)
    assert not (tmp_path / "pages").exists()

    bank = tmp_path / "bank"
    assert sgpa("rank", sae, act, "--bank", bank, "--p", 2).exit_code == 0
    for arguments, complaint in (
        (("name", sae, "--bank", bank), "give --captions, or --captioner"),
        (("name", sae, "--bank", bank, "--captions", tmp_path / "gone"), "cannot read"),
        (("name", sae, "--bank", bank, "--captions", other), "line 1 of"),
        (("name", sae, "--bank", bank, "--captioner", "nobody"), "expected model:NAME"),
    ):
        result = sgpa(*arguments)
        assert (result.exit_code, result.stderr.count("\n")) == (2, 1), (arguments, result.output)
        assert complaint in result.stderr, (arguments, result.stderr)
