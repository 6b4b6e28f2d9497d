"""Monosemanticity: what chance gives, what is planted, and what choosing on it does."""

import numpy as np
import pytest
from scipy import stats

from sgpa_jax.concepts import bottom_clips, monosemanticity, pach_score, set_score, top_clips
from sgpa_jax.errors import UsageError


def unit(rows_ne: np.ndarray) -> np.ndarray:
    return rows_ne / np.linalg.norm(rows_ne, axis=1, keepdims=True)


def test_choosing_the_best_of_chance_looks_like_something():
    """Random sets of four: m is √(1/3) times Student's t with 10 degrees of freedom, the best 15 % have a mean of 1."""
    rng, n_latents = np.random.default_rng(0), 4096
    unit_ne = unit(rng.standard_normal((2000, 256)))
    sets = np.argsort(rng.uniform(size=(n_latents, 40)), axis=1)[:, :8] + rng.integers(0, 1960, size=(n_latents, 1))
    found_m = np.sort(set_score(unit_ne, sets[:, :4], sets[:, 4:]))
    assert abs(found_m.mean()) < 0.04
    expected_m = stats.t.ppf((np.arange(n_latents) + 0.5) / n_latents, 10) / 3**0.5
    n_best = round(0.153 * n_latents)
    assert found_m[-n_best:].mean() == pytest.approx(expected_m[-n_best:].mean(), abs=0.05)
    assert expected_m[-n_best:].mean() == pytest.approx(1, abs=0.02)


def test_by_hand():
    angles = np.deg2rad([0, 10, 30, 90, 200, 290])
    unit_ne = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    high, low = np.cos(np.deg2rad([10, 30, 20])), np.cos(np.deg2rad([110, 160, 90]))
    spread = ((high.var(ddof=1) + low.var(ddof=1)) / 2) ** 0.5
    found = set_score(unit_ne, np.array([[0, 1, 2]]), np.array([[3, 4, 5]]))
    assert found[0] == pytest.approx((high.mean() - low.mean()) / spread)
    score_n = np.array([3.0, 1.0, 0.0, 2.0, 0.5, 0.0])
    scaled_n, pairs = score_n / 3, [(i, j) for i in range(6) for j in range(i)]
    weights = [scaled_n[i] * scaled_n[j] for i, j in pairs]
    expected = np.average([unit_ne[i] @ unit_ne[j] for i, j in pairs], weights=weights)
    one_n = np.eye(6)[0]
    pach_m = pach_score(np.stack([score_n, one_n, score_n * 0 + 1], axis=1), unit_ne)
    assert pach_m[0] == pytest.approx(expected) and np.isnan(pach_m[1:]).all()


@pytest.mark.parametrize("planted", [True, False])
def test_against_the_null_and_held_out_clips(planted: bool, key):
    """Latents of one cluster of clips each, and the same with the embeddings of other clips."""
    rng = np.random.default_rng(3)
    cluster_n = rng.integers(0, 20, size=400)
    unit_ne = unit(rng.standard_normal((20, 32))[cluster_n] + 0.5 * rng.standard_normal((400, 32)))
    unit_ne = unit_ne if planted else unit_ne[rng.permutation(400)]
    score_nm = (cluster_n[:, None] == np.arange(60) % 20) * rng.uniform(0.5, 1, size=(400, 60))
    score_nm[:, 55:] = 0
    sets = top_clips(score_nm), bottom_clips(score_nm, key=key)
    found = monosemanticity(score_nm, unit_ne, *sets, n_keep=10, n_permutations=20, key=key)
    assert found.n_alive == 55 and np.isnan(found.score_m[55:]).all() and len(found.kept) == 10
    assert found.score_m[list(found.kept)].tolist() == sorted(found.score_m[:55])[::-1][:10]
    assert abs(found.null_all) < 0.3 and found.null_top > 0.8
    assert (~np.isnan(found.held_out_m)).sum() <= 20
    if planted:
        assert found.all_alive > 3 > found.null_top and found.p_all == found.p_top == pytest.approx(1 / 21)
        assert found.held_out_top > 3 and np.nanmin(found.pach_m) > 0.5
    else:
        assert found.top > 0.5 and found.p_all > 0.03 and abs(found.held_out_top) < 0.5
        assert abs(np.nanmean(found.pach_m)) < 0.1


def test_refuses(key):
    score_nm, unit_ne = np.ones((40, 2)), unit(np.random.default_rng(0).standard_normal((40, 3)))
    sets = {p: np.tile(np.arange(p), (2, 1)) for p in (2, 4, 16)}
    with pytest.raises(UsageError, match="at least 64 clips"):
        monosemanticity(score_nm, unit_ne, sets[16], sets[16], key=key)
    with pytest.raises(UsageError, match="no latent fires in 4 clips"):
        monosemanticity(score_nm * 0, unit_ne, sets[4], sets[4], key=key)
    with pytest.raises(UsageError, match="give p of 3"):
        monosemanticity(score_nm, unit_ne, sets[2], sets[2], key=key)
