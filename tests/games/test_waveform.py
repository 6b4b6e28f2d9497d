"""The waveform engine against hearing every coalition on its own, on tiny random networks of every family."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from flax import nnx

from sgpa_jax.audio import Clip, round_up_in_octaves
from sgpa_jax.errors import UsageError
from sgpa_jax.games import speech_game
from sgpa_jax.games.hearing import HEARD_ABSENCES, Picked, Rendered, hearing_of
from sgpa_jax.games.waveform import WaveformEngine
from sgpa_jax.games.waveform_programs import hear, read
from sgpa_jax.models import causal_order, layout_row, load_model, parse_mesh
from sgpa_jax.players import PADDING, Player, Players, all_coalitions, ambient_noise, render_coalition

RATE_HZ, N_SAMPLES = 16000, 17003
SIZE, PROMPT, RESPONSE = 4, "which lamp?", "the red"
"""One size of batches and one prompt for most tests, which then share what they compile."""
SPANS = [(0, 900), (900, 1000), (1000, 6000), (6500, 9000), (9000, 9100), (9100, 14000)]
"""Neighbours that touch, two of them shorter than a frame; then a pause, and the rest is nobody's."""

ALL = [
    ("qwen2_audio", "silence"), ("qwen2_audio", "noise"), ("qwen2_audio", "delete"), ("voxtral", "delete"),
    ("lfm2_audio", "silence"), ("lfm2_audio", "delete"), ("lfm2_audio", "mel_delete"),
]  # fmt: skip


@pytest.fixture(scope="module")
def loaded(tiny_folder):
    return functools.cache(lambda family, mesh=None: load_model(tiny_folder(family), dtype="float32", mesh=mesh))


def wave_of(seed):
    rng = np.random.default_rng(seed)
    wave_s = 0.002 * rng.standard_normal(N_SAMPLES)
    for first, last in SPANS:
        wave_s[first:last] += 0.2 * rng.random() * np.sin(np.arange(last - first) * (0.05 + 0.2 * rng.random()))
    return wave_s.astype(np.float32)


def players_of(clip, spans=SPANS):
    named = tuple(Player(f"p{i}", "word", a / RATE_HZ, b / RATE_HZ) for i, (a, b) in enumerate(spans))
    return Players(named, len(clip.wave_s), RATE_HZ)


@pytest.fixture(scope="module")
def clip():
    return Clip(wave_of(0), RATE_HZ)


@pytest.fixture(scope="module")
def players(clip):
    return players_of(clip)


@pytest.fixture(scope="module")
def masks(players):
    """Nobody, everybody and two between."""
    drawn = np.random.default_rng(1).random((2, len(players))) < 0.5
    return np.concatenate([np.zeros((1, len(players)), bool), drawn, np.ones((1, len(players)), bool)])


def mel_alone(model, clip, players, mask, absence):
    """Features of one coalition: of its own waveform, or the whole clip's frames cut eight by eight."""
    front_end, owner = model.config.front_end, players.owner_s()
    there = np.append(mask, True)[owner]
    wave = clip.wave_s
    if absence == "delete":
        wave = wave[there]
        wave = np.pad(wave, (0, max(0, model.minimum_samples - len(wave))))
    elif absence != "mel_delete":
        wave = np.where(there, wave, ambient_noise(clip) if absence == "noise" else np.float32(0))
    padded = np.pad(wave, (0, model.padded_samples(len(wave)) - len(wave)))
    n_frames = front_end.n_frames(len(wave))
    mel = np.asarray(jax.jit(front_end.features)(padded[None], jnp.array([len(wave)])))[0]
    if absence != "mel_delete":
        return mel, n_frames
    kept = []
    for first in range(0, n_frames, 8):
        samples = owner[first * front_end.hop_samples : (first + 8) * front_end.hop_samples]
        counts = [(samples == player).sum() for player in (*range(len(players)), -1)]
        owned_by = int(np.argmax(counts)) if len(samples) else len(players)
        if np.append(mask, True)[owned_by]:
            kept.append(mel[first : min(first + 8, n_frames)])
    mel = np.concatenate([*kept, np.zeros((8, mel.shape[1]), np.float32)])
    return mel, len(mel) - 8


