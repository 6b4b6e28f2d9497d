"""An encoder as the coalition engines take it: its layers stacked, so that one body is compiled and scanned over."""

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from sgpa_jax.models.audio_lm import AudioLM


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class StackedEncoder:
    """A network as far as the decoder, its encoder's layers stacked: they are alike, and one body is compiled."""

    graphdef: nnx.GraphDef = field(metadata={"static": True})
    state: nnx.State
    layer: nnx.GraphDef = field(metadata={"static": True})
    layers: nnx.State

    @classmethod
    def of(cls, network: AudioLM) -> "StackedEncoder":
        """Take a network apart, which is of no use afterwards."""
        left: Any = network
        layers = [nnx.split(layer) for layer in left.encoder.layers]
        left.encoder.layers, left.decoder, left.audio_out = nnx.List([]), None, None
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(state for _, state in layers))
        return cls(*nnx.split(left), layers[0][0], stacked)

    def network(self) -> AudioLM:
        """The network, all layers in one."""
        network: Any = nnx.merge(self.graphdef, self.state)
        network.encoder.layers = nnx.List([_Stack(self.layer, self.layers)])
        return network


class _Stack(nnx.Module):
    """Layers one after another, as one."""

    def __init__(self, layer: nnx.GraphDef, layers: nnx.State) -> None:
        self.layer, self.layers = layer, nnx.data(layers)

    def __call__(self, x: Array, *rest: Array) -> Array:
        def run(x: Array, params: nnx.State) -> tuple[Array, None]:
            return nnx.merge(self.layer, params)(x, *rest), None

        return jax.lax.scan(run, x, self.layers)[0]
