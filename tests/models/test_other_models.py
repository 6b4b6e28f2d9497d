"""Audio Flamingo 3 and Voxtral: tiny folders, loaded as a user would, against transformers' own networks."""

import json
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sgpa_checkpoints
import torch
from flax import nnx
from transformers import (
    AudioFlamingo3Config,
    AudioFlamingo3ForConditionalGeneration,
    VoxtralConfig,
    VoxtralForConditionalGeneration,
)

from sgpa_jax.audio import Clip
from sgpa_jax.errors import AudioError, CheckpointError
from sgpa_jax.games import speech_game
from sgpa_jax.models import load_model
from sgpa_jax.models.families import FAMILIES
from sgpa_jax.players import Player, Players

WINDOW_S, RATE_HZ = 2, 16000
GREEDILY = {"do_sample": False, "repetition_penalty": 1.0}


class Header(NamedTuple):
    shape: tuple[int, ...]
    dtype: np.dtype


@pytest.fixture(scope="module")
def clips():
    rng = np.random.default_rng(0)
    return [Clip((0.1 * rng.standard_normal(n)).astype(np.float32), RATE_HZ) for n in (20700, 9001)]


def _extract(extractor, clips):
    """Features of the whole window and the masks of what is heard."""
    features = extractor(
        [clip.wave_s for clip in clips], sampling_rate=RATE_HZ, return_tensors="pt", padding="max_length",
        return_attention_mask=True,
    )  # fmt: skip
    return features["input_features"], features["attention_mask"]


def _ask(clip, text):
    return {"role": "user", "content": [{"type": "audio", "audio": clip}, {"type": "text", "text": text}]}


def test_audio_flamingo3_gives_the_prompts_logits_and_answers_of_transformers(flamingo, clips):
    network, processor, folder, end_id = flamingo
    model = load_model(folder, dtype="float32")
    inputs = model.prepare(clips[0], "which word?")
    given = processor(
        text=[
            "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
            "<|im_start|>user\n<sound>which word?<|im_end|>\n<|im_start|>assistant\n"
        ],
        audio=[clips[0].wave_s],
    )
    assert inputs.ids_t.tolist() == given["input_ids"][0].tolist()
    with torch.no_grad():
        expected = network(**given).logits
        answer = network.generate(**given, max_new_tokens=8, **GREEDILY)[0, len(inputs.ids_t) :]
    np.testing.assert_allclose(model.logits(inputs), expected.numpy(), atol=1e-4)
    ours = model.generate(inputs, max_new_tokens=8)
    assert list(ours.ids) == [token for token in answer.tolist() if token != end_id]


def test_audio_flamingo3_hears_several_turns(flamingo, clips):
    network, processor, folder, _ = flamingo
    model = load_model(folder, dtype="float32")
    inputs = model.prepare([_ask(clips[0], "which?"), {"role": "assistant", "content": "red"}, _ask(clips[1], "and?")])
    features, mask = _extract(processor.feature_extractor, clips)
    ids = torch.tensor(inputs.ids_t[None].astype(np.int64))
    with torch.no_grad():
        expected = network(input_ids=ids, input_features=features, input_features_mask=mask).logits
    np.testing.assert_allclose(model.logits(inputs), expected.numpy(), atol=1e-4)


def test_voxtral_gives_the_logits_and_answers_of_transformers(voxtral, clips):
    network, extractor, folder, end_id = voxtral
    model = load_model(folder, dtype="float32")
    inputs = model.prepare([_ask(clips[0], "which?"), {"role": "assistant", "content": "red"}, _ask(clips[1], "and?")])
    assert (inputs.clip_t == 1).sum() == 25 * WINDOW_S // 2, "a short clip takes the positions of the whole window"
    features, _ = _extract(extractor, clips)
    ids = torch.tensor(inputs.ids_t[None].astype(np.int64))
    with torch.no_grad():
        expected = network(input_ids=ids, input_features=features).logits
        answer = network.generate(input_ids=ids, input_features=features, max_new_tokens=8, **GREEDILY)
    np.testing.assert_allclose(model.logits(inputs), expected.numpy(), atol=1e-4)
    ours = model.generate(inputs, max_new_tokens=8)
    assert list(ours.ids) == [token for token in answer[0, len(inputs.ids_t) :].tolist() if token != end_id]