@functools.partial(jax.jit, static_argnums=0)
def _alone(graphdef, state, layout, mel_bfm, n_frames_b):
    network = nnx.merge(graphdef, state)
    n_audio_bn = network.config.encoder.n_tokens(n_frames_b)[:, None]
    placed = network.place(layout, network.encode(mel_bfm, n_frames_b)[:, None], n_audio_bn)
    return network.decoder.logits(network.hidden(placed))


def expected_of(model, inputs, clip, players, mask, absence):
    """Log-probabilities of the response's tokens by the plain network, padded as `Model.logits` pads."""
    mel, n_frames = mel_alone(model, clip, players, mask, absence)
    mel = np.pad(mel, ((0, 160 - len(mel)), (0, 0)), mode="edge")
    logits = _alone(
        model.graphdef, model.state, layout_row(inputs, 128), mel[None], jnp.array([n_frames])
    )  # fmt: skip
    n_tokens = len(inputs.ids_t) - model.config.n_audio(len(clip.wave_s)) + model.config.encoder.n_tokens(n_frames)
    targets = inputs.ids_t[inputs.response_start :]
    rows = np.asarray(jax.nn.log_softmax(logits[0], axis=-1))[n_tokens - len(targets) - 1 : n_tokens - 1]
    return rows[np.arange(len(targets)), targets]


def text_alone(model, ids):
    """Log-probability of every next token of a prompt without audio, zero for the last."""
    run = jax.jit(lambda decoder, x, order: decoder.logits(decoder(x, order)))
    decoder = nnx.merge(model.graphdef, model.state).decoder
    logits = run(decoder, decoder.embedding(ids[None]), causal_order(jnp.ones((1, len(ids)), bool)))
    return np.append(np.asarray(jax.nn.log_softmax(logits[0, :-1]))[np.arange(len(ids) - 1), ids[1:]], 0.0)


@pytest.mark.parametrize(("family", "absence"), ALL)
def test_every_coalition_equals_the_plain_network_alone(loaded, clip, players, masks, family, absence):
    model = loaded(family)
    inputs = model.prepare(clip, PROMPT, response=RESPONSE)
    found = speech_game(model, inputs, players, absence=absence, microbatch=SIZE).values(masks)
    expected = [expected_of(model, inputs, clip, players, mask, absence) for mask in masks]
    assert np.ptp(np.array(expected), axis=0).max() > 1e-3
    np.testing.assert_allclose(found[:, 1:], expected, atol=2e-5)


@pytest.mark.parametrize("absence", ["silence", "delete"])
def test_equals_transformers_which_pads_to_the_whole_window(tiny_folder, loaded, clip, players, masks, absence):
    folder = tiny_folder("qwen2_audio")
    theirs = transformers.Qwen2AudioForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    extractor = transformers.WhisperFeatureExtractor.from_pretrained(folder)
    model = loaded("qwen2_audio")
    inputs = model.prepare(clip, PROMPT, response=RESPONSE)
    found = speech_game(model, inputs, players, absence=absence, microbatch=SIZE).values(masks[1:3])[:, 1:]
    for mask, values in zip(masks[1:3], found, strict=True):
        wave, length = render_coalition(
            jnp.asarray(clip.wave_s), jnp.asarray(players.owner_s()), jnp.asarray(mask), absence=absence
        )
        heard = Clip(np.asarray(wave)[: int(length)], RATE_HZ)
        alone = model.prepare(heard, PROMPT, response=RESPONSE)
        features = extractor(heard.wave_s, sampling_rate=RATE_HZ, return_attention_mask=True, return_tensors="pt")
        assert features["input_features"].shape[2] == 400
        ids = torch.tensor(alone.ids_t[None].astype(np.int64))
        with torch.no_grad():
            logits = theirs(
                input_ids=ids, attention_mask=torch.ones_like(ids), input_features=features["input_features"],
                feature_attention_mask=features["attention_mask"],
            ).logits[0]  # fmt: skip
        tokens = np.arange(alone.response_start, len(alone.ids_t))
        log_probs = torch.log_softmax(logits, dim=-1).numpy()[tokens - 1, alone.ids_t[tokens]]
        np.testing.assert_allclose(values, log_probs, atol=5e-5)


