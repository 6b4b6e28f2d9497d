"""FastConformer against transformers' ParakeetEncoder on random weights, and against liquid-audio's goldens."""

import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from safetensors import safe_open
from safetensors.numpy import load_file
from sgpa_checkpoints.fastconformer import FASTCONFORMER
from sgpa_checkpoints.rules import check, convert, export
from transformers import ParakeetEncoder, ParakeetEncoderConfig

from sgpa_jax.errors import CheckpointError
from sgpa_jax.models.fastconformer import FastConformer, FastConformerConfig, _by_distance, relative_positions

GOLDENS = Path(__file__).parents[1] / "goldens"
N_FRAMES, N_VALID = 101, 57
ENCODER = {
    "feat_in": 80, "feat_out": -1, "n_layers": 2, "d_model": 48, "subsampling": "dw_striding", "subsampling_factor": 8,
    "subsampling_conv_channels": 12, "causal_downsampling": False, "reduction": None, "reduction_position": None,
    "reduction_factor": 1, "ff_expansion_factor": 2, "self_attention_model": "rel_pos", "n_heads": 4,
    "att_context_size": [-1, -1], "xscaling": False, "untie_biases": True, "pos_emb_max_len": 64, "dropout": 0.1,
    "conv_kernel_size": 9, "conv_norm_type": "batch_norm", "conv_context_size": None, "dropout_att": 0.1,
}  # fmt: skip
REAL = {**ENCODER, "feat_in": 128, "n_layers": 17, "d_model": 512, "subsampling_conv_channels": 256, "n_heads": 8}
NEMO_NAMES = {
    "subsampling.layers.": "pre_encode.conv.", "subsampling.linear": "pre_encode.out", "q_proj": "linear_q",
    "k_proj": "linear_k", "v_proj": "linear_v", "o_proj": "linear_out", "relative_linear_k": "linear_pos",
    "bias_u": "pos_bias_u", "bias_v": "pos_bias_v", "conv.norm.": "conv.batch_norm.",
}  # fmt: skip


def _shapes(config):
    state = nnx.state(nnx.eval_shape(lambda: FastConformer(config, rngs=nnx.Rngs(0))))
    return {f"encoder.{'.'.join(map(str, path))}": leaf.shape for path, leaf in nnx.to_flat_state(state)}


def _filled(config, tensors):
    arrays = dict(convert(tensors.items(), FASTCONFORMER, _shapes(config)))
    graphdef, state = nnx.split(nnx.eval_shape(lambda: FastConformer(config, rngs=nnx.Rngs(0))))
    for path, leaf in nnx.to_flat_state(state):
        leaf.set_value(jnp.asarray(arrays[f"encoder.{'.'.join(map(str, path))}"]))
    return nnx.merge(graphdef, state)


@nnx.jit
def _run(module, *args):
    return module(*args)


def _nemo_name(name):
    for theirs, nemo in NEMO_NAMES.items():
        name = name.replace(theirs, nemo)
    return f"conformer.{name}"


