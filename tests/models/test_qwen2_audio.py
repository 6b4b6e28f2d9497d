"""The networks against transformers' own Qwen2-Audio on random weights: layers, whole, padding, generation."""

import dataclasses

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
from sgpa_jax.models.audio_lm import causal_mask
from sgpa_jax.models.config import AudioLMConfig
from sgpa_jax.models.generate import generate_greedily
from sgpa_jax.models.load import _fill
from sgpa_jax.models.whisper_encoder import n_audio_tokens

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
    config = AudioLMConfig.from_hf(sgpa_checkpoints.read_json(reference[1] / "config.json"))
    return nnx.merge(*_fill(config, reference[1]))


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
    exists, n_frames = jnp.ones(ids.shape, bool), jnp.array([N_VALID])
    audio = ours.encode(jnp.asarray(mel), n_frames)
    placed = ours.place(jnp.asarray(ids), exists, audio, n_audio_tokens(n_frames))
    x = placed.x
    np.testing.assert_allclose(x, expected.hidden_states[0].numpy(), atol=2e-5)
    for i, layer in enumerate(ours.decoder.layers[:-1]):
        x, _, _ = layer(x, placed.positions_bt, causal_mask(exists))
        np.testing.assert_allclose(x, expected.hidden_states[i + 1].numpy(), atol=5e-5)
    logits = ours(jnp.asarray(ids), exists, jnp.asarray(mel), n_frames)
    np.testing.assert_allclose(logits, expected.logits.numpy(), atol=1e-4)


def test_padding_changes_nothing(reference, ours, prompt):
    """Frames in a shorter bucket, tokens in a longer one, and spare placeholders give the same logits."""
    mel, ids, _ = prompt
    expected = _run_reference(reference[0], prompt).logits.numpy()
    # The stem's two convolutions look two frames past the end, so a bucket holds those; spare placeholders follow.
    bucket = N_VALID + 2 + (-(N_VALID + 2)) % 4
    n_audio = n_audio_tokens(N_VALID)
    spare = np.insert(ids, [5 + n_audio] * 3, AUDIO_ID, axis=1)
    spare = np.pad(spare, ((0, 0), (0, 6)))
    exists = jnp.arange(spare.shape[1])[None] < spare.shape[1] - 6
    logits = ours(jnp.asarray(spare), exists, jnp.asarray(mel[:, :bucket]), jnp.array([N_VALID]))
    kept = np.r_[0 : 5 + n_audio, 5 + n_audio + 3 : spare.shape[1] - 6]
    np.testing.assert_allclose(np.asarray(logits)[:, kept], expected, atol=1e-4)


def test_a_clip_as_long_as_the_window_ends_as_in_the_reference(reference, ours):
    """What a longer bucket holds behind the window does not leak into the last position."""
    rng = np.random.default_rng(2)
    mel = rng.normal(size=(1, N_FRAMES + 8, 16)).astype(np.float32)
    ids = np.concatenate([rng.integers(0, 80, 3), np.full(n_audio_tokens(N_FRAMES), AUDIO_ID), [5]])[None].astype(
        np.int32
    )
    whole = (mel[:, :N_FRAMES], ids, np.ones((1, N_FRAMES), bool))
    expected = _run_reference(reference[0], whole).logits.numpy()
    logits = ours(jnp.asarray(ids), jnp.ones(ids.shape, bool), jnp.asarray(mel), jnp.array([N_FRAMES]))
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
    exists = jnp.arange(padded.shape[1])[None] < ids.shape[1]
    n_frames = jnp.array([N_VALID])
    audio = ours.encode(jnp.asarray(mel), n_frames)
    placed = ours.place(jnp.asarray(padded), exists, audio, n_audio_tokens(n_frames))
    ids_new = generate_greedily(*nnx.split(ours.decoder), placed, jnp.asarray(8), room=12, end_id=-1)
    assert np.asarray(ids_new)[0].tolist() == [*expected.tolist(), -1, -1, -1, -1]


@pytest.mark.parametrize("prefix", ["", "model."])
def test_every_hub_layout_is_read(reference, prefix, tmp_path):
    """In-memory names of transformers 5 and the hub's names give the same parameters."""
    model, folder = reference
    tensors = {name: np.array(value) for name, value in sgpa_checkpoints.read_tensors(folder)}
    if prefix:
        tensors = {name: value.numpy().copy() for name, value in model.state_dict().items()}
        assert any(name.startswith("model.audio_tower") for name in tensors)
    save_file(tensors, tmp_path / "model.safetensors")
    config = AudioLMConfig.from_hf(sgpa_checkpoints.read_json(folder / "config.json"))
    expected, found = _fill(config, folder)[1], _fill(config, tmp_path)[1]
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), expected, found))


def test_export_is_the_inverse_of_convert(reference):
    _, folder = reference
    config = AudioLMConfig.from_hf(sgpa_checkpoints.read_json(folder / "config.json"))
    flat = {
        ".".join(map(str, path)): np.asarray(leaf.get_value())
        for path, leaf in nnx.to_flat_state(_fill(config, folder)[1])
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
    config = AudioLMConfig.from_hf(sgpa_checkpoints.read_json(folder / "config.json"))
    with pytest.raises(sgpa_checkpoints.FormatError) as caught:
        _fill(config, tmp_path)
    message = str(caught.value)
    assert "audio_tower.extra.weight: no rule maps it" in message
    assert "projector.bias: no tensor fills it" in message
    assert "audio_tower.conv1.bias: its shape becomes (7,)" in message


def test_settings_that_change_the_mathematics_are_refused(reference):
    raw = sgpa_checkpoints.read_json(reference[1] / "config.json")
    raw["text_config"]["rope_parameters"] = {"rope_type": "yarn", "rope_theta": 1e4}
    with pytest.raises(CheckpointError, match="yarn"):
        AudioLMConfig.from_hf(raw)
    with pytest.raises(CheckpointError, match="llama"):
        AudioLMConfig.from_hf({"model_type": "llama"})


def test_hub_config_of_the_seven_billion_model_fills_defaults():
    """The hub's `text_config` leaves most keys out; transformers' defaults are what it means."""
    text = {"model_type": "qwen2", "intermediate_size": 11008, "rope_theta": 10000, "vocab_size": 156032}
    ours = AudioLMConfig.from_hf({"model_type": "qwen2_audio", "audio_config": {}, "text_config": text}).decoder
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
    }
