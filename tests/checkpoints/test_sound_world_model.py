"""The shipped model of sounds and voices: an ordinary Hugging Face folder that answers about clips it never heard."""

import jax.numpy as jnp
import numpy as np
import pytest
import sgpa_checkpoints
import torch
from sgpa_checkpoints.sound_world import FEEL, IS_THERE, WHAT, WHO, questions, sound_clip, without
from transformers import AutoProcessor, Qwen2AudioForConditionalGeneration

from sgpa_jax.audio import Clip
from sgpa_jax.models import load_model

FOLDER = sgpa_checkpoints.shipped_folder("pocket_sounds")


@pytest.fixture(scope="module")
def model():
    return load_model(FOLDER, dtype="float32")


@pytest.mark.filterwarnings("ignore")
def test_logits_and_answers_equal_those_of_transformers(model):
    network = Qwen2AudioForConditionalGeneration.from_pretrained(FOLDER).eval()
    processor = AutoProcessor.from_pretrained(FOLDER)
    clip = sound_clip(11, 0, held_out=True)
    heard = Clip(clip.wave_s, clip.rate_hz)
    content = [{"type": "audio", "audio_url": "clip"}, {"type": "text", "text": "What do you hear?"}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    given = processor(text=text, audio=[clip.wave_s], sampling_rate=clip.rate_hz, return_tensors="pt")
    inputs = model.prepare(heard, "What do you hear?", response="siren and woman")
    assert inputs.ids_t[: inputs.response_start].tolist() == given["input_ids"][0].tolist()
    ids = torch.tensor(inputs.ids_t[None].astype(np.int64))
    with torch.no_grad():
        expected = network(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            input_features=given["input_features"],
            feature_attention_mask=given["feature_attention_mask"],
        ).logits
    np.testing.assert_allclose(model.logits(inputs), jnp.asarray(expected.numpy()), atol=1e-4)


def test_held_out_clips_are_answered(model):
    """Of held-out clips what is heard, who speaks and how; and that nobody speaks where the voice was taken out."""
    clips = [sound_clip(12, index, held_out=True) for index in range(24)]
    asked = [(clip, prompt) for clip in clips for prompt in (WHAT, WHO, FEEL, IS_THERE.format("animal"))]
    spoken = [sound_clip(13, index, leaf="Male_speech_and_man_speaking") for index in range(24)]
    spoken = [clip for clip in spoken if len(clip.events) > 1 and len(_silenced(clip).events) > 0][:8]
    asked += [(clip, WHO) for clip in spoken] + [(_silenced(clip), WHO) for clip in spoken]
    batch = [model.prepare(Clip(clip.wave_s, clip.rate_hz), prompt) for clip, prompt in asked]
    said = [response.text for response in model.generate_batch(model.place(*batch), max_new_tokens=8)]
    right = np.array([a == dict(questions(clip))[prompt] for a, (clip, prompt) in zip(said, asked, strict=True)])
    n_plain, n_spoken = 4 * len(clips), len(spoken)
    assert n_spoken >= 4 and right[:n_plain].mean() > 0.9
    assert said[n_plain:-n_spoken].count("man") >= n_spoken - 1 <= said[-n_spoken:].count("nobody")


def _silenced(clip):
    return without(clip, {n for n, event in enumerate(clip.events) if event.label == "Male_speech_and_man_speaking"})