@pytest.fixture(scope="module")
def theirs():
    """A tiny torch encoder whose every parameter and statistic is random."""
    torch.manual_seed(0)
    config = ParakeetEncoderConfig(
        hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96, conv_kernel_size=9,
        subsampling_conv_channels=12, num_mel_bins=80, scale_input=False,
    )  # fmt: skip
    model = ParakeetEncoder(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        for name, statistic in model.named_buffers():
            if name.endswith("running_mean"):
                statistic.normal_()
            elif name.endswith("running_var"):
                statistic.uniform_(0.3, 2.0)
    return model


@pytest.fixture(scope="module")
def tensors(theirs):
    return {_nemo_name(name): tensor.numpy() for name, tensor in theirs.state_dict().items()}


@pytest.fixture(scope="module")
def ours(tensors):
    return _filled(FastConformerConfig.from_hf(ENCODER), tensors)


@pytest.fixture(scope="module")
def mel():
    """Two clips in one bucket, with noise behind the end of the second."""
    return np.random.default_rng(0).normal(size=(2, N_FRAMES, 80)).astype(np.float32)


@pytest.fixture(scope="module")
def reference(theirs, mel):
    """What every part of the torch encoder gives, and which positions are real."""
    found = {}
    parts = {"subsampling": theirs.subsampling, "positions": theirs.encode_positions}
    for i, layer in enumerate(theirs.layers):
        names = ("feed_forward1", "self_attn", "conv", "feed_forward2")
        parts |= {f"layers.{i}": layer} | {f"layers.{i}.{name}": getattr(layer, name) for name in names}

    def keep(name):
        def hook(_, args, kwargs, output):
            inputs = args[0] if args else kwargs["hidden_states"]
            found[name] = inputs.numpy(), (output[0] if isinstance(output, tuple) else output).numpy()

        return hook

    handles = [part.register_forward_hook(keep(name), with_kwargs=True) for name, part in parts.items()]
    mask = torch.arange(N_FRAMES)[None] < torch.tensor([[N_FRAMES], [N_VALID]])
    with torch.no_grad():
        output = theirs(torch.tensor(mel) * mask[..., None], attention_mask=mask)
    for handle in handles:
        handle.remove()
    return found, output.last_hidden_state.numpy(), output.attention_mask.numpy().astype(bool)


def _mel_and_lengths(mel):
    return jnp.asarray(mel), jnp.array([N_FRAMES, N_VALID])


def test_every_part_equals_the_reference(ours, reference, mel):
    found, _, exists = reference
    positions = relative_positions(13, 48)
    np.testing.assert_allclose(positions[:-1], found["positions"][1][0], atol=2e-6)
    _close(_run(ours.subsampling, *_mel_and_lengths(mel)), found["subsampling"][1], exists)
    for i, layer in enumerate(ours.layers):
        name, real = f"layers.{i}", jnp.asarray(exists)
        _close(_run(layer, found[name][0], positions, real), found[name][1], exists)
        for part, theirs, rest in (
            (layer.ffn1, "feed_forward1", ()),
            (layer.attention, "self_attn", (positions, real)),
            (layer.conv, "conv", (real,)),
            (layer.ffn2, "feed_forward2", ()),
        ):
            inputs, output = found[f"{name}.{theirs}"]
            _close(_run(part, jnp.asarray(inputs), *rest), output, exists)


def test_the_whole_equals_the_reference(ours, reference, mel):
    _, output, exists = reference
    np.testing.assert_array_equal(exists.sum(1), [FastConformerConfig.from_hf(ENCODER).n_tokens(n) for n in (101, 57)])
    _close(_run(ours, *_mel_and_lengths(mel)), output, exists)


def test_equal_to_liquid_audio():
    path = GOLDENS / "lfm2_audio_tiny.safetensors"
    golden = load_file(path)
    with safe_open(path, "numpy") as file:
        config = FastConformerConfig.from_hf(json.loads(file.metadata()["encoder"]))
    encoder = _filled(config, {k[2:]: v for k, v in golden.items() if k.startswith("w.conformer.")})
    mel = np.zeros((2, 101, 128), np.float32)
    mel[0], mel[1, :57] = golden["mel"][0].T, golden["mel2"][0].T
    lengths = jnp.asarray(golden["lens"].astype(np.int32))
    exists = np.arange(13)[None] < golden["cap.enc_len"][:, None]

    @nnx.jit
    def captures(encoder):
        yields = [encoder.subsampling(jnp.asarray(mel), lengths)]
        for layer in encoder.layers:
            yields.append(layer(yields[-1], relative_positions(13, config.width), jnp.asarray(exists)))
        return *yields, encoder(jnp.asarray(mel), lengths)

    names = ("cap.pre", "cap.enc_l0", "cap.enc_l1", "cap.enc")
    golden["cap.enc"] = golden["cap.enc"].swapaxes(1, 2)
    for name, found in zip(names, captures(encoder), strict=True):
        _close(found, golden[name], exists)


def test_padding_and_company_change_nothing(ours, mel):
    alone = _run(ours, jnp.asarray(mel[1:, :N_VALID]), jnp.array([N_VALID]))
    assert alone.shape == (1, 8, 48)
    for bucket in (58, 104):
        padded = np.full((3, bucket, 80), 3.0, np.float32)
        padded[1, :N_VALID] = mel[1, :N_VALID]
        together = _run(ours, jnp.asarray(padded), jnp.array([1, N_VALID, 20]))
        assert np.isfinite(together).all()
        np.testing.assert_allclose(together[1, :8], alone[0], atol=1e-5)


@pytest.mark.parametrize("n_frames", [1, 2, 7])
def test_scores_by_distance(n_frames):
    scores = np.random.default_rng(0).normal(size=(2, 3, n_frames, 2 * n_frames)).astype(np.float32)
    t, u = np.indices((n_frames, n_frames))
    np.testing.assert_array_equal(_by_distance(jnp.asarray(scores)), scores[:, :, t, n_frames - 1 - t + u])


def test_every_parameter_learns_but_the_statistics(ours, mel):
    @nnx.jit
    @nnx.grad
    def gradients(encoder):
        return jnp.sum(encoder(*_mel_and_lengths(mel))[0] ** 3)

    for path, leaf in nnx.to_flat_state(gradients(ours)):
        assert np.isfinite(leaf[...]).all() and np.any(leaf[...]) == (path[-1] not in ("mean", "variance")), path


def test_bfloat16_stays_close(ours, mel):
    values, lengths = _mel_and_lengths(mel)
    found, expected = _run(ours, values.astype(jnp.bfloat16), lengths), _run(ours, values, lengths)
    assert found.dtype == jnp.bfloat16
    error = np.abs(np.asarray(found[0], np.float32) - np.asarray(expected[0]))
    assert 0 < error.mean() < 0.03


def test_the_released_checkpoint_fits():
    shapes = dict(json.loads((GOLDENS / "lfm2_audio_1.5b_shapes.json").read_text()))
    config = FastConformerConfig.from_hf({**REAL, "ff_expansion_factor": 4})
    headers = {
        name: jax.ShapeDtypeStruct(shape, np.float32) for name, shape in shapes.items() if name.startswith("conformer.")
    }
    assert len(headers) == 692
    assert check(headers, FASTCONFORMER, _shapes(config)) == []


def test_export_gives_the_checkpoint_back(tensors):
    shapes = _shapes(FastConformerConfig.from_hf(ENCODER))
    exported = export(dict(convert(tensors.items(), FASTCONFORMER, shapes)), FASTCONFORMER)
    kept = {name for name in tensors if not name.endswith("num_batches_tracked")}
    assert exported.keys() == kept
    for name in kept:
        np.testing.assert_array_equal(exported[name], tensors[name])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("xscaling", True), ("untie_biases", False), ("att_context_size", [70, 13]), ("subsampling", "striding"),
        ("subsampling_factor", 4), ("conv_norm_type", "layer_norm"), ("causal_downsampling", True), ("feat_out", 640),
        ("reduction", "pooling"), ("self_attention_model", "abs_pos"), ("conv_context_size", "causal"),
        ("conv_kernel_size", 8),
    ],
)  # fmt: skip
def test_other_networks_are_refused(key, value):
    with pytest.raises(CheckpointError, match=re.escape(f"encoder.{key}")):
        FastConformerConfig.from_hf({**ENCODER, key: value})


def _close(found, expected, exists):
    np.testing.assert_allclose(np.asarray(found)[exists], expected[exists], atol=1e-5)
