"""Intervals that cover: 95 % t-intervals hold the true value in 93 to 97 % of 2000 repetitions, over players and games.

Twelve players, and ten evaluations for each of them: 120 of 4096 coalitions.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import stdtrit
from sgpa_kernels import exact_shapley_reference

from sgpa_jax.estimators.complementary import ComplementaryContributions
from sgpa_jax.estimators.neyman import NeymanComplementary
from sgpa_jax.estimators.regression import KernelBanzhaf, KernelShap, LeverageShap
from sgpa_jax.estimators.svarm import StratifiedSvarm
from sgpa_jax.estimators.unbiased_kernelshap import UnbiasedKernelShap
from sgpa_jax.players import all_coalitions

N_PLAYERS, BUDGET, REPETITIONS, CHUNK = 12, 120, 2000, 500


def games() -> dict[str, np.ndarray]:
    """Return games of known answers: the worth of all coalitions."""
    rng = np.random.default_rng(0)
    masks_np = all_coalitions(N_PLAYERS).astype(np.float32)
    unanimity_n = np.zeros(len(masks_np))
    for _ in range(20):
        unanimity_n += rng.normal() * masks_np[:, rng.choice(N_PLAYERS, rng.integers(1, 6), replace=False)].prod(axis=1)
    pair_pp, triple_ppp = rng.normal(size=(N_PLAYERS,) * 2), rng.normal(size=(N_PLAYERS,) * 3) / 4
    cubic_n = np.einsum("np,nq,pq->n", masks_np, masks_np, pair_pp)
    cubic_n += np.einsum("np,nq,nr,pqr->n", masks_np, masks_np, masks_np, triple_ppp, optimize=True)
    weights_p = rng.integers(1, 10, N_PLAYERS)
    return {
        "glove": np.minimum(masks_np[:, :5].sum(axis=1), masks_np[:, 5:].sum(axis=1)),
        "airport": (masks_np * np.sort(rng.integers(1, 10, N_PLAYERS))).max(axis=1),
        "unanimity": unanimity_n,
        "cubic": cubic_n,
        "majority": (masks_np @ weights_p > weights_p.sum() / 2).astype(np.float32),
    }


@partial(jax.jit, static_argnums=0)
def repeat(method, keys, table_nk):
    """Return what a method finds with each key: values and errors [R, P, K], degrees of freedom [R]."""

    def once(key):
        state = method.init(key)
        for _ in range(getattr(method, "n_proposals", 1)):
            masks_cp = method.propose(state)
            rows_c = (masks_cp.astype(jnp.int32) @ (1 << jnp.arange(N_PLAYERS))[:, None])[:, 0]
            state = method.update(state, masks_cp, table_nk[rows_c])
        found = method.estimate(state)
        return found.values_pk, found.standard_errors_pk, found.degrees_of_freedom

    return jax.vmap(once)(keys)


@pytest.mark.parametrize(
    "kind",
    [
        KernelShap,
        LeverageShap,
        KernelBanzhaf,
        UnbiasedKernelShap,
        StratifiedSvarm,
        ComplementaryContributions,
        NeymanComplementary,
    ],
)
def test_intervals_cover_the_truth(kind):
    named = games()
    table_nk = np.stack(list(named.values()), axis=1).astype(np.float32)
    table_nk /= table_nk.std(axis=0, keepdims=True)
    if kind is KernelBanzhaf:
        inside_np = all_coalitions(N_PLAYERS)
        truth_pk = np.stack([table_nk[row].mean(axis=0) - table_nk[~row].mean(axis=0) for row in inside_np.T])
    else:
        truth_pk = exact_shapley_reference(table_nk)
    method = kind.for_budget(N_PLAYERS, BUDGET, n_outputs=len(named))
    keys = jax.random.split(jax.random.key(7), REPETITIONS).reshape(-1, CHUNK)
    found = [repeat(method, chunk, jnp.asarray(table_nk)) for chunk in keys]
    values_rpk, errors_rpk, free_r = (np.concatenate(parts) for parts in zip(*found, strict=True))
    reach_r11 = stdtrit(np.minimum(free_r, 1e6).astype(np.float64), 0.975)[:, None, None]
    covered_pk = (abs(values_rpk - truth_pk[None]) <= reach_r11 * errors_rpk).mean(axis=0)
    by_game = dict(zip(named, covered_pk.mean(axis=0).round(4).tolist(), strict=True))
    assert all(0.93 <= covered <= 0.97 for covered in by_game.values()), by_game
    # No player is left alone either: rare pivots of one make its intervals the worst.
    assert covered_pk.min() > 0.89, covered_pk.min(axis=0)
