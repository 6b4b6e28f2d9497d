"""Which clips a latent is about: planted impostors, ties, halves and lengths."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgpa_jax.concepts import (
    average_precision,
    bottom_clips,
    clip_activations,
    clip_scores,
    half_scores,
    label_precision,
    matched_bottom_clips,
    raw_dimensions,
    split_half_overlap,
    top_clips,
    truth,
)
from sgpa_jax.errors import UsageError
from sgpa_jax.sae import encode


def test_representativeness_finds_what_neither_of_its_factors_does(planted):
    """Impostors that are loud for a moment fool the mean, those that are faint throughout fool the coverage."""
    trained, store = planted
    scores = clip_scores(trained, store)
    true_nj = truth(scores.labels, [f"class {g}" for g in range(8)])
    found = {
        scorer: np.array([average_precision(scores.by(scorer)[:, g], true_nj[:, g]) for g in range(8)])
        for scorer in ("representativeness", "mean", "coverage")
    }
    assert found["representativeness"].min() >= 0.95
    assert found["representativeness"].min() > max(found["mean"].max(), found["coverage"].max())
    assert found["mean"].mean() < 0.85 and found["coverage"].mean() < 0.9
    assert label_precision(top_clips(scores.score_nm), scores.labels).tolist() == [1.0] * 8


def test_scores_are_means_over_every_clip_however_they_are_batched(harvest_of, sae_of, tmp_path):
    rng = np.random.default_rng(0)
    lengths = {"a": 5, "b": 1, "unheard": 0, "c": 23, "d": 40, "e": 2}
    clips = {name: (rng.standard_normal((n, 6)).astype(np.float32), [name]) for name, n in lengths.items()}
    store, trained = harvest_of(tmp_path / "acts", clips, clips_per_shard=4), sae_of(np.eye(6)[:5], 2)

    def latents_of(rows_td: np.ndarray) -> np.ndarray:
        pre_tm = rows_td[:, :5] - 1e-3
        second_t1 = np.sort(pre_tm, axis=1)[:, 3:4]
        return np.where(pre_tm >= second_t1, np.maximum(pre_tm, 0), 0)

    scores = clip_scores(trained, store, batch=7)
    assert scores.ids == ("a", "b", "c", "d", "e") and scores.n_tokens_n.tolist() == [5, 1, 23, 40, 2]
    for n, name in enumerate(scores.ids):
        z_tm = latents_of(clips[name][0])
        np.testing.assert_allclose(scores.mean_nm[n], z_tm.mean(axis=0), rtol=1e-6)
        np.testing.assert_allclose(scores.coverage_nm[n], (z_tm > 0).mean(axis=0), rtol=1e-6)
    found_tm = clip_activations(trained, store, "c", [3, 1])
    np.testing.assert_allclose(found_tm, latents_of(clips["c"][0])[:, [3, 1]], rtol=1e-6)
    some = clip_scores(trained, store, latents=[4, 0], batch=64)
    np.testing.assert_allclose(some.score_nm, scores.of([4, 0]).score_nm, rtol=1e-6)
    assert some.latents == scores.of([4, 0]).latents == (4, 0)
    fired_m = sum((latents_of(rows) > 0).sum(axis=0) for rows, _ in clips.values() if len(rows))
    np.testing.assert_allclose(scores.density_m, fired_m / 71)
    np.testing.assert_array_equal(scores.take([2, 0]).mean_nm, scores.mean_nm[[2, 0]])
    with pytest.raises(UsageError, match="no clip 'z'"):
        clip_activations(trained, store, "z", [1])
    with pytest.raises(UsageError, match="latent 3 was not scored"):
        some.of([0, 3])
    with pytest.raises(UsageError, match="unknown scorer 'loudness'"):
        scores.by("loudness")
    with pytest.raises(UsageError, match="not all from 0 to 4"):
        clip_scores(trained, store, latents=[5])
    trained.model["digest"] = "11"
    with pytest.raises(UsageError, match="another model"):
        clip_scores(trained, store)


def test_halves_of_clips_add_up(planted, key):
    trained, store = planted
    whole, (first, second) = clip_scores(trained, store), half_scores(trained, store, key=key)
    assert (first.n_tokens_n + second.n_tokens_n == whole.n_tokens_n).all()
    np.testing.assert_allclose((first.mean_nm + second.mean_nm) / 2, whole.mean_nm, rtol=1e-5, atol=1e-7)
    assert not np.array_equal(first.mean_nm, second.mean_nm)
    overlap_m = split_half_overlap(first, second, p=16)
    assert (overlap_m > 0.4).all(), "halves agree on 16 of 320 clips far more than chance, which gives 0.03"
    np.testing.assert_array_equal(split_half_overlap(first, first, p=16), 1.0)


def test_ties_are_drawn_for_every_latent_and_seed():
    score_nm = np.zeros((50, 64), np.float32)
    score_nm[7], score_nm[31] = 2, 1
    low_mp = bottom_clips(score_nm, key=jax.random.key(0))
    np.testing.assert_array_equal(low_mp, bottom_clips(score_nm, key=jax.random.key(0)))
    assert not np.array_equal(low_mp, bottom_clips(score_nm, key=jax.random.key(1)))
    assert all(len(set(row)) == 4 for row in low_mp.tolist())
    counts_n = np.bincount(low_mp.ravel(), minlength=50)
    assert counts_n[7] == counts_n[31] == 0
    expected = 256 / 48
    assert np.abs(counts_n[counts_n > 0] - expected).max() < 5 * expected**0.5 and (counts_n > 0).sum() > 40
    np.testing.assert_array_equal(top_clips(score_nm, 3), np.tile([7, 31, 0], (64, 1)))
    high_mp = top_clips(score_nm, 3, key=jax.random.key(0))
    assert (high_mp[:, :2] == [7, 31]).all() and len(set(high_mp[:, 2].tolist())) > 25
    with pytest.raises(UsageError, match="5 clips a latent cannot be chosen from 3"):
        top_clips(score_nm[:3], 5)


def test_least_representative_clips_as_long_as_the_most_representative(key):
    """Top clips are short, bottom clips are long, until their lengths are matched."""
    rng = np.random.default_rng(1)
    seconds_n = rng.permutation(np.repeat([1.0, 10.0], 100))
    score_nm = np.where(rng.uniform(size=(200, 30)) < 0.3, rng.uniform(size=(200, 30)), 0) / seconds_n[:, None]
    top_mp = top_clips(score_nm)
    low_mp = matched_bottom_clips(score_nm, top_mp, seconds_n, key=key)
    np.testing.assert_array_equal(seconds_n[low_mp], seconds_n[top_mp])
    assert all(not {*low} & {*top} and len({*low}) == 4 for low, top in zip(low_mp, top_mp, strict=True))
    assert (np.take_along_axis(score_nm, low_mp.T, axis=0) == 0).all()
    # With every short clip among the top ones, the nearest length has to serve.
    few_n = np.array([1.0] * 4 + [2.0] * 4 + [30.0] * 192)
    low_mp = matched_bottom_clips(score_nm * 0, np.tile([0, 1, 2, 3], (30, 1)), few_n, key=key)
    assert (np.sort(low_mp, axis=1) == [4, 5, 6, 7]).all()
    with pytest.raises(UsageError, match="too few to set 4 against 4"):
        matched_bottom_clips(score_nm[:7], top_mp, seconds_n[:7], key=key)


def test_raw_dimensions_are_latents_like_others(planted):
    _, store = planted
    raw = raw_dimensions(store, 1)
    rows_nd = np.concatenate([store.rows(shard, 1) for shard in range(4)])
    centred_nd = rows_nd - rows_nd.mean(axis=0)
    z_nm = np.asarray(encode(raw.folded, jnp.asarray(rows_nd[:50])))
    np.testing.assert_allclose(z_nm[:, :16], np.maximum(centred_nd[:50], 0), atol=1e-5)
    np.testing.assert_allclose(z_nm[:, 16:], np.maximum(-centred_nd[:50], 0), atol=1e-5)
    assert clip_scores(raw, store).score_nm.shape == (320, 32)
