"""The fused games of the shipped models against hearing every coalition on its own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgpa_jax.audio import Clip
from sgpa_jax.errors import UsageError
from sgpa_jax.games import speech_game
from sgpa_jax.models import load_model, parse_mesh
from sgpa_jax.players import Player, Players, all_coalitions, ambient_noise

RATE_HZ = 16000


@pytest.fixture(scope="module", params=["pocket", "pocket-lfm2"])
def model(request):
    return load_model(request.param)


@pytest.fixture(scope="module")
def clip():
    """Bursts of different pitch on a quiet floor: nothing that the model understands, all that the algebra needs."""
    rng = np.random.default_rng(3)
    wave = 0.001 * rng.standard_normal(26500)
    for start, pitch in ((3000, 300), (9000, 900), (15000, 500)):
        wave[start : start + 5000] += 0.2 * np.sin(np.arange(5000) * 2 * np.pi * pitch / RATE_HZ) * rng.random(5000)
    return Clip(wave.astype(np.float32), RATE_HZ)


@pytest.fixture(scope="module")
def players(clip):
    spans = [(3000, 8000), (9000, 14000), (15000, 20011)]
    named = tuple(Player(f"word {i}", "word", a / RATE_HZ, b / RATE_HZ) for i, (a, b) in enumerate(spans))
    return Players(named, len(clip.wave_s), RATE_HZ)


def _heard(clip, players, mask, absence):
    """The slow, obvious rendering of one coalition."""
    owner = players.owner_s()
    absent = (owner >= 0) & ~np.append(mask, True)[owner]
    if absence == "delete":
        return clip.wave_s[~absent]
    return np.where(absent, ambient_noise(clip) if absence == "noise" else np.float32(0), clip.wave_s)


@pytest.mark.parametrize("absence", ["silence", "noise", "delete"])
def test_every_coalition_equals_hearing_it_alone(model, clip, players, absence):
    response = "red blue kitchen"
    inputs = model.prepare(clip, "what to do ?", response=response)
    masks = all_coalitions(len(players))
    found = speech_game(model, inputs, players, absence=absence, microbatch=8).values(masks)
    for mask, values in zip(masks, found, strict=True):
        heard = Clip(_heard(clip, players, mask, absence), RATE_HZ)
        alone = model.prepare(heard, "what to do ?", response=response)
        log_probs = np.asarray(jax.nn.log_softmax(model.logits(alone)[0], axis=-1))
        tokens = np.arange(alone.response_start, len(alone.ids_t))
        expected = log_probs[tokens - 1, alone.ids_t[tokens]]
        np.testing.assert_allclose(values[1:], expected, atol=2e-5)
        np.testing.assert_allclose(values[0], expected.sum(), atol=5e-5)


def test_nothing_left_is_a_moment_of_silence(model, clip):
    whole = Players((Player("all", "word", 0.0, clip.duration_s),), len(clip.wave_s), RATE_HZ)
    inputs = model.prepare(clip, "what to do ?", response="red")
    empty = speech_game(model, inputs, whole, absence="delete").values(np.array([[False]]))
    silence = Clip(np.zeros(model.minimum_samples, np.float32), RATE_HZ)
    alone = model.prepare(silence, "what to do ?", response="red")
    expected = jax.nn.log_softmax(model.logits(alone)[0], axis=-1)[alone.response_start - 1, alone.ids_t[-1]]
    np.testing.assert_allclose(empty[0, 0], expected, atol=2e-5)


def test_microbatches_and_devices_change_nothing(model, clip, players):
    inputs = model.prepare(clip, "what colour ?", response="red")
    masks = all_coalitions(len(players))
    one = speech_game(model, inputs, players, microbatch=8).values(masks)
    small = speech_game(model, inputs, players, microbatch=3).values(masks)
    spread_model = load_model(model.name, mesh=parse_mesh("data=4,model=2"))
    spread = speech_game(spread_model, inputs, players, microbatch=8).values(masks)
    np.testing.assert_allclose(small, one, atol=1e-5)
    np.testing.assert_allclose(spread, one, atol=1e-5)


def test_mean_is_the_sum_over_the_number_of_tokens(model, clip, players):
    inputs = model.prepare(clip, "what to do ?", response="red blue")
    masks = all_coalitions(len(players))[:3]
    total = speech_game(model, inputs, players, microbatch=8).values(masks)
    mean = speech_game(model, inputs, players, microbatch=8, value="mean_logprob").values(masks)
    np.testing.assert_allclose(mean[:, 0] * 2, total[:, 0], rtol=1e-5)
    np.testing.assert_allclose(mean[:, 1:], total[:, 1:], rtol=1e-6)


def test_unknown_names_are_told_with_the_known_ones(model, clip, players):
    inputs = model.prepare(clip, "what colour ?", response="red")
    with pytest.raises(UsageError, match="silence"):
        speech_game(model, inputs, players, absence="silense")
    with pytest.raises(UsageError, match="mean_logprob"):
        speech_game(model, inputs, players, value="mean_logprop")


def test_inputs_are_float32_of_any_rate(model, clip):
    """A clip of another rate is resampled once, and its players keep their times."""
    other = clip.at_rate(24000)
    inputs = model.prepare(other, "what colour ?", response="red")
    (heard,) = inputs.clips
    assert heard.rate_hz == RATE_HZ and heard.wave_s.dtype == np.float32
    whole = Players((Player("all", "word", 0.1, 0.4),), len(other.wave_s), other.rate_hz)
    values = speech_game(model, inputs, whole, microbatch=2).values(np.array([[True], [False]]))
    assert values.shape == (2, 2) and jnp.isfinite(values).all()
