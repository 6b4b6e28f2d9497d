"""A decoder as the coalition engines take it: functions of arrays, so that anybody's will do.

A layer is `layer(params, x_btd, order) -> (x_bwd, written)`; see `TokenOrder` for what it may ask of its order. What it
writes (keys and values, or a convolution's inputs) is handed back to it through the order of the tokens behind.
Consecutive layers of one kind form a run, whose parameters are stacked and scanned over: one body to compile.
"""

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from sgpa_jax.models.lfm2 import Lfm2
from sgpa_jax.models.order import TokenOrder
from sgpa_jax.models.qwen2 import Qwen2

Layer = Callable[[Any, Array, TokenOrder], tuple[Array, Any]]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Decoder:
    """A pytree of parameters with the functions that use them; the functions are hashable, as jit wants them.

    Attributes:
        layers: the function of each run of alike layers.
        params: the parameters of each run, with a leading axis over its layers.
        norm: what stands between the last layer and the head, `norm(norm_params, x)`.
        norm_params: its parameters.
        table_vd: the head, a row for every token of the vocabulary.
        n_before: how many tokens back its convolutions look; 0 without any.
    """

    layers: tuple[Layer, ...] = field(metadata={"static": True})
    params: tuple[Any, ...]
    norm: Callable[[Any, Array], Array] = field(metadata={"static": True})
    norm_params: Any
    table_vd: Float[Array, "V D"]
    n_before: int = field(default=0, metadata={"static": True})

    @property
    def n_layers(self) -> int:
        """Layers of all runs."""
        return sum(n_layers_of(params) for params in self.params)


def decoder_of(network: Qwen2 | Lfm2) -> Decoder:
    """Take one of our decoders apart; its layers' parameters are copied into stacks.

    The stacks take as much memory as the layers, beside these: drop the network where it is not needed any more.
    """
    split = [nnx.split(layer) for layer in network.layers]
    alike = [list(run) for _, run in itertools.groupby(split, key=lambda layer: _shapes(layer[1]))]
    graphdef, norm_params = nnx.split(network.norm)
    head = network.embedding if network.head is None else network.head
    return Decoder(
        tuple(_Module(run[0][0]) for run in alike),
        tuple(jax.tree.map(lambda *leaves: jnp.stack(leaves), *(state for _, state in run)) for run in alike),
        _Module(graphdef),
        norm_params,
        head.table[...],
        network.config.n_before,
    )


def fold_layers(
    decoder: Decoder, step: Callable[[Layer, Any, Any], Any], carry: Any, *, n_layers: int | None = None
) -> Any:
    """Fold the first `n_layers` layers, by default all: `carry = step(layer, params, carry)` for one after another."""
    left = decoder.n_layers if n_layers is None else n_layers
    for layer, params in zip(decoder.layers, decoder.params, strict=True):
        n = min(left, n_layers_of(params))
        carry = jax.lax.fori_loop(0, n, functools.partial(_fold_one, step, layer, params), carry)
        left -= n
    return carry


def layer_at(decoder: Decoder, i: int) -> tuple[Layer, Any]:
    """Return layer i, counted from 0 over all runs, and its parameters."""
    for layer, params in zip(decoder.layers, decoder.params, strict=True):
        if i < n_layers_of(params):
            return layer, _at(params, i)
        i -= n_layers_of(params)
    raise IndexError(f"the decoder has {decoder.n_layers} layers")


@dataclass(frozen=True)
class _Module:
    """A module as a function of its parameters."""

    graphdef: nnx.GraphDef

    def __call__(self, params: nnx.State, *inputs: Any) -> Any:
        return nnx.merge(self.graphdef, params)(*inputs)


def n_layers_of(params: Any) -> int:
    """Layers of a run."""
    return jax.tree.leaves(params)[0].shape[0]


def _fold_one(step: Callable[[Layer, Any, Any], Any], layer: Layer, params: Any, i: Array, carry: Any) -> Any:
    return step(layer, _at(params, i), carry)


def _at(params: Any, i: int | Array) -> Any:
    # Picked inside of the loop: a slice of the stack would be a copy of nearly all weights.
    return jax.tree.map(lambda leaf: jax.lax.dynamic_index_in_dim(leaf, i, keepdims=False), params)


def _shapes(state: nnx.State) -> list[tuple[Any, tuple[int, ...]]]:
    return [(path, leaf.get_value().shape) for path, leaf in nnx.to_flat_state(state)]
