"""The networks against transformers' own Qwen2-Audio on random weights: layers, whole, padding, generation."""

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sgpa_checkpoints
import torch
import transformers
from flax import nnx
from safetensors.numpy import save_file
from transformers import Qwen2AudioConfig, Qwen2AudioForConditionalGeneration

from sgpa_jax.errors import CheckpointError
from sgpa_jax.models.audio_lm import Layout, layout_of_ids
from sgpa_jax.models.families import FAMILIES, family_of
from sgpa_jax.models.fill import fill
from sgpa_jax.models.generate import generate_text
from sgpa_jax.models.order import causal_order
from sgpa_jax.models.sampling import Sampling

AUDIO_ID, N_FRAMES, N_VALID = 89, 96, 71


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """A tiny torch model whose every parameter is random, and the folder that it was saved to."""
    torch.manual_seed(0)
    config = Qwen2AudioConfig(
        audio_config={
            "num_mel_bins": 16, "d_model": 32, "encoder_layers": 2, "encoder_attention_heads": 4,
            "encoder_ffn_dim": 48, "max_source_positions": N_FRAMES // 2,
        },
        text_config={
            "model_type": "qwen2", "vocab_size": 90, "hidden_size": 40, "num_hidden_layers": 3,
            "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 56,
            "rms_norm_eps": 1e-5, "tie_word_embeddings": False,
        },
        audio_token_index=AUDIO_ID,
    )  # fmt: skip
    model = Qwen2AudioForConditionalGeneration(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.15 * torch.randn_like(parameter))
    folder = tmp_path_factory.mktemp("reference")
    model.save_pretrained(folder)
    return model, folder


@pytest.fixture(scope="module")
def ours(reference):
    return nnx.merge(*_filled(reference[1]))


def _config(raw):
    return FAMILIES["qwen2_audio"].read_config(raw, None)


def _filled(folder):
    family = FAMILIES["qwen2_audio"]
    config = _config(sgpa_checkpoints.read_json(folder / "config.json"))
    return fill(lambda: family.build(config), folder, family.rules, normalise=family.normalise, dtype="float32")


def _place(model, ids, exists, mel, n_frames):
    """Rows of one clip each, whose placeholders are in the ids."""
    rows = [layout_of_ids(row, row == AUDIO_ID) for row in np.asarray(ids)]
    ids, clips, places = (np.concatenate(column) for column in zip(*(row[:3] for row in rows), strict=True))
    layout = Layout(ids, clips, places, exists)
    n_frames = jnp.asarray(n_frames)
    audio = model.encode(jnp.asarray(mel), n_frames)
    return model.place(layout, audio[:, None], model.config.encoder.n_tokens(n_frames)[:, None])


def _logits(model, *inputs):
    return model.decoder.logits(model.hidden(_place(model, *inputs)))


