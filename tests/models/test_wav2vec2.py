"""wav2vec2 against transformers on random weights, in both variants: layers, whole, padding, names, full size."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sgpa_checkpoints
import torch
from flax import nnx
from safetensors.numpy import load_file, save_file
from transformers import Wav2Vec2Config as TheirConfig
from transformers import Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC

from sgpa_jax.errors import CheckpointError
from sgpa_jax.models.fill import fill
from sgpa_jax.models.wav2vec2 import Wav2Vec2, Wav2Vec2Config, normalised

VARIANTS = {
    "group": {"feat_extract_norm": "group", "conv_bias": False, "do_stable_layer_norm": False},
    "layer": {"feat_extract_norm": "layer", "conv_bias": True, "do_stable_layer_norm": True},
}
TINY = {
    "vocab_size": 11, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40,
    "conv_dim": [12, 16, 16, 12, 16, 16, 20], "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4,
}  # fmt: skip
N_SAMPLES = 5000


@pytest.fixture(scope="module", params=VARIANTS)
def reference(request, tmp_path_factory):
    """A tiny torch model whose every parameter is random, and the folder that it was saved to."""
    torch.manual_seed(0)
    model = Wav2Vec2ForCTC(TheirConfig(**TINY, **VARIANTS[request.param])).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.15 * torch.randn_like(parameter))
    folder = tmp_path_factory.mktemp(request.param)
    model.save_pretrained(folder)
    return model, folder


@pytest.fixture(scope="module")
def ours(reference) -> Wav2Vec2:
    return load(reference[1])


@pytest.fixture(scope="module")
def waves() -> list[np.ndarray]:
    """Three recordings of unequal length, and of one frame only."""
    rng = np.random.default_rng(1)
    return [rng.standard_normal(n).astype(np.float32) for n in (N_SAMPLES, 3333, 400)]


@pytest.fixture(scope="module")
def bucket(waves) -> tuple[jax.Array, jax.Array]:
    """The recordings side by side, noise behind their ends, and their lengths."""
    rows = 3.0 * np.random.default_rng(2).standard_normal((3, 8000)).astype(np.float32)
    for row, wave_s in zip(rows, waves, strict=True):
        row[: len(wave_s)] = wave_s
    return jnp.asarray(rows), jnp.array([len(wave_s) for wave_s in waves])


def load(folder: Path) -> Wav2Vec2:
    config = Wav2Vec2Config.from_hf(sgpa_checkpoints.read_json(folder / "config.json"))
    rules, normalise = sgpa_checkpoints.WAV2VEC2, sgpa_checkpoints.normal_wav2vec2_name
    return nnx.merge(
        *fill(lambda: Wav2Vec2(config, rngs=nnx.Rngs(0)), folder, rules, normalise=normalise, dtype="float32")
    )


def parameters(network: Wav2Vec2) -> dict[str, np.ndarray]:
    flat = nnx.to_flat_state(nnx.state(network, nnx.Param))
    return {".".join(map(str, path)): np.asarray(leaf.get_value()) for path, leaf in flat}


def logits_of(model: Wav2Vec2ForCTC, wave_s: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return model(torch.tensor(wave_s)[None]).logits[0].numpy()


@nnx.jit
def run(network: Wav2Vec2, wave_bs: jax.Array, n_samples_b: jax.Array) -> jax.Array:
    return network(wave_bs, n_samples_b)


@nnx.jit
def run_by_layers(network: Wav2Vec2, wave_bs: jax.Array) -> list[jax.Array]:
    """What every module makes of a recording, each fed with what the one before it made."""
    x, count = wave_bs[:, :, None], jnp.array([wave_bs.shape[1]])
    made = []
    for convolution in network.convolutions:
        x, count = convolution(x, count)
        made.append(x.swapaxes(1, 2))
    x = network.projection(network.feature_norm(x))
    made += [x, network.positions(x)]
    x = x + network.positions(x)
    x = x if network.config.norm_first else network.norm(x)
    for layer in network.layers:
        x = layer(x, jnp.ones(x.shape[:2], bool))
        made.append(x)
    return [*made, network.head(network.norm(x) if network.config.norm_first else x)]


def test_every_layer_and_the_logits_equal_the_reference(reference, ours, waves):
    model, captured = reference[0], []
    body = model.wav2vec2
    modules = [*body.feature_extractor.conv_layers, body.feature_projection, body.encoder.pos_conv_embed]
    modules += [*body.encoder.layers, model.lm_head]

    def keep(_module, _inputs, output):
        captured.append((output[0] if isinstance(output, tuple) else output).detach().numpy().copy())

    hooks = [module.register_forward_hook(keep) for module in modules]
    logits_of(model, waves[0])
    for hook in hooks:
        hook.remove()
    for made, theirs in zip(run_by_layers(ours, jnp.asarray(waves[0])[None]), captured, strict=True):
        np.testing.assert_allclose(made, theirs, atol=1e-5)


def test_logits_equal_the_reference_whatever_is_behind_a_row_and_beside_it(reference, ours, waves, bucket):
    """Each row of a bucket is what the reference makes of it alone, without padding."""
    logits = run(ours, *bucket)
    for row, wave_s in zip(logits, waves, strict=True):
        expected = logits_of(reference[0], wave_s)
        assert len(expected) == ours.config.n_frames(len(wave_s))
        np.testing.assert_allclose(row[: len(expected)], expected, atol=2e-5)


@pytest.mark.parametrize("reference", ["layer"], indirect=True)
def test_bfloat16_stays_close(ours, bucket):
    wave_bs, n_samples_b = bucket
    exact, rough = run(ours, wave_bs, n_samples_b)[0], run(ours, wave_bs.astype(jnp.bfloat16), n_samples_b)[0]
    n_frames = ours.config.n_frames(N_SAMPLES)
    assert rough.dtype == jnp.float32
    assert 0 < float(jnp.abs(exact - rough)[:n_frames].max()) < 0.05 * float(jnp.abs(exact)[:n_frames].max())


@pytest.mark.parametrize("reference", ["layer"], indirect=True)
def test_a_frame_is_the_convolutions_of_its_own_samples(ours):
    assert (ours.config.stride_samples, ours.config.field_samples) == (320, 400)
    samples = (0, 319, 320, 399, 400, 2000, 3999)
    rows = np.tile(np.random.default_rng(0).standard_normal(4000).astype(np.float32), (len(samples) + 1, 1))
    rows[np.arange(len(samples)), samples] += 1.0
    frames = nnx.jit(lambda network, *inputs: network.frames(*inputs))(ours, rows, jnp.full(len(rows), 4000))
    *after, before = np.asarray(frames)
    for sample, changed in zip(samples, after, strict=True):
        found = np.flatnonzero(np.abs(changed - before).max(-1) > 0).tolist()
        assert found == [t for t in range(len(before)) if 320 * t <= sample < 320 * t + 400]


def test_waveforms_are_normalised_as_the_reference_does(waves):
    bucket = np.full((2, 6000), 7.0, np.float32)
    for row, wave_s in zip(bucket, waves[:2], strict=True):
        row[: len(wave_s)] = 0.01 * wave_s + 0.2
    counts = [len(wave_s) for wave_s in waves[:2]]
    found = normalised(jnp.asarray(bucket), jnp.array(counts))
    extract = Wav2Vec2FeatureExtractor(do_normalize=True)
    for row, given, count in zip(np.asarray(found), bucket, counts, strict=True):
        expected = extract(given[:count], sampling_rate=16000, return_tensors="np")["input_values"][0]
        np.testing.assert_allclose(row[:count], expected, atol=2e-5)
        assert not row[count:].any()


@pytest.mark.parametrize("prefix", [True, False])
def test_older_names_are_read(reference, ours, prefix, tmp_path):
    tensors = {}
    for name, value in load_file(reference[1] / "model.safetensors").items():
        name = name.replace("parametrizations.weight.original0", "weight_g")
        name = name.replace("parametrizations.weight.original1", "weight_v")
        tensors[name if prefix else name.removeprefix("wav2vec2.")] = value
    assert any(name.endswith("pos_conv_embed.conv.weight_g") for name in tensors)
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text((reference[1] / "config.json").read_text())
    expected, found = parameters(ours), parameters(load(tmp_path))
    assert expected.keys() == found.keys()
    assert all(np.array_equal(expected[path], found[path]) for path in expected)


def test_the_folded_kernel_is_the_reference_one_and_export_gives_the_same_again(reference, ours):
    conv = reference[0].wav2vec2.encoder.pos_conv_embed.conv
    np.testing.assert_allclose(parameters(ours)["positions.kernel"], conv.weight.detach().numpy().T, atol=1e-6)
    exported = sgpa_checkpoints.export(parameters(ours), sgpa_checkpoints.WAV2VEC2)
    shapes = {path: array.shape for path, array in parameters(ours).items()}
    again = dict(sgpa_checkpoints.convert(exported.items(), sgpa_checkpoints.WAV2VEC2, shapes))
    assert exported.keys() == reference[0].state_dict().keys() - {"wav2vec2.masked_spec_embed"}
    for path, array in parameters(ours).items():
        np.testing.assert_allclose(again[path], array, rtol=1e-6, atol=1e-7, err_msg=path)


def test_every_misfit_is_told(reference, tmp_path):
    tensors = load_file(reference[1] / "model.safetensors")
    tensors["wav2vec2.adapter.proj.weight"] = np.zeros((2, 2), np.float32)
    tensors["lm_head.bias"] = np.zeros(7, np.float32)
    del tensors["wav2vec2.encoder.pos_conv_embed.conv.parametrizations.weight.original0"]
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text((reference[1] / "config.json").read_text())
    with pytest.raises(sgpa_checkpoints.FormatError) as caught:
        load(tmp_path)
    assert all(name in str(caught.value) for name in ("adapter.proj.weight", "lm_head.bias", "original0"))


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096},
        {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096,
         "vocab_size": 37, **VARIANTS["layer"]},
    ],
    ids=["base-960h", "large-960h", "xlsr"],
)  # fmt: skip
def test_full_size_checkpoints_fill_the_network_exactly(config):
    with torch.device("meta"):
        theirs = Wav2Vec2ForCTC(TheirConfig(**config)).state_dict()
    read = Wav2Vec2Config.from_hf({"model_type": "wav2vec2", **config})
    network = nnx.eval_shape(lambda: Wav2Vec2(read, rngs=nnx.Rngs(0)))
    shapes = {".".join(map(str, path)): leaf.shape for path, leaf in nnx.to_flat_state(nnx.state(network, nnx.Param))}
    headers = {name: np.broadcast_to(np.float32(1), tensor.shape) for name, tensor in theirs.items()}
    rules, normalise = sgpa_checkpoints.WAV2VEC2, sgpa_checkpoints.normal_wav2vec2_name
    assert sgpa_checkpoints.check(headers, rules, shapes, normalise=normalise) == []
    unused = {"wav2vec2.masked_spec_embed", "wav2vec2.encoder.pos_conv_embed.conv.parametrizations.weight.original0"}
    counted = sum(tensor.numel() for name, tensor in theirs.items() if name not in unused)
    assert unused < theirs.keys()
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == counted


def test_frames_are_counted_as_the_reference_counts_them():
    theirs = Wav2Vec2ForCTC(TheirConfig(**TINY))
    ours = Wav2Vec2Config.from_hf({"model_type": "wav2vec2", **TINY})
    for n_samples in (400, 719, 720, 16000, 34560):
        assert ours.n_frames(n_samples) == int(theirs._get_feat_extract_output_lengths(n_samples))
        assert ours.n_frames(n_samples) == (n_samples - 400) // 320 + 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model_type": "hubert"}, "hubert"),
        ({"hidden_act": "relu"}, "relu"),
        ({"feat_extract_activation": "relu"}, "feat_extract_activation"),
        ({"feat_extract_norm": "batch"}, "batch"),
        ({"layer_norm_eps": 1e-6}, "layer_norm_eps"),
        ({"add_adapter": True}, "add_adapter"),
        ({"adapter_attn_dim": 16}, "adapter_attn_dim"),
        ({"conv_stride": [5, 2]}, "2 conv_stride"),
        ({"num_attention_heads": 5}, "num_attention_heads to 5"),
        ({"num_conv_pos_embedding_groups": 7}, "num_conv_pos_embedding_groups to 7"),
        ({"pad_token_id": 40}, "pad_token_id"),
        ({"pad_token_id": None}, "pad_token_id"),
    ],
)
def test_settings_that_we_do_not_implement_are_refused(change, says):
    config = json.loads(json.dumps({"model_type": "wav2vec2", **TINY, **change}))
    with pytest.raises(CheckpointError, match=says) as caught:
        Wav2Vec2Config.from_hf(config)
    assert "\n" not in str(caught.value)
