"""The transforms against their definitions, their inverses, and what they promise to a compiler."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sgpa_kernels import (
    co_moebius,
    co_moebius_reference,
    exact_banzhaf,
    exact_shapley,
    inverse_moebius,
    inverse_walsh_hadamard,
    moebius,
    moebius_reference,
    walsh_hadamard,
    walsh_hadamard_reference,
)

REFERENCES = {
    moebius: moebius_reference,
    co_moebius: co_moebius_reference,
    walsh_hadamard: walsh_hadamard_reference,
}
INVERSES = {moebius: inverse_moebius, walsh_hadamard: inverse_walsh_hadamard}
ALL = [*REFERENCES, *INVERSES.values()]


def name(transform) -> str:
    return transform.__name__


def game(n_players: int, n_outputs: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((2**n_players, n_outputs))


@pytest.mark.parametrize("transform", REFERENCES, ids=name)
@pytest.mark.parametrize("n_players", [1, 2, 5])
def test_equals_the_definition(transform, n_players):
    values_nk = game(n_players)
    before_nk = values_nk.copy()
    expected_nk = REFERENCES[transform](values_nk)
    host_nk = transform(values_nk)
    assert host_nk.dtype == np.float64
    np.testing.assert_allclose(host_nk, expected_nk, atol=1e-13)
    np.testing.assert_array_equal(values_nk, before_nk)
    np.testing.assert_allclose(transform(values_nk[:, 1]), expected_nk[:, 1], atol=1e-13)
    device_nk = transform(jnp.asarray(values_nk, jnp.float32))
    assert isinstance(device_nk, jax.Array) and device_nk.dtype == jnp.float32
    np.testing.assert_allclose(device_nk, expected_nk, atol=2e-5)


@pytest.mark.parametrize("transform", INVERSES, ids=name)
@settings(max_examples=25)
@given(st.integers(1, 8), st.integers(0, 10**6))
def test_inverses(transform, n_players, seed):
    values_nk = game(n_players, seed=seed)
    np.testing.assert_allclose(INVERSES[transform](transform(values_nk)), values_nk, atol=1e-12)
    np.testing.assert_allclose(transform(INVERSES[transform](values_nk)), values_nk, atol=1e-12)


@settings(max_examples=25)
@given(st.integers(1, 7), st.integers(0, 10**6))
def test_hold_the_values_of_players(n_players, seed):
    """φ_i = Σ_{S∋i} a(S) / |S|; Banzhaf's is -2 F({i}); and co-Möbius is Möbius of the dual game, sign apart."""
    values_nk = game(n_players, seed=seed)
    rows_n = np.arange(2**n_players)
    share_n1 = 1 / np.maximum(np.bitwise_count(rows_n), 1)[:, None]
    coefficients_nk, fourier_nk = moebius(values_nk), walsh_hadamard(values_nk)
    for player in range(n_players):
        there_n = rows_n >> player & 1 == 1
        shapley_k = (coefficients_nk * share_n1)[there_n].sum(axis=0)
        np.testing.assert_allclose(exact_shapley(values_nk)[player], shapley_k, atol=1e-12)
        np.testing.assert_allclose(exact_banzhaf(values_nk)[player], -2 * fourier_nk[1 << player], atol=1e-12)
    signs_n1 = 1 - 2 * (np.bitwise_count(rows_n) % 2)[:, None].astype(float)
    np.testing.assert_allclose(co_moebius(values_nk), signs_n1 * moebius(values_nk[::-1]), atol=1e-12)


@pytest.mark.parametrize("transform", ALL, ids=name)
def test_inside_of_jit_vmap_and_grad(transform):
    values_nk = jnp.asarray(game(4), jnp.float32)
    expected_nk = transform(values_nk)
    np.testing.assert_allclose(jax.jit(transform)(values_nk), expected_nk, atol=1e-6)
    np.testing.assert_allclose(jax.vmap(transform, 1, 1)(values_nk), expected_nk, atol=1e-6)
    _, tangent_nk = jax.jvp(transform, (values_nk,), (values_nk,))
    np.testing.assert_allclose(tangent_nk, expected_nk, atol=1e-6)


@pytest.mark.parametrize("transform", ALL, ids=name)
def test_lowers_for_tpu_without_a_gather(transform):
    table = jax.ShapeDtypeStruct((2**10, 2), jnp.float32)
    assert "stablehlo.gather" not in jax.export.export(jax.jit(transform), platforms=["tpu"])(table).mlir_module()


@pytest.mark.parametrize("transform", ALL, ids=name)
def test_refuses_what_is_no_game(transform):
    for values in (np.zeros(3), jnp.zeros((1, 2))):
        with pytest.raises(ValueError, match="row for every coalition"):
            transform(values)
