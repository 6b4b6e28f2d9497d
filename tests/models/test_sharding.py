"""Meshes from text, and which parameter is cut where."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sgpa_checkpoints
from flax import nnx
from jax.sharding import AxisType, PartitionSpec

from sgpa_jax.errors import UsageError
from sgpa_jax.models.audio_lm import AudioLM
from sgpa_jax.models.families import family_of
from sgpa_jax.models.fill import fill, shape_rngs, target
from sgpa_jax.models.order import causal_order
from sgpa_jax.models.sharding import parameter_spec, parse_mesh


@pytest.mark.parametrize(
    ("text", "shape"),
    [("data=4,model=2", (4, 2)), ("model=8", (1, 8)), ("data=3", (3, 1)), ("model=2, data=1", (1, 2))],
)
def test_a_mesh_has_both_axes(text: str, shape: tuple[int, int]):
    mesh = parse_mesh(text)
    assert tuple(mesh.shape.items()) == (("data", shape[0]), ("model", shape[1]))
    assert set(mesh.axis_types) == {AxisType.Auto}


@pytest.mark.parametrize("text", ["", "8", "model", "model=0", "model=-1", "model=2,model=2", "heads=2", "model=²"])
def test_what_describes_no_mesh_is_told(text: str):
    with pytest.raises(UsageError, match="describes no mesh"):
        parse_mesh(text)


def test_more_devices_than_there_are_is_told():
    with pytest.raises(UsageError, match="needs 10 devices, but there are 8"):
        parse_mesh("data=5,model=2")


@pytest.mark.parametrize(
    ("path", "shape", "spec"),
    [
        ("decoder.layers.3.query.kernel", (64, 32), (None, "model")),
        ("encoder.layers.0.query.bias", (32,), ("model",)),
        ("decoder.layers.3.down.kernel", (64, 32), ("model", None)),
        ("decoder.layers.3.out.bias", (32,), ()),
        ("decoder.embedding.table", (80, 32), ("model", None)),
        ("decoder.embedding.table", (81, 32), ()),
        ("audio_out.codebooks.7.embedding.table", (2049, 64), (None, "model")),
        ("audio_out.depth_input.kernel", (64, 512), (None, "model")),
        ("encoder.layers.3.attention.relative.kernel", (64, 64), (None, "model")),
        ("decoder.layers.3.key.kernel", (64, 6), ()),
        ("decoder.layers.3.attention_norm.scale", (64,), ()),
        ("projector.first.kernel", (64, 64), ()),
    ],
)
def test_a_parameter_is_cut_by_its_path_where_its_axis_divides(path: str, shape: tuple[int, ...], spec: tuple):
    assert parameter_spec(path, shape, 4) == PartitionSpec(*spec)


def test_eight_devices_compute_what_one_computes():
    folder = sgpa_checkpoints.shipped_folder("pocket")
    raw = sgpa_checkpoints.read_json(folder / "config.json")
    family = family_of(raw)
    config = family.read_config(raw, None)

    def logits(mesh_text: str | None) -> np.ndarray:
        mesh = None if mesh_text is None else parse_mesh(mesh_text)
        filled = fill(lambda: family.build(config), folder, family.rules, normalise=family.normalise, mesh=mesh)
        network = nnx.merge(*filled)
        assert isinstance(network, AudioLM)
        graphdef, state = nnx.split(network.decoder)
        ids = jnp.asarray(np.random.default_rng(0).integers(0, config.decoder.vocab_size, (2, 7)))

        @jax.jit
        def run(state: nnx.State) -> jax.Array:
            decoder = nnx.merge(graphdef, state)
            x = decoder.embedding(ids).astype(jnp.float32)
            return decoder.logits(decoder(x, causal_order(jnp.ones(ids.shape, bool))))

        return np.asarray(run(state))

    np.testing.assert_allclose(logits("data=2,model=4"), logits(None), atol=1e-4)


def test_most_of_a_real_model_is_spread():
    """All but a little of a decoder's parameters are cut when the mesh divides its sizes."""
    raw = sgpa_checkpoints.read_json(sgpa_checkpoints.shipped_folder("pocket") / "config.json")
    family = family_of(raw)
    config = family.read_config(raw, None)
    slots = target(lambda: AudioLM(config, rngs=shape_rngs()).decoder, mesh=parse_mesh("model=2")).slots
    whole = sum(slot.size for path, slot in slots.items() if not path.endswith("table"))
    cut = sum(slot.size for slot in slots.values() if slot.sharding.spec != PartitionSpec())
    assert cut > 0.9 * whole
