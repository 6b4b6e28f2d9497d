"""Text of the prompt as players, alone and beside the audio's, against every coalition's own prompt."""

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
from sgpa_jax.errors import PlayerError, UsageError
from sgpa_jax.games import engine_of, evaluate_flat, response_game, speech_cost, speech_game, speech_passage
from sgpa_jax.games.tokens import TEXT_ABSENCES, neutral_token, token_owners
from sgpa_jax.games.waveform import WaveformEngine
from sgpa_jax.models import Order, load_model, parse_mesh
from sgpa_jax.models.inputs import with_response
from sgpa_jax.players import NOBODY, Player, Players, all_coalitions, join_players, text_players

RATE_HZ, N_SAMPLES = 16000, 17003
SPANS = [(0, 5000), (6000, 12000)]
FAMILIES = ("qwen2_audio", "lfm2_audio")
N_TOKENS, SIZE = 128, 8
ROWS = ("ids_t", "clip_t", "place_t", "turn_t", "is_content_t")


@pytest.fixture(scope="module")
def loaded(tiny_folder):
    return functools.cache(lambda family, mesh=None: load_model(tiny_folder(family), dtype="float32", mesh=mesh))


@pytest.fixture(scope="module")
def clip():
    rng = np.random.default_rng(0)
    wave_s = 0.002 * rng.standard_normal(N_SAMPLES)
    for first, last in SPANS:
        wave_s[first:last] += 0.2 * np.sin(np.arange(last - first) * (0.05 + 0.2 * rng.random()))
    return Clip(wave_s.astype(np.float32), RATE_HZ)


@pytest.fixture(scope="module")
def heard():
    named = tuple(Player(f"word {i}", "word", a / RATE_HZ, b / RATE_HZ) for i, (a, b) in enumerate(SPANS))
    return Players(named, N_SAMPLES, RATE_HZ)


def asked(clip, before="the red lamp", behind="which colour?"):
    parts = [{"type": "text", "text": before}, {"type": "audio", "audio": clip}, {"type": "text", "text": behind}]
    return [{"role": "user", "content": parts}]


def mixed(model, clip, heard, **options):
    inputs = model.prepare(asked(clip), response="the red")
    return inputs, join_players(heard, text_players(model, inputs, **options), inputs)


def places(players, mask):
    """Positions of the text of some players."""
    return [place for index in players.text if mask[index] for place in range(*players[index].tokens)]


def drawn(players, n=6):
    masks = np.random.default_rng(2).random((n, len(players))) < 0.5
    return np.concatenate([masks, np.zeros((1, len(players)), bool), np.ones((1, len(players)), bool)])


# --- who owns what ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", [*FAMILIES, "voxtral"])
def test_text_of_the_user_is_owned_by_tokens_and_by_words(loaded, clip, heard, family):
    model = loaded(family)
    messages = [
        {"role": "user", "content": "a lamp?"},
        {"role": "assistant", "content": "the lamp"},
        *asked(clip),
    ]
    if family != "voxtral":
        messages = [{"role": "system", "content": "user of lamps"}, *messages]
    inputs = model.prepare(messages, response="the red")
    is_users = np.isin(inputs.turn_t, [turn for turn, role in enumerate(inputs.roles) if role == "user"])
    by_token, by_word = (text_players(model, inputs, unit=unit) for unit in ("tokens", "words"))
    for players in (by_token, by_word):
        owner = token_owners(model, inputs, players)
        np.testing.assert_array_equal(owner != NOBODY, (inputs.is_content_t & is_users)[:-1])
        assert (np.diff(owner[owner != NOBODY]) >= 0).all() and {player.kind for player in players} == {"text"}
    assert by_word.labels == ("a", "lamp?", "the", "red", "lamp", "which", "colour?")
    assert len(by_token) == (inputs.is_content_t & is_users).sum() > len(by_word)
    both = join_players(heard, by_word, inputs)
    assert both.labels == ("a", "lamp?", "the", "red", "lamp", "word 0", "word 1", "which", "colour?")
    assert (both.heard, both.text) == ((5, 6), (0, 1, 2, 3, 4, 7, 8))
    owner_s = both.owner_s()
    assert (owner_s[:5000] == 5).all() and (owner_s[6000:12000] == 6).all() and (owner_s[12000:] == NOBODY).all()
    owner = token_owners(model, inputs, both)
    assert set(owner[inputs.clip_t[:-1] >= 0].tolist()) == {5, 6, NOBODY}


