"""Spoken answers of a loaded LFM2-Audio: text and frames in both modes, and what is refused."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from flax import nnx

from sgpa_jax.audio import Clip
from sgpa_jax.errors import CheckpointError, UsageError
from sgpa_jax.models import Model, Sampling, Speech, load_model
from sgpa_jax.models.audio_out import END_OF_AUDIO, AudioOutConfig
from sgpa_jax.models.chat import LFM2AudioChat
from sgpa_jax.models.inputs import with_response

N_NEW = 24


@pytest.fixture(scope="module")
def model(tiny_folder) -> Model:
    """A model that turns to audio and back: the marks for that are louder, the end mark is silent."""
    loaded = load_model(tiny_folder("lfm2_audio"), dtype="float32")
    network = nnx.clone(nnx.merge(loaded.graphdef, loaded.state))
    assert isinstance(loaded.chat, LFM2AudioChat)
    marks = np.array([loaded.chat.audio_start_id, loaded.chat.text_end_id, loaded.chat.end_ids[0]])
    text, codes = network.decoder.embedding.table, network.audio_out.codebooks[0].embedding.table
    text.set_value(text[...].at[marks].multiply(np.array([[2.5], [1.2], [0.0]], np.float32)))
    codes.set_value(codes[...].at[END_OF_AUDIO].multiply(4.0))
    return replace(loaded, state=nnx.state(network))


@pytest.fixture(scope="module")
def inputs(model):
    wave_s = (0.1 * np.random.default_rng(0).normal(size=20000)).astype(np.float32)
    return model.prepare(Clip(wave_s, 16000), "which colour is the lamp?")


@pytest.fixture(scope="module")
def said(model, inputs) -> dict[str, Speech]:
    return {mode: model.speak(inputs, max_new_tokens=N_NEW, mode=mode) for mode in ("sequential", "interleaved")}


@pytest.fixture(scope="module")
def written(model, inputs):
    return model.generate(inputs, max_new_tokens=N_NEW)


def _runs(speech: Speech) -> list[tuple[bool, int]]:
    """Lengths of the stretches of text (False) and audio (True)."""
    edges = [0, *(np.flatnonzero(np.diff(speech.is_audio)) + 1).tolist(), len(speech.ids)]
    return [(speech.is_audio[start], end - start) for start, end in itertools.pairwise(edges)]


def test_text_until_the_first_audio_mark_is_that_of_a_written_answer(model, said, written):
    first = said["sequential"].ids.index(model.chat.audio_start_id)
    assert 0 < first < len(written.ids) - 1
    assert said["sequential"].ids[: first + 1] == written.ids[: first + 1]


def test_in_sequence_the_model_speaks_from_its_mark_to_its_end_of_audio(model, said):
    speech, before = said["sequential"], [False, *said["sequential"].is_audio[:-1]]
    for place, speaks in enumerate(speech.is_audio):
        if before[place]:
            assert speaks == (speech.codes[place - 1][0] != END_OF_AUDIO)
        else:
            assert speaks == (place > 0 and speech.ids[place - 1] == model.chat.audio_start_id)
    assert (END_OF_AUDIO,) * 2 in speech.codes


def test_interleaved_text_and_frames_alternate_as_the_checkpoint_says_until_the_text_ends(model, said):
    speech = said["interleaved"]
    assert model.config.audio_out.interleave == (2, 3)
    text_end = speech.ids.index(model.chat.text_end_id)
    assert _runs(speech)[:4] == [(False, 2), (True, 3), (False, 2), (True, 3)]
    end = speech.codes.index((END_OF_AUDIO,) * 2)
    assert text_end < end < N_NEW and end - text_end > 3 and all(speech.is_audio[text_end + 1 : end + 1])


@pytest.mark.parametrize("mode", ["sequential", "interleaved"])
def test_a_spoken_answer_has_ids_where_it_has_no_codes(model, said, mode):
    speech = said[mode]
    assert len(speech.ids) == len(speech.codes) == len(speech.is_audio) == N_NEW
    for token, frame, speaks in zip(speech.ids, speech.codes, speech.is_audio, strict=True):
        assert len(frame) == (2 if speaks else 0) and all(0 <= code <= END_OF_AUDIO for code in frame)
        assert token == 0 or not speaks
    text = [token for token, speaks in zip(speech.ids, speech.is_audio, strict=True) if not speaks]
    assert speech.text == model.chat.text(text) != ""


def test_the_end_mark_ends_and_is_left_out(model, inputs, said):
    """Made as likely as what was said third, and before it in the vocabulary, the mark is said instead."""
    speech, network = said["sequential"], nnx.clone(nnx.merge(model.graphdef, model.state))
    table, end = network.decoder.embedding.table, model.chat.end_ids[0]
    assert end < speech.ids[2]
    table.set_value(table[...].at[end].set(table[speech.ids[2]]))
    ended = replace(model, state=nnx.state(network)).speak(inputs, max_new_tokens=N_NEW)
    assert ended.ids == speech.ids[:2] and ended.codes == ((), ())


def test_greedy_answers_are_the_same_again_however_long(model, inputs, said):
    assert model.speak(inputs, max_new_tokens=N_NEW) == said["sequential"]
    assert model.speak(inputs, max_new_tokens=5).ids == said["sequential"].ids[:5]


def test_a_response_in_the_inputs_is_left_out(model, inputs, said):
    assert model.speak(with_response(inputs, [7, 8]), max_new_tokens=N_NEW) == said["sequential"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"mode": "interleave"}, "interleaved"),
        ({"max_new_tokens": 0}, "at least one"),
        ({"text_sampling": Sampling()}, "key"),
        ({"audio_sampling": Sampling()}, "key"),
    ],
)
def test_what_cannot_be_asked_is_told(model, inputs, options, says):
    with pytest.raises(UsageError, match=says):
        model.speak(inputs, **{"max_new_tokens": 4} | options)


def test_a_draw_of_text_needs_a_key(model, inputs):
    with pytest.raises(UsageError, match="key"):
        model.generate(inputs, max_new_tokens=4, sampling=Sampling())


def test_models_that_cannot_speak_are_told(model, inputs):
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        replace(model, chat=None).speak(inputs, max_new_tokens=4)
    with pytest.raises(UsageError, match="text alone"):
        replace(model, config=replace(model.config, audio_out=None)).speak(inputs, max_new_tokens=4)


WHOLE = {"codebooks": 8, "depthformer": {"layers": 6, "dim": 1024}}


def test_the_usual_turns_are_those_of_the_released_checkpoint():
    assert AudioOutConfig.from_hf(WHOLE, width=4).interleave == (6, 12)
    assert AudioOutConfig.from_hf(WHOLE | {"interleaved_n_audio": 9}, width=4).interleave == (6, 9)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"codebooks": None}, "codebooks to None"),
        ({"codebooks": "8"}, "codebooks to '8'"),
        ({"depthformer": None}, "depthformer to None"),
        ({"depthformer": {"layers": 6}}, r"depthformer\.dim to None"),
        ({"depthformer": {"dim": 1024}}, r"depthformer\.layers to None"),
        ({"depthformer": {"layers": 6, "dim": 1000}}, r"depthformer\.dim to 1000"),
        ({"interleaved_n_text": 0}, "interleaved_n_text to 0"),
    ],
)
def test_sizes_that_are_missing_or_impossible_are_told_in_one_sentence(change, says):
    with pytest.raises(CheckpointError, match=rf"config\.json sets {says}") as caught:
        AudioOutConfig.from_hf(WHOLE | change, width=4)
    assert "\n" not in str(caught.value)
