"""LFM2's gated short convolution over tokens that do not stand in a row, but point to those before them.

    out[t] = gate[t] * (kernel[0] * inputs[taps[t, 0]] + ... + kernel[K-1] * inputs[taps[t, K-1]]),   zeros for tap -1.

`xla` gathers the inputs once a tap. `pallas`, for TPU, reads them once and picks rows on the chip by a product with
zeros and ones, which is exact.
Axes: `B` rows, `U` inputs, `T` outputs, `K` taps, `D` width.
"""

import functools
from typing import Literal

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float, Int


def gated_short_conv(
    inputs_bud: Float[Array, "B U D"],
    gate_btd: Float[Array, "B T D"],
    kernel_kd: Float[Array, "K D"],
    taps_btk: Int[Array, "B T K"],
    *,
    impl: Literal["xla", "pallas"] = "xla",
    interpret: bool = False,
) -> Float[Array, "B T D"]:
    """Convolve along the pointers, summing in float32, and gate, in the dtype of `gate_btd`.

    All inputs have to be finite, those that nobody points to as well. `pallas` has no gradient, and with `interpret`
    runs anywhere, slowly.

    Raises:
        ValueError: `impl` is neither.
    """
    if impl == "xla":
        return _gathered(inputs_bud, gate_btd, kernel_kd, taps_btk)
    if impl == "pallas":
        return _on_tpu(inputs_bud, gate_btd, kernel_kd, taps_btk, interpret=interpret)
    raise ValueError(f"impl is {impl!r}: expected 'xla' or 'pallas'")


def _gathered(inputs_bud: Array, gate_btd: Array, kernel_kd: Array, taps_btk: Array) -> Array:
    mixed = jnp.zeros(gate_btd.shape, jnp.float32)
    for k in range(kernel_kd.shape[0]):
        index_bt1 = taps_btk[:, :, k : k + 1]
        found_btd = jnp.take_along_axis(inputs_bud, jnp.maximum(index_bt1, 0), axis=1).astype(jnp.float32)
        mixed = mixed + jnp.where(index_bt1 >= 0, found_btd, 0.0) * kernel_kd[k].astype(jnp.float32)[None, None]
    return gate_btd * mixed.astype(gate_btd.dtype)


def _on_tpu(inputs_bud: Array, gate_btd: Array, kernel_kd: Array, taps_btk: Array, *, interpret: bool) -> Array:
    (n_batch, n_inputs, width), n_outputs, n_taps = inputs_bud.shape, gate_btd.shape[1], kernel_kd.shape[0]
    # All inputs of a row are at hand at once, so it is their width that is cut.
    rows, lanes = min(256, -(-n_outputs // 16) * 16), next((n for n in (512, 256, 128) if width % n == 0), width)
    grid = (n_batch, width // lanes, pl.cdiv(n_outputs, rows))
    item = gate_btd.dtype.itemsize
    return pl.pallas_call(
        functools.partial(_kernel, n_taps=n_taps),
        grid=grid,
        in_specs=[
            pl.BlockSpec((1, rows, n_taps), lambda b, d, i: (b, i, 0)),
            pl.BlockSpec((1, n_inputs, lanes), lambda b, d, i: (b, 0, d)),
            pl.BlockSpec((1, rows, lanes), lambda b, d, i: (b, i, d)),
            pl.BlockSpec((n_taps, lanes), lambda b, d, i: (0, d)),
        ],
        out_specs=pl.BlockSpec((1, rows, lanes), lambda b, d, i: (b, i, d)),
        out_shape=jax.ShapeDtypeStruct(gate_btd.shape, gate_btd.dtype),
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "parallel", "parallel")),
        cost_estimate=pl.CostEstimate(
            flops=2 * n_taps * n_batch * n_outputs * n_inputs * width,
            transcendentals=0,
            bytes_accessed=item * (inputs_bud.size + 2 * gate_btd.size) + 4 * grid[1] * taps_btk.size,
        ),
        interpret=interpret,
        name="gated_short_conv",
    )(taps_btk.astype(jnp.int32), inputs_bud, gate_btd, kernel_kd.astype(jnp.float32))


def _kernel(taps_ref, inputs_ref, gate_ref, kernel_ref, out_ref, *, n_taps: int):
    """A tile of outputs and of the width; a tap of -1 equals no column, so its row of the product is zero."""
    inputs, gate = inputs_ref[0], gate_ref[0]
    columns = jax.lax.broadcasted_iota(jnp.int32, (gate.shape[0], inputs.shape[0]), 1)
    mixed = jnp.zeros(gate.shape, jnp.float32)
    for k in range(n_taps):
        chosen = (columns == taps_ref[0, :, k : k + 1]).astype(inputs.dtype)
        # A product with ones is exact where no digit of the other side is cut off.
        exact = jax.lax.Precision.HIGHEST if inputs.dtype == jnp.float32 else None
        found = jnp.dot(chosen, inputs, precision=exact, preferred_element_type=jnp.float32)
        mixed += found * kernel_ref[k : k + 1]
    rounded = mixed.astype(gate.dtype).astype(jnp.float32)
    out_ref[0] = (gate.astype(jnp.float32) * rounded).astype(gate.dtype)