@pytest.mark.parametrize("family", ["qwen2_audio", "lfm2_audio"])
@pytest.mark.parametrize("absence", ["silence", "noise"])
def test_picked_frames_are_those_of_the_rendered_coalition(loaded, clip, players, family, absence):
    model, masks = loaded(family), all_coalitions(len(players))[::7]
    front_end, hearing = model.config.front_end, hearing_of(model, clip, players, absence)
    n_frames = hearing.bucket(int(hearing.n_frames(masks).max()))
    picked = hearing.hear(masks, n_frames)
    assert isinstance(picked, Picked) and len(picked.table_nm) <= 16 * n_frames
    size = n_frames * front_end.hop_samples
    room = (0, size - N_SAMPLES)
    wave, noise = (jnp.asarray(np.pad(row, room)) for row in (clip.wave_s, ambient_noise(clip)))
    owner = jnp.asarray(np.pad(players.owner_s(), room, constant_values=PADDING))
    render = functools.partial(render_coalition, wave, owner)
    wave_cs, n_c = jax.vmap(lambda mask: render(mask, absence=absence, noise_s=noise))(jnp.asarray(masks))
    expected = Rendered(wave_cs, n_c).frames(front_end)
    n_real = int(hearing.n_frames(masks)[0]) + front_end.room_frames
    np.testing.assert_allclose(picked.frames(front_end)[:, :n_real], expected[:, :n_real], atol=1e-5)


def test_players_shorter_than_a_frame_are_rendered(loaded, clip):
    """Too many of them meet in a frame for a table of all their patterns."""
    spans = [(4000 + 40 * i, 4040 + 40 * i) for i in range(9)]
    model, players = loaded("qwen2_audio"), players_of(clip, spans)
    inputs = model.prepare(clip, PROMPT, response=RESPONSE)
    mask = np.arange(9) % 2 == 0
    assert isinstance(hearing_of(model, clip, players, "silence").hear(mask[None], 120), Rendered)
    found = speech_game(model, inputs, players, microbatch=SIZE).values(mask[None])
    expected = expected_of(model, inputs, clip, players, mask, "silence")
    np.testing.assert_allclose(found[0, 1:], expected, atol=2e-5)


@pytest.mark.parametrize(("family", "absence"), [("qwen2_audio", "delete"), ("lfm2_audio", "mel_delete")])
def test_a_larger_bucket_changes_nothing(loaded, clip, players, masks, family, absence, monkeypatch):
    model = loaded(family)
    inputs = model.prepare(clip, PROMPT, response=RESPONSE)
    engine = WaveformEngine(model, inputs, players, absence=absence)
    tight = engine.log_probs(masks)
    bucket = engine.hearing.bucket
    monkeypatch.setattr(type(engine.hearing), "bucket", lambda self, n_frames: bucket(n_frames) + 48)
    np.testing.assert_allclose(engine.log_probs(masks), tight, atol=1e-5)


def test_rests_of_like_length_share_a_bucket_that_is_shorter_than_the_whole(loaded, clip, players, masks):
    model = loaded("lfm2_audio")
    for absence in ("delete", "mel_delete"):
        hearing = hearing_of(model, clip, players, absence)
        n_frames = hearing.n_frames(masks)
        buckets = [hearing.bucket(int(n)) for n in n_frames]
        assert all(n <= bucket for n, bucket in zip(n_frames, buckets, strict=True))
        assert buckets[0] < buckets[-1] and len(set(buckets)) <= 4


