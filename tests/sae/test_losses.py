"""Losses: both paths alike, and each kind by its definition."""

import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgpa_jax.sae import Paths, SAEState, TrainConfig
from sgpa_jax.sae.losses import jump, training_loss

TRAINING = TrainConfig(n_steps=10, batch=9, learning_rate=1e-3, aux_weight=0.5, aux_k=6)


def x() -> jax.Array:
    return jnp.asarray(np.random.default_rng(8).standard_normal((9, 12)), jnp.float32)


@functools.partial(jax.jit, static_argnames="paths")
def _slopes(sae, x_bd, dead_m, paths):
    loss_of = functools.partial(training_loss, training=TRAINING, paths=paths)
    return jax.value_and_grad(loss_of, has_aux=True)(sae, x_bd, dead_m)


def slopes(sae, dead_m, paths):
    return _slopes(sae, x(), dead_m, paths)


@pytest.mark.parametrize("n_dead", [0, 3, 20, 40])
def test_sparse_and_dense_paths_are_alike(random_sae, n_dead):
    """With no dead latents, fewer than AuxK uses, more, and nothing but dead ones."""
    sae, dead_m = random_sae(), jnp.arange(40) < n_dead
    dense, sparse = (slopes(sae, dead_m, Paths(path, "lax")) for path in ("dense", "sparse"))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), sparse, dense)


def test_auxk_by_its_definition(random_sae):
    sae, dead_m = random_sae(), jnp.arange(40) < 9
    (loss, told), slope = slopes(sae, dead_m, Paths("sparse"))
    (plain, _), plain_slope = slopes(sae, dead_m & False, Paths("sparse"))
    inputs = np.asarray(x(), np.float64)
    w_enc, b_enc, w_dec, b_dec = (
        np.asarray(a, np.float64) for a in (sae.w_enc_md, sae.b_enc_m, sae.w_dec_md, sae.b_dec_d)
    )
    pre = (inputs - b_dec) @ w_enc.T + b_enc

    def kept(pre, k):
        return np.where(np.argsort(np.argsort(-pre, axis=1), axis=1) < k, pre, 0)

    left = inputs - np.maximum(kept(pre, 5), 0) @ w_dec - b_dec
    np.testing.assert_allclose(plain, (left**2).sum(axis=1).mean(), rtol=1e-5)
    left_still = left - kept(pre[:, :9], 6) @ w_dec[:9]
    np.testing.assert_allclose(loss - plain, 0.5 * (left_still**2).sum(axis=1).mean(), rtol=1e-4)
    np.testing.assert_allclose(told.error, plain, rtol=1e-6)
    # Those that live learn nothing from it.
    np.testing.assert_allclose(slope.w_dec_md[9:], plain_slope.w_dec_md[9:], atol=1e-5)
    assert float(jnp.abs(slope.w_dec_md[:9] - plain_slope.w_dec_md[:9]).max()) > 0.01


def test_batch_topk_keeps_k_a_token_on_average(random_sae):
    sae = random_sae("batch_topk")
    (_, told), _ = slopes(sae, jnp.zeros(40, bool), Paths())
    pre = np.asarray((x() - sae.b_dec_d[None]) @ sae.w_enc_md.T + sae.b_enc_m[None])
    largest = np.sort(pre.reshape(-1))[-9 * 5 :]
    assert float(told.l0) == 5.0
    np.testing.assert_allclose(told.least, largest[0], rtol=1e-5)


def test_matryoshka_is_the_mean_over_nested_dictionaries(random_sae):
    sae, nothing_dead = random_sae("matryoshka"), jnp.zeros(40, bool)
    assert sae.config.nested == (2, 10, 40)
    (loss, _), _ = slopes(sae, nothing_dead, Paths())
    flat = random_sae("batch_topk")
    losses = []
    for n in (2, 10, 40):
        cut = jnp.where(jnp.arange(40)[:, None] < n, flat.w_dec_md, 0.0)
        leaves = [flat.w_enc_md, flat.b_enc_m, cut, flat.b_dec_d, flat.threshold_m]
        losses.append(slopes(SAEState(*leaves, config=flat.config), nothing_dead, Paths())[0][0])
    np.testing.assert_allclose(loss, np.mean(losses), rtol=1e-5)


def test_jumps_and_their_stand_in_gradients():
    pre_bm = jnp.array([[-1.0, 0.5, 0.98, 1.03, 2.0]])
    threshold_m = jnp.ones(5)
    (z, fires), pull = jax.vjp(lambda pre, threshold: jump(pre, threshold, 0.1), pre_bm, threshold_m)
    np.testing.assert_array_equal(fires, [[0, 0, 0, 1, 1]])
    np.testing.assert_allclose(z, [[0, 0, 0, 1.03, 2.0]], rtol=1e-6)
    to_pre, to_threshold = pull((jnp.full((1, 5), 3.0), jnp.full((1, 5), 2.0)))
    np.testing.assert_array_equal(to_pre, [[0, 0, 0, 3, 3]])
    # Within a half of the width: -(threshold * 3 + 2) / width.
    np.testing.assert_allclose(to_threshold, [0, 0, -50, -50, 0], rtol=1e-5)


def test_jumprelu_is_drawn_to_k(random_sae):
    sae = random_sae("jumprelu")
    sae = replace(sae, threshold_m=jnp.abs(sae.threshold_m))
    (loss, told), slope = slopes(sae, jnp.zeros(40, bool), Paths())
    np.testing.assert_allclose(loss - told.error, 12 * (float(told.l0) / 5 - 1) ** 2, rtol=1e-4)
    assert float(told.l0) > 5 and float(slope.threshold_m.sum()) < 0, "too many fire: thresholds must rise"
