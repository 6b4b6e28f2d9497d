"""Estimators that sample: what holds exactly, what holds on average, and that all of them end at the exact values.

Exact for all of a sample: efficiency (save for Banzhaf), linearity given the same coalitions, and the values once every
coalition is there. Regressions also solve additive games at once. Null players and symmetry hold on average.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sgpa_kernels import exact_shapley_reference

from sgpa_jax.errors import BudgetError
from sgpa_jax.estimators.complementary import ComplementaryContributions
from sgpa_jax.estimators.neyman import NeymanComplementary, paper_budget
from sgpa_jax.estimators.regression import KernelBanzhaf, KernelShap, LeverageShap
from sgpa_jax.estimators.svarm import StratifiedSvarm
from sgpa_jax.estimators.unbiased_kernelshap import UnbiasedKernelShap
from sgpa_jax.players import all_coalitions

SHAPLEY = [
    KernelShap,
    LeverageShap,
    UnbiasedKernelShap,
    StratifiedSvarm,
    ComplementaryContributions,
    NeymanComplementary,
]
METHODS = [*SHAPLEY, KernelBanzhaf]
N_PLAYERS, BUDGET = 6, 50

every_method = pytest.mark.parametrize("kind", METHODS)


def random_table(n_players: int = N_PLAYERS, n_outputs: int = 2, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((2**n_players, n_outputs)).astype(np.float32)


def solution(kind: Any, table_nk: np.ndarray) -> np.ndarray:
    """Return the exact values, from their definition."""
    if "shapley" in kind.estimands:
        return exact_shapley_reference(table_nk)
    masks_np, table_nk = all_coalitions(len(table_nk).bit_length() - 1), table_nk.astype(np.float64)
    return np.stack([table_nk[inside].mean(axis=0) - table_nk[~inside].mean(axis=0) for inside in masks_np.T])


@partial(jax.jit, static_argnums=0)
def run(method, key, table_nk):
    """Return what a method finds in a game that is looked up in a table, and all the coalitions it asked for."""
    state, asked = method.init(key), []
    for _ in range(getattr(method, "n_proposals", 1)):
        masks_cp = method.propose(state)
        rows_c = (masks_cp.astype(jnp.int32) @ jnp.asarray(1 << np.arange(method.n_players), jnp.int32)[:, None])[:, 0]
        state = method.update(state, masks_cp, table_nk[rows_c])
        asked.append(masks_cp)
    return method.estimate(state), jnp.concatenate(asked)


def rows_of(masks_cp) -> set[bytes]:
    return {row.tobytes() for row in np.packbits(np.asarray(masks_cp), axis=1)}


@pytest.mark.parametrize("n_players", [1, 2, 5])
@every_method
def test_the_whole_budget_gives_the_exact_values(kind, n_players, key):
    table_nk = random_table(n_players)
    with jax.enable_x64(True):
        found, masks_cp = run(
            kind.for_budget(n_players, 2**n_players, n_outputs=2), key, jnp.asarray(table_nk, jnp.float64)
        )
    # Neyman has nothing left to ask for of one player alone, and asks for the same again.
    assert len(rows_of(masks_cp)) == 2**n_players == len(masks_cp[: 2**n_players])
    np.testing.assert_allclose(found.values_pk, solution(kind, table_nk), atol=1e-9)
    assert not found.standard_errors_pk.any() and np.isinf(found.degrees_of_freedom)


@every_method
def test_axioms_of_every_sample(kind, key):
    """Efficiency and linearity: the same key asks for the same coalitions, whatever they are worth."""
    method = kind.for_budget(N_PLAYERS, BUDGET, n_outputs=2)

    @settings(max_examples=12)
    @given(st.integers(0, 10**6), st.floats(-3, 3), st.integers(0, 10**6))
    def check(seed, factor, number):
        one_nk, two_nk = random_table(seed=seed), random_table(seed=seed + 1)
        both_nk = one_nk + np.float32(factor) * two_nk
        # One sample serves all three games: Neyman's next coalitions depend on what the first were worth.
        masks_cp = run(method, jax.random.key(number), one_nk)[1]
        one, two, both = (_refolded(method, masks_cp, table_nk) for table_nk in (one_nk, two_nk, both_nk))
        np.testing.assert_allclose(both.values_pk, one.values_pk + factor * two.values_pk, atol=2e-5)
        if kind is not KernelBanzhaf:
            np.testing.assert_allclose(one.values_pk.sum(axis=0), one_nk[-1] - one_nk[0], atol=2e-5)
        np.testing.assert_array_equal(one.empty_value_k, one_nk[0])
        np.testing.assert_array_equal(one.full_value_k, one_nk[-1])

    check()


@partial(jax.jit, static_argnums=0)
def _refolded(method, masks_cp, table_nk):
    rows_c = (masks_cp.astype(jnp.int32) @ jnp.asarray(1 << np.arange(method.n_players), jnp.int32)[:, None])[:, 0]
    return method.estimate(method.update(method.init(jax.random.key(0)), masks_cp, table_nk[rows_c]))


@every_method
def test_null_players_and_symmetry_on_average(kind):
    """Of two alike and one who changes nothing: means over 400 keys."""
    masks_np = all_coalitions(N_PLAYERS)
    rng = np.random.default_rng(5)
    # Player 0 is nobody; 1 and 2 are told apart by nothing but their number.
    code_n = (masks_np[:, 1].astype(int) + masks_np[:, 2]) + 3 * (masks_np[:, 3:] @ (1 << np.arange(3)))
    table_nk = rng.standard_normal((24, 1)).astype(np.float32)[code_n]
    method = kind.for_budget(N_PLAYERS, BUDGET)
    keys = jax.random.split(jax.random.key(3), 400)
    found, _ = jax.jit(jax.vmap(lambda key: run(method, key, jnp.asarray(table_nk))))(keys)
    values_rp = np.asarray(found.values_pk)[..., 0]
    mean_p, error_p = values_rp.mean(axis=0), values_rp.std(axis=0) / np.sqrt(len(keys))
    # A regression's bias is a small part of its error, and Neyman's allocation adds some.
    allowed_p = 5 * error_p + 0.15 * values_rp.std(axis=0)
    assert abs(mean_p[0]) < allowed_p[0] and abs(mean_p[1] - mean_p[2]) < allowed_p[1] + allowed_p[2]
    assert (abs(mean_p - solution(kind, table_nk)[:, 0]) < allowed_p).all()


@pytest.mark.parametrize("kind", [KernelShap, LeverageShap, KernelBanzhaf])
def test_regressions_solve_additive_games(kind, key):
    worth_p1 = np.arange(N_PLAYERS, dtype=np.float32)[:, None] - 2
    table_nk = all_coalitions(N_PLAYERS).astype(np.float32) @ worth_p1 + 1
    found, _ = run(kind.for_budget(N_PLAYERS, BUDGET), key, table_nk)
    np.testing.assert_allclose(found.values_pk, worth_p1, atol=1e-5)
    np.testing.assert_allclose(found.standard_errors_pk, 0, atol=1e-5)


@every_method
def test_outputs_at_once_are_outputs_one_by_one(kind, key):
    table_nk = random_table(n_outputs=3)
    method = kind.for_budget(N_PLAYERS, BUDGET, n_outputs=3)
    together, masks_cp = run(method, key, table_nk)
    for k in range(3):
        alone = _refolded(kind.for_budget(N_PLAYERS, BUDGET), masks_cp, table_nk[:, k : k + 1])
        np.testing.assert_allclose(alone.values_pk[:, 0], together.values_pk[:, k], atol=1e-5)
        np.testing.assert_allclose(alone.standard_errors_pk[:, 0], together.standard_errors_pk[:, k], atol=1e-5)


@every_method
def test_budgets(kind, key):
    """None is overspent, one too small is refused with the least that is not, and more asks for more of the same."""
    n_players = 9
    with pytest.raises(BudgetError, match="expected at least") as refusal:
        kind.for_budget(n_players, 3)
    least = int(str(refusal.value).split("expected at least ")[1].split(";")[0])
    for budget in (least, least + 1, 150):
        method = kind.for_budget(n_players, budget)
        n_rows = len(method.init(key).masks_cp)
        assert budget - 4 < n_rows <= budget
    with pytest.raises(BudgetError):
        kind.for_budget(n_players, least - 1)
    if kind is not NeymanComplementary:
        few, many = (
            jax.jit(method.propose)(method.init(key)) for method in map(partial(kind.for_budget, 9), (60, 150))
        )
        assert rows_of(few) < rows_of(many) and len(rows_of(many)) == len(many)


@every_method
def test_lowers_for_tpu(kind):
    method = kind.for_budget(N_PLAYERS, BUDGET)

    def find(words, table_nk):
        return run(method, jax.random.wrap_key_data(words), table_nk)

    shapes = jax.ShapeDtypeStruct((2,), jnp.uint32), jax.ShapeDtypeStruct((2**N_PLAYERS, 1), jnp.float32)
    assert jax.export.export(jax.jit(find), platforms=["tpu"])(*shapes).platforms == ("tpu",)


def test_unbiased_kernelshap_is_unbiased_where_kernelshap_is_not():
    """A game of triples at a small budget, over 6000 keys: 4 σ, where the regression is more than 8 σ off."""
    table_nk = jnp.asarray(all_coalitions(7)[:, :3].all(axis=1, keepdims=True), jnp.float32)
    keys = jax.random.split(jax.random.key(11), 6_000)
    off = {}
    for kind in (UnbiasedKernelShap, KernelShap):
        method = kind.for_budget(7, 30)
        values_rp = np.asarray(jax.jit(jax.vmap(lambda key, m=method: run(m, key, table_nk)[0].values_pk[:, 0]))(keys))
        error_p = values_rp.std(axis=0) / np.sqrt(len(keys))
        off[kind] = (abs(values_rp.mean(axis=0) - solution(kind, np.asarray(table_nk))[:, 0]) / error_p).max()
    assert off[UnbiasedKernelShap] < 4 and off[KernelShap] > 8, off


def test_an_empty_cell_is_not_zero():
    """A game of sizes alone: three pairs leave most cells empty, but what they would hold is plain from their size."""
    masks_mp = np.array([[1, 0, 0, 0, 0], [0, 1, 1, 0, 0]], bool)
    pairs_cp = np.stack([masks_mp, ~masks_mp], axis=1).reshape(-1, 5)
    masks_cp = np.concatenate([np.array([[False] * 5, [True] * 5]), pairs_cp])
    values_ck = masks_cp.sum(axis=1, keepdims=True).astype(np.float32) ** 2
    method = ComplementaryContributions(5)
    found = method.estimate(method.update(method.init(jax.random.key(0)), masks_cp, values_ck))
    np.testing.assert_allclose(found.values_pk, 5.0, rtol=1e-6)


def test_svarm_evaluates_the_borders(key):
    masks_cp = np.asarray(run(StratifiedSvarm.for_budget(8, 60), key, random_table(8))[1])
    by_size = np.bincount(masks_cp.sum(axis=1), minlength=9)
    assert len(rows_of(masks_cp)) == 60 and by_size[[0, 1, 7, 8]].tolist() == [1, 8, 8, 1]
    # Unpaired: hardly any of the others has its complement among them.
    assert len(rows_of(masks_cp) & rows_of(~masks_cp)) < 40


def test_neyman_goes_where_values_spread(key):
    """Only coalitions of 4 or 5 of 9 differ in worth; the second proposal counts from where the first has ended."""
    masks_np = all_coalitions(9)
    noise_n = np.random.default_rng(0).standard_normal(512) * np.isin(masks_np.sum(axis=1), (4, 5))
    method = NeymanComplementary.for_budget(9, paper_budget(9))
    found, masks_cp = run(method, key, noise_n.astype(np.float32)[:, None])
    size_c = np.asarray(masks_cp).sum(axis=1)
    sizes = np.minimum(size_c, 9 - size_c)
    first, second = (np.bincount(part, minlength=5) for part in np.split(sizes, 2))
    assert second[4] > 1.5 * first[4] and second[4] > second[2] and len(rows_of(masks_cp)) == len(masks_cp) <= 245
    assert first[0] == 2 and second[0] == 0 and (found.standard_errors_pk > 0).all()


def test_the_papers_budget():
    assert [paper_budget(n_players) for n_players in (4, 5, 7, 8, 12)] == [16, 32, 128, 194, 434]