@pytest.mark.parametrize("name", ["flamingo", "voxtral"])
def test_encoder_and_projector_equal_the_reference_in_any_bucket(name, clips, request):
    network, processor, folder, _ = request.getfixturevalue(name)
    features, mask = _extract(getattr(processor, "feature_extractor", processor), clips[1:])
    model = load_model(folder, dtype="float32")
    lm = nnx.merge(model.graphdef, model.state)
    options = {} if name == "voxtral" else {"input_features_mask": mask}
    with torch.no_grad():
        tower = network.model.audio_tower(features, **options).last_hidden_state.numpy()
        expected = network.model.get_audio_features(features, **options).pooler_output.numpy()
    n_frames = jnp.asarray(mask.sum(-1).numpy(), jnp.int32)
    n_audio = int(lm.config.encoder.n_tokens(n_frames)[0])
    assert n_audio == len(expected)
    for n in (features.shape[2], 64):  # the whole window, and a bucket of the clip's 57 frames
        mel = jnp.asarray(features.numpy()[:, :, :n].swapaxes(1, 2))
        pooled, embedded = jax.jit(lambda mel: (lm.encoder(mel, n_frames), lm.encode(mel, n_frames)))(mel)
        np.testing.assert_allclose(pooled[0, :n_audio], tower.reshape(-1, pooled.shape[2])[:n_audio], atol=1e-5)
        np.testing.assert_allclose(embedded[0, :n_audio], expected, atol=1e-5)


@pytest.fixture(scope="module")
def long_clips():
    """Two windows and a part, two, and one with so little behind it that Audio Flamingo 3 gives it no position."""
    window = WINDOW_S * RATE_HZ
    rng = np.random.default_rng(1)
    waves = [(0.1 * rng.standard_normal(n)).astype(np.float32) for n in (2 * window + 5001, 2 * window, window + 300)]
    waves[0][:window] *= 1e-4  # so that the clamp differs between the windows
    return [Clip(wave, RATE_HZ) for wave in waves]


def test_audio_flamingo3_hears_long_clips_window_by_window(flamingo, long_clips):
    network, processor, folder, _ = flamingo
    model = load_model(folder, dtype="float32")
    for clip in long_clips:
        inputs = model.prepare(clip, "which word?")
        given = processor(
            text=[
                "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
                "<|im_start|>user\n<sound>which word?<|im_end|>\n<|im_start|>assistant\n"
            ],
            audio=[clip.wave_s],
        )
        assert inputs.ids_t.tolist() == given["input_ids"][0].tolist()
        with torch.no_grad():
            expected = network(**given).logits
        np.testing.assert_allclose(model.logits(inputs), expected.numpy(), atol=1e-4)


def test_voxtral_hears_long_clips_in_windows_of_one_spectrogram(voxtral, long_clips):
    network, extractor, folder, _ = voxtral
    model = load_model(folder, dtype="float32")
    for clip in long_clips:
        inputs = model.prepare(clip, "which?")
        # As `VoxtralProcessor._retrieve_input_features`, which needs mistral-common, at the tiny model's window.
        features = extractor(
            clip.wave_s, sampling_rate=RATE_HZ, return_tensors="pt", padding=True, truncation=False,
            pad_to_multiple_of=WINDOW_S * RATE_HZ,
        )["input_features"].reshape(extractor.feature_size, -1, 100 * WINDOW_S).transpose(0, 1)  # fmt: skip
        assert (inputs.clip_t == 0).sum() == 25 * WINDOW_S // 2 * len(features)
        ids = torch.tensor(inputs.ids_t[None].astype(np.int64))
        with torch.no_grad():
            expected = network(input_ids=ids, input_features=features).logits
        np.testing.assert_allclose(model.logits(inputs), expected.numpy(), atol=1e-4)


