"""The games of responses against answering every coalition's recording on its own, and their scores."""

import functools
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sgpa_checkpoints
from flax import nnx

from sgpa_jax.audio import Clip, read_clip
from sgpa_jax.errors import UsageError
from sgpa_jax.estimators import estimate
from sgpa_jax.games import Evaluations
from sgpa_jax.games.flat import flat_hidden
from sgpa_jax.games.passage import TOKEN_ABSENCES
from sgpa_jax.games.responses import RESPONSE_SCORES, response_game, token_embeddings, tokens_of
from sgpa_jax.games.scores import embedding_cosine
from sgpa_jax.games.tokens import speech_passage
from sgpa_jax.models import Response, Speech, load_model, parse_mesh, with_response
from sgpa_jax.models.audio_out import END_OF_AUDIO
from sgpa_jax.models.chat import LFM2AudioChat
from sgpa_jax.players import Player, Players, all_coalitions, ambient_noise

PROMPT = "what to do ?"
N_NEW = 6
MASKS_CP = all_coalitions(3)


@pytest.fixture(scope="module", params=["pocket", "pocket-lfm2"])
def model(request):
    return load_model(request.param)


@pytest.fixture(scope="module")
def lfm2():
    return load_model("pocket-lfm2")


@pytest.fixture(scope="module")
def clip():
    """Nine words, which the models understand: without some of them, they answer something else."""
    return read_clip(Path(sgpa_checkpoints.__file__).parent / "demo" / "demo.wav")


@pytest.fixture(scope="module")
def players(clip):
    spans = [(0.2, 1.3), (1.4, 2.0), (2.0, 3.1)]
    named = tuple(Player(f"span {i}", "word", *span) for i, span in enumerate(spans))
    return Players(named, len(clip.wave_s), clip.rate_hz)


@pytest.fixture(scope="module")
def speaker(tiny_folder):
    """A tiny LFM2-Audio that turns to audio and back: the marks for that are louder, the end mark is silent."""
    loaded = load_model(tiny_folder("lfm2_audio"), dtype="float32")
    network = nnx.clone(nnx.merge(loaded.graphdef, loaded.state))
    assert isinstance(loaded.chat, LFM2AudioChat)
    marks = np.array([loaded.chat.audio_start_id, loaded.chat.text_end_id, loaded.chat.end_ids[0]])
    text, codes = network.decoder.embedding.table, network.audio_out.codebooks[0].embedding.table
    text.set_value(text[...].at[marks].multiply(np.array([[2.5], [1.2], [0.0]], np.float32)))
    codes.set_value(codes[...].at[END_OF_AUDIO].multiply(4.0))
    return replace(loaded, state=nnx.state(network))


def _heard(clip, players, mask, absence):
    """The slow, obvious rendering of one coalition."""
    owner = players.owner_s()
    absent = (owner >= 0) & ~np.append(mask, True)[owner]
    if absence == "delete":
        return Clip(clip.wave_s[~absent], clip.rate_hz)
    wave_s = np.where(absent, ambient_noise(clip) if absence == "noise" else np.float32(0), clip.wave_s)
    return Clip(wave_s, clip.rate_hz)


@pytest.mark.parametrize("absence", ["silence", "noise", "delete"])
def test_every_response_is_that_to_the_recording_alone(model, clip, players, absence):
    microbatch, rows = 8, (0, 2, 5, 7)
    if absence == "delete":
        # Every length is a shape of its own alone; in batches of four, the short ones share a smaller one.
        microbatch, rows = (4, (0,)) if model.name == "pocket" else (8, (2,))
    inputs = model.prepare(clip, PROMPT)
    game = response_game(model, inputs, players, absence=absence, max_new_tokens=N_NEW, microbatch=microbatch)
    found = game.evaluate(MASKS_CP)
    for row in rows:
        alone = model.prepare(_heard(clip, players, MASKS_CP[row], absence), PROMPT)
        assert found[row] == model.generate(alone, max_new_tokens=N_NEW)
    assert len({response.ids for response in found}) > 2, "the test needs coalitions with different responses"
    assert game.evaluations == Evaluations(requested=8, unique=8, model_forwards=8)


@pytest.mark.parametrize("absence", TOKEN_ABSENCES)
def test_every_token_is_the_likeliest_where_players_are_absent_from_the_decoders_input(lfm2, clip, players, absence):
    inputs = lfm2.prepare(clip, PROMPT)
    game = response_game(lfm2, inputs, players, absence=absence, max_new_tokens=N_NEW, microbatch=8)
    found = game.evaluate(MASKS_CP)
    (end,) = lfm2.chat.end_ids
    for row in (0, 5):
        said = [*found[row].ids, *[end] * N_NEW][:N_NEW]
        passage = speech_passage(lfm2, with_response(inputs, said), players, absence=absence)
        hidden_td = flat_hidden(lfm2.decoder, passage, jnp.asarray(MASKS_CP[row : row + 1]))[0, -N_NEW:]
        likeliest = np.asarray(hidden_td @ lfm2.decoder.table_vd.T).argmax(axis=-1).tolist()
        n = min(len(found[row].ids) + 1, N_NEW)
        assert likeliest[:n] == said[:n]
    assert len({response.ids for response in found}) > 1, "the test needs coalitions with different responses"


