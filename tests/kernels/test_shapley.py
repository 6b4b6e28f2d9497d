"""`exact_shapley` and `exact_banzhaf` against the definition and other solvers, and what they promise to a compiler."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sgpa_kernels import exact_banzhaf, exact_banzhaf_reference, exact_shapley, exact_shapley_reference

REFERENCES = {exact_shapley: exact_shapley_reference, exact_banzhaf: exact_banzhaf_reference}


def game(n_players: int, n_outputs: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((2**n_players, n_outputs)) * 3 - 8


def name(solve) -> str:
    return solve.__name__


@pytest.mark.parametrize("solve", REFERENCES, ids=name)
@pytest.mark.parametrize("n_outputs", [1, 9], ids=["folded", "multiplied"])
@pytest.mark.parametrize("n_players", [1, 2, 3, 7])
def test_equals_the_definition(solve, n_players, n_outputs):
    values_nk = game(n_players, n_outputs)
    expected_pk = REFERENCES[solve](values_nk)
    host_pk = solve(values_nk)
    assert host_pk.dtype == np.float64 and host_pk.shape == (n_players, n_outputs)
    np.testing.assert_allclose(host_pk, expected_pk, atol=1e-12)
    device_pk = solve(jnp.asarray(values_nk, jnp.float32))
    assert isinstance(device_pk, jax.Array) and device_pk.dtype == jnp.float32
    np.testing.assert_allclose(device_pk, expected_pk, atol=1e-5)
    np.testing.assert_allclose(solve(values_nk[:, 0]), host_pk[:, 0], atol=1e-12)


def test_equals_the_definition_in_many_blocks(monkeypatch):
    monkeypatch.setattr("sgpa_kernels.shapley._HOST_BLOCK", 100)
    monkeypatch.setattr("sgpa_kernels.shapley._DEVICE_BLOCK", 100)
    monkeypatch.setattr("sgpa_kernels.shapley._WEIGHED_ROWS", 16)
    values_nk = game(7, 11)
    expected_pk = exact_shapley_reference(values_nk)
    np.testing.assert_allclose(exact_shapley(values_nk), expected_pk, atol=1e-12)
    np.testing.assert_allclose(exact_shapley(jnp.asarray(values_nk, jnp.float32)), expected_pk, atol=1e-5)


def test_takes_views_and_other_dtypes():
    values_nk = game(5, 16).astype(np.float32)
    expected_pk = exact_shapley_reference(values_nk)
    np.testing.assert_allclose(exact_shapley(np.asfortranarray(values_nk)), expected_pk, atol=1e-12)
    np.testing.assert_allclose(exact_shapley(values_nk[:, ::2]), expected_pk[:, ::2], atol=1e-12)
    np.testing.assert_allclose(exact_shapley(np.arange(16)), [1, 2, 4, 8], atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6).flatmap(lambda n: st.lists(st.floats(-100, 100), min_size=2**n, max_size=2**n)))
def test_equals_the_definition_for_any_game(values):
    values_n = np.array(values)
    shapley_p = exact_shapley(values_n)
    np.testing.assert_allclose(shapley_p, exact_shapley_reference(values_n), atol=1e-11)
    assert shapley_p.sum() == pytest.approx(values_n[-1] - values_n[0], abs=1e-11)


@pytest.mark.parametrize("n_players", [12, 16])
def test_is_efficient_where_the_definition_is_too_slow(n_players):
    values_nk = game(n_players, 1)
    host_pk = exact_shapley(values_nk)
    np.testing.assert_allclose(host_pk.sum(axis=0), values_nk[-1] - values_nk[0], atol=1e-12)
    np.testing.assert_allclose(exact_shapley(jnp.asarray(values_nk, jnp.float32)), host_pk, atol=1e-5)


def test_equals_shapiq():
    shapiq = pytest.importorskip("shapiq", reason="shapiq is not installed")
    values_n = game(6, 1, seed=5)[:, 0]
    computer = shapiq.ExactComputer(game=lambda masks: values_n[masks @ (1 << np.arange(6))], n_players=6)
    theirs = computer("SV")
    expected_p = [theirs[(player,)] for player in range(6)]
    np.testing.assert_allclose(exact_shapley(values_n), expected_p, atol=1e-12)


@pytest.mark.parametrize("n_outputs", [1, 9], ids=["folded", "multiplied"])
def test_a_constant_game_is_exactly_zero(n_outputs):
    assert not np.asarray(exact_shapley(jnp.full((2**9, n_outputs), 12345.678))).any()
    assert not exact_shapley(np.full((2**9, n_outputs), 12345.678)).any()


@pytest.mark.parametrize("solve", REFERENCES, ids=name)
@pytest.mark.parametrize("n_outputs", [3, 8], ids=["folded", "multiplied"])
def test_transforms(solve, n_outputs):
    values_nk = jnp.asarray(game(5, n_outputs), jnp.float32)
    expected_pk = solve(values_nk)
    np.testing.assert_allclose(jax.jit(solve)(values_nk), expected_pk, atol=1e-6)
    batched_kp = jax.vmap(solve, in_axes=1)(values_nk)
    np.testing.assert_allclose(batched_kp.T, expected_pk, atol=2e-6)
    batched_bpk = jax.vmap(solve)(jnp.stack([values_nk, 2 * values_nk]))
    np.testing.assert_allclose(batched_bpk, [expected_pk, 2 * expected_pk], atol=1e-5)


@pytest.mark.parametrize("n_outputs", [3, 8], ids=["folded", "multiplied"])
def test_the_gradient_of_the_sum_is_efficiency(n_outputs):
    values_nk = jnp.asarray(game(5, n_outputs), jnp.float32)
    gradient_nk = jax.grad(lambda values_nk: exact_shapley(values_nk).sum())(values_nk)
    expected_nk = np.zeros((32, n_outputs))
    expected_nk[0], expected_nk[-1] = -1, 1
    np.testing.assert_allclose(gradient_nk, expected_nk, atol=1e-6)


@pytest.mark.parametrize("n_outputs", [4, 256], ids=["folded", "multiplied"])
def test_lowers_for_tpu_without_a_gather(n_outputs):
    exported = jax.export.export(jax.jit(exact_shapley), platforms=["tpu"])(
        jax.ShapeDtypeStruct((2**12, n_outputs), jnp.float32)
    )
    text = exported.mlir_module()
    assert "stablehlo.gather" not in text and "stablehlo.add" in text


@pytest.mark.parametrize("shape", [(0,), (1,), (3,), (6, 2), (), (2, 2, 2)])
def test_refuses_what_is_no_game(shape):
    for values in (np.zeros(shape), jnp.zeros(shape)):
        with pytest.raises(ValueError, match="row for every coalition"):
            exact_shapley(values)