def test_a_game_of_a_long_clip_hears_what_is_left_of_it(flamingo, long_clips):
    """The second of its players lies across two windows."""
    model, clip = load_model(flamingo.folder, dtype="float32"), long_clips[-1]
    players = Players((Player("a", "word", 0.2, 1.0), Player("b", "word", 1.6, 2.01)), len(clip.wave_s), RATE_HZ)
    game = speech_game(model, model.prepare(clip, "which?", response="red"), players)
    found = game.values(np.array([[True, True], [True, False]]))[:, 0]
    silent = np.where(players.owner_s() == 1, 0, clip.wave_s).astype(np.float32)
    for value, wave in zip(found, (clip.wave_s, silent), strict=True):
        inputs = model.prepare(Clip(wave, RATE_HZ), "which?", response="red")
        log_probs = jax.nn.log_softmax(model.logits(inputs)[0, inputs.response_start - 1 : -1])
        said = log_probs[np.arange(len(log_probs)), inputs.ids_t[inputs.response_start :]]
        np.testing.assert_allclose(value, said.sum(), atol=1e-4)


def test_longer_than_the_decoder_has_positions_is_refused(flamingo, voxtral):
    """transformers cuts recordings off for Audio Flamingo 3; for Voxtral it does not say what is too long."""
    model = load_model(flamingo.folder, dtype="float32")
    with pytest.raises(AudioError, match="600 s at most"):
        model.prepare(Clip(np.full(600 * RATE_HZ + 1, 0.01, np.float32), RATE_HZ), "which?")
    most = voxtral.network.config.text_config.max_position_embeddings
    assert load_model(voxtral.folder, dtype="float32").window_s == most // (25 * WINDOW_S // 2) * WINDOW_S


@pytest.mark.parametrize("model_type", ["audioflamingo3", "voxtral"])
def test_chunks_must_be_the_encoders_windows(model_type, request):
    folder = request.getfixturevalue("flamingo" if model_type == "audioflamingo3" else model_type).folder
    config = json.loads((folder / "config.json").read_text())
    with pytest.raises(CheckpointError, match="chunks of 3000 frames"):
        FAMILIES[model_type].read_config(config, {"feature_size": 16})


@pytest.mark.parametrize(
    "name, section, key, value",
    [
        ("flamingo", None, "projector_hidden_act", "relu"),
        ("flamingo", "text_config", "model_type", "llama"),
        ("flamingo", "text_config", "rope_parameters", {"rope_type": "yarn", "rope_theta": 1e4}),
        ("voxtral", None, "projector_hidden_act", "relu"),
        ("voxtral", "text_config", "attention_bias", True),
        ("voxtral", "text_config", "mlp_bias", True),
        ("voxtral", "text_config", "sliding_window", 4096),
        ("voxtral", "audio_config", "scale_embedding", True),
    ],
)
def test_settings_that_change_the_mathematics_are_refused(name, section, key, value, request):
    config = json.loads((request.getfixturevalue(name).folder / "config.json").read_text())
    (config if section is None else config[section])[key] = value
    with pytest.raises(CheckpointError, match=key):
        FAMILIES[config["model_type"]].read_config(config, None)


@pytest.mark.parametrize(
    "config_class, network",
    [(AudioFlamingo3Config, AudioFlamingo3ForConditionalGeneration), (VoxtralConfig, VoxtralForConditionalGeneration)],
)
def test_every_tensor_of_the_full_width_has_its_place(config_class, network):
    """Upstream's default configurations, two layers deep, with the keys left out that our reader must fill in."""
    audio, text = {"num_hidden_layers": 2}, {"num_hidden_layers": 2, "num_key_value_heads": 4}
    with torch.device("meta"):
        theirs = network(config_class(audio_config={**audio}, text_config={**text})).state_dict()
    headers = {name: Header(tuple(tensor.shape), np.dtype(np.float32)) for name, tensor in theirs.items()}
    family = FAMILIES[config_class.model_type]
    config = family.read_config({"audio_config": audio, "text_config": text}, None)
    leaves = nnx.to_flat_state(nnx.eval_shape(lambda: nnx.state(family.build(config))))
    shapes = {".".join(map(str, path)): leaf.get_value().shape for path, leaf in leaves}
    assert sgpa_checkpoints.check(headers, family.rules, shapes, normalise=family.normalise) == []
