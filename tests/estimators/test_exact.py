"""Exact values of every estimand: axioms, references, and the coalitions that they take."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sgpa_kernels import exact_banzhaf_reference, exact_shapley_reference

from sgpa_jax.errors import BudgetError, UsageError
from sgpa_jax.estimators import Exact
from sgpa_jax.players import all_coalitions

GROUPS = (2, 0, 2, 0, 0)
METHODS = {
    "shapley": Exact(5, 2),
    "banzhaf": Exact(5, 2, "banzhaf"),
    "owen": Exact(5, 2, "owen", GROUPS),
}


def random_table(n_players: int = 5, n_outputs: int = 2, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((2**n_players, n_outputs))


def rows(masks_cp):
    return masks_cp @ (1 << np.arange(masks_cp.shape[1]))


def solved(method: Exact, table_nk: np.ndarray):
    state = method.init(jax.random.key(0))
    masks_cp = np.asarray(method.propose(state))
    assert len(masks_cp) == method.n_coalitions == len(np.unique(masks_cp, axis=0))
    return method.estimate(method.update(state, masks_cp, table_nk[rows(masks_cp)]))


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_is_certain_and_knows_the_ends(method):
    table_nk = random_table()
    found = solved(method, table_nk)
    np.testing.assert_array_equal(found.empty_value_k, table_nk[0])
    np.testing.assert_array_equal(found.full_value_k, table_nk[-1])
    assert found.values_pk.dtype == np.float64 and found.values_pk.shape == (5, 2)
    assert not found.standard_errors_pk.any() and np.isinf(found.degrees_of_freedom)


@settings(max_examples=20)
@given(st.integers(1, 5), st.integers(0, 10**6))
def test_equals_the_references(n_players, seed):
    table_nk = random_table(n_players, seed=seed)
    shapley_pk = solved(Exact(n_players, 2), table_nk).values_pk
    np.testing.assert_allclose(shapley_pk, exact_shapley_reference(table_nk), atol=1e-12)
    banzhaf_pk = solved(Exact(n_players, 2, "banzhaf"), table_nk).values_pk
    np.testing.assert_allclose(banzhaf_pk, exact_banzhaf_reference(table_nk), atol=1e-12)


@pytest.mark.parametrize("name", METHODS)
@settings(max_examples=20)
@given(st.integers(0, 10**6))
def test_axioms(name, seed):
    """Efficiency (not Banzhaf's), linearity, a dummy gets what it brings alone, symmetric players get the same."""
    solve = partial(solved, METHODS[name])
    one_nk, two_nk = random_table(seed=seed), random_table(seed=seed + 1)
    one_pk, two_pk = solve(one_nk).values_pk, solve(two_nk).values_pk
    np.testing.assert_allclose(solve(3 * one_nk - two_nk).values_pk, 3 * one_pk - two_pk, atol=1e-12)
    if name != "banzhaf":
        np.testing.assert_allclose(one_pk.sum(axis=0), one_nk[-1] - one_nk[0], atol=1e-12)
    masks_np = all_coalitions(5)
    without_nk = one_nk[rows(masks_np & (np.arange(5) != 3))] + 0.5 * masks_np[:, [3]]
    np.testing.assert_allclose(solve(without_nk).values_pk[3], 0.5, atol=1e-12)
    # Players 1 and 4 are in one group.
    alike_nk = one_nk + one_nk[rows(masks_np[:, [0, 4, 2, 3, 1]])]
    alike_pk = solve(alike_nk).values_pk
    np.testing.assert_allclose(alike_pk[1], alike_pk[4], atol=1e-12)


def test_owen_takes_fewer_coalitions():
    """20 players in groups of four: 1152 coalitions instead of a million."""
    method = Exact.for_budget(20, 1152, estimand="owen", groups=tuple(player // 4 for player in range(20)))
    assert method.n_coalitions == 32 + 5 * 16 * 14 == 1152
    assert Exact(3, estimand="owen", groups=(0, 1, 2)).n_coalitions == 8 == Exact(3).n_coalitions


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_works_in_anybodys_jit_and_lowers_for_tpu(method):
    table_nk = random_table()

    def run(words, table_nk):
        state = method.init(jax.random.wrap_key_data(words))
        masks_cp = method.propose(state)
        row_c = (masks_cp.astype(jnp.int32) * jnp.asarray(1 << np.arange(5), jnp.int32)[None]).sum(axis=1)
        return method.estimate(method.update(state, masks_cp, table_nk[row_c]))

    words = jax.random.key_data(jax.random.key(0))
    found = jax.jit(run)(words, jnp.asarray(table_nk, jnp.float32))
    assert found.values_pk.dtype == found.degrees_of_freedom.dtype == jnp.float32
    np.testing.assert_allclose(found.values_pk, solved(method, table_nk).values_pk, atol=1e-5)
    shapes = jax.ShapeDtypeStruct((2,), jnp.uint32), jax.ShapeDtypeStruct((32, 2), jnp.float32)
    assert jax.export.export(jax.jit(run), platforms=["tpu"])(*shapes).platforms == ("tpu",)


def test_refuses():
    with pytest.raises(BudgetError, match="at least 32"):
        Exact.for_budget(5, 31)
    with pytest.raises(BudgetError, match=r"at least 20"):
        Exact.for_budget(5, 19, estimand="owen", groups=GROUPS)
    with pytest.raises(UsageError, match="banzhaf"):
        Exact(5, estimand="banzhaff")
    with pytest.raises(UsageError, match="4 groups came for 5 players"):
        Exact(5, estimand="owen", groups=(0, 0, 1, 1))
    with pytest.raises(UsageError, match="5 groups came for 0 players"):
        Exact(5, groups=GROUPS)
