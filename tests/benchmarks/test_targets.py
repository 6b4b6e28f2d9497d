"""What is read in a compiled program: loops as often as they run, collectives, sorts; and the closed formula."""

import importlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

MATRIX = jax.ShapeDtypeStruct((64, 64), jnp.float32)
PRODUCT_FLOPS = 2 * 64**3


@pytest.fixture
def load(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    return importlib.import_module


@pytest.fixture
def found(load):
    targets = load("_targets")
    target = targets.Target("here", "cuda", (2, 4), memory_bytes=1e6, flops_per_s=1e9, bytes_per_s=1e9)
    return lambda function, *given: targets.compiled(target, lambda: jax.jit(function).lower(*given))


def test_counts_a_loop_as_often_as_it_runs(found):
    def step(_, x):
        return jnp.sin(x @ x)

    once = found(lambda x: step(0, x), MATRIX)
    assert once["flops"] == pytest.approx(PRODUCT_FLOPS, rel=0.05)
    many = found(lambda x: jax.lax.fori_loop(0, 7, step, x), MATRIX)
    assert many["flops"] == pytest.approx(7 * PRODUCT_FLOPS, rel=0.05)
    assert 5 * once["bytes_accessed"] < many["bytes_accessed"] < 15 * once["bytes_accessed"]
    nested = found(lambda x: jax.lax.fori_loop(0, 3, lambda _, y: jax.lax.fori_loop(0, 5, step, y), x), MATRIX)
    assert nested["flops"] == pytest.approx(15 * PRODUCT_FLOPS, rel=0.05)
    assert nested["launches"] >= 15
    assert nested["roofline_s"] >= 15 * PRODUCT_FLOPS / 1e9


def test_counts_sorts_and_memory(found):
    sorted_ = found(lambda x: jnp.sort(x, axis=1) + jnp.sort(x, axis=0), MATRIX)
    assert (sorted_["sorts"], sorted_["collectives"], sorted_["fits"]) == (2, "", True)
    assert sorted_["bytes_per_chip"] >= 2 * 4 * 64 * 64
    large = jax.ShapeDtypeStruct((512, 512), jnp.float32)
    assert not found(lambda x: x + 1, large)["fits"]


def test_counts_collectives_and_the_chips_that_they_join(found):
    mesh = Mesh(np.array(jax.devices()).reshape(2, 4), ("data", "model"))
    wide, tall = (
        jax.ShapeDtypeStruct((64, 64), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec(*axes)))
        for axes in ((None, "model"), ("model", None))
    )
    row = jax.ShapeDtypeStruct((2, 64), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec("data")))
    split = found(lambda x, w, v: jnp.tanh(x @ w) @ v, row, wide, tall)
    assert (split["collectives"], split["collective_chips"], split["across_data"]) == ("1 all-reduce", 4, 0)
    summed = found(lambda x: x.sum(axis=0), row)
    assert summed["collectives"] and summed["across_data"] == 1


def test_the_closed_formula_and_the_sizes(load):
    script = load("compile_targets")
    mesh = Mesh(np.array(jax.devices()[:1]).reshape(1, 1), ("data", "model"))
    sizes = {"qwen2-audio-7b": (6.48e9, 0.64e9, 855e12), "lfm2-1.2b": (1.04e9, 0.13e9, 139e12)}
    for name, (n_weights, n_head, flops) in sizes.items():
        decoder = script.abstract_decoder(script.CONFIGS[name], mesh)
        assert sum(leaf.size for leaf in jax.tree.leaves(decoder.params)) == pytest.approx(n_weights, rel=0.01)
        assert decoder.table_vd.size == pytest.approx(n_head, rel=0.05)
        assert script.flops_formula(script.CONFIGS[name], decoder, 10) == pytest.approx(flops, rel=0.005)
