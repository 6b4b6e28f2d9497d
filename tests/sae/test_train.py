"""Steps of training: what is kept and counted, what wakes, and the same over a mesh."""

import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from sgpa_jax.errors import UsageError
from sgpa_jax.sae import (
    Paths,
    Recipe,
    SAEConfig,
    TrainConfig,
    ard_paper,
    batch_sharding,
    choose_paths,
    planted,
    recipe_of,
    recommended,
    start_training,
    state_sharding,
    train_step,
)
from sgpa_jax.sae.state import geometric_median
from sgpa_jax.sae.train import learning_rates

DENSE = Paths()
TRAINING = TrainConfig(n_steps=20, batch=64, learning_rate=3e-3, warmup_steps=4, decay_steps=5, clip_norm=1.0,
                       aux_weight=1 / 32, aux_k=8, dead_after=200)  # fmt: skip


start, step = jax.jit(start_training, static_argnums=0), jax.jit(train_step, static_argnames=("training", "paths"))


@functools.cache
def tokens(n_steps: int = 5) -> list[np.ndarray]:
    world = planted(16, 24, 3, exact=True, key=jax.random.key(1))
    return list(np.asarray(world.sample(64 * n_steps, key=jax.random.key(2))[0]).reshape(n_steps, 64, 16))


def run(recipe: Recipe, n_steps: int, *, paths: Paths = DENSE, mesh: Mesh | None = None):
    state = start(recipe, tokens()[0], key=jax.random.key(3))
    take = functools.partial(step, training=recipe.training, paths=paths)
    if mesh is not None:
        cut = state_sharding(state, mesh)
        state = jax.device_put(state, cut)
        take = functools.partial(train_step, training=recipe.training, paths=paths)
        take = jax.jit(take, in_shardings=(cut, batch_sharding(mesh)), out_shardings=(cut, None))
    for x_bd in tokens()[:n_steps]:
        state, stats = take(state, x_bd)
    return state, stats


def sae_of(kind: str = "topk") -> SAEConfig:
    return SAEConfig(width=16, n_latents=64, k=3, kind=kind)


def test_rows_stay_at_norm_one_and_latents_are_counted():
    state, stats = run(Recipe(sae_of(), TRAINING), 5)
    np.testing.assert_allclose(jnp.linalg.norm(state.sae.w_dec_md, axis=1), np.ones(64), atol=1e-6)
    assert int(state.step) == 5
    assert set(np.asarray(state.silent_m).tolist()) <= {64 * n for n in range(6)} and (state.silent_m == 0).any()
    assert float(stats.l0) <= 3 and 0 < float(stats.fvu) < 1
    free, _ = run(Recipe(sae_of(), replace(TRAINING, unit_norm=False)), 2)
    assert float(jnp.abs(jnp.linalg.norm(free.sae.w_dec_md, axis=1) - 1).max()) > 1e-3


def test_a_step_is_adam_on_what_lies_across_the_rows():
    recipe = Recipe(sae_of(), replace(TRAINING, clip_norm=None, aux_weight=0.0))
    after, _ = run(recipe, 1)
    before = start(recipe, tokens()[0], key=jax.random.key(3))
    moved = np.asarray(after.sae.b_enc_m - before.sae.b_enc_m)
    # Adam's first step is the learning rate, up or down, wherever there is a gradient at all.
    np.testing.assert_allclose(np.abs(moved[moved != 0]), TRAINING.learning_rate / 4, rtol=1e-3)
    moment_md = after.optimiser[0].mu.w_dec_md
    along = (moment_md * before.sae.w_dec_md).sum(axis=1)
    np.testing.assert_allclose(along, np.zeros(64), atol=1e-6 * float(jnp.abs(moment_md).max()) * 16)


def test_rates_rise_stay_and_fall():
    rates = np.asarray(jax.vmap(learning_rates(TRAINING))(jnp.arange(21))) / TRAINING.learning_rate
    np.testing.assert_allclose(rates[:6], [0.25, 0.5, 0.75, 1, 1, 1], rtol=1e-6)
    np.testing.assert_allclose(rates[14:], [1, 1, 0.8, 0.6, 0.4, 0.2, 0], atol=1e-6)
    steady = learning_rates(replace(TRAINING, warmup_steps=0, decay_steps=0))
    np.testing.assert_allclose(jax.vmap(steady)(jnp.array([0, 19])), np.full(2, TRAINING.learning_rate), rtol=1e-6)


