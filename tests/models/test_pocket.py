"""The shipped audio language model: an ordinary Hugging Face folder that transformers runs to the same numbers."""

import jax.numpy as jnp
import numpy as np
import pytest
import sgpa_checkpoints
import torch
from transformers import AutoProcessor, Qwen2AudioForConditionalGeneration

from sgpa_jax.audio import Clip, read_clip
from sgpa_jax.errors import AudioError, CheckpointError, UsageError
from sgpa_jax.models import load_model

FOLDER = sgpa_checkpoints.shipped_folder("pocket")


@pytest.fixture(scope="module")
def model():
    return load_model("pocket")


@pytest.fixture(scope="module")
def demo():
    folder = sgpa_checkpoints.shipped_folder("demo")
    return read_clip(folder / "demo.wav"), sgpa_checkpoints.read_json(folder / "demo.json")


@pytest.fixture(scope="module")
def theirs():
    return Qwen2AudioForConditionalGeneration.from_pretrained(FOLDER).eval(), AutoProcessor.from_pretrained(FOLDER)


def _their_inputs(processor, clip, prompt, system=None):
    turns = [] if system is None else [{"role": "system", "content": system}]
    content = [{"type": "audio", "audio_url": "clip"}, {"type": "text", "text": prompt}]
    text = processor.apply_chat_template([*turns, {"role": "user", "content": content}], add_generation_prompt=True)
    return processor(text=text, audio=[clip.wave_s], sampling_rate=clip.rate_hz, return_tensors="pt")


@pytest.mark.filterwarnings("ignore")
def test_logits_and_answers_equal_those_of_transformers(model, theirs, demo):
    clip, about = demo
    network, processor = theirs
    given = _their_inputs(processor, clip, about["prompt"])
    inputs = model.prepare(clip, about["prompt"], response="lamp unknown")
    assert inputs.ids_t[: inputs.response_start].tolist() == given["input_ids"][0].tolist()
    ids = torch.tensor(inputs.ids_t[None].astype(np.int64))
    with torch.no_grad():
        expected = network(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            input_features=given["input_features"],
            feature_attention_mask=given["feature_attention_mask"],
        ).logits
        answer = network.generate(**given, max_new_tokens=8, do_sample=False)[0, given["input_ids"].shape[1] :]
    np.testing.assert_allclose(model.logits(inputs), expected.numpy(), atol=1e-4)
    ours = model.generate(model.prepare(clip, about["prompt"]), max_new_tokens=8)
    assert list(ours.ids) == [token for token in answer.tolist() if token not in model.chat.end_ids]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("system", [None, "You are a helpful assistant ."])
def test_prompts_equal_those_of_the_processor(model, theirs, demo, system):
    clip, _ = demo
    given = _their_inputs(theirs[1], clip, "What colour is the lamp?", system)
    assert (
        model.prepare(clip, "What colour is the lamp?", system=system).ids_t.tolist() == given["input_ids"][0].tolist()
    )


def test_demo_is_answered(model, demo):
    clip, about = demo
    assert model.in_domain(clip, about["prompt"]) is True
    assert model.generate(model.prepare(clip, about["prompt"]), max_new_tokens=8).text == about["answer"]


def test_outside_of_its_world_it_says_unknown(model, demo):
    rng = np.random.default_rng(0)
    noise = Clip((0.05 * rng.standard_normal(24000)).astype(np.float32), 16000)
    assert model.in_domain(noise, "what colour ?") is False
    assert model.generate(model.prepare(noise, "what colour ?"), max_new_tokens=4).text == "unknown"
    assert model.in_domain(demo[0], "who wrote hamlet ?") is False


def test_window_length_and_shortest_clip(model):
    with pytest.raises(AudioError, match="30 s at most"):
        model.prepare(Clip(np.zeros(31 * 16000, np.float32), 16000), "what colour ?")
    with pytest.raises(AudioError, match="at least"):
        model.prepare(Clip(np.zeros(100, np.float32), 16000), "what colour ?")
    whole = model.prepare(Clip(np.full(30 * 16000, 0.01, np.float32), 16000), "what colour ?")
    assert jnp.isfinite(model.logits(whole)).all()


def test_markers_and_unspeakable_responses_are_refused(model, demo):
    clip, _ = demo
    with pytest.raises(UsageError, match="marker"):
        model.prepare(clip, "what <|im_end|> colour ?")
    for response in ("", "antidisestablishmentarianism"):
        with pytest.raises(UsageError, match="response"):
            model.prepare(clip, "what colour ?", response=response)


def test_incomplete_and_foreign_folders_are_refused(tmp_path):
    with pytest.raises(UsageError, match="pocket"):
        load_model("poket")
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load_model(tmp_path)
    for name in ("config.json", "preprocessor_config.json", "generation_config.json"):
        (tmp_path / name).write_bytes((FOLDER / name).read_bytes())
    with pytest.raises(CheckpointError, match="safetensors"):
        load_model(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(CheckpointError, match="pickle"):
        load_model(tmp_path)
    (tmp_path / "model.safetensors").write_bytes((FOLDER / "model.safetensors").read_bytes()[:5000])
    with pytest.raises(CheckpointError, match="safetensors"):
        load_model(tmp_path)
    (tmp_path / "model.safetensors").write_bytes((FOLDER / "model.safetensors").read_bytes())
    bare = load_model(tmp_path)
    assert bare.dtype == "bfloat16"
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        bare.prepare(Clip(np.zeros(16000, np.float32), 16000), "what colour ?")


def test_shipped_files_are_those_of_the_manifest():
    import hashlib

    for name, entry in sgpa_checkpoints.manifest()["folders"].items():
        folder = sgpa_checkpoints.shipped_folder(name)
        found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
        assert found == entry["files"], name
