"""Recordings in windows: cut between players, heard apart, explained as one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import sgpa_jax
from sgpa_jax.align import Alignment, Word
from sgpa_jax.audio import Clip
from sgpa_jax.errors import AudioError, PlayerError, UsageError
from sgpa_jax.games import native_players, prepare_windows, response_game, speech_cost, speech_game, speech_passage
from sgpa_jax.games.flat import evaluate_flat
from sgpa_jax.games.tokens import position_centres_s, token_owners
from sgpa_jax.games.waveform_windows import WindowsEngine
from sgpa_jax.models import load_model
from sgpa_jax.players import Player, Players, all_coalitions, cut_clip

RATE_HZ, DURATION_S, WINDOW_S = 16000, 3, 1.7
FOUR = ((0.2, 0.6), (0.6, 1.1), (1.4, 1.9), (2.1, 2.7))
CUT_S = 1.35
"""Middle of what of the pause from 1.1 to 1.4 s leaves both pieces at most as long as the window."""
PROMPT, RESPONSE = "colour of the lamp ?", "blue red"


@pytest.fixture(scope="module", params=["pocket", "pocket-lfm2"])
def model(request):
    return load_model(request.param)


@pytest.fixture(scope="module")
def tiny(tiny_folder):
    """A Qwen2-Audio that hears four seconds at once."""
    return load_model(tiny_folder("qwen2_audio"), dtype="float32")


@pytest.fixture(scope="module")
def clip():
    wave_s = 0.1 * np.random.default_rng(0).standard_normal(DURATION_S * RATE_HZ)
    return Clip(wave_s.astype(np.float32), RATE_HZ)


@pytest.fixture(scope="module")
def players():
    return players_at(*FOUR)


def players_at(*spans_s, n_samples=DURATION_S * RATE_HZ, rate_hz=RATE_HZ):
    named = [Player(f"word {i}", "word", *span_s) for i, span_s in enumerate(spans_s)]
    return Players(tuple(named), n_samples, rate_hz)


def windows_of(model, clip, players):
    return prepare_windows(model, clip, PROMPT, players, response=RESPONSE, window_s=WINDOW_S)


@st.composite
def recordings(draw):
    """Players and a window that is longer than any, in samples at 1000 Hz."""
    lengths = draw(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 40)), min_size=1, max_size=12))
    ends = np.cumsum(lengths).tolist()
    spans_s = [(first / 1000, last / 1000) for first, last in zip(ends[0::2], ends[1::2], strict=True)]
    n_samples = ends[-1] + draw(st.integers(0, 60))
    return players_at(*spans_s, n_samples=n_samples, rate_hz=1000), draw(st.integers(40, 120))


def fewest(owner_s, longest):
    """Pieces of the recording where each is made as long as it can be."""
    first, n_pieces = 0, 0
    while first < len(owner_s):
        last = min(first + longest, len(owner_s))
        while last < len(owner_s) and owner_s[last - 1] == owner_s[last] >= 0:
            last -= 1
        first, n_pieces = last, n_pieces + 1
    return n_pieces


@given(recordings())
def test_pieces_are_few_short_enough_in_order_and_cut_nobody(drawn):
    players, longest = drawn
    clip = Clip(np.arange(players.n_samples, dtype=np.float32), 1000)
    parts = cut_clip(clip, players, longest / 1000)
    np.testing.assert_array_equal(np.concatenate([part.wave_s for _, part in parts]), clip.wave_s)
    assert [part.wave_s[0] for _, part in parts] == [round(1000 * start_s) for start_s, _ in parts]
    assert max(len(part.wave_s) for _, part in parts) <= longest
    owner_s, edges = players.owner_s(), [round(1000 * start_s) for start_s, _ in parts[1:]]
    assert all(owner_s[edge - 1] != owner_s[edge] or owner_s[edge] < 0 for edge in edges)
    assert len(parts) == fewest(owner_s, longest)


def test_the_cut_lies_in_the_middle_of_the_longest_pause(clip, players):
    (_, first), (start_s, second) = cut_clip(clip, players, WINDOW_S)
    assert (start_s, first.duration_s, second.duration_s) == pytest.approx((CUT_S, CUT_S, DURATION_S - CUT_S))
    assert cut_clip(clip, players, DURATION_S) == ((0.0, clip),)
    with pytest.raises(PlayerError, match=r"'word 0' .* is longer than the 1 s .* take words"):
        cut_clip(clip, players_at((0.2, 1.6)), 1.0)
    with pytest.raises(UsageError, match="this very recording"):
        cut_clip(clip, players_at((0.2, 0.6), n_samples=RATE_HZ), WINDOW_S)


def test_positions_belong_to_players_of_their_own_window(model, clip, players):
    inputs = windows_of(model, clip, players)
    assert inputs.starts_s == pytest.approx((0.0, CUT_S)) and len(inputs.clips) == 2
    owner, clip_t = token_owners(model, inputs, players), inputs.clip_t[:-1]
    assert (owner[clip_t < 0] == -1).all()
    for number, start_s in enumerate(inputs.starts_s):
        centres_s = start_s + position_centres_s(model.config, inputs.place_t[:-1][clip_t == number])
        for centre_s, found in zip(centres_s, owner[clip_t == number], strict=True):
            inside = [i for i, (first_s, last_s) in enumerate(FOUR) if first_s <= centre_s < last_s]
            inside = [i for i in inside if (FOUR[i][0] > CUT_S) == bool(number)]
            assert inside == ([] if found < 0 else [found])
    native = native_players(model, inputs)
    np.testing.assert_array_equal(
        token_owners(model, inputs, native)[clip_t >= 0][: len(native)], np.arange(len(native))
    )
    assert native[0].start_s == 0.0 and native[len(native) - 1].end_s == pytest.approx(DURATION_S)


@pytest.mark.parametrize(("name", "absence"), [("pocket", "embedding"), ("pocket-lfm2", "drop")])
def test_tokens_equal_the_flat_engine(clip, players, name, absence):
    model, masks = load_model(name), all_coalitions(4)[::5]
    inputs = windows_of(model, clip, players)
    found = speech_game(model, inputs, players, absence=absence, baseline="silence").values(masks)
    passage = speech_passage(model, inputs, players, absence=absence, baseline="silence")
    expected = np.asarray(jax.jit(lambda masks: evaluate_flat(model.decoder, passage, masks))(jnp.asarray(masks)))
    np.testing.assert_allclose(found[:, 1:], expected, atol=2e-5)
    assert np.ptp(found[:, 0]) > 0.01


@pytest.mark.parametrize(("family", "absence"), [("qwen2_audio", "silence"), ("lfm2_audio", "delete")])
def test_every_coalition_is_heard_as_the_model_hears_it_alone(tiny_folder, clip, players, family, absence):
    model = load_model(tiny_folder(family), dtype="float32")
    inputs, masks = windows_of(model, clip, players), np.array([[0, 1, 1, 0], [1, 1, 1, 1], [0, 0, 0, 1]], bool)
    found = speech_game(model, inputs, players, absence=absence, microbatch=4).values(masks)
    owner_s, cut = players.owner_s(), round(CUT_S * RATE_HZ)
    for mask, values in zip(masks, found, strict=True):
        there_s = np.append(mask, True)[owner_s]
        wave_s = np.where(there_s, clip.wave_s, np.float32(0))
        parts = [wave_s[:cut], wave_s[cut:]]
        if absence == "delete":
            parts = [part[there] for part, there in zip(parts, (there_s[:cut], there_s[cut:]), strict=True)]
        content = [{"type": "audio", "audio": Clip(part, RATE_HZ)} for part in parts]
        alone = [{"role": "user", "content": [*content, {"type": "text", "text": PROMPT}]}]
        np.testing.assert_allclose(values[1:], whole(model, model.prepare(alone, response=RESPONSE)), atol=5e-5)


def whole(model, inputs):
    """Log-probabilities of the response by the plain network."""
    rows = np.asarray(model.logits(inputs))[0, inputs.response_start - 1 : len(inputs.ids_t) - 1].astype(np.float64)
    log_total = np.log(np.exp(rows).sum(axis=1))
    return rows[np.arange(len(rows)), inputs.ids_t[inputs.response_start :]] - log_total


def test_a_window_is_encoded_once_for_each_pattern_of_its_own_players(tiny, clip, players, monkeypatch):
    inputs, encoded, run = windows_of(tiny, clip, players), [], WindowsEngine._encoded

    def counted(self, hearing, masks, rows):
        encoded.append(len(rows))
        return run(self, hearing, masks, rows)

    monkeypatch.setattr(WindowsEngine, "_encoded", counted)
    speech_game(tiny, inputs, players, microbatch=16).values(all_coalitions(4))
    assert encoded == [4, 4]


def test_a_window_without_players_is_always_there(tiny, clip):
    players = players_at((0.2, 0.6), (0.6, 1.1))
    inputs = prepare_windows(tiny, clip, PROMPT, players, response=RESPONSE, window_s=1.2)
    assert len(inputs.clips) == 3
    for absence in ("silence", "drop"):
        values = speech_game(tiny, inputs, players, absence=absence, microbatch=4).values(all_coalitions(2))
        np.testing.assert_allclose(values[-1, 1:], whole(tiny, inputs), atol=2e-5)
        assert np.ptp(values[:, 0]) > 1e-3
    cost = speech_cost(tiny, inputs, players, all_coalitions(2), absence="silence")
    assert cost["tokens_one_by_one"] == 4 * (len(inputs.ids_t) - 1)


def test_answers_are_compared_in_windows_at_the_decoders_input_alone(tiny, clip, players):
    inputs = windows_of(tiny, clip, players)
    said = response_game(tiny, inputs, players, absence="drop", max_new_tokens=4).evaluate(np.ones((1, 4), bool))
    assert said[0].ids == tiny.generate(inputs, max_new_tokens=4).ids
    with pytest.raises(UsageError, match=r"in windows, or among others, .* 'silence': choose one of embedding"):
        response_game(tiny, inputs, players, absence="silence")


def aligned(duration_s, *spans_s):
    words = [Word(f"word{i}", start_s, end_s, None, None, None, False) for i, (start_s, end_s) in enumerate(spans_s)]
    return Alignment(tuple(words), duration_s, " ".join(word.text for word in words), "", "", "given", "given", ())


def test_a_short_recording_is_explained_as_it_would_be_without(tiny, clip):
    asked = {"alignment": aligned(3.0, *FOUR), "prompt": PROMPT, "response": RESPONSE, "absence": "attention"}
    plain, windows = (sgpa_jax.explain(clip, **asked, model=tiny, long=long) for long in ("refuse", "windows"))
    np.testing.assert_array_equal(plain.values, windows.values)
    assert plain.game == windows.game


def test_a_long_recording_is_refused_or_explained_in_windows(tiny, clip):
    long = Clip(np.concatenate([clip.wave_s, clip.wave_s]), RATE_HZ)
    asked = {
        "model": tiny, "alignment": aligned(6.0, (0.5, 1.4), (1.8, 2.6), (3.0, 3.5), (5.1, 5.8)), "prompt": PROMPT,
        "response": RESPONSE, "absence": "drop",
    }  # fmt: skip
    with pytest.raises(AudioError, match=r"lasts 6.0 s"):
        sgpa_jax.explain(long, **asked)
    with pytest.raises(UsageError, match=r"'window'.* windows"):
        sgpa_jax.explain(long, **asked, long="window")
    found, plan = sgpa_jax.explain(long, **asked, long="windows"), sgpa_jax.plan(long, **asked, long="windows")
    assert found.game["window_starts_s"] == pytest.approx([0.0, 3.75])
    assert plan["coalitions"] == 2 ** len(found.players) == found.evaluations["unique"]
    np.testing.assert_allclose(found.values.sum(axis=0), found.full_value - found.empty_value, atol=1e-4)
    assert found.in_domain is None and found.clip.duration_s == 6.0
    paused = Clip(np.concatenate([clip.wave_s, np.zeros(RATE_HZ, np.float32), clip.wave_s]), RATE_HZ)
    native = {"model": tiny, "players": "native", "response": RESPONSE, "prompt": PROMPT, "absence": "drop"}
    assert abs(sgpa_jax.plan(paused, **native, long="windows", budget=800)["players"] - 7 / 0.04) <= 2