def n_audio_tokens(n_frames):
    """Upstream's two halvings, written out."""
    return ((n_frames - 1) // 2 + 1 - 2) // 2 + 1


@pytest.fixture(scope="module")
def prompt():
    """Mel, ids with as many placeholders as the valid frames give, and the mask of valid frames."""
    rng = np.random.default_rng(1)
    mel = rng.normal(size=(1, N_FRAMES, 16)).astype(np.float32)
    n_audio = n_audio_tokens(N_VALID)
    ids = np.concatenate([rng.integers(0, 80, 5), np.full(n_audio, AUDIO_ID), rng.integers(0, 80, 7)])[None]
    return mel, ids.astype(np.int32), (np.arange(N_FRAMES) < N_VALID)[None]


def _run_reference(model, prompt, **options):
    mel, ids, valid = prompt
    with torch.no_grad():
        return model(
            input_ids=torch.tensor(ids.astype(np.int64)),
            attention_mask=torch.ones(ids.shape, dtype=torch.long),
            input_features=torch.tensor(mel.swapaxes(1, 2).copy()),
            feature_attention_mask=torch.tensor(valid.astype(np.int64)),
            **options,
        )


def test_logits_and_every_layer_equal_the_reference(reference, ours, prompt):
    mel, ids, _ = prompt
    expected = _run_reference(reference[0], prompt, output_hidden_states=True)
    placed = _place(ours, ids, np.ones(ids.shape, bool), mel, [N_VALID])
    np.testing.assert_allclose(placed.x, expected.hidden_states[0].numpy(), atol=2e-5)
    seen = {}

    def read(layer, residual):
        seen[layer] = residual
        return residual

    logits = ours.decoder.logits(ours.hidden(placed, edit=read))
    for layer in range(len(seen) - 1):  # upstream's last hidden state is normed, ours is the residual stream
        np.testing.assert_allclose(seen[layer], expected.hidden_states[layer + 1].numpy(), atol=5e-5)
    np.testing.assert_allclose(logits, expected.logits.numpy(), atol=1e-4)


def test_an_edit_replaces_the_residual_stream(ours, prompt):
    """What is put after layer 0 is what the layers behind it would have made of it."""
    mel, ids, _ = prompt
    placed = _place(ours, ids, np.ones(ids.shape, bool), mel, [N_VALID])
    other = jnp.asarray(np.random.default_rng(5).normal(size=placed.x.shape), jnp.float32)
    order = causal_order(placed.exists_bt)
    x = other
    for layer in ours.decoder.layers[1:]:
        x, _ = layer(x, order)
    found = ours.hidden(placed, edit=lambda layer, residual: other if layer == 0 else residual)
    np.testing.assert_allclose(found, ours.decoder.norm(x), atol=1e-5)


def test_padding_changes_nothing(reference, ours, prompt):
    """Frames in a shorter bucket, tokens in a longer one, and spare placeholders give the same logits."""
    mel, ids, _ = prompt
    expected = _run_reference(reference[0], prompt).logits.numpy()
    # The stem's two convolutions look two frames past the end, so a bucket holds those; spare placeholders follow.
    bucket = N_VALID + 2 + (-(N_VALID + 2)) % 4
    n_audio = n_audio_tokens(N_VALID)
    spare = np.insert(ids, [5 + n_audio] * 3, AUDIO_ID, axis=1)
    spare = np.pad(spare, ((0, 0), (0, 6)))
    exists = np.arange(spare.shape[1])[None] < spare.shape[1] - 6
    logits = _logits(ours, spare, exists, mel[:, :bucket], [N_VALID])
    np.testing.assert_allclose(np.asarray(logits)[:, : ids.shape[1]], expected, atol=1e-4)


def test_a_clip_as_long_as_the_window_ends_as_in_the_reference(reference, ours):
    """What a longer bucket holds behind the window does not leak into the last position."""
    rng = np.random.default_rng(2)
    mel = rng.normal(size=(1, N_FRAMES + 8, 16)).astype(np.float32)
    ids = np.concatenate([rng.integers(0, 80, 3), np.full(n_audio_tokens(N_FRAMES), AUDIO_ID), [5]])[None].astype(
        np.int32
    )
    whole = (mel[:, :N_FRAMES], ids, np.ones((1, N_FRAMES), bool))
    expected = _run_reference(reference[0], whole).logits.numpy()
    logits = _logits(ours, ids, np.ones(ids.shape, bool), mel, [N_FRAMES])
    np.testing.assert_allclose(logits, expected, atol=1e-4)


def test_greedy_generation_equals_the_reference(reference, ours, prompt):
    mel, ids, valid = prompt
    expected = (
        reference[0]
        .generate(
            input_ids=torch.tensor(ids.astype(np.int64)),
            attention_mask=torch.ones(ids.shape, dtype=torch.long),
            input_features=torch.tensor(mel.swapaxes(1, 2).copy()),
            feature_attention_mask=torch.tensor(valid.astype(np.int64)),
            max_new_tokens=8,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )[0, ids.shape[1] :]
        .numpy()
    )
    padded = np.pad(ids, ((0, 0), (0, 5)))
    placed = _place(ours, padded, np.arange(padded.shape[1])[None] < ids.shape[1], mel, [N_VALID])
    ids_new = generate_text(*nnx.split(ours.decoder), placed, jnp.asarray(8), room=12, end_ids=())
    assert np.asarray(ids_new)[0].tolist() == [*expected.tolist(), -1, -1, -1, -1]


def test_a_row_ends_at_any_end_mark_and_the_others_go_on(ours, prompt):
    """Rows of different lengths in one batch answer as alone; a row holds its first end mark from its end on."""
    mel, ids, _ = prompt
    shorter = np.concatenate([ids[:, :5], ids[:, 8:]], axis=1)
    alone = [
        np.asarray(_text(ours, _place(ours, row, np.ones(row.shape, bool), mel, [frames]), end_ids=()))[0]
        for row, frames in ((ids, N_VALID), (shorter, N_VALID - 12))
    ]
    both = np.concatenate([ids, np.pad(shorter, ((0, 0), (0, 3)))])
    exists = np.arange(ids.shape[1])[None, :] < np.array([[ids.shape[1]], [shorter.shape[1]]])
    placed = _place(ours, both, exists, np.repeat(mel, 2, axis=0), [N_VALID, N_VALID - 12])
    np.testing.assert_array_equal(_text(ours, placed, end_ids=()), alone)
    ended = np.asarray(_text(ours, placed, end_ids=(-7, int(alone[0][3]))))
    stop = alone[0].tolist().index(alone[0][3])
    assert ended[0].tolist() == [*alone[0][:stop].tolist(), *[-7] * (8 - stop)]
    other = alone[1].tolist()
    stop = other.index(alone[0][3]) if alone[0][3] in other else 8
    assert ended[1].tolist() == [*other[:stop], *[-7] * (8 - stop)]


def test_draws_follow_the_distribution_and_their_key(ours, prompt):
    mel, ids, _ = prompt
    rows = 400
    placed = _place(ours, ids, np.ones(ids.shape, bool), mel, [N_VALID])
    many = jax.tree.map(lambda leaf: jnp.repeat(leaf, rows, axis=0), placed)
    sampling, key = Sampling(temperature=0.7, top_k=3), jax.random.key(3)
    drawn = np.asarray(_text(ours, many, n_new=1, sampling=sampling, key=key))[:, 0]
    logits = np.asarray(ours.decoder.logits(ours.hidden(placed)))[0, -1]
    best = np.argsort(logits)[-3:]
    expected = np.exp(logits[best] / 0.7) / np.exp(logits[best] / 0.7).sum()
    shares = np.array([(drawn == token).mean() for token in best])
    assert shares.sum() == 1.0
    np.testing.assert_allclose(shares, expected, atol=4 * np.sqrt(0.25 / rows))
    few = jax.tree.map(lambda leaf: leaf[:5], many)
    np.testing.assert_array_equal(_text(ours, few, n_new=1, sampling=sampling, key=key)[:, 0], drawn[:5])
    greedy = _text(ours, few, n_new=1, sampling=Sampling(top_k=1), key=key)[:, 0]
    np.testing.assert_array_equal(greedy, np.repeat(best[-1], 5))


def _text(model, placed, *, n_new=8, end_ids=(), sampling=None, key=None):
    return generate_text(
        *nnx.split(model.decoder), placed, jnp.asarray(n_new), room=8, end_ids=end_ids, sampling=sampling, key=key
    )


@pytest.mark.parametrize("prefix", ["", "model."])
def test_every_hub_layout_is_read(reference, prefix, tmp_path):
    """In-memory names of transformers 5 and the hub's names give the same parameters."""
    model, folder = reference
    tensors = {name: np.array(value) for name, value in sgpa_checkpoints.read_tensors(folder)}
    if prefix:
        tensors = {name: value.numpy().copy() for name, value in model.state_dict().items()}
        assert any(name.startswith("model.audio_tower") for name in tensors)
    save_file(tensors, tmp_path / "model.safetensors")
    shutil.copy(folder / "config.json", tmp_path)
    expected, found = _filled(folder)[1], _filled(tmp_path)[1]
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), expected, found))


