"""`target_log_probs` against the definition: tiles that do not fit, dtypes, gradients, meshes, and the TPU kernel."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from sgpa_kernels import target_log_probs, target_log_probs_reference


def rows(shape: tuple[int, int, int], dtype: Any = jnp.float32) -> tuple[jax.Array, jax.Array, jax.Array]:
    n_rows, width, n_tokens = shape
    rng = np.random.default_rng(n_rows)
    hidden_nd, table_vd = 3 * rng.standard_normal((n_rows, width)), rng.standard_normal((n_tokens, width))
    targets_n = rng.integers(0, n_tokens, n_rows)
    # The corners of the last tiles are where a mistake would hide.
    targets_n[0], targets_n[-1] = 0, n_tokens - 1
    return jnp.asarray(hidden_nd, dtype), jnp.asarray(table_vd, dtype), jnp.asarray(targets_n, jnp.int32)


@pytest.mark.parametrize(
    ("shape", "dtype"), [((1, 8, 5), jnp.float32), ((37, 48, 301), jnp.bfloat16), ((130, 40, 1100), jnp.float32)]
)
@pytest.mark.parametrize("how", [{}, {"tile_logits": 2000}, {"impl": "pallas", "interpret": True}])
def test_equals_the_definition(shape, how, dtype):
    given = rows(shape, dtype)
    found_n = target_log_probs(*given, **how)
    assert found_n.dtype == jnp.float32 and found_n.shape == shape[:1]
    np.testing.assert_allclose(found_n, target_log_probs_reference(*given), rtol=2e-6, atol=2e-5)


@pytest.mark.parametrize("impl", ["xla", "pallas"])
def test_far_logits_stay_finite(impl):
    hidden_nd, table_vd, targets_n = rows((37, 48, 301))
    found_n = target_log_probs(300 * hidden_nd, table_vd, targets_n, impl=impl, interpret=impl == "pallas")
    expected_n = target_log_probs_reference(np.float32(300) * np.asarray(hidden_nd), table_vd, targets_n)
    assert np.isfinite(found_n).all() and expected_n.min() < -5000
    np.testing.assert_allclose(found_n, expected_n, rtol=1e-5, atol=1e-2)


def test_gradients_and_batches():
    hidden_nd, table_vd, targets_n = rows((37, 48, 301))

    def total(tile_logits, hidden_nd, table_vd):
        return target_log_probs(hidden_nd, table_vd, targets_n, tile_logits=tile_logits).sum()

    whole, tiled = (jax.grad(total, argnums=(1, 2))(n, hidden_nd, table_vd) for n in (2**26, 2000))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), whole, tiled)
    probabilities_nv = np.asarray(jax.nn.softmax(hidden_nd @ table_vd.T, axis=1))
    expected_nd = table_vd[targets_n] - probabilities_nv @ table_vd
    np.testing.assert_allclose(whole[0], expected_nd, atol=1e-4)

    batch = jnp.stack([hidden_nd, -hidden_nd])
    found_bn = jax.jit(jax.vmap(lambda h: target_log_probs(h, table_vd, targets_n, tile_logits=2000)))(batch)
    expected = [target_log_probs_reference(h, table_vd, targets_n) for h in batch]
    np.testing.assert_allclose(found_bn, expected, rtol=2e-6, atol=2e-5)


def test_holds_a_tile_of_logits_and_no_copy_of_the_table():
    given = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((4096, 64), (3001, 64))]
    given.append(jax.ShapeDtypeStruct((4096,), jnp.int32))
    compiled = jax.jit(partial(target_log_probs, tile_logits=2**19)).lower(*given).compile()
    memory = compiled.memory_analysis()
    assert memory is not None
    held = memory.temp_size_in_bytes
    assert held < 4 * (2**19 * 2 + 2 * 4096 * 64), f"{held} bytes of temporaries"


def test_a_table_cut_over_a_mesh_stays_where_it_is():
    mesh = Mesh(np.array(jax.devices()[:4]), ("model",))
    hidden_nd, table_vd, targets_n = given = rows((37, 48, 304))
    cut_vd = jax.device_put(table_vd, NamedSharding(mesh, PartitionSpec("model")))
    compiled = jax.jit(partial(target_log_probs, tile_logits=2000)).lower(hidden_nd, cut_vd, targets_n).compile()
    text = compiled.as_text() or ""
    assert "all-gather" not in text and "all-reduce" in text
    everywhere = NamedSharding(mesh, PartitionSpec())
    found_n = compiled(jax.device_put(hidden_nd, everywhere), cut_vd, jax.device_put(targets_n, everywhere))
    np.testing.assert_allclose(found_n, target_log_probs_reference(*given), rtol=2e-6, atol=2e-5)


@pytest.mark.parametrize("impl", ["xla", "pallas"])
@pytest.mark.parametrize("shape", [(32768, 4096, 156032), (1000, 2048, 65536), (7, 40, 301)])
def test_lowers_for_tpu(impl, shape):
    n_rows, width, n_tokens = shape
    hidden_nd = jax.ShapeDtypeStruct((n_rows, width), jnp.bfloat16)
    table_vd = jax.ShapeDtypeStruct((n_tokens, width), jnp.bfloat16)
    targets_n = jax.ShapeDtypeStruct((n_rows,), jnp.int32)
    lower = jax.export.export(jax.jit(partial(target_log_probs, impl=impl)), platforms=["tpu"])
    text = lower(hidden_nd, table_vd, targets_n).mlir_module()
    assert ("tpu_custom_call" in text) == (impl == "pallas")


def test_refuses_an_unknown_impl():
    with pytest.raises(ValueError, match="'xla' or 'pallas'"):
        target_log_probs(*rows((1, 8, 5)), impl="cuda")  # pyright: ignore[reportArgumentType]
