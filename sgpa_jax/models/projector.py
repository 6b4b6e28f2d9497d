"""From an audio encoder to the decoder's width: one linear layer, or two with a GELU between them.

Upstream: Qwen2-Audio's `multi_modal_projector` (one layer), LFM2-Audio's `audio_adapter` (a LayerNorm and two layers),
Audio Flamingo 3's and Voxtral's `multi_modal_projector` (two layers).
"""

from dataclasses import dataclass

from flax import nnx
from jaxtyping import Array, Float

from sgpa_jax.models.layers import LayerNorm, Linear, gelu


@dataclass(frozen=True, kw_only=True)
class ProjectorConfig:
    """Widths and parts; `hidden_width` is None for a single layer."""

    n_in: int
    n_out: int
    hidden_width: int | None = None
    norm: bool = False
    bias: bool = True


class Projector(nnx.Module):
    """Audio embeddings for the decoder."""

    def __init__(self, config: ProjectorConfig, *, rngs: nnx.Rngs):
        hidden = config.hidden_width
        self.norm = LayerNorm(config.n_in) if config.norm else None
        self.first = Linear(config.n_in, hidden or config.n_out, bias=config.bias, rngs=rngs)
        self.second = Linear(hidden, config.n_out, bias=config.bias, rngs=rngs) if hidden else None

    def __call__(self, x: Float[Array, "B A E"]) -> Float[Array, "B A D"]:
        """Project every position."""
        x = self.first(x if self.norm is None else self.norm(x))
        return x if self.second is None else self.second(gelu(x))
