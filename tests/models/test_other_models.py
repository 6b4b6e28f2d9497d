"""Audio Flamingo 3 and Voxtral: tiny folders, loaded as a user would, against transformers' own networks."""

import base64
import json
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sgpa_checkpoints
import torch
from flax import nnx
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    AudioFlamingo3Config,
    AudioFlamingo3ForConditionalGeneration,
    AudioFlamingo3Processor,
    PreTrainedTokenizerFast,
    VoxtralConfig,
    VoxtralForConditionalGeneration,
    WhisperFeatureExtractor,
)

from sgpa_jax.audio import Clip
from sgpa_jax.errors import AudioError, CheckpointError
from sgpa_jax.models import load_model
from sgpa_jax.models.families import FAMILIES

WINDOW_S, N_MELS, RATE_HZ = 2, 16, 16000
ENCODER = {
    "num_mel_bins": N_MELS, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 96, "max_source_positions": 50 * WINDOW_S,
}  # fmt: skip
DECODER = {
    "hidden_size": 40, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 56, "rms_norm_eps": 1e-5, "vocab_size": 340,
}  # fmt: skip
MARKERS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<sound>"]
VOXTRAL_NAMES = {1: "<s>", 2: "</s>", 3: "[INST]", 4: "[/INST]", 24: "[AUDIO]", 25: "[BEGIN_AUDIO]"}


def _randomise(model):
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.15 * torch.randn_like(parameter))
    return model.eval()


def _save(model, folder, end_id):
    model.generation_config.eos_token_id = end_id
    model.save_pretrained(folder)
    extractor = WhisperFeatureExtractor(feature_size=N_MELS, chunk_length=WINDOW_S, return_attention_mask=True)
    extractor.save_pretrained(folder)
    return extractor


@pytest.fixture(scope="module")
def flamingo(tmp_path_factory):
    """A network, its processor and its folder."""
    folder = tmp_path_factory.mktemp("flamingo")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=MARKERS, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(["system user assistant helpful"] * 4, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = AudioFlamingo3Config(
        audio_config=ENCODER, text_config={"model_type": "qwen2", **DECODER}, audio_token_id=MARKERS.index("<sound>")
    )
    model = _randomise(AudioFlamingo3ForConditionalGeneration(config))
    extractor = _save(model, folder, MARKERS.index("<|im_end|>"))
    fast = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), pad_token="<|endoftext|>")
    return model, AudioFlamingo3Processor(extractor, fast), folder


@pytest.fixture(scope="module")
def voxtral(tmp_path_factory):
    """A network, its feature extractor and its folder, whose tokenizer is a `tekken.json`."""
    folder = tmp_path_factory.mktemp("voxtral")
    _write_tekken(folder)
    config = VoxtralConfig(
        audio_config=ENCODER,
        text_config={"model_type": "llama", "head_dim": 12, "rope_theta": 1e6, **DECODER},
        audio_token_id=24,
    )
    model = _randomise(VoxtralForConditionalGeneration(config))
    return model, _save(model, folder, 2), folder


def _write_tekken(folder):
    ranks = [bytes([byte]) for byte in range(256)] + [b"wh", b"ch", b"ich", b"which", b"\n\n"]
    content = {
        "config": {
            "pattern": r" ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
            "default_vocab_size": 30 + len(ranks),
            "default_num_special_tokens": 30,
        },
        "vocab": [{"rank": rank, "token_bytes": base64.b64encode(token).decode()} for rank, token in enumerate(ranks)],
        "special_tokens": [{"rank": rank, "token_str": name} for rank, name in VOXTRAL_NAMES.items()],
    }
    (folder / "tekken.json").write_text(json.dumps(content))


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
    network, processor, folder = flamingo
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
        answer = network.generate(**given, max_new_tokens=8, do_sample=False)[0, len(inputs.ids_t) :]
    np.testing.assert_allclose(model.logits(inputs), expected.numpy(), atol=1e-4)
    ours = model.generate(inputs, max_new_tokens=8)
    assert list(ours.ids) == [token for token in answer.tolist() if token != MARKERS.index("<|im_end|>")]


def test_audio_flamingo3_hears_several_turns(flamingo, clips):
    network, processor, folder = flamingo
    model = load_model(folder, dtype="float32")
    inputs = model.prepare([_ask(clips[0], "which?"), {"role": "assistant", "content": "red"}, _ask(clips[1], "and?")])
    features, mask = _extract(processor.feature_extractor, clips)
    ids = torch.tensor(inputs.ids_t[None].astype(np.int64))
    with torch.no_grad():
        expected = network(input_ids=ids, input_features=features, input_features_mask=mask).logits
    np.testing.assert_allclose(model.logits(inputs), expected.numpy(), atol=1e-4)


def test_voxtral_gives_the_logits_and_answers_of_transformers(voxtral, clips):
    network, extractor, folder = voxtral
    model = load_model(folder, dtype="float32")
    inputs = model.prepare([_ask(clips[0], "which?"), {"role": "assistant", "content": "red"}, _ask(clips[1], "and?")])
    assert (inputs.clip_t == 1).sum() == 25 * WINDOW_S // 2, "a short clip takes the positions of the whole window"
    features, _ = _extract(extractor, clips)
    ids = torch.tensor(inputs.ids_t[None].astype(np.int64))
    with torch.no_grad():
        expected = network(input_ids=ids, input_features=features).logits
        answer = network.generate(input_ids=ids, input_features=features, max_new_tokens=8, do_sample=False)
    np.testing.assert_allclose(model.logits(inputs), expected.numpy(), atol=1e-4)
    ours = model.generate(inputs, max_new_tokens=8)
    assert list(ours.ids) == [token for token in answer[0, len(inputs.ids_t) :].tolist() if token != 2]


@pytest.mark.parametrize("name", ["flamingo", "voxtral"])
def test_encoder_and_projector_equal_the_reference_in_any_bucket(name, clips, request):
    network, processor, folder = request.getfixturevalue(name)
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


@pytest.mark.parametrize("name", ["flamingo", "voxtral"])
def test_clips_past_the_window_are_refused(name, request):
    model = load_model(request.getfixturevalue(name)[2], dtype="float32")
    with pytest.raises(AudioError, match="2 s at most"):
        model.prepare(Clip(np.full(3 * RATE_HZ, 0.01, np.float32), RATE_HZ), "which?")


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
    config = json.loads((request.getfixturevalue(name)[2] / "config.json").read_text())
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
