"""`top_k` against a stable sort: every way the same, ties, signs of zero and infinities included."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from sgpa_kernels.topk import IMPLS, top_k, top_k_mask


def expected(values_nm, k: int) -> np.ndarray:
    """Places of the k largest, the first of equal ones, in their order."""
    values = np.asarray(values_nm, np.float64)
    return np.sort(np.argsort(-values, axis=1, kind="stable")[:, :k], axis=1)


def rows(n_columns: int) -> jax.Array:
    """Normal values; ties and zeros of either sign; nothing but ties; infinities."""
    rng = np.random.default_rng(n_columns)
    normal, ties, infinite = rng.standard_normal((3, 3, n_columns)).astype(np.float32)
    ties = np.round(ties)
    ties[ties == 0] *= rng.choice([-1.0, 1.0], (ties == 0).sum())
    infinite[rng.uniform(size=infinite.shape) < 0.4] = -np.inf
    infinite[0, 1:] = -np.inf
    infinite[1, ::3] = np.inf
    return jnp.asarray(np.concatenate([normal, ties, np.full((1, n_columns), -2.5, np.float32), infinite]))


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize(("n_columns", "k", "dtype"), [(301, 7, "float32"), (1000, 30, "bfloat16"), (5, 5, "float32")])
def test_the_k_largest_in_the_order_of_their_places(impl, n_columns, k, dtype):
    values_nm = rows(n_columns).astype(dtype)
    want_nk = expected(values_nm, k)
    found_nk, index_nk = jax.jit(partial(top_k, k=k, impl=impl))(values_nm)
    assert index_nk.dtype == jnp.int32 and found_nk.dtype == values_nm.dtype
    np.testing.assert_array_equal(index_nk, want_nk)
    np.testing.assert_array_equal(found_nk, np.take_along_axis(np.asarray(values_nm), want_nk, axis=1))
    mask_nm = jax.jit(partial(top_k_mask, k=k, impl=impl))(values_nm)
    want_nm = np.zeros(values_nm.shape, bool)
    np.put_along_axis(want_nm, want_nk, True, axis=1)
    np.testing.assert_array_equal(mask_nm, want_nm)


@pytest.mark.parametrize("impl", IMPLS)
def test_batches_map(impl):
    values_bnm = jnp.stack([rows(200), -rows(200)])
    _, found = jax.vmap(partial(top_k, k=9, impl=impl))(values_bnm)
    np.testing.assert_array_equal(found, [expected(values_nm, 9) for values_nm in values_bnm])


def test_bisection_over_a_mesh_moves_no_rows():
    mesh = Mesh(np.array(jax.devices()).reshape(2, 4), ("data", "model"))
    values_nm = rows(512)[:8]
    cut_nm = jax.device_put(values_nm, NamedSharding(mesh, PartitionSpec("data", "model")))
    compiled = jax.jit(partial(top_k_mask, k=20, impl="bisect")).lower(cut_nm).compile()
    text = compiled.as_text() or ""
    assert "all-gather" not in text and "all-to-all" not in text and "all-reduce" in text
    np.testing.assert_array_equal(compiled(cut_nm), top_k_mask(values_nm, 20))


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_bisection_lowers_for_accelerators_without_a_sort(platform):
    values_nm = jax.ShapeDtypeStruct((4096, 32768), jnp.float32)

    def operations(impl) -> set[str]:
        lower = jax.export.export(jax.jit(partial(top_k, k=250, impl=impl)), platforms=[platform])
        return set(re.findall(r"(?:stablehlo|chlo|mhlo)\.\w+", lower(values_nm).mlir_module()))

    assert operations("bisect").isdisjoint({"stablehlo.sort", "chlo.top_k", "stablehlo.custom_call"})
    assert operations("lax") & {"stablehlo.sort", "chlo.top_k"}


@pytest.mark.parametrize(("k", "impl", "told"), [(0, "lax", "k is 0"), (6, "bisect", "1 to 5"), (2, "quick", "'lax'")])
def test_refuses(k, impl, told):
    for ours in (top_k, top_k_mask):
        with pytest.raises(ValueError, match=told):
            ours(rows(5), k, impl=impl)
