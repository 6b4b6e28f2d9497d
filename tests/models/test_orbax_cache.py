"""Converted folders: the same parameters, and never stale or damaged ones."""

import json
import logging
import shutil
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import sgpa_checkpoints
from flax import nnx
from safetensors.numpy import save_file
from sgpa_checkpoints import Rule, Transpose

from sgpa_jax.errors import CheckpointError, UsageError
from sgpa_jax.models.convert import convert_model
from sgpa_jax.models.fill import fill
from sgpa_jax.models.layers import Linear
from sgpa_jax.models.load import load_model
from sgpa_jax.models.orbax_cache import STAMP, content_key, save
from sgpa_jax.models.sharding import parse_mesh

RULES = (Rule("up.weight", "up.kernel", Transpose), Rule("up.bias", "up.bias"))
POCKET = sgpa_checkpoints.shipped_folder("pocket")


class Network(nnx.Module):
    """A matrix and a vector."""

    def __init__(self, rngs: nnx.Rngs):
        self.up = Linear(16, 32, rngs=rngs)


def build() -> Network:
    return Network(nnx.Rngs(0))


def values(state: nnx.State) -> dict[str, np.ndarray]:
    return {".".join(map(str, path)): np.asarray(leaf.get_value()) for path, leaf in nnx.to_flat_state(state)}


def write_source(folder: Path, seed: int) -> Path:
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(seed)
    tensors = {name: rng.normal(size=n).astype(np.float32) for name, n in (("up.weight", (32, 16)), ("up.bias", 32))}
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text("{}")
    return folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_source(tmp_path / "source", 0)


@pytest.fixture
def converted(source: Path, tmp_path: Path) -> Path:
    out = tmp_path / "converted"
    out.mkdir()
    state = fill(build, source, RULES, dtype="bfloat16")[1]
    save(out, source, {path: jnp.asarray(array) for path, array in values(state).items()}, RULES, "bfloat16")
    return out


def assert_equal(folder: Path, expected: Path, rules=RULES, mesh=None) -> None:
    found = values(fill(build, folder, rules, dtype="bfloat16", mesh=mesh)[1])
    wanted = values(fill(build, expected, rules, dtype="bfloat16")[1])
    for path, array in wanted.items():
        assert found[path].dtype == array.dtype
        np.testing.assert_array_equal(found[path], array)


@pytest.mark.parametrize("mesh", [None, "model=4"])
def test_restored_parameters_are_the_sources(source: Path, converted: Path, mesh: str | None, caplog):
    assert_equal(converted, source, mesh=None if mesh is None else parse_mesh(mesh))
    assert caplog.records == []


def test_they_are_restored_onto_a_mesh(converted: Path):
    state = fill(build, converted, RULES, dtype="bfloat16", mesh=parse_mesh("model=4"))[1]
    kernel = next(leaf.get_value() for path, leaf in nnx.to_flat_state(state) if path == ("up", "kernel"))
    assert {shard.data.shape for shard in kernel.addressable_shards} == {(16, 8)}


def damage(folder: Path) -> None:
    path = max((folder / "parameters").rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else -1)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("change", "told"),
    [("damaged", "its files are damaged"), ("file gone", "its files are damaged"), ("source", "has changed since")],
)
def test_what_cannot_be_used_is_converted_again_and_said_so(source: Path, converted: Path, change: str, told, caplog):
    match change:
        case "damaged":
            damage(converted)
        case "file gone":
            shutil.rmtree(converted / "parameters")
        case "source":
            write_source(source, 1)
    with caplog.at_level(logging.WARNING, "sgpa_jax"):
        assert_equal(converted, source)
    assert [told in record.getMessage() for record in caplog.records] == [True]
    caplog.clear()
    assert_equal(converted, source)
    assert caplog.records == []


def test_other_rules_convert_again(source: Path, converted: Path, caplog):
    rules = (*RULES, Rule("unused", "unused"))
    assert_equal(converted, source, rules)
    assert "the rules or the configuration have changed" in caplog.text


def test_without_its_source_a_damaged_folder_is_refused(source: Path, converted: Path):
    shutil.rmtree(source)
    fill(build, converted, RULES, dtype="bfloat16")
    damage(converted)
    with pytest.raises(CheckpointError, match=r"its files are damaged.* is gone; convert again"):
        fill(build, converted, RULES, dtype="bfloat16")


def test_another_dtype_is_refused(converted: Path):
    with pytest.raises(CheckpointError, match="was converted to bfloat16, but float32 was asked for"):
        fill(build, converted, RULES, dtype="float32")


def test_a_damaged_stamp_is_told(converted: Path):
    (converted / STAMP).write_text(json.dumps({"source": 3}))
    with pytest.raises(CheckpointError, match=r"converted\.json is damaged"):
        fill(build, converted, RULES, dtype="bfloat16")


def test_the_key_is_of_the_content(source: Path, tmp_path: Path):
    copy = tmp_path / "copy"
    shutil.copytree(source, copy)
    assert content_key(copy) == content_key(source)
    assert content_key(write_source(copy, 1)) != content_key(source)


def test_a_converted_model_loads_like_the_one_it_came_from(tmp_path: Path):
    out = convert_model("pocket", tmp_path / "out", dtype="float32")
    assert not list(out.glob("*.safetensors*"))
    assert not list(out.glob(".*"))
    found, expected = load_model(out, dtype="float32"), load_model("pocket")
    assert found.config == expected.config
    assert values(found.state).keys() == values(expected.state).keys()
    for path, array in values(expected.state).items():
        np.testing.assert_array_equal(values(found.state)[path], array)
    with pytest.raises(UsageError, match="is converted already"):
        convert_model(out, tmp_path / "again")
    (tmp_path / "taken").mkdir()
    with pytest.raises(UsageError, match="exists and is no converted checkpoint"):
        convert_model("pocket", tmp_path / "taken")