def test_words_of_odd_spacing_and_of_no_vocabulary(loaded, clip):
    model = loaded("qwen2_audio")
    inputs = model.prepare(asked(clip, before=" \n lamps,  ünï\n\n", behind="! ? red"))
    players = text_players(model, inputs)
    assert players.labels == ("lamps,", "ünï", "!", "?", "red")
    assert text_players(model, inputs, punctuation=False).labels == ("lamps,", "ünï", "red")
    owner = token_owners(model, inputs, players)
    np.testing.assert_array_equal(owner != NOBODY, inputs.is_content_t[:-1])
    assert all(label for label in text_players(model, inputs, unit="tokens").labels)
    pocket = load_model("pocket")
    assert text_players(pocket, pocket.prepare(asked(clip, "what ", "zebra ?"))).labels == ("what", "<unk>", "?")
    assert neutral_token(pocket)[1] == "<unk>" and neutral_token(model)[1] == "Ġ"


def test_text_that_is_not_there_is_refused(loaded, clip, heard):
    model = loaded("lfm2_audio")
    inputs, players = mixed(model, clip, heard)
    silent = model.prepare([{"role": "user", "content": [{"type": "audio", "audio": clip}]}])
    with pytest.raises(PlayerError, match="no text of the user"):
        text_players(model, silent)
    with pytest.raises(UsageError, match="words"):
        text_players(model, inputs, unit="word")
    with pytest.raises(UsageError, match="tell no roles"):
        text_players(model, replace(inputs, roles=()))
    with pytest.raises(PlayerError, match="no text of this prompt"):
        token_owners(model, with_response(silent, [1]), players)
    with pytest.raises(UsageError, match="drop_keep"):
        speech_game(model, inputs, players, text_absence="drop_kept")
    with pytest.raises(UsageError, match="silence"):
        response_game(model, inputs, text_players(model, inputs), absence="silense")
    with pytest.raises(UsageError, match="expected one to hear"):
        WaveformEngine(model, inputs, text_players(model, inputs), absence="silence")
    text = Player("a", "text", tokens=(3, 5))
    for wrong in (replace(text, tokens=(4, 6)), replace(text, tokens=None), replace(text, tokens=(5, 5))):
        with pytest.raises(PlayerError, match=r"overlap|holds no token"):
            Players((text, wrong), 0, RATE_HZ)
    with pytest.raises(PlayerError, match="has no times"):
        _ = text.span_s


# --- what every coalition is worth -----------------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnums=0)
def _log_probs(graphdef, state, x_btd, order):
    decoder = nnx.merge(graphdef, state).decoder
    return jax.nn.log_softmax(decoder.logits(decoder(x_btd, order)), axis=-1)[0]


def alone(model, inputs, heard_wave, players, mask, text_absence):
    """Log-probabilities of the response in the prompt of one coalition, rows removed or hidden one by one."""
    here = inputs.clips[0]
    audio = np.flatnonzero(inputs.clip_t >= 0)
    n_audio = model.config.n_audio(len(heard_wave))
    # Shorter audio takes fewer positions, and the players behind it move.
    keep = np.delete(np.arange(len(inputs.ids_t)), audio[n_audio:])
    gone = np.zeros(len(inputs.ids_t), bool)
    ids = inputs.ids_t.copy()
    gone[places(players, ~mask)] = True
    if text_absence == "replace":
        ids[gone] = neutral_token(model)[0]
        gone[:] = False
    rows = {name: getattr(inputs, name)[keep] for name in ("clip_t", "place_t", "turn_t", "is_content_t")}
    shorter = replace(
        inputs, ids_t=ids[keep], clips=(Clip(heard_wave, here.rate_hz),), response_start=len(keep) - 2, **rows
    )
    x_td, gone = np.asarray(model.place(shorter).x[0, : len(keep)]), gone[keep]
    positions, tokens = np.arange(len(keep)), np.arange(len(keep))
    if text_absence in ("drop", "drop_keep"):
        x_td, tokens = x_td[~gone], np.arange((~gone).sum())
        positions = tokens if text_absence == "drop" else positions[~gone]
        gone = np.zeros(len(tokens), bool)
    room = N_TOKENS - len(tokens)
    mask_tu = np.tril(np.ones((N_TOKENS, N_TOKENS), bool)) & ~np.pad(gone, (0, room))[None]
    before = np.arange(N_TOKENS)[:, None] - 1 - np.arange(model.config.decoder.n_before)[None]
    before = np.where((before < 0) | np.pad(gone, (0, room))[before], -1, before)
    order = Order(*map(jnp.asarray, (np.pad(positions, (0, room))[None], mask_tu[None], before[None])))
    found = _log_probs(model.graphdef, model.state, np.pad(x_td, ((0, room), (0, 0)))[None], order)
    targets = inputs.ids_t[inputs.response_start :]
    return np.asarray(found)[len(tokens) - len(targets) - 1 + np.arange(len(targets)), targets]


