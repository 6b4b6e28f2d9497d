"""Runs: stopped and resumed they end with the very same weights, and their folder says all about them."""

import json
from dataclasses import replace

import jax
import numpy as np
import pytest

from sgpa_jax.errors import UsageError
from sgpa_jax.models import parse_mesh
from sgpa_jax.sae import Paths, Recipe, SAEConfig, TrainConfig, load_sae, measure, train

RECIPE = Recipe(
    SAEConfig(width=8, n_latents=32, k=3, kind="batch_topk"),
    TrainConfig(
        n_steps=12, batch=40, learning_rate=3e-3, warmup_steps=3, decay_steps=3, clip_norm=1.0, aux_weight=0.1, aux_k=4,
        dead_after=100, normalisation="centre", seed=4,
    ),
)  # fmt: skip
PATHS = Paths("dense", "lax")


class Killed(Exception):
    pass


def kill_at(step: int):
    def progress(done: int, total: int) -> None:
        if done == step:
            raise Killed

    return progress


def test_stopped_and_resumed_is_bit_identical(write_store, tmp_path):
    store = write_store()
    straight = train(store, 3, RECIPE, tmp_path / "straight", paths=PATHS, checkpoint_every=5)
    again = {"paths": PATHS, "checkpoint_every": 5}
    # Before the first checkpoint, between two of them, and right behind one.
    for step in (3, 8, 10):
        with pytest.raises(Killed):
            train(store, 3, RECIPE, tmp_path / "resumed", progress=kill_at(step), **again)
    resumed = train(store, 3, RECIPE, tmp_path / "resumed", **again)
    assert straight.step == resumed.step == 12
    for a, b in zip(
        jax.tree.leaves((straight.sae, straight.normalisation)),
        jax.tree.leaves((resumed.sae, resumed.normalisation)),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(straight.silent_m, resumed.silent_m)
    logs = [
        [json.loads(line) for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
        for name in ("straight", "resumed")
    ]
    assert [row["step"] for row in logs[1]] == [5, 10, 12]
    for a, b in zip(*logs, strict=True):
        assert all(a[name] == b[name] for name in ("loss", "fvu", "l0", "dead_frac"))
    assert [path.name for path in (tmp_path / "resumed" / "checkpoints").iterdir()] == ["000000012"]

    told = json.loads((tmp_path / "resumed" / "run.json").read_text())
    assert told["paths"] == {"decode": "dense", "top_k": "lax"} and told["layer"] == 3
    other = replace(RECIPE, training=replace(RECIPE.training, seed=5))
    with pytest.raises(UsageError, match="another run \\(other recipe\\)"):
        train(store, 3, other, tmp_path / "resumed")

    # What was trained takes the residual stream's own numbers when it is folded.
    raw = store.rows(0, 3)
    seen = np.asarray(straight.normalisation(raw))
    found, expected = measure(straight.folded, [raw]), measure(straight.sae, [seen])
    np.testing.assert_allclose([found.fvu, found.l0], [expected.fvu, expected.l0], rtol=1e-4)


def test_over_a_mesh(write_store, tmp_path):
    store = write_store()
    alone = train(store, 1, RECIPE, tmp_path / "alone", paths=PATHS)
    spread = train(store, 1, RECIPE, tmp_path / "spread", mesh=parse_mesh("data=2,model=4"))
    np.testing.assert_allclose(spread.sae.w_dec_md, alone.sae.w_dec_md, atol=1e-4)


def test_refuses(write_store, tmp_path):
    store = write_store()
    with pytest.raises(UsageError, match="layers 1, 3, but not 0"):
        train(store, 0, RECIPE, tmp_path / "run")
    with pytest.raises(UsageError, match="9 wide, but the residual stream 8"):
        train(store, 1, replace(RECIPE, sae=replace(RECIPE.sae, width=9)), tmp_path / "run")
    with pytest.raises(UsageError, match="holds no autoencoder"):
        load_sae(tmp_path)
    (tmp_path / "run.json").write_text('{"schema": "sgpa-jax/sae/2"}')
    with pytest.raises(UsageError, match="sae/2"):
        load_sae(tmp_path)
