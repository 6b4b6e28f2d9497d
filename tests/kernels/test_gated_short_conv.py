"""`gated_short_conv` against the definition, and along a row against an ordinary convolution; the kernel's lowering."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sgpa_kernels import gated_short_conv, gated_short_conv_reference


def convolve(impl: Any, *arrays: Any) -> jax.Array:
    inputs_bud, gate_btd, kernel_kd, taps_btk = arrays
    return gated_short_conv(inputs_bud, gate_btd, kernel_kd, taps_btk, impl=impl, interpret=impl == "pallas")


def given(shape: tuple[int, int, int, int], dtype: Any = jnp.float32) -> tuple[jax.Array, ...]:
    n_inputs, n_outputs, width, n_taps = shape
    rng = np.random.default_rng(n_inputs)
    inputs_bud, gate_btd = rng.standard_normal((2, n_inputs, width)), rng.standard_normal((2, n_outputs, width))
    taps_btk = rng.integers(-1, n_inputs, (2, n_outputs, n_taps))
    taps_btk[:, 0], taps_btk[:, -1] = -1, n_inputs - 1
    kernel_kd = jnp.asarray(rng.standard_normal((n_taps, width)), jnp.float32)
    return jnp.asarray(inputs_bud, dtype), jnp.asarray(gate_btd, dtype), kernel_kd, jnp.asarray(taps_btk, jnp.int32)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((9, 5, 40, 3), jnp.float32), ((301, 270, 128, 3), jnp.bfloat16), ((33, 33, 640, 4), jnp.float32)],
)
@pytest.mark.parametrize("impl", ["xla", "pallas"])
def test_equals_the_definition(impl, shape, dtype):
    arrays = given(shape, dtype)
    found_btd = convolve(impl, *arrays)
    assert found_btd.dtype == dtype
    expected_btd = gated_short_conv_reference(*arrays)
    # Two roundings in bfloat16: of the sum and of what the gate makes of it.
    relative = 1e-6 if dtype == jnp.float32 else 2**-7
    np.testing.assert_allclose(np.asarray(found_btd, np.float64), expected_btd, rtol=relative, atol=1e-5)
    assert not np.asarray(found_btd, np.float32)[:, 0].any()


@pytest.mark.parametrize("impl", ["xla", "pallas"])
def test_is_a_causal_convolution_along_a_row(impl):
    inputs_bud, gate_btd, kernel_kd, _ = given((20, 20, 16, 3))
    taps_btk = jnp.broadcast_to(jnp.arange(20)[:, None] - jnp.array([[2, 1, 0]]), (2, 20, 3))
    found_btd = convolve(impl, inputs_bud, gate_btd, kernel_kd, jnp.maximum(taps_btk, -1))
    for b, d in np.ndindex(2, 16):
        convolved_t = np.convolve(inputs_bud[b, :, d], kernel_kd[::-1, d])[:20]
        np.testing.assert_allclose(found_btd[b, :, d], gate_btd[b, :, d] * convolved_t, atol=1e-5)


def test_picks_rows_with_all_their_digits():
    # A TPU multiplies float32 in fewer digits unless it is asked not to; a CPU never does.
    arrays = given((9, 5, 40, 3))
    assert "HIGHEST" in str(jax.make_jaxpr(partial(convolve, "pallas"))(*arrays))


def test_gradient():
    arrays = given((9, 5, 40, 3))
    gradient_kd = jax.grad(lambda kernel_kd: convolve("xla", *arrays[:2], kernel_kd, arrays[3]).sum())(arrays[2])
    one_hot_kd = jnp.zeros_like(arrays[2]).at[1, 7].set(1)
    expected = gated_short_conv_reference(arrays[0], arrays[1], one_hot_kd, arrays[3]).sum()
    assert float(gradient_kd[1, 7]) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("impl", ["xla", "pallas"])
@pytest.mark.parametrize("width", [2048, 1024, 40])
def test_lowers_for_tpu(impl, width):
    shapes = (
        ((4, 421, width), jnp.bfloat16),
        ((4, 300, width), jnp.bfloat16),
        ((3, width), jnp.bfloat16),
        ((4, 300, 3), jnp.int32),
    )
    lower = jax.export.export(jax.jit(partial(gated_short_conv, impl=impl)), platforms=["tpu"])
    text = lower(*(jax.ShapeDtypeStruct(*shape) for shape in shapes)).mlir_module()
    assert ("tpu_custom_call" in text) == (impl == "pallas")


def test_refuses_an_unknown_impl():
    with pytest.raises(ValueError, match="'xla' or 'pallas'"):
        convolve("cuda", *given((9, 5, 8, 3)))
