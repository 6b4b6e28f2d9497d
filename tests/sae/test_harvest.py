"""Harvests: the residual stream that the model itself gives, and the same bytes however often one is stopped."""

import json
from pathlib import Path

import numpy as np
import pytest

from sgpa_jax.audio import Clip, read_clip, write_wav
from sgpa_jax.errors import UsageError
from sgpa_jax.models import NO_CLIP, Model, load_model
from sgpa_jax.sae import HarvestConfig, harvest, open_store, read_manifest

SECONDS = (0.5, 0.9, 0.5, 0.5)


@pytest.fixture(scope="module", params=[("qwen2_audio", "float32"), ("lfm2_audio", "bfloat16")], ids=["qwen2", "lfm2"])
def model(request, tiny_folder) -> Model:
    name, dtype = request.param
    return load_model(tiny_folder(name), dtype=dtype)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Path:
    folder, rng = tmp_path_factory.mktemp("corpus"), np.random.default_rng(0)
    rows = []
    for n, seconds in enumerate(SECONDS):
        write_wav(folder / f"{n}.wav", Clip(0.1 * rng.standard_normal(int(16000 * seconds)).astype(np.float32), 16000))
        rows.append({"audio": f"{n}.wav", "id": f"clip {n}", "labels": [f"label {n % 2}"]})
    rows.insert(2, {"audio": "gone.wav", "labels": []})
    (folder / "clips.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "clips.jsonl"


CONFIG = HarvestConfig(layers=(1, 0), prompt="which colour?", batch=2, clips_per_shard=3)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_rows_are_the_models_and_a_stopped_harvest_ends_alike(model: Model, manifest: Path, tmp_path: Path):
    recordings = read_manifest(manifest)
    whole = harvest(model, recordings, tmp_path / "whole", CONFIG)
    assert (whole.layers, whole.width, len(whole.index)) == ((1, 0), 32, 5)
    by_id = {recording.id: recording for recording in recordings}
    assert [row["clip"] for row in whole.index] != [recording.id for recording in recordings], "the order is drawn"
    for row in whole.index:
        if row["clip"] == "gone.wav":
            assert row["tokens"] == 0 and "not there" in row["error"]
            continue
        inputs = model.prepare(read_clip(by_id[row["clip"]].path), CONFIG.prompt)
        expected = np.asarray(model.residuals(inputs, CONFIG.layers))[:, inputs.clip_t != NO_CLIP]
        for layer, expected_nd in zip(CONFIG.layers, expected, strict=True):
            found_nd = whole.rows(row["shard"], layer)[row["offset"] : row["offset"] + row["tokens"]]
            assert found_nd.dtype.name == model.dtype
            tolerance = 0.05 if model.dtype == "bfloat16" else 1e-4
            found_nd, expected_nd = found_nd.astype(np.float32), expected_nd.astype(np.float32)
            np.testing.assert_allclose(found_nd, expected_nd, atol=tolerance)
        assert row["labels"] == list(by_id[row["clip"]].labels)

    class Stopped(Exception):
        pass

    def stop(done: int, total: int) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        harvest(model, recordings, tmp_path / "stopped", CONFIG, progress=stop)
    with pytest.raises(UsageError, match="is not finished"):
        open_store(tmp_path / "stopped")
    # As if it had been killed between the lines and the tensors of the second shard.
    (tmp_path / "stopped" / "shard-00001.jsonl").write_text("half a li")
    first = (tmp_path / "stopped" / "shard-00000.safetensors").stat().st_mtime_ns
    harvest(model, recordings, tmp_path / "stopped", CONFIG)
    assert (tmp_path / "stopped" / "shard-00000.safetensors").stat().st_mtime_ns == first
    assert contents(tmp_path / "stopped") == contents(tmp_path / "whole")

    other = HarvestConfig(layers=(1, 0), prompt="what sound?", batch=2, clips_per_shard=3)
    with pytest.raises(UsageError, match="another harvest \\(other prompt\\)"):
        harvest(model, recordings, tmp_path / "whole", other)


def test_refuses_layers_that_are_not_there(model: Model, manifest: Path, tmp_path: Path):
    with pytest.raises(UsageError, match=r"\[2\] are not all from 0 to 1"):
        harvest(model, read_manifest(manifest), tmp_path, HarvestConfig(layers=(2,)))
    with pytest.raises(UsageError, match="at least one clip"):
        harvest(model, read_manifest(manifest), tmp_path, HarvestConfig(layers=(1,), batch=0))
    assert list(tmp_path.iterdir()) == []


def test_manifests(tmp_path: Path):
    path = tmp_path / "clips.csv"
    path.write_text("audio,labels,prompt,response\na.wav,dog; bark,what?,a dog\nb.wav,,,\n")
    a, b = read_manifest(path)
    assert (a.id, a.path, a.labels, a.prompt, a.response) == (
        "a.wav",
        tmp_path / "a.wav",
        ("dog", "bark"),
        "what?",
        "a dog",
    )
    assert (b.labels, b.prompt) == ((), None)
    for text, told in (
        ("audio\n", "no rows"),
        ("sound\na.wav\n", "row 1 .* has no 'audio'"),
        ("audio\na.wav\na.wav\n", "'a.wav' more than once"),
    ):
        path.write_text(text)
        with pytest.raises(UsageError, match=told):
            read_manifest(path)
    (tmp_path / "clips.jsonl").write_text("[1, 2")
    with pytest.raises(UsageError, match="no JSON lines"):
        read_manifest(tmp_path / "clips.jsonl")
    with pytest.raises(UsageError, match="cannot read"):
        read_manifest(tmp_path / "gone.csv")
