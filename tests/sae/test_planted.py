"""Planted dictionaries: found at the true number of latents, and mixed where k is twice that, though error falls."""

import functools

import jax
import numpy as np

from sgpa_jax.sae import (
    Paths,
    Planted,
    Recipe,
    SAEConfig,
    TrainConfig,
    decode,
    encode,
    planted,
    recovery,
    start_training,
    train_step,
)


def found(world: Planted, n_latents: int, k: int, *, n_steps: int):
    """Train, and return the fraction of variance unexplained and the recovery on new tokens."""
    config = SAEConfig(width=world.directions_gd.shape[1], n_latents=n_latents, k=k)
    training = TrainConfig(
        n_steps=n_steps, batch=128, learning_rate=3e-3, warmup_steps=50, decay_steps=n_steps // 3, clip_norm=1.0,
        aux_weight=1 / 32, aux_k=8, dead_after=40_000,
    )  # fmt: skip
    fit_key, init_key, steps_key, test_key = jax.random.split(jax.random.key(77), 4)

    @jax.jit
    def run():
        x_bd = world.sample(4096, key=fit_key)[0]
        state = start_training(Recipe(config, training), x_bd, key=init_key)
        step = functools.partial(train_step, training=training, paths=Paths("sparse", "lax"))

        def body(state, key):
            return step(state, world.sample(training.batch, key=key)[0])[0], None

        state, _ = jax.lax.scan(body, state, jax.random.split(steps_key, n_steps))
        x_bd, true_bg = world.sample(4096, key=test_key)
        z_bm = encode(state.sae, x_bd)
        left = ((x_bd - decode(state.sae, z_bm)) ** 2).sum()
        fvu = left / ((x_bd - x_bd.mean(axis=0, keepdims=True)) ** 2).sum()
        return fvu, state.sae.w_dec_md, true_bg > 0, z_bm > 0

    fvu, rows_md, true_bg, fires_bm = run()
    return float(fvu), recovery(world.directions_gd, rows_md, (true_bg, fires_bm))


def test_a_planted_dictionary_is_found():
    world = planted(48, 128, 4, exact=True, key=jax.random.key(4321))
    fvu, recovered = found(world, 256, 4, n_steps=1200)
    assert fvu <= 0.07 and recovered.mcc >= 0.97 and recovered.recovered >= 0.97
    assert recovered.f1 is not None and recovered.f1 > 0.9


def test_twice_the_true_k_mixes_directions_while_error_falls():
    world = planted(32, 96, 5, exact=False, zipf=0.0, key=jax.random.key(4322))
    (fvu, right), (fvu_twice, twice) = (found(world, 192, k, n_steps=1400) for k in (5, 10))
    assert right.mmcs >= 0.92
    assert fvu_twice < fvu and twice.mmcs < right.mmcs


def test_recovery_by_its_definition():
    directions = np.eye(3)
    rows = np.array([[0, -2.0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1e-3]])
    fires = np.array([[1, 0, 1], [0, 1, 1]], bool), np.array([[0, 1, 1, 1], [1, 0, 0, 0]], bool)
    scored = recovery(directions, rows, fires)
    half = 0.5**0.5
    np.testing.assert_allclose([scored.mmcs, scored.mcc, scored.recovered], [(half + 2) / 3] * 2 + [2 / 3])
    # Nearest to the four rows are the second, the first (or second), the second and the third direction.
    assert scored.uniqueness in (0.5, 0.75)
    matched = {"second and row 0": (1 + 1 + 2 / 3) / 3, "second and row 2": (1 + 0 + 2 / 3) / 3}
    assert any(np.isclose(scored.f1 or 0, value) for value in matched.values())
    assert recovery(directions, rows).f1 is None


def test_draws_are_as_described(key):
    worlds = [planted(48, 128, 4, exact=True, key=key), planted(32, 96, 5, exact=False, zipf=0.0, key=key)]
    draws = jax.jit(lambda: [world.sample(2000, key=jax.random.key(2)) for world in worlds])()
    (_, z_bg), (x_bd, counted_bg) = jax.tree.map(np.asarray, draws)
    assert ((z_bg > 0).sum(axis=1) == 4).all() and z_bg[z_bg > 0].min() >= 1
    rate_g = (z_bg > 0).mean(axis=0)
    assert rate_g[:8].mean() > 1.5 * rate_g[-8:].mean(), "the first ones fire more often"
    counts = (counted_bg > 0).sum(axis=1)
    assert abs(counts.mean() - 5) < 0.3 and counts.std() > 1.5
    np.testing.assert_allclose(np.std(x_bd - counted_bg @ worlds[1].directions_gd), 0.01, rtol=0.05)
