"""The loaded model's verbs on both decoder families: conversations, ids without a tokenizer, taps, several clips."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sgpa_jax.audio import Clip
from sgpa_jax.errors import UsageError
from sgpa_jax.models import causal_order, load_model, parse_mesh, without_spoken_turn
from sgpa_jax.models.audio_lm import NO_CLIP, AudioLM, Layout, layout_of_ids

NAMES = ("pocket", "pocket-lfm2")


@pytest.fixture(scope="module", params=NAMES)
def model(request):
    return load_model(request.param)


@pytest.fixture(scope="module")
def clips():
    rng = np.random.default_rng(0)
    return [Clip((0.1 * rng.normal(size=n)).astype(np.float32), 16000) for n in (20000, 31007)]


def _turn(role, *parts):
    return {
        "role": role,
        "content": [
            {"type": "audio", "audio": part} if isinstance(part, Clip) else {"type": "text", "text": part}
            for part in parts
        ],
    }


def test_a_clip_and_a_prompt_are_the_short_form_of_a_conversation(model, clips):
    short = model.prepare(clips[0], "what colour ?", system="you are a helpful assistant")
    whole = model.prepare(
        [{"role": "system", "content": "you are a helpful assistant"}, _turn("user", clips[0], "what colour ?")]
    )
    assert short.ids_t.tolist() == whole.ids_t.tolist()
    np.testing.assert_array_equal(model.logits(short), model.logits(whole))
    with pytest.raises(UsageError, match="conversation"):
        model.prepare([_turn("user", clips[0])], "what colour ?")
    with pytest.raises(UsageError, match="no recording"):
        model.prepare([_turn("user", "what colour ?")])


def test_a_conversation_of_text_alone(model, clips):
    inputs = model.prepare_text([_turn("system", "be brief"), _turn("user", "what colour ?")])
    assert not inputs.clips and (inputs.clip_t == -1).all() and inputs.response_start == len(inputs.ids_t)
    decoder = nnx.merge(model.graphdef, model.state).decoder
    exists = jnp.ones((1, len(inputs.ids_t)), bool)
    expected = decoder.logits(decoder(decoder.embedding(jnp.asarray(inputs.ids_t))[None], causal_order(exists)))
    np.testing.assert_allclose(model.logits(inputs), expected, atol=1e-4)
    with pytest.raises(UsageError, match="text alone was expected"):
        model.prepare_text([_turn("user", clips[0], "what colour ?")])


def test_the_turn_of_the_recording_leaves_the_others(model, clips):
    system = {"role": "system", "content": "be brief"}
    asked = model.prepare(clips[0], "what colour ?", system="be brief", response="red")
    left = without_spoken_turn(asked)
    # The format's next turn begins where the spoken one did.
    whole = model.prepare_text([system, _turn("user", "what colour ?")])
    ids, n = left.ids_t.tolist(), int((whole.turn_t <= 0).sum())
    assert ids == whole.ids_t.tolist()[:n] + whole.ids_t[whole.turn_t == 2].tolist()
    assert not left.clips and left.response_start == len(ids) == len(left.turn_t) == len(left.place_t)


def test_each_clip_of_a_conversation_is_heard_as_alone(model, clips):
    """Audio embeddings at a clip's places are those of the clip by itself, however long the others are."""
    inputs = model.prepare([_turn("user", clips[0], clips[1], "what colour ?")])
    found = model.place(inputs)
    network: AudioLM = nnx.merge(model.graphdef, model.state)
    for number, clip in enumerate(clips):
        wave = np.pad(clip.wave_s, (0, model.padded_samples(len(clip.wave_s)) - len(clip.wave_s)))
        audio, n_audio = network.hear(jnp.asarray(wave)[None, None], jnp.array([[len(clip.wave_s)]]))
        places = np.flatnonzero(inputs.clip_t == number)
        assert len(places) == int(n_audio[0, 0]) > 0
        np.testing.assert_allclose(found.x[0, places], audio[0, 0, : len(places)], atol=2e-5)