def heard_wave(clip, players, mask, absence):
    owner = players.owner_s()
    there = np.append(mask, True)[owner]
    return clip.wave_s[there] if absence == "delete" else np.where(there, clip.wave_s, np.float32(0))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_trie_equals_each_prompt_alone(loaded, clip, heard, family):
    model = loaded(family)
    inputs, players = mixed(model, clip, heard)
    masks = drawn(players)
    masks[:, list(players.heard)] = True
    for text_absence in TEXT_ABSENCES:
        game = speech_game(model, inputs, players, absence="attention", text_absence=text_absence)
        expected = [alone(model, inputs, clip.wave_s, players, mask, text_absence) for mask in masks]
        assert np.ptp(np.array(expected), axis=0).max() > 1e-3
        np.testing.assert_allclose(game.values(masks)[:, 1:], expected, atol=2e-5)


@pytest.mark.parametrize(
    ("family", "absence", "text_absence"),
    [
        ("lfm2_audio", "attention", "drop"),
        ("lfm2_audio", "embedding", "replace"),
        ("qwen2_audio", "embedding", "drop_keep"),
    ],
)
def test_each_modality_has_its_own_absence_as_in_the_flat_engine(loaded, clip, heard, family, absence, text_absence):
    model = loaded(family)
    inputs, players = mixed(model, clip, heard, unit="tokens")
    masks = drawn(players, 30)
    found = speech_game(model, inputs, players, absence=absence, text_absence=text_absence).values(masks)[:, 1:]
    passage = speech_passage(model, inputs, players, absence=absence, text_absence=text_absence)
    expected = np.asarray(jax.jit(lambda masks: evaluate_flat(model.decoder, passage, masks))(jnp.asarray(masks)))
    np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize(
    ("family", "absence", "text_absence"),
    [
        ("qwen2_audio", "delete", "drop"),
        ("qwen2_audio", "noise", "replace"),
        ("lfm2_audio", "silence", "drop_keep"),
        ("lfm2_audio", "delete", "attention"),
    ],
)
def test_the_waveform_engine_equals_each_prompt_alone(loaded, clip, heard, family, absence, text_absence):
    model = loaded(family)
    inputs, players = mixed(model, clip, heard, unit="tokens")
    masks = drawn(players)
    if absence == "noise":
        masks[:, list(players.heard)] = True
    game = speech_game(model, inputs, players, absence=absence, text_absence=text_absence, microbatch=SIZE)
    found = game.values(masks)[:, 1:]
    expected = [
        alone(model, inputs, heard_wave(clip, players, mask, absence), players, mask, text_absence) for mask in masks
    ]
    assert np.ptp(np.array(expected), axis=0).max() > 1e-3
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_dropped_text_is_a_prompt_without_it(loaded, clip, heard):
    model = loaded("lfm2_audio")
    inputs, players = mixed(model, clip, heard, unit="tokens")
    mask = np.ones(len(players), bool)
    mask[[players.text[1], players.text[-2]]] = False
    gone = places(players, ~mask)
    rows = {name: np.delete(getattr(inputs, name), gone) for name in ROWS}
    without = replace(inputs, response_start=inputs.response_start - 2, **rows)
    log_probs = np.asarray(jax.nn.log_softmax(model.logits(without)[0]))
    tokens = np.arange(without.response_start, len(without.ids_t))
    expected = log_probs[tokens - 1, without.ids_t[tokens]]
    for absence in ("silence", "attention"):
        game = speech_game(model, inputs, players, absence=absence, text_absence="drop", microbatch=SIZE)
        np.testing.assert_allclose(game.values(mask[None])[0, 1:], expected, atol=2e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_text_alone_is_a_game_of_the_whole_recording(loaded, clip, family):
    model = loaded(family)
    inputs = model.prepare(asked(clip), response="the red")
    players = text_players(model, inputs)
    assert engine_of("silence", players) == "trie" and engine_of("silence") == "waveform"
    values = speech_game(model, inputs, players, text_absence="drop").values(all_coalitions(len(players)))
    masks = all_coalitions(len(players))[[0, 5, -1]]
    expected = [alone(model, inputs, clip.wave_s, players, mask, "drop") for mask in masks]
    np.testing.assert_allclose(values[[0, 5, -1], 1:], expected, atol=2e-5)
    assert speech_cost(model, inputs, players, masks, absence="silence")["engine"] == "trie"


def test_coalitions_that_sound_the_same_are_encoded_once(loaded, clip, heard, monkeypatch):
    model, encoded, different = loaded("qwen2_audio"), [], WaveformEngine._different
    inputs, players = mixed(model, clip, heard)
    masks = all_coalitions(len(players))[::5]
    monkeypatch.setattr(
        WaveformEngine, "_different", lambda self, masks: encoded.append(different(self, masks)) or encoded[-1]
    )
    game = speech_game(model, inputs, players, text_absence="drop", microbatch=SIZE)
    values = game.values(masks)
    assert len(masks) == 26 and sum(len(rows) for rows, _ in encoded) <= 8
    other = np.random.default_rng(0).permutation(len(masks))
    shuffled = WaveformEngine(model, inputs, players, absence="silence", text_absence="drop")
    np.testing.assert_allclose(shuffled.log_probs(masks[other[:SIZE]]), values[other[:SIZE], 1:], atol=1e-5)
    cost = speech_cost(model, inputs, players, masks, absence="silence", text_absence="drop")
    assert cost["engine"] == "waveform" and cost["decoder_tokens"] < cost["tokens_one_by_one"]


def test_devices_share_coalitions_with_text(loaded, clip, heard):
    model, spread = loaded("lfm2_audio"), loaded("lfm2_audio", parse_mesh("data=4"))
    inputs, players = mixed(model, clip, heard)
    one, many = (
        speech_game(m, inputs, players, text_absence="drop_keep", microbatch=SIZE).values(drawn(players))
        for m in (model, spread)
    )
    np.testing.assert_allclose(many, one, atol=1e-5)


def test_players_whose_absence_changes_nothing_are_left_out_beside_text(loaded, clip, heard):
    model = loaded("qwen2_audio")
    wave_s = clip.wave_s.copy()
    wave_s[: SPANS[0][1]] = 0
    inputs, players = mixed(model, Clip(wave_s, RATE_HZ), heard)
    assert WaveformEngine(model, inputs, players, absence="silence").is_audible_p.tolist() == [
        index != players.heard[0] for index in range(len(players))
    ]


# --- what the model says ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def demo():
    return read_clip(Path(sgpa_checkpoints.__file__).parent / "demo" / "demo.wav")


@pytest.mark.parametrize(
    ("name", "absence", "text_absence"), [("pocket", "delete", "drop"), ("pocket-lfm2", "silence", "replace")]
)
def test_responses_are_those_to_the_prompt_alone(demo, name, absence, text_absence):
    model = load_model(name)
    inputs = model.prepare(asked(demo, "colour of ", "what to do ?"))
    spans = tuple(Player(str(i), "word", *span) for i, span in enumerate([(0.2, 1.3), (1.4, 3.1)]))
    players = join_players(
        Players(spans, len(demo.wave_s), demo.rate_hz), text_players(model, inputs, punctuation=False), inputs
    )
    masks = np.concatenate([np.ones((1, len(players)), bool), ~np.eye(len(players), dtype=bool)])
    game = response_game(
        model, inputs, players, absence=absence, text_absence=text_absence, max_new_tokens=4, microbatch=SIZE
    )
    found = game.evaluate(masks)
    assert len({response.ids for response in found}) > 1, "the test needs coalitions with different responses"
    for row in (0, 1, 1 + players.heard[0], len(players)):
        response, mask = found[row], masks[row]
        gone = np.isin(np.arange(len(inputs.ids_t)), places(players, ~mask))
        edited = replace(inputs, clips=(Clip(heard_wave(demo, players, mask, absence), demo.rate_hz),))
        ids = np.where(gone, neutral_token(model)[0], inputs.ids_t).astype(np.int32)
        if text_absence == "replace":
            gone[:] = False
        # Behind shorter audio the text closes up.
        gone |= inputs.place_t >= model.config.n_audio(len(edited.clips[0].wave_s))
        rows = {name: np.delete(getattr(inputs, name), gone) for name in ROWS[1:]}
        edited = replace(edited, ids_t=ids[~gone], response_start=int((~gone).sum()), **rows)
        assert response == model.generate(edited, max_new_tokens=4)


def test_responses_agree_between_the_ways_to_hear(demo):
    """With everything heard, rendering changes nothing: what is left is the absence of text."""
    model = load_model("pocket-lfm2")
    inputs = model.prepare(asked(demo, "colour of ", "what to do ?"))
    text = text_players(model, inputs, punctuation=False)
    whole = Players((Player("all", "word", 0.2, 3.1),), len(demo.wave_s), demo.rate_hz)
    players = join_players(whole, text, inputs)
    masks = all_coalitions(len(players))[:: 2 ** len(players) // SIZE]
    masks[:, players.heard[0]] = True
    options = {"text_absence": "drop_keep", "max_new_tokens": 4, "microbatch": SIZE}
    heard, shared = (
        response_game(model, inputs, players, absence=absence, **options).evaluate(masks)
        for absence in ("silence", "attention")
    )
    alone = response_game(model, inputs, text, **options).evaluate(masks[:, list(players.text)])
    assert heard == shared == alone and len({response.ids for response in heard}) > 1