def test_export_is_the_inverse_of_convert(reference):
    _, folder = reference
    flat = {
        ".".join(map(str, path)): np.asarray(leaf.get_value()) for path, leaf in nnx.to_flat_state(_filled(folder)[1])
    }
    exported = sgpa_checkpoints.export(flat, sgpa_checkpoints.QWEN2_AUDIO)
    original = {
        sgpa_checkpoints.normal_qwen2_audio_name(name): value for name, value in sgpa_checkpoints.read_tensors(folder)
    }
    assert exported.keys() == original.keys()
    assert all(np.array_equal(exported[name], original[name]) for name in original)


def test_every_misfit_is_told_in_one_error(reference, tmp_path):
    _, folder = reference
    tensors = {name: np.array(value) for name, value in sgpa_checkpoints.read_tensors(folder)}
    tensors["audio_tower.extra.weight"] = np.zeros(3, np.float32)
    del tensors["multi_modal_projector.linear.bias"]
    tensors["audio_tower.conv1.bias"] = np.zeros(7, np.float32)
    save_file(tensors, tmp_path / "model.safetensors")
    shutil.copy(folder / "config.json", tmp_path)
    with pytest.raises(sgpa_checkpoints.FormatError) as caught:
        _filled(tmp_path)
    message = str(caught.value)
    assert "audio_tower.extra.weight: no rule maps it" in message
    assert "projector.first.bias: no tensor fills it" in message
    assert "audio_tower.conv1.bias: its shape becomes (7,)" in message