def test_text_behind_fewer_audio_positions_closes_up(model, clips):
    """A row whose clip fills only some of the layout's places has the logits of the shorter prompt."""
    network: AudioLM = nnx.merge(model.graphdef, model.state)
    longer, shorter = (model.prepare(clip, "what colour ?") for clip in (clips[1], clips[0]))
    n_samples = len(clips[0].wave_s)
    wave = np.zeros((1, 1, model.padded_samples(n_samples)), np.float32)
    wave[0, 0, :n_samples] = clips[0].wave_s
    rows = (longer.ids_t, longer.clip_t, longer.place_t, np.ones(len(longer.ids_t), bool))
    layout = Layout(*(jnp.asarray(row)[None] for row in rows))
    placed = network.place(layout, *network.hear(jnp.asarray(wave), jnp.array([[n_samples]])))
    assert int(placed.n_b[0]) == len(shorter.ids_t) < len(longer.ids_t)
    found = network.decoder.logits(network.hidden(placed))[:, : len(shorter.ids_t)]
    np.testing.assert_allclose(found, model.logits(shorter), atol=5e-5)


def test_ids_without_a_tokenizer_give_the_same_logits(model, clips):
    inputs = model.prepare(clips[0], "what colour ?")
    by_ids = model.prepare_ids(inputs.ids_t, clips[:1], is_audio_t=inputs.clip_t != NO_CLIP)
    np.testing.assert_array_equal(model.logits(by_ids), model.logits(inputs))
    with pytest.raises(UsageError, match="runs of"):
        model.prepare_ids(inputs.ids_t[3 + int((inputs.clip_t == NO_CLIP).argmin()) :], clips[:1])


def test_runs_of_audio_are_numbered_through():
    layout = layout_of_ids(np.array([5, 9, 9, 6, 9, 7]), np.array([0, 1, 1, 0, 1, 0], bool))
    assert layout.clip_bt[0].tolist() == [-1, 0, 0, -1, 1, -1]
    assert layout.place_bt[0].tolist() == [0, 0, 1, 0, 0, 0]


def test_residuals_are_what_edits_see(model, clips):
    inputs = model.prepare(clips[0], "what colour ?")
    residuals = model.residuals(inputs, [0, 2])
    assert residuals.shape == (2, len(inputs.ids_t), model.config.decoder.width)

    def cut(layer, residual):
        return residual.at[:, : len(inputs.ids_t)].set(residuals[0][None]) if layer == 0 else residual

    np.testing.assert_allclose(model.logits(inputs, edit=cut), model.logits(inputs), atol=1e-6)
    nothing = model.logits(inputs, edit=lambda layer, residual: residual * 0 if layer == 0 else residual)
    assert float(jnp.abs(nothing - model.logits(inputs)).max()) > 1e-2
    with pytest.raises(UsageError, match="from 0 to"):
        model.residuals(inputs, [99])


def test_weights_spread_over_devices_give_the_same_logits(clips):
    """Tensor parallelism over two of the eight host devices, for both families."""
    for name in NAMES:
        alone, spread = load_model(name), load_model(name, mesh=parse_mesh("model=2"))
        kernels = [leaf for leaf in jax.tree.leaves(spread.state) if leaf.ndim > 1]
        assert any(not leaf.sharding.is_fully_replicated for leaf in kernels)
        inputs = alone.prepare(clips[0], "what colour ?")
        np.testing.assert_allclose(spread.logits(inputs), alone.logits(inputs), atol=5e-5)


def test_bfloat16_computes_in_bfloat16_and_answers_in_float32(clips):
    for name in NAMES:
        wide, narrow = load_model(name), load_model(name, dtype="bfloat16")
        inputs = wide.prepare(clips[0], "what colour ?")
        assert narrow.place(inputs).x.dtype == jnp.bfloat16
        expected, found = wide.logits(inputs), narrow.logits(inputs)
        assert found.dtype == jnp.float32
        assert 0 < float(jnp.abs(found - expected).max()) < 0.1 * float(jnp.abs(expected).max())