@pytest.mark.parametrize("aux_weight", [0.0, 1 / 8])
def test_auxk_wakes_what_would_stay_dead(aux_weight):
    """Sixty of sixty-four latents begin where nothing makes them fire."""
    recipe = Recipe(sae_of(), replace(TRAINING, n_steps=400, aux_weight=aux_weight, learning_rate=1e-2, decay_steps=0))
    world = planted(16, 24, 3, exact=True, key=jax.random.key(1))
    state = start(recipe, tokens()[0], key=jax.random.key(3))
    silent = jnp.where(jnp.arange(64) < 60, -2.0, 0.0)
    state = state._replace(sae=replace(state.sae, b_enc_m=silent))

    @jax.jit
    def all_steps(state):
        def body(state, key):
            return train_step(state, world.sample(64, key=key)[0], training=recipe.training, paths=Paths())

        return jax.lax.scan(body, state, jax.random.split(jax.random.key(4), 400))

    state, _ = all_steps(state)
    alive = int((state.silent_m < 2000).sum())
    assert alive >= 24 if aux_weight else alive <= 12, f"{alive} of 64 latents fire"


@pytest.mark.parametrize("kind", ["topk", "matryoshka"])
def test_over_a_mesh_as_on_one_device(kind):
    recipe = Recipe(sae_of(kind), TRAINING)
    mesh = Mesh(np.array(jax.devices()).reshape(2, 4), ("data", "model"))
    alone, stats = run(recipe, 3)
    spread, spread_stats = run(recipe, 3, paths=choose_paths(recipe, mesh=mesh), mesh=mesh)
    assert spread.sae.w_dec_md.sharding.shard_shape((64, 16)) == (16, 16)
    assert spread.optimiser[1][0].mu.w_enc_md.sharding.shard_shape((64, 16)) == (16, 16)
    numbers = [
        jax.tree.leaves((s.sae, s.optimiser, s.silent_m, t)) for s, t in ((spread, spread_stats), (alone, stats))
    ]
    for a, b in zip(*numbers, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5)


def test_thresholds_follow_what_fires():
    state, _ = run(Recipe(sae_of("batch_topk"), TRAINING), 1)
    assert float(state.sae.threshold_m[0]) > 0 and (state.sae.threshold_m == state.sae.threshold_m[0]).all()
    state, _ = run(Recipe(sae_of("jumprelu"), TRAINING), 2)
    assert len(np.unique(state.sae.threshold_m)) > 1 and float(state.sae.threshold_m.min()) >= 0


def test_the_middle_bears_outliers():
    x_bd = jnp.concatenate([jnp.ones((30, 3)), jnp.full((5, 3), 1000.0)])
    np.testing.assert_allclose(geometric_median(x_bd), np.ones(3), atol=0.01)


def test_presets():
    paper = ard_paper(4096)
    assert (paper.sae.n_latents, paper.sae.k, paper.sae.kind) == (32768, 250, "topk")
    training = paper.training
    assert (training.learning_rate, training.batch, training.n_steps) == (1e-5, 4096, 100_000)
    assert (training.aux_weight, training.warmup_steps, training.decay_steps, training.clip_norm) == (0, 0, 0, None)
    assert Recipe.from_dict(paper.to_dict()) == paper
    ours = recipe_of("recommended", 64, expansion=4, kind="batch_topk", k=7, n_steps=100, batch=32)
    assert ours.sae == SAEConfig(width=64, n_latents=256, k=7, kind="batch_topk")
    assert (ours.training.n_steps, ours.training.batch, ours.training.warmup_steps) == (100, 32, 10)
    np.testing.assert_allclose(recommended(2048).training.learning_rate, 2e-4)
    with pytest.raises(UsageError, match="unknown preset 'paper': expected one of ard_paper"):
        recipe_of("paper", 64)
    with pytest.raises(UsageError, match="train nothing"):
        recipe_of("recommended", 64, learning_rate=0.0)
    with pytest.raises(UsageError, match="more than the 10 steps"):
        TrainConfig(n_steps=10, batch=1, learning_rate=1.0, warmup_steps=6, decay_steps=6)


def test_paths_are_measured():
    assert choose_paths(Recipe(sae_of(), TRAINING)).decode in ("dense", "sparse")
