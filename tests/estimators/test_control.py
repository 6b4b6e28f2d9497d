"""Control variates: as much less variance as they tell, no bias, and nothing gained from a game that is unrelated."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sgpa_kernels import exact_banzhaf, exact_shapley

from sgpa_jax.errors import UsageError
from sgpa_jax.estimators.control import Solved, controlled, solved
from sgpa_jax.estimators.exact import Exact
from sgpa_jax.estimators.permutation import Permutation
from sgpa_jax.estimators.regression import KernelBanzhaf, LeverageShap
from sgpa_jax.estimators.sampling import draw_pairs
from sgpa_jax.estimators.unbiased_kernelshap import UnbiasedKernelShap

N_PLAYERS = 7
METHODS = {
    "permutation": Permutation(N_PLAYERS, n_pairs=20),
    "unbiased_kernelshap": UnbiasedKernelShap(N_PLAYERS, n_pairs=28),
}
CORRELATIONS = (0.0, 0.5, 0.9, 0.99)
REPETITIONS = 2000


def tables() -> tuple[np.ndarray, np.ndarray]:
    """A cheap game, and one of three times its scale for each correlation with it."""
    cheap_n, other_n = np.random.default_rng(5).standard_normal((2, 2**N_PLAYERS))
    true_nk = np.stack([3 * (rho * cheap_n + np.sqrt(1 - rho**2) * other_n) + 1 for rho in CORRELATIONS], axis=1)
    return cheap_n[:, None].astype(np.float32), true_nk.astype(np.float32)


def solve(method, key, masks_cp, values_ck, cheap_nk, estimand="shapley", **options) -> Any:
    @jax.jit
    def run(values_ck):
        return controlled(method, key, masks_cp, values_ck, solved(cheap_nk, masks_cp, estimand), **options)

    return run(values_ck)


def rows_of(masks_cp) -> jax.Array:
    return masks_cp.astype(jnp.int32) @ (1 << jnp.arange(N_PLAYERS, dtype=jnp.int32))


@pytest.mark.parametrize("name", METHODS)
def test_the_variance_falls_as_told_and_the_result_is_unbiased(name):
    method, (cheap_n1, true_nk) = METHODS[name], map(jnp.asarray, tables())

    @jax.jit
    @jax.vmap
    def repeat(key):
        masks_cp = method.propose(method.init(key))
        values_ck = true_nk[rows_of(masks_cp)]
        plain = method.estimate(method.update(method.init(key), masks_cp, values_ck))
        found = controlled(method, key, masks_cp, values_ck, solved(cheap_n1, masks_cp))
        return plain.values_pk, found.attribution.values_pk, found.beta_k, found.variance_reduction_k

    plain_rpk, found_rpk, beta_rk, told_rk = map(np.asarray, repeat(jax.random.split(jax.random.key(1), REPETITIONS)))
    measured_k = plain_rpk.var(axis=0).sum(axis=0) / found_rpk.var(axis=0).sum(axis=0)
    told_k = 1 / (1 / told_rk).mean(axis=0)
    np.testing.assert_allclose(told_k, measured_k, rtol=0.12)
    assert measured_k[0] > 0.8 and measured_k[2] > 3.5 and measured_k[3] > 35
    truth_pk = exact_shapley(np.asarray(true_nk))
    sure_pk = found_rpk.std(axis=0) / np.sqrt(REPETITIONS)
    assert (abs(found_rpk.mean(axis=0) - truth_pk) < 4 * sure_pk).all()
    assert abs(beta_rk.mean(axis=0)[0]) < 0.6 and beta_rk.mean(axis=0)[3] == pytest.approx(3, abs=0.15)


def test_intervals_still_cover():
    method, (cheap_n1, true_nk) = METHODS["permutation"], map(jnp.asarray, tables())

    @jax.jit
    @jax.vmap
    def repeat(key):
        masks_cp = method.propose(method.init(key))
        found = controlled(method, key, masks_cp, true_nk[rows_of(masks_cp)], solved(cheap_n1, masks_cp)).attribution
        return found.values_pk, found.standard_errors_pk

    values_rpk, errors_rpk = map(np.asarray, repeat(jax.random.split(jax.random.key(2), REPETITIONS)))
    # The t quantile of 19 degrees of freedom.
    covered_k = (abs(values_rpk - exact_shapley(np.asarray(true_nk))) <= 2.093 * errors_rpk).mean(axis=(0, 1))
    assert (covered_k > 0.93).all() and (covered_k < 0.97).all(), covered_k


@pytest.mark.parametrize(
    "method", [*METHODS.values(), LeverageShap(N_PLAYERS, n_pairs=28), KernelBanzhaf(N_PLAYERS, n_pairs=28)], ids=repr
)
def test_a_multiple_of_the_cheap_game_is_solved_at_once(method, key):
    cheap_n1, _ = tables()
    (estimand,) = method.estimands
    transform = exact_shapley if estimand == "shapley" else exact_banzhaf
    true_nk = cheap_n1 * np.array([[2.0, -0.5]], np.float32) + np.array([[0.0, 7.0]], np.float32)
    masks_cp = np.asarray(method.propose(method.init(key)))
    values_ck = true_nk[np.asarray(rows_of(jnp.asarray(masks_cp)))]
    found = solve(method, key, masks_cp, values_ck, cheap_n1, estimand)
    np.testing.assert_allclose(found.beta_k, [2.0, -0.5], rtol=1e-3)
    np.testing.assert_allclose(found.attribution.values_pk, transform(true_nk), atol=5e-3)
    assert (np.asarray(found.variance_reduction_k) > 1e4).all()
    np.testing.assert_array_equal(found.attribution.full_value_k, true_nk[-1])


def test_the_shares_sum_to_what_there_is_to_share(key):
    cheap_n1, true_nk = tables()
    for method in METHODS.values():
        masks_cp = np.asarray(method.propose(method.init(key)))
        values_ck = true_nk[np.asarray(rows_of(jnp.asarray(masks_cp)))]
        found = solve(method, key, masks_cp, values_ck, cheap_n1).attribution
        np.testing.assert_allclose(found.values_pk.sum(axis=0), true_nk[-1] - true_nk[0], atol=1e-4)


def test_each_output_may_have_its_own_control_and_beta_may_be_given(key):
    _, true_nk = tables()
    method = METHODS["unbiased_kernelshap"]
    masks_cp = np.asarray(method.propose(method.init(key)))
    values_ck = true_nk[np.asarray(rows_of(jnp.asarray(masks_cp)))]
    found = solve(method, key, masks_cp, values_ck, true_nk, beta_k=jnp.ones(4))
    np.testing.assert_allclose(found.attribution.values_pk, exact_shapley(true_nk), atol=1e-5)
    nothing = solve(method, key, masks_cp, values_ck, 0 * true_nk)
    plain = method.estimate(method.update(method.init(key), jnp.asarray(masks_cp), jnp.asarray(values_ck)))
    np.testing.assert_allclose(nothing.attribution.values_pk, plain.values_pk, atol=1e-5)
    np.testing.assert_array_equal(nothing.variance_reduction_k, 1)


def test_too_little_for_two_halves_chooses_from_all(key):
    cheap_n1, true_nk = tables()
    method = Permutation(N_PLAYERS, n_pairs=3)
    masks_cp = np.asarray(method.propose(method.init(key)))
    values_ck = true_nk[np.asarray(rows_of(jnp.asarray(masks_cp)))]
    found = solve(method, key, masks_cp, values_ck, cheap_n1)
    assert np.isfinite(found.attribution.values_pk).all() and (np.asarray(found.variance_reduction_k) >= 1 - 1e-3).all()


def test_solved_looks_sampled_coalitions_up(key):
    cheap_n1, _ = tables()
    masks_cp = np.asarray(draw_pairs(key, N_PLAYERS, (2, 3, 4)))
    cheap = solved(cheap_n1, masks_cp)
    all_np = np.asarray(Exact(N_PLAYERS).propose(Exact(N_PLAYERS).init(key)))
    for mask_p, value in zip(masks_cp, np.asarray(cheap.coalition_values_cj)[:, 0], strict=True):
        assert value == cheap_n1[(all_np == mask_p).all(axis=1).argmax(), 0]


def test_what_does_not_belong_together_is_refused(key):
    cheap_n1, true_nk = tables()
    method = METHODS["unbiased_kernelshap"]
    masks_cp = np.asarray(method.propose(method.init(key)))
    with pytest.raises(UsageError, match="expected all 128 coalitions"):
        solved(cheap_n1[:-1], masks_cp)
    with pytest.raises(UsageError, match="one output or the same number"):
        controlled(method, key, masks_cp, true_nk[: len(masks_cp)], Solved(np.zeros((7, 3)), true_nk[:50, :3]))
