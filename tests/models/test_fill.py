"""Filling a network: dtypes, meshes and layouts give the checkpoint's values, and never the mapped file itself."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import sgpa_checkpoints
from flax import nnx
from safetensors.numpy import save_file
from sgpa_checkpoints import Conv, FormatError, Rule, Transpose

from sgpa_jax.errors import CheckpointError, UsageError
from sgpa_jax.models.families import family_of
from sgpa_jax.models.fill import fill, target
from sgpa_jax.models.layers import Embedding, Linear
from sgpa_jax.models.sharding import parse_mesh

RULES = (
    Rule("embed.weight", "embedding.table"),
    Rule("up.weight", "up.kernel", Transpose),
    Rule("up.bias", "up.bias"),
    Rule("conv.weight", "conv", Conv),
)


class Network(nnx.Module):
    """One parameter of every kind."""

    def __init__(self, rngs: nnx.Rngs):
        self.embedding = Embedding(64, 16, rngs=rngs)
        self.up = Linear(16, 32, rngs=rngs)
        self.conv = nnx.Param(jnp.zeros((3, 4, 5)))


def build() -> Network:
    return Network(nnx.Rngs(0))


@pytest.fixture(params=[np.float32, ml_dtypes.bfloat16], ids=["float32", "bfloat16"])
def folder(request, tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    shapes = {"embed.weight": (64, 16), "up.weight": (32, 16), "up.bias": (32,), "conv.weight": (5, 4, 3)}
    tensors = {name: rng.normal(size=shape).astype(request.param) for name, shape in shapes.items()}
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"hidden_size": 16, "vocab_size": 64}))
    return tmp_path


def values(state: nnx.State) -> dict[str, jax.Array]:
    return {".".join(map(str, path)): leaf.get_value() for path, leaf in nnx.to_flat_state(state)}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("mesh", [None, "model=4", "data=2,model=2"])
def test_values_are_the_checkpoints_in_the_dtype_asked_for(folder: Path, dtype: str, mesh: str | None):
    expected = dict(
        sgpa_checkpoints.convert(
            sgpa_checkpoints.read_tensors(folder),
            RULES,
            {"embedding.table": (64, 16), "up.kernel": (16, 32), "up.bias": (32,), "conv": (3, 4, 5)},
        )
    )
    graphdef, state = fill(build, folder, RULES, dtype=dtype, mesh=None if mesh is None else parse_mesh(mesh))
    found = values(state)
    assert found.keys() == expected.keys()
    for path, array in found.items():
        assert array.dtype == (dtype if array.ndim > 1 else "float32")
        np.testing.assert_array_equal(np.asarray(array), expected[path].astype(array.dtype))
    if mesh is not None:
        assert {shard.data.shape for shard in found["up.kernel"].addressable_shards} == {
            (16, 32 // parse_mesh(mesh).shape["model"])
        }
    assert nnx.merge(graphdef, state).up.kernel.shape == (16, 32)


@pytest.mark.parametrize("mesh", [None, "model=2"])
def test_parameters_are_no_views_of_the_file(folder: Path, mesh: str | None):
    """A file written over must not change a model that is loaded."""
    before = fill(build, folder, RULES, dtype="float32", mesh=None if mesh is None else parse_mesh(mesh))[1]
    kept = {path: np.array(array, copy=True) for path, array in values(before).items()}
    with (folder / "model.safetensors").open("r+b") as file:
        n_bytes = (folder / "model.safetensors").stat().st_size
        file.seek(400)
        file.write(b"\1" * (n_bytes - 400))
    for path, array in values(before).items():
        np.testing.assert_array_equal(np.asarray(array), kept[path])


def test_a_wrong_shape_is_told_with_the_configurations_key(folder: Path):
    rng = np.random.default_rng(0)
    tensors = {name: np.array(array) for name, array in sgpa_checkpoints.read_tensors(folder)}
    save_file(tensors | {"embed.weight": rng.normal(size=(63, 16))}, folder / "model.safetensors")
    with pytest.raises(FormatError, match=r"embed\.weight: its shape becomes \(63, 16\).*64 is vocab_size"):
        fill(build, folder, RULES)


def test_nothing_is_computed_for_the_target():
    slots = target(lambda: Linear(10**6, 10**6, rngs=nnx.Rngs(0)), dtype="bfloat16").slots
    assert slots["kernel"].shape == (10**6, 10**6)
    assert (slots["kernel"].dtype, slots["bias"].dtype) == ("bfloat16", "float32")


def test_an_unknown_dtype_is_told(folder: Path):
    with pytest.raises(UsageError, match="float16"):
        fill(build, folder, RULES, dtype="float16")


POCKET = sgpa_checkpoints.shipped_folder("pocket")


@pytest.fixture
def pocket(tmp_path: Path) -> Path:
    """The configuration of the pocket model, to be filled with a damaged checkpoint."""
    (tmp_path / "config.json").write_bytes((POCKET / "config.json").read_bytes())
    return tmp_path


def fill_family(folder: Path) -> None:
    raw = sgpa_checkpoints.read_json(folder / "config.json")
    family = family_of(raw)
    config = family.read_config(raw, None)
    fill(lambda: family.build(config), folder, family.rules, normalise=family.normalise)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ("missing", "decoder.norm.scale: no tensor fills it (language_model.model.norm.weight was expected)"),
        ("extra", "decoder.more.weight: no rule maps it"),
        ("shape", "language_model.model.norm.weight: its shape becomes (7,)"),
        ("dtype", "language_model.model.norm.weight: it holds int32"),
        ("two shards", "tensor language_model.model.norm.weight stands in both"),
        ("truncated", "model-2.safetensors is cut short"),
        ("header", "the header of"),
        ("pickle", "is a pickle, which can run code and is refused"),
        ("rope", "yarn"),
    ],
)
def test_every_damage_is_told_in_one_sentence(pocket: Path, damage: str, told: str):
    norm = "language_model.model.norm.weight"
    tensors = {name: np.array(array) for name, array in sgpa_checkpoints.read_tensors(POCKET)}
    second = {norm: tensors.pop(norm)}
    match damage:
        case "missing":
            second = {}
        case "extra":
            second["decoder.more.weight"] = np.zeros(1, np.float32)
        case "shape":
            second[norm] = np.zeros(7, np.float32)
        case "dtype":
            second[norm] = second[norm].astype(np.int32)
        case "two shards":
            tensors[norm] = second[norm]
        case "rope":
            raw = json.loads((pocket / "config.json").read_text())
            raw["text_config"]["rope_parameters"] = {"rope_type": "yarn", "rope_theta": 1e4}
            (pocket / "config.json").write_text(json.dumps(raw))
    save_file(tensors, pocket / "model-1.safetensors")
    save_file(second, pocket / "model-2.safetensors")
    weight_map = {str(k): f"model-{k}.safetensors" for k in (1, 2)}
    index = pocket / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    if damage == "truncated":
        path = pocket / "model-2.safetensors"
        path.write_bytes(path.read_bytes()[:-1])
    elif damage == "header":
        (pocket / "model-2.safetensors").write_bytes((10**9).to_bytes(8, "little") + b"{}")
    elif damage == "pickle":
        index.rename(pocket / "pytorch_model.bin")
    with pytest.raises((FormatError, CheckpointError)) as caught:
        fill_family(pocket)
    message = str(caught.value)
    assert told in message
    assert "\n" not in message
    assert message.count(" in 1 place") == (damage in ("missing", "extra", "shape", "dtype"))
