"""Encoding and decoding: few rows or all, the same numbers and the same gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sgpa_kernels.topk import IMPLS, top_k

from sgpa_jax.errors import UsageError
from sgpa_jax.sae import SAEConfig, decode, decode_sparse, encode, encode_sparse, fit_normalisation, fold, reconstruct

encoded = jax.jit(encode, static_argnames="impl")


def x(n_tokens: int = 9, width: int = 12) -> jax.Array:
    return jnp.asarray(np.random.default_rng(8).standard_normal((n_tokens, width)), jnp.float32)


@pytest.mark.parametrize("pre_bias", [True, False])
def test_topk_by_its_definition(random_sae, pre_bias):
    sae = random_sae(pre_bias=pre_bias)
    w_enc, b_enc, w_dec, b_dec = (
        np.asarray(a, np.float64) for a in (sae.w_enc_md, sae.b_enc_m, sae.w_dec_md, sae.b_dec_d)
    )
    inputs = np.asarray(x(), np.float64)
    pre = (inputs - b_dec * pre_bias) @ w_enc.T + b_enc
    kept = np.argsort(np.argsort(-pre, axis=1), axis=1) < 5
    z = np.where(kept, np.maximum(pre, 0), 0)
    for impl in IMPLS if pre_bias else IMPLS[:1]:
        np.testing.assert_allclose(encoded(sae, x(), impl=impl), z, atol=1e-5)
    np.testing.assert_allclose(jax.jit(reconstruct)(sae, x()), z @ w_dec + b_dec, atol=1e-4)


@pytest.mark.parametrize("kind", ["batch_topk", "matryoshka", "jumprelu"])
def test_others_keep_what_exceeds_their_threshold(random_sae, kind):
    sae = random_sae(kind)
    pre = np.asarray((x() - sae.b_dec_d[None]) @ sae.w_enc_md.T + sae.b_enc_m[None])
    expected = np.where(pre > np.asarray(sae.threshold_m), np.maximum(pre, 0), 0)
    np.testing.assert_allclose(encoded(sae, x()), expected, atol=1e-6)
    with pytest.raises(UsageError, match="no fixed number"):
        encode_sparse(sae, x())


def test_sparse_is_dense(random_sae):
    sae = random_sae()
    z_bk, index_bk = jax.jit(encode_sparse)(sae, x())
    z_bm = np.asarray(encoded(sae, x()))
    np.testing.assert_array_equal(np.take_along_axis(z_bm, np.asarray(index_bk), axis=1), z_bk)
    assert (z_bm > 0).sum() == (z_bk > 0).sum() and (np.asarray(index_bk)[:, 1:] > np.asarray(index_bk)[:, :-1]).all()
    np.testing.assert_allclose(jax.jit(decode_sparse)(sae, z_bk, index_bk), jax.jit(decode)(sae, z_bm), atol=1e-5)


def test_sparse_gradients_are_those_of_autodiff(random_sae):
    """Held against JAX's own derivatives of a gather, in float64."""
    with jax.enable_x64(True):
        sae, inputs = jax.tree.map(lambda a: np.asarray(a, np.float64), (random_sae(), x()))

        def plain(sae, inputs):
            pre = (inputs - sae.b_dec_d[None]) @ sae.w_enc_md.T + sae.b_enc_m[None]
            _, index_bk = top_k(pre, 5)
            z_bk = jax.nn.relu(jnp.take_along_axis(pre, index_bk, axis=1))
            return jnp.sin(jnp.einsum("bk,bkd->bd", z_bk, sae.w_dec_md[index_bk]) + sae.b_dec_d[None]).sum()

        def ours(sae, inputs):
            from sgpa_jax.sae.decode import sparse_sum
            from sgpa_jax.sae.encode import as_encoded

            inputs = inputs - sae.b_dec_d[None]
            pre = jax.lax.stop_gradient(inputs @ sae.w_enc_md.T + sae.b_enc_m[None])
            kept_bk, index_bk = top_k(pre, 5)
            z_bk = jax.nn.relu(as_encoded(kept_bk, index_bk, inputs, sae.w_enc_md, sae.b_enc_m))
            return jnp.sin(sparse_sum(z_bk, index_bk, sae.w_dec_md) + sae.b_dec_d[None]).sum()

        wanted, found = (jax.jit(jax.grad(f, argnums=(0, 1)))(sae, inputs) for f in (plain, ours))
        assert max(float(jnp.abs(a).max()) for a in jax.tree.leaves(wanted)) > 0.1
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10), found, wanted)


def test_any_leading_axes_and_dtypes(random_sae):
    sae, inputs = random_sae(), x(6).reshape(2, 3, 12)
    z = encoded(sae, inputs)
    assert z.shape == (2, 3, 40)
    np.testing.assert_allclose(z[1, 2], encoded(sae, inputs[1, 2]), atol=1e-6)
    np.testing.assert_allclose(jax.jit(jax.vmap(jax.vmap(lambda row: encode(sae, row))))(inputs), z, atol=1e-6)
    assert decode(sae, z).shape == inputs.shape
    low = encoded(sae, inputs.astype(jnp.bfloat16))
    assert low.dtype == jnp.float32
    np.testing.assert_array_equal(low, encoded(sae, inputs.astype(jnp.bfloat16).astype(jnp.float32)))


@pytest.mark.parametrize(("kind", "pre_bias"), [("none", True), ("scale", True), ("centre", True), ("centre", False)])
def test_folding_changes_nothing(random_sae, kind, pre_bias):
    sae = random_sae(pre_bias=pre_bias)
    raw = 7 * np.asarray(x(500)) + 4
    normalisation = fit_normalisation(raw, kind)
    seen = normalisation(jnp.asarray(raw))
    np.testing.assert_allclose(normalisation.undo(seen), raw, atol=1e-4)
    if kind == "scale":
        np.testing.assert_allclose((seen**2).sum(axis=1).mean(), 12, rtol=1e-5)
    if kind == "centre":
        np.testing.assert_allclose(seen.mean(axis=0), np.zeros(12), atol=1e-5)
        np.testing.assert_allclose(seen.var(axis=0).sum(), 12, rtol=1e-5)
    folded = fold(sae, normalisation)
    z, expected = encoded(folded, jnp.asarray(raw)), encoded(sae, seen)
    np.testing.assert_allclose(z, expected, atol=2e-4)
    np.testing.assert_allclose(decode(folded, z), normalisation.undo(decode(sae, expected)), atol=2e-3)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"kind": "topkk"}, "'topkk': expected one of .*topk"),
        ({"k": 41}, "41 of 40 latents"),
        ({"prefixes": (10, 20)}, "do not rise"),
        ({"compute": "int8"}, "dtype 'int8'"),
    ],
)
def test_refuses_sizes_that_cannot_be(wrong, told):
    with pytest.raises(UsageError, match=told):
        SAEConfig(**{"width": 12, "n_latents": 40, "k": 5, **wrong})
    with pytest.raises(UsageError, match="normalisation 'skale'"):
        fit_normalisation(np.ones((2, 2)), "skale")