def test_coalitions_that_sound_the_same_are_evaluated_once(loaded):
    wave = wave_of(0)
    wave[SPANS[2][0] : SPANS[2][1]] = 0.0
    clip = Clip(wave, RATE_HZ)
    players, model = players_of(clip, [SPANS[0], SPANS[2], SPANS[3]]), loaded("qwen2_audio")
    inputs = model.prepare(clip, PROMPT, response=RESPONSE)
    game = speech_game(model, inputs, players, microbatch=SIZE)
    values = game.values(all_coalitions(3))
    assert (game.evaluations.requested, game.evaluations.unique) == (8, 4)
    np.testing.assert_array_equal(values[[0, 1, 4, 5]], values[[2, 3, 6, 7]])
    assert hearing_of(model, clip, players, "delete").is_audible_p.all()


def test_a_player_of_no_eight_frames_is_notheard(loaded, clip, players):
    hearing = hearing_of(loaded("lfm2_audio"), clip, players, "mel_delete")
    assert hearing.is_audible_p.tolist() == [True, False, True, True, False, True]


def test_where_all_frames_are_cut_nothing_isheard(loaded, clip):
    """The prompt as if it had no audio at all."""
    model = loaded("lfm2_audio")
    inputs, everything = model.prepare(clip, PROMPT, response=RESPONSE), players_of(clip, [(0, N_SAMPLES)])
    assert hearing_of(model, clip, everything, "mel_delete").n_frames(np.array([[False]]))[0] == 0
    found = WaveformEngine(model, inputs, everything, absence="mel_delete").log_probs(np.zeros((SIZE, 1), bool))
    expected = expected_of(model, inputs, clip, everything, np.array([False]), "mel_delete")
    ids = inputs.ids_t[inputs.clip_t < 0]
    np.testing.assert_allclose(found, np.broadcast_to(expected, found.shape), atol=2e-5)
    np.testing.assert_allclose(text_alone(model, ids)[-len(expected) - 1 : -1], expected, atol=2e-5)


@pytest.mark.parametrize(("family", "absence"), [("qwen2_audio", "delete"), ("lfm2_audio", "silence")])
def test_devices_share_the_coalitions_without_talking(loaded, clip, players, masks, family, absence):
    model, spread = loaded(family), loaded(family, parse_mesh("data=4"))
    inputs = model.prepare(clip, PROMPT, response=RESPONSE)
    one = WaveformEngine(model, inputs, players, absence=absence).log_probs(masks)
    engine = WaveformEngine(spread, inputs, players, absence=absence)
    np.testing.assert_allclose(engine.log_probs(masks), one, atol=2e-5)
    for program in _programs(engine, masks):
        text = program.compile().as_text() or ""
        assert "fusion" in text
        assert not any(name in text for name in ("all-gather", "all-reduce", "all-to-all", "collective-permute"))


def _programs(engine, masks):
    """What the engine compiles, lowered."""
    hearing, model = engine.hearing, engine.model
    n_frames = hearing.n_frames(masks).astype(np.int32)
    bucket = hearing.bucket(int(n_frames.max()))
    heard = (model.stacked_encoder, hearing.hear(masks, bucket), n_frames)
    n_audio = model.config.encoder.n_tokens(jnp.asarray(n_frames))
    audio = jax.eval_shape(lambda *heard: hear(*heard, is_settled=hearing.is_settled, mesh=model.mesh), *heard)
    yield hear.lower(*heard, is_settled=hearing.is_settled, mesh=model.mesh)
    there, script = np.ones((len(masks), len(engine.owner_k)), bool), np.zeros(len(masks), np.int32)
    yield read.lower(
        model.decoder, engine.script, audio, n_audio, there, script, n_tokens=engine._n_tokens(bucket),
        text_absence="attention", mesh=model.mesh,
    )  # fmt: skip


