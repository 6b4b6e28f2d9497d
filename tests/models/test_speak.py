"""Spoken answers of a loaded LFM2-Audio: text and frames in both modes, and what is refused."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from flax import nnx

from sgpa_jax.audio import Clip
from sgpa_jax.errors import CheckpointError, UsageError
from sgpa_jax.games import speech_game
from sgpa_jax.models import Model, Sampling, Speech, explained_in, load_model
from sgpa_jax.models.audio_out import END_OF_AUDIO, AudioOutConfig
from sgpa_jax.models.chat import LFM2AudioChat
from sgpa_jax.models.inputs import with_response, without_response
from sgpa_jax.models.messages import clips_of
from sgpa_jax.players import Player, Players

N_NEW = 24
CLIP = Clip((0.1 * np.random.default_rng(0).normal(size=20000)).astype(np.float32), 16000)
QUESTION = "which colour is the lamp?"


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
    return model.prepare(CLIP, QUESTION)


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


def _conversation(speech):
    """The question of `inputs`, what was spoken then, and a recording of the user's."""
    return [
        {"role": "user", "content": [{"type": "audio", "audio": CLIP}, {"type": "text", "text": QUESTION}]},
        {"role": "assistant", "content": [{"type": "speech", "speech": speech}]},
        {"role": "user", "content": [{"type": "audio", "audio": Clip(CLIP.wave_s[:3000], 16000)}]},
    ]


def test_spoken_history_is_laid_out_as_by_liquid_audio(model, said):
    """Its `ChatState`: ids of text, lengths of clips and codes apart, and flags that say whose turn it is."""
    text, codes, flags = [], [], []

    def add(content):
        text.extend(model.chat.tokenizer.encode(content, add_special_tokens=False).ids)
        flags.extend("T" * (len(text) - flags.count("T")))

    speech, inputs = said["interleaved"], model.prepare(_conversation(said["interleaved"]))
    add("<|startoftext|>")
    add("<|im_start|>user\n")
    flags.extend("I" * model.config.n_audio(20000))
    add(QUESTION)
    add("<|im_end|>\n")
    add("<|im_start|>assistant\n")
    text.extend(token for token, speaks in zip(speech.ids, speech.is_audio, strict=True) if not speaks)
    codes.extend(frame for frame in speech.codes if frame)
    flags.extend("O" if speaks else "T" for speaks in speech.is_audio)
    add("<|im_end|>\n")
    add("<|im_start|>user\n")
    flags.extend("I" * model.config.n_audio(3000))
    add("<|im_end|>\n")
    add("<|im_start|>assistant\n")
    found = np.where(inputs.clip_t >= 0, "I", np.where(inputs.codes_tk[:, 0] >= 0, "O", "T"))
    assert found.tolist() == flags
    assert inputs.ids_t[found == "T"].tolist() == text
    assert inputs.codes_tk[found == "O"].tolist() == [list(frame) for frame in codes]
    assert (inputs.codes_tk[found != "O"] == -1).all()
    marks = {model.chat.audio_start_id, model.chat.text_end_id}
    spoken_text_t = (inputs.turn_t == 1) & inputs.is_content_t
    assert inputs.ids_t[spoken_text_t].tolist() == [
        token for token, speaks in zip(speech.ids, speech.is_audio, strict=True) if not speaks and token not in marks
    ]


def test_read_again_a_spoken_turn_says_what_was_said(model, inputs, said):
    """Every text token is the likeliest behind what the decoder reads before it, frames included."""
    speech, first = said["interleaved"], len(inputs.ids_t)
    again = model.prepare(_conversation(speech))
    best_t = np.asarray(model.logits(again))[0].argmax(axis=1)
    written = np.flatnonzero(~np.array(speech.is_audio))
    assert any(speech.is_audio[place - 1] for place in written[1:].tolist())
    assert best_t[first + written - 1].tolist() == again.ids_t[first + written].tolist()


def test_rows_with_and_without_spoken_history_share_a_batch(model, said):
    spoken = model.prepare(_conversation(said["interleaved"]))
    plain = model.prepare([*_conversation(None)[:1], {"role": "assistant", "content": "red"}, *_conversation(None)[2:]])
    together, alone = model.place(plain, spoken), [model.place(plain), model.place(spoken)]
    for row, one in enumerate(alone):
        n = int(one.n_b[0])
        np.testing.assert_allclose(together.x[row, :n], one.x[0, :n], atol=1e-6)


def test_a_response_behind_spoken_history_is_scored_and_left_out(model, said):
    inputs = model.prepare(_conversation(said["sequential"]), response="red")
    assert inputs.codes_tk is not None
    assert len(inputs.codes_tk) == len(inputs.ids_t) > inputs.response_start
    assert (inputs.codes_tk[inputs.response_start :] == -1).all()
    assert model.logits(inputs).shape[1] == len(inputs.ids_t)
    prompt = without_response(inputs)
    assert prompt.codes_tk is not None and len(prompt.codes_tk) == inputs.response_start


def test_a_game_about_the_last_recording_of_a_spoken_conversation(model, said):
    asked = _conversation(said["interleaved"])
    (clip,) = clips_of(asked[2:])
    inputs = explained_in(model.prepare(asked, response="red"), 1)
    players = Players((Player("a", "word", 0.02, 0.09), Player("b", "word", 0.1, 0.17)), len(clip.wave_s), 16000)
    found = speech_game(model, inputs, players).values(np.array([[True, True], [True, False]]))[:, 0]
    silent = Clip(np.where(players.owner_s() == 1, 0, clip.wave_s).astype(np.float32), 16000)
    for value, last in zip(found, (clip, silent), strict=True):
        asked[2] = {"role": "user", "content": [{"type": "audio", "audio": last}]}
        logits = np.asarray(model.logits(model.prepare(asked, response="red")))[0]
        log_probs = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
        places = np.arange(inputs.response_start, len(inputs.ids_t))
        np.testing.assert_allclose(value, log_probs[places - 1, inputs.ids_t[places]].sum(), atol=1e-4)
    with pytest.raises(UsageError, match="holds 2 recordings"):
        explained_in(inputs, 2)


def test_speech_that_the_model_cannot_have_spoken_is_refused(model, said):
    speech = said["sequential"]
    for change in ({"ids": (10**6, *speech.ids[1:])}, {"codes": ((1, 2, 3), *speech.codes[1:])}):
        with pytest.raises(UsageError, match="cannot have spoken"):
            model.prepare(_conversation(replace(speech, **change)))
    with pytest.raises(UsageError, match="turn of the assistant"):
        model.prepare([*_conversation(speech), {"role": "user", "content": [{"type": "speech", "speech": speech}]}])
    with pytest.raises(UsageError, match="a part of"):
        model.prepare(_conversation(None))
    with pytest.raises(UsageError, match="text alone"):
        replace(model, config=replace(model.config, audio_out=None)).prepare(_conversation(speech))


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
