"""Weights spread over devices give what one device gives, for every network, loaded from a folder as a user would."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sgpa_checkpoints
from flax import nnx
from jax.sharding import PartitionSpec

from sgpa_jax.audio import Clip
from sgpa_jax.models import load_model, parse_mesh
from sgpa_jax.models.fill import fill, shape_rngs
from sgpa_jax.models.sharding import parameter_spec
from sgpa_jax.models.wav2vec2 import Wav2Vec2, Wav2Vec2Config

# A kernel of each part that tensor parallelism is to cut.
CUT = {
    "qwen2_audio": ["encoder.layers.0.query", "encoder.layers.0.down", "decoder.layers.0.key", "decoder.layers.1.up"],
    "voxtral": ["encoder.layers.0.out", "encoder.layers.0.up", "decoder.layers.0.value", "decoder.layers.1.gate"],
    "lfm2_audio": [
        "encoder.subsampling.out", "encoder.layers.0.attention.query", "encoder.layers.0.attention.relative",
        "encoder.layers.0.conv.gate", "encoder.layers.0.ffn2.down", "decoder.layers.0.conv.content",
        "decoder.layers.1.attention.key", "decoder.layers.1.down", "audio_out.depth_input",
        "audio_out.depthformer.layers.0.query", "audio_out.depthformer.layers.0.down",
    ],
    "wav2vec2": ["layers.0.query", "layers.0.out", "layers.0.up"],
}  # fmt: skip


@pytest.fixture(scope="module")
def clip() -> Clip:
    return Clip((0.1 * np.random.default_rng(0).normal(size=20000)).astype(np.float32), 16000)


@pytest.mark.parametrize(
    ("name", "mesh"), [("qwen2_audio", "model=8"), ("voxtral", "data=4,model=2"), ("lfm2_audio", "model=8")]
)
def test_logits_on_several_devices_are_those_on_one(tiny_folder, clip, name, mesh):
    model, spread = _both(tiny_folder, name, mesh)
    inputs = model.prepare(clip, "which colour is the lamp?")
    np.testing.assert_allclose(spread.logits(inputs), model.logits(inputs), atol=1e-4)


def test_an_answer_on_several_devices_is_that_on_one(tiny_folder, clip):
    model, spread = _both(tiny_folder, "qwen2_audio", "model=8")
    inputs = model.prepare(clip, "which colour is the lamp?")
    assert spread.generate(inputs, max_new_tokens=8) == model.generate(inputs, max_new_tokens=8)


def test_a_spoken_answer_on_several_devices_is_that_on_one(tiny_folder, clip):
    """Text by the decoder's caches of both kinds, frames by the depthformer."""
    model, spread = _both(tiny_folder, "lfm2_audio", "model=2")
    inputs = model.prepare(clip, "which colour is the lamp?")
    spoken = model.speak(inputs, max_new_tokens=8, mode="interleaved")
    assert spread.speak(inputs, max_new_tokens=8, mode="interleaved") == spoken
    assert 0 < sum(spoken.is_audio) < 8


def test_wav2vec2_on_several_devices_computes_what_it_does_on_one(tiny_folder, clip):
    folder = tiny_folder("wav2vec2")
    config = Wav2Vec2Config.from_hf(sgpa_checkpoints.read_json(folder / "config.json"))

    def scores(mesh):
        graphdef, state = fill(
            lambda: Wav2Vec2(config, rngs=shape_rngs()), folder, sgpa_checkpoints.WAV2VEC2, mesh=mesh
        )
        if mesh is not None:
            _check_cut(state, "wav2vec2", mesh.shape["model"])
        run = jax.jit(lambda state, *inputs: nnx.merge(graphdef, state)(*inputs))
        return run(state, clip.wave_s[None, :6000], jnp.array([5000]))

    np.testing.assert_allclose(scores(parse_mesh("model=8")), scores(None), atol=1e-4)


def _both(tiny_folder, name, mesh):
    """A model on one device, and on those of a mesh, where it lies in pieces."""
    alone, spread = (
        load_model(tiny_folder(name), dtype="float32", mesh=devices) for devices in (None, parse_mesh(mesh))
    )
    assert spread.mesh is not None
    _check_cut(spread.state, name, spread.mesh.shape["model"])
    return alone, spread


def _check_cut(state, name, n_devices):
    """Every parameter lies as its rule says, and the named ones in pieces."""
    flat = {".".join(map(str, path)): leaf.get_value() for path, leaf in nnx.to_flat_state(state)}
    for path, array in flat.items():
        spec = parameter_spec(path, array.shape, n_devices)
        pieces = array.addressable_shards[0].data.size * (n_devices if any(spec) else 1)
        assert pieces == array.size, path
    for path in CUT[name]:
        assert parameter_spec(f"{path}.kernel", flat[f"{path}.kernel"].shape, n_devices) != PartitionSpec(), path