@pytest.mark.parametrize(("family", "absence"), [("qwen2_audio", "delete"), ("lfm2_audio", "silence")])
def test_lowers_for_tpu(loaded, clip, players, masks, family, absence):
    model = loaded(family)
    inputs = model.prepare(clip, PROMPT, response=RESPONSE)
    engine = WaveformEngine(model, inputs, players, absence=absence)
    hearing, n_frames = engine.hearing, engine.n_frames(masks).astype(np.int32)
    bucket = hearing.bucket(int(n_frames.max()))

    def run(encoder, decoder, script, heard, n_frames, there):
        audio = hear(encoder, heard, n_frames, is_settled=hearing.is_settled, mesh=None)
        n_audio, n_tokens = model.config.encoder.n_tokens(n_frames), engine._n_tokens(bucket)
        return read(
            decoder,
            script,
            audio,
            n_audio,
            there,
            np.zeros(len(masks), np.int32),
            n_tokens=n_tokens,
            text_absence="drop",
            mesh=None,
        )

    there = np.ones((len(masks), len(engine.owner_k)), bool)
    given = (model.stacked_encoder, model.decoder, engine.script, hearing.hear(masks, bucket), n_frames, there)
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(np.shape(leaf), np.asarray(leaf).dtype), given)
    exported = jax.export.export(jax.jit(run), platforms=["tpu"])(*shapes)
    assert exported.platforms == ("tpu",) and exported.out_avals[0].shape[0] == len(masks)


def test_another_recording_of_the_same_bucket_compiles_nothing(loaded, clip, players, masks):
    model = loaded("qwen2_audio")

    def evaluate(clip, prompt):
        inputs = model.prepare(clip, prompt, response="red")
        return speech_game(model, inputs, players_of(clip), microbatch=SIZE).values(masks)

    evaluate(clip, PROMPT)
    programs: Any = (hear, read)
    compiled = [program._cache_size() for program in programs]
    evaluate(Clip(wave_of(5)[:-77], RATE_HZ), "which lamps")
    assert [program._cache_size() for program in programs] == compiled


def test_the_microbatch_follows_from_the_shapes(loaded, clip, players):
    model, spread = loaded("qwen2_audio"), loaded("qwen2_audio", parse_mesh("data=4,model=2"))
    inputs = model.prepare(clip, PROMPT, response=RESPONSE)
    engine = WaveformEngine(model, inputs, players, absence="silence")
    sizes = [engine.microbatch(n_bytes) for n_bytes in (1, 2**20, 2**24, 2**30)]
    assert sizes == sorted(sizes) and sizes[0] == 1 < sizes[1] < sizes[3]
    assert all(size & (size - 1) == 0 for size in sizes)
    assert engine.microbatch() == sizes[2]
    assert WaveformEngine(spread, inputs, players, absence="silence").microbatch(2**20) == 4 * sizes[1]


def test_refuses_what_the_model_does_nothear(loaded, clip, players):
    model = loaded("qwen2_audio")
    inputs = model.prepare(clip, PROMPT, response=RESPONSE)
    with pytest.raises(UsageError, match=r"LFM2-Audio.*choose 'delete'"):
        speech_game(model, inputs, players, absence="mel_delete")
    with pytest.raises(UsageError, match="mel_delete"):
        hearing_of(model, clip, players, "mel_deletes")
    assert HEARD_ABSENCES == ("silence", "noise", "delete", "mel_delete")


@pytest.mark.parametrize("length", [1, 7, 8, 9, 127, 128, 129, 1000, 3002])
@pytest.mark.parametrize("parts", [2, 8])
def test_sizes_in_octaves(length, parts):
    size = round_up_in_octaves(length, step=8, parts=parts)
    assert size >= length and size % 8 == 0
    assert size - length < max(8, length / parts)
    assert len({round_up_in_octaves(n, step=8, parts=parts) for n in range(512, 1024)}) <= parts + 1