def test_values_are_scores_of_responses_and_another_score_needs_no_model(model, clip, players):
    game = response_game(model, model.prepare(clip, PROMPT), players, max_new_tokens=N_NEW, microbatch=8)
    values_c1 = game.values(MASKS_CP)
    full, *others = (set(response.ids) for response in game.evaluate(MASKS_CP[::-1]))
    assert values_c1.shape == (8, 1) and values_c1[-1, 0] == pytest.approx(1)
    for value, ids in zip(values_c1[-2::-1, 0], others, strict=True):
        assert (value > 0) == bool(full & ids) and value < 1 + 1e-6
    shares = estimate(game, key=jax.random.key(0))
    np.testing.assert_allclose(shares.values_pk.sum(), 1 - values_c1[0, 0], atol=1e-6)
    network = nnx.merge(model.graphdef, model.state)
    similar_c1 = game.rescore(_by_embedding(model)).values(MASKS_CP)
    means = [
        np.asarray(network.decoder.embedding.table[...])[list(r.ids)].mean(axis=0) for r in game.evaluate(MASKS_CP)
    ]
    cosines = [mean @ means[-1] / np.linalg.norm(mean) / np.linalg.norm(means[-1]) for mean in means]
    np.testing.assert_allclose(similar_c1[:, 0], cosines, atol=1e-5)
    assert game.evaluations.model_forwards == 8


def test_a_limit_cuts_and_a_batch_of_the_longest_answer_stops_early(model, clip, players):
    inputs = model.prepare(clip, PROMPT)
    long, short = (
        response_game(model, inputs, players, max_new_tokens=n, microbatch=8).evaluate(MASKS_CP) for n in (N_NEW, 1)
    )
    assert [response.ids for response in short] == [response.ids[:1] for response in long]


def test_responses_on_eight_devices_are_those_on_one(clip, players):
    model, spread = load_model("pocket"), load_model("pocket", mesh=parse_mesh("data=4,model=2"))
    one, many = (
        response_game(m, m.prepare(clip, PROMPT), players, max_new_tokens=N_NEW, microbatch=8).evaluate(MASKS_CP)
        for m in (model, spread)
    )
    assert many == one


def test_players_whom_nobody_hears_make_no_coalitions_of_their_own(clip, players):
    model = load_model("pocket")
    wave_s = clip.wave_s.copy()
    wave_s[players.owner_s() == 1] = 0
    silent = Clip(wave_s, clip.rate_hz)
    game = response_game(model, model.prepare(silent, PROMPT), players, max_new_tokens=N_NEW, microbatch=8)
    found = game.evaluate(MASKS_CP)
    assert game.evaluations.unique == 4 and found[0] is found[2] and found[5] is found[7]


def test_spoken_responses_are_those_to_the_recording_alone(speaker, clip, players):
    mode = "interleaved"
    inputs = speaker.prepare(clip, "which colour?", response="red")
    game = response_game(speaker, inputs, players, max_new_tokens=12, mode=mode, microbatch=8)
    found = game.evaluate(MASKS_CP)
    for row in (0, 3, 7):
        alone = speaker.prepare(_heard(clip, players, MASKS_CP[row], "silence"), "which colour?")
        assert found[row] == speaker.speak(alone, max_new_tokens=12, mode=mode)
    assert any(any(speech.is_audio) for speech in found) and len({speech.codes for speech in found}) > 1
    for score in (None, _by_embedding(speaker)):
        values_c1 = (game if score is None else game.rescore(score)).values(MASKS_CP)
        assert values_c1[-1, 0] == pytest.approx(1) and (values_c1 < 1 + 1e-5).all() and values_c1.min() < 0.99


def test_terms_are_text_tokens_and_whole_frames():
    assert tokens_of(Response((4, 5), "ab", ("a", "b"))) == [4, 5]
    assert tokens_of(Speech((4, 0, 0), ((), (1, 2), (1, 3)), (False, True, True), "a")) == [4, (1, 2), (1, 3)]


def test_a_spoken_response_is_embedded_as_the_decoder_hears_it(speaker):
    network = nnx.merge(speaker.graphdef, speaker.state)
    speech = Speech((4, 0), ((), (1, 2)), (False, True), "a")
    frame = network.audio_out.embed_codes(np.array([1, 2]))
    expected = (network.decoder.embedding(np.array(4)) + frame) / 2
    nothing = Speech((), (), (), "")
    found = token_embeddings(speaker, rows=2)([speech, nothing, speech])
    np.testing.assert_allclose(found, [expected, np.zeros_like(expected), expected], atol=1e-6)


def test_refusals(model, clip, players):
    inputs = model.prepare(clip, PROMPT)
    for settings, message in [
        ({"absence": "silense"}, "silence"),
        ({"score": "tdidf"}, "tfidf"),
        ({"max_new_tokens": 0}, "at least one"),
    ]:
        with pytest.raises(UsageError, match=message):
            response_game(model, inputs, players, **settings)
    two = [{"type": "audio", "audio": clip}, {"type": "audio", "audio": clip}]
    with pytest.raises(UsageError, match="holds 2 recordings"):
        response_game(model, model.prepare([{"role": "user", "content": two}]), players)
    with pytest.raises(UsageError, match="in text alone"):
        response_game(model, inputs, players, mode="sequential").values(MASKS_CP[:1])
    assert set(RESPONSE_SCORES) == {"tfidf", "tfidf_per_phase", "response_embedding"}


def _by_embedding(model):
    return functools.partial(embedding_cosine, embed=token_embeddings(model, rows=3))
