"""`tree_attention` against the definition, on trees and on integers that are none; and the TPU kernel's lowering."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sgpa_kernels import tree_attention, tree_attention_reference

ROUNDING = {jnp.float32: 2e-6, jnp.bfloat16: 2e-2}


def attend(impl: Any, *arrays: jax.Array) -> jax.Array:
    return tree_attention(*arrays[:8], impl=impl, interpret=impl == "pallas")


def tree(n_levels: int, run: int) -> list[tuple[int, int, int]]:
    """First leaf, last leaf and place of the tokens of a binary tree, `run` tokens a node, depth first."""
    n_leaves, tokens = 2**n_levels, []
    for leaf in range(n_leaves):
        for level in range(n_levels + 1):
            span = n_leaves >> level
            if leaf % span == 0:
                tokens += [(leaf, leaf + span, level * run + k) for k in range(run)]
    return tokens


def given(ints_n3: Any, n_path: int, heads: tuple[int, int, int], dtype: Any, n_rows: int = 2) -> tuple[Any, ...]:
    """Keys are all tokens; queries are those behind the first `n_path`."""
    n_heads, n_key_heads, width = heads
    rng, ints_bn3 = np.random.default_rng(0), np.stack([ints_n3] * n_rows).astype(np.int32)
    # Rows differ, and each is padded with tokens of no leaf.
    ints_bn3[1:, -3:] = 0
    n_keys = ints_bn3.shape[1]
    query, key, value = (
        jnp.asarray(rng.standard_normal(shape), dtype)
        for shape in (
            (n_rows, n_keys - n_path, n_heads, width),
            (n_rows, n_keys, n_key_heads, width),
            (n_rows, n_keys, n_key_heads, width),
        )
    )
    first, last, place = (jnp.asarray(ints_bn3[:, :, column]) for column in range(3))
    return query, key, value, first[:, n_path:], place[:, n_path:], first, last, place


def read(found_btw, query_first_bt, query_place_bt, key_first_bu, key_last_bu, key_place_bu):
    """What somebody may read: the rest has to be finite alone."""
    first, place = (np.asarray(a)[:, :, None] for a in (query_first_bt, query_place_bt))
    keys = [np.asarray(a)[:, None] for a in (key_first_bu, key_last_bu, key_place_bu)]
    sees_bt = np.any((keys[0] <= first) & (first < keys[1]) & (keys[2] <= place), axis=2)
    assert np.isfinite(np.asarray(found_btw, np.float32)).all()
    return np.asarray(found_btw, np.float64) * sees_bt[..., None]


@pytest.mark.parametrize(
    ("heads", "dtype"), [((2, 2, 128), jnp.float32), ((8, 2, 64), jnp.bfloat16), ((3, 1, 40), jnp.float32)]
)
@pytest.mark.parametrize("impl", ["xla", "pallas"])
def test_equals_the_definition(impl, heads, dtype):
    arrays = given(tree(3, 5)[:-2], 7, heads, dtype)
    found_btw = attend(impl, *arrays)
    assert found_btw.dtype == dtype
    expected_btw = tree_attention_reference(*arrays)
    np.testing.assert_allclose(read(found_btw, *arrays[3:]), expected_btw, atol=ROUNDING[dtype])


def test_goes_over_many_tiles_and_skips_some():
    ints_n3 = np.array(tree(6, 4))[:-9]
    assert len(ints_n3) == 499
    arrays = given(ints_n3, 24, (2, 1, 64), jnp.float32)
    expected_btw = tree_attention_reference(*arrays)
    dense_btw, flash_btw = attend("xla", *arrays), attend("pallas", *arrays)
    np.testing.assert_allclose(read(dense_btw, *arrays[3:]), expected_btw, atol=2e-6)
    np.testing.assert_allclose(read(flash_btw, *arrays[3:]), expected_btw, atol=2e-6)
    # A tile that no query sees may hold anything: it is not looked at.
    key, value, last = (np.array(arrays[i]) for i in (1, 2, 6))
    last[:, 128:256] = 0
    hidden = (*arrays[:6], jnp.asarray(last), arrays[7])
    calm_btw = attend("pallas", *hidden)
    key[:, 128:256], value[:, 128:256] = np.nan, np.inf
    wild_btw = attend("pallas", arrays[0], jnp.asarray(key), jnp.asarray(value), *hidden[3:])
    np.testing.assert_array_equal(wild_btw, calm_btw)


@pytest.mark.parametrize("impl", ["xla", "pallas"])
def test_equals_the_definition_on_any_integers(impl):
    ints_n3 = np.random.default_rng(3).integers(0, 9, (150, 3))
    arrays = given(ints_n3, 11, (2, 2, 32), jnp.float32)
    found_btw = jax.jit(partial(attend, impl))(*arrays)
    np.testing.assert_allclose(read(found_btw, *arrays[3:]), tree_attention_reference(*arrays), atol=2e-6)


def test_what_the_library_is_asked_for(monkeypatch):
    # The same call of jax's own attention, without cuDNN behind it.
    theirs = jax.nn.dot_product_attention
    monkeypatch.setattr(jax.nn, "dot_product_attention", lambda *a, implementation, **b: theirs(*a, **b))
    arrays = given(tree(3, 5)[:-2], 7, (8, 2, 64), jnp.float32)
    found_btw = attend("cudnn", *arrays)
    np.testing.assert_allclose(read(found_btw, *arrays[3:]), tree_attention_reference(*arrays), atol=2e-6)


@pytest.mark.parametrize("impl", ["xla", "pallas"])
@pytest.mark.parametrize("heads", [(32, 32, 128), (32, 8, 64), (28, 4, 128)])
def test_lowers_for_tpu(impl, heads):
    n_heads, n_key_heads, width = heads
    ints = [jax.ShapeDtypeStruct((3, n), jnp.int32) for n in (300, 300, 421, 421, 421)]
    shapes = (3, 300, n_heads, width), (3, 421, n_key_heads, width), (3, 421, n_key_heads, width)
    floats = [jax.ShapeDtypeStruct(shape, jnp.bfloat16) for shape in shapes]
    lower = jax.export.export(jax.jit(partial(tree_attention, impl=impl)), platforms=["tpu"])
    text = lower(*floats, *ints).mlir_module()
    assert ("tpu_custom_call" in text) == (impl == "pallas")


def test_refuses_an_unknown_impl():
    arrays = given(tree(1, 2), 1, (1, 1, 8), jnp.float32)
    with pytest.raises(ValueError, match="'xla', 'pallas' or 'cudnn'"):
        attend("triton", *arrays)
