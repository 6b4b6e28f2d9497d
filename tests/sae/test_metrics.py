"""Measures by their definitions, in one sweep over all tokens."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from sgpa_jax.audio import Clip
from sgpa_jax.errors import UsageError
from sgpa_jax.models import NO_CLIP, load_model
from sgpa_jax.sae import SAEConfig, SAEState, dead_frac, encode, measure, reconstruct, splice


def test_by_their_definitions_whatever_the_batches(random_sae):
    sae = random_sae()
    # A mean that is large beside the spread is where sums in float32 would fail.
    x_bd = (np.random.default_rng(0).standard_normal((200, 12)) + 300).astype(np.float32)
    sae = SAEState(sae.w_enc_md, sae.b_enc_m, sae.w_dec_md, sae.b_dec_d + 300, sae.threshold_m, sae.config)
    found = measure(sae, [x_bd[:40], x_bd[40:140], x_bd[140:]])
    x, y, z = (
        np.asarray(a, np.float64) for a in (x_bd, reconstruct(sae, jnp.asarray(x_bd)), encode(sae, jnp.asarray(x_bd)))
    )
    error, norm = ((x - y) ** 2).sum(axis=1), np.linalg.norm
    expected = {
        "n_tokens": 200,
        "mse": error.mean(),
        "fvu": error.sum() / ((x - x.mean(axis=0)) ** 2).sum(),
        "nmse": (error / (x**2).sum(axis=1)).mean(),
        "cossim": ((x * y).sum(axis=1) / norm(x, axis=1) / norm(y, axis=1)).mean(),
        "l2_ratio": (norm(y, axis=1) / norm(x, axis=1)).mean(),
        "rel_recon_bias": (y**2).sum() / (x * y).sum(),
        "l0": (z > 0).sum(axis=1).mean(),
        "dead_eval_frac": (z <= 0).all(axis=0).mean(),
        "dense_frac": ((z > 0).mean(axis=0) > 0.1).mean(),
    }
    told = json.loads(json.dumps(found.to_dict()))
    assert told.pop("explained_variance") == 1 - found.fvu
    assert told.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(told[name], value, rtol=1e-4, err_msg=name)
    assert 0 < found.dead_eval_frac < 1 and found.fvu > 0.1
    np.testing.assert_allclose(found.density_m, (z > 0).mean(axis=0))


def test_dead_in_training():
    assert dead_frac(np.array([0, 9_999_999, 10_000_000, 2**31 - 1])) == 0.5


def test_refuses_nothing_to_measure(random_sae):
    with pytest.raises(UsageError, match="no tokens"):
        measure(random_sae(), [])
    with pytest.raises(UsageError, match="all the same"):
        measure(random_sae(), [np.ones((4, 12), np.float32)])


def test_a_perfect_autoencoder_recovers_all_of_the_answer_and_a_blind_one_nothing(tiny_folder):
    model = load_model(tiny_folder("qwen2_audio"), dtype="float32")
    wave = 0.1 * np.random.default_rng(0).standard_normal(8000).astype(np.float32)
    inputs = model.prepare(Clip(wave, 16000), "which colour?", response="the lamp is red")
    hidden_td = np.asarray(model.residuals(inputs, [0]))[0]
    is_audio_t, width = inputs.clip_t != NO_CLIP, hidden_td.shape[1]
    mean_d = hidden_td[is_audio_t].mean(axis=0)
    # Every direction and its opposite: what one cuts off, the other keeps.
    both = jnp.asarray(np.concatenate([np.eye(width), -np.eye(width)]), jnp.float32)
    config = SAEConfig(width=width, n_latents=2 * width, k=2 * width)
    perfect = SAEState(both, jnp.zeros(2 * width), both, jnp.asarray(mean_d), jnp.zeros(2 * width), config)
    blind = SAEState(0 * both, jnp.zeros(2 * width), both, jnp.asarray(mean_d), jnp.zeros(2 * width), config)
    found = splice(model, perfect, 0, [inputs, inputs], mean_d=mean_d)
    np.testing.assert_allclose([found.ce_recovered, found.ce_recovered_zero], 1, atol=1e-3)
    assert abs(found.kl) < 1e-5 and found.n_answer_tokens == 2 * (len(inputs.ids_t) - inputs.response_start)
    nothing = splice(model, blind, 0, [inputs], mean_d=mean_d)
    np.testing.assert_allclose(nothing.ce_recovered, 0, atol=1e-5)
    assert nothing.kl > 1e-6 and nothing.spliced != nothing.clean

    # The ablated entropies are those of the model's own tap.
    def ablate(layer, residual_btd):
        there = jnp.pad(jnp.asarray(is_audio_t), (0, residual_btd.shape[1] - len(is_audio_t)))
        row = jnp.broadcast_to(jnp.asarray(mean_d)[None, None], residual_btd.shape)
        return jnp.where(there[None, :, None], row, residual_btd) if layer == 0 else residual_btd

    for edit, entropy in ((None, nothing.clean), (ablate, nothing.mean_ablated)):
        logits = np.asarray(model.logits(inputs, edit=edit), np.float64)[0, inputs.response_start - 1 : -1]
        said = inputs.ids_t[inputs.response_start :]
        log_probs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        np.testing.assert_allclose(entropy, -log_probs[np.arange(len(said)), said].mean(), rtol=1e-4)
    with pytest.raises(UsageError, match="no response"):
        splice(model, blind, 0, [model.prepare(Clip(wave, 16000), "which colour?")], mean_d=mean_d)
    with pytest.raises(UsageError, match="at least one"):
        splice(model, blind, 0, [], mean_d=mean_d)