def test_settings_that_change_the_mathematics_are_refused(reference):
    raw = sgpa_checkpoints.read_json(reference[1] / "config.json")
    raw["text_config"]["rope_parameters"] = {"rope_type": "yarn", "rope_theta": 1e4}
    with pytest.raises(CheckpointError, match="yarn"):
        _config(raw)
    with pytest.raises(CheckpointError, match="llama"):
        family_of({"model_type": "llama"})


# The hub's `config.json` leaves most keys out; transformers' defaults are what it means.
SEVEN_BILLION = {
    "model_type": "qwen2_audio",
    "audio_config": {},
    "text_config": {"model_type": "qwen2", "intermediate_size": 11008, "rope_theta": 10000, "vocab_size": 156032},
}


def test_hub_config_of_the_seven_billion_model_fills_defaults():
    text = SEVEN_BILLION["text_config"]
    ours = _config(SEVEN_BILLION).decoder
    theirs = transformers.Qwen2Config(**text)
    assert dataclasses.asdict(ours) == {
        "vocab_size": theirs.vocab_size,
        "width": theirs.hidden_size,
        "n_layers": theirs.num_hidden_layers,
        "n_heads": theirs.num_attention_heads,
        "n_kv_heads": theirs.num_key_value_heads,
        "head_width": theirs.hidden_size // theirs.num_attention_heads,
        "ffn_width": theirs.intermediate_size,
        "rope_theta": 10000.0,
        "norm_eps": theirs.rms_norm_eps,
        "tied_head": theirs.tie_word_embeddings,
        "qkv_bias": True,
    }


def test_all_tensors_of_the_seven_billion_model_have_their_place():
    theirs, ours = Qwen2AudioConfig(**SEVEN_BILLION), family_of({"model_type": "qwen2_audio"})
    with torch.device("meta"):
        tensors = Qwen2AudioForConditionalGeneration(theirs).state_dict()
    headers = {name: jax.ShapeDtypeStruct(tuple(tensor.shape), jnp.bfloat16) for name, tensor in tensors.items()}
    network = nnx.eval_shape(lambda: ours.build(ours.read_config(SEVEN_BILLION, None)))
    leaves = nnx.to_flat_state(nnx.state(network))
    shapes = {".".join(map(str, path)): leaf.get_value().shape for path, leaf in leaves}
    assert sgpa_checkpoints.check(headers, ours.rules, shapes, normalise=ours.normalise) == []
    assert sum(np.prod(shape) for shape in shapes.values()) == sum(tensor.numel() for tensor in tensors.values())
    assert len(headers) > 800 and sum(np.prod(shape) for shape in shapes.values()) > 8.3e9
