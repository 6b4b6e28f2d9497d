"""Qwen2's decoder on embeddings, with the attention mask and the positions as arguments.

Upstream: transformers `Qwen2Model` (5.23). Who may look at whom is given rather than assumed
causal, so that several questions or coalitions may share one pass over the tokens before them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
from flax import nnx
from jaxtyping import Array, Float

from sgpa_jax.models.config import only
from sgpa_jax.models.layers import Embedding, Linear, RMSNorm, rotate
from sgpa_jax.models.order import Order, TokenOrder


@dataclass(frozen=True, kw_only=True)
class Qwen2Config:
    """A Qwen2 decoder: RMSNorm, rotary positions, grouped-query attention with q/k/v biases, SwiGLU."""

    vocab_size: int
    width: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_width: int
    ffn_width: int
    rope_theta: float
    norm_eps: float
    tied_head: bool
    qkv_bias: bool = True

    @property
    def n_before(self) -> int:
        """How many tokens back convolutions look: there are none."""
        return 0

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> "Qwen2Config":
        """Read the `text_config` of a checkpoint with a Qwen2 decoder, in both spellings of the rotary base."""
        only(config, "text_config.hidden_act", "hidden_act", ("silu",), default="silu")
        only(config, "text_config.use_sliding_window", "use_sliding_window", (False,), default=False)
        only(config, "text_config.use_mrope", "use_mrope", (False,), default=False)
        rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
        only(rope, "text_config.rope_parameters.rope_type", "rope_type", ("default",), default="default")
        width, n_heads = config.get("hidden_size", 4096), config.get("num_attention_heads", 32)
        return cls(
            vocab_size=config.get("vocab_size", 151936),
            width=width,
            n_layers=config.get("num_hidden_layers", 32),
            n_heads=n_heads,
            n_kv_heads=config.get("num_key_value_heads") or n_heads,
            head_width=config.get("head_dim") or width // n_heads,
            ffn_width=config.get("intermediate_size", 22016),
            rope_theta=float(rope.get("rope_theta") or config.get("rope_theta") or 10000.0),
            norm_eps=config.get("rms_norm_eps", 1e-6),
            tied_head=config.get("tie_word_embeddings", False),
        )


class Qwen2(nnx.Module):
    """Embeddings in, next-token logits out."""

    def __init__(self, config: Qwen2Config, *, rngs: nnx.Rngs):
        self.config = config
        self.embedding = Embedding(config.vocab_size, config.width, rngs=rngs)
        self.layers = nnx.List([Qwen2Layer(config, rngs=rngs) for _ in range(config.n_layers)])
        self.norm = RMSNorm(config.width, config.norm_eps)
        self.head = None if config.tied_head else Embedding(config.vocab_size, config.width, rngs=rngs)

    def __call__(
        self, x: Float[Array, "B T D"], order: Order, *, edit: Callable[[int, Array], Array] | None = None
    ) -> Float[Array, "B T D"]:
        """Return the final, normed hidden states.

        `edit(i, residual)` is called with the residual stream `[B, T, D]` after every layer i, counted from 0, and
        returns the one that goes on: a pure tap that reads or replaces it.
        """
        for i, layer in enumerate(self.layers):
            x, _ = layer(x, order)
            x = x if edit is None else edit(i, x)
        return self.norm(x)

    def logits(self, hidden: Float[Array, "*batch D"]) -> Float[Array, "*batch V"]:
        """Next-token logits in float32."""
        return (self.embedding if self.head is None else self.head).logits(hidden)


class Qwen2Layer(nnx.Module):
    """Attention and SwiGLU, each behind an RMSNorm, added to the residual stream."""

    def __init__(self, config: Qwen2Config, *, rngs: nnx.Rngs):
        width, head_width = config.width, config.head_width
        self.config = config
        self.attention_norm = RMSNorm(width, config.norm_eps)
        self.query = Linear(width, config.n_heads * head_width, bias=config.qkv_bias, rngs=rngs)
        self.key = Linear(width, config.n_kv_heads * head_width, bias=config.qkv_bias, rngs=rngs)
        self.value = Linear(width, config.n_kv_heads * head_width, bias=config.qkv_bias, rngs=rngs)
        self.out = Linear(config.n_heads * head_width, width, bias=False, rngs=rngs)
        self.ffn_norm = RMSNorm(width, config.norm_eps)
        self.gate = Linear(width, config.ffn_width, bias=False, rngs=rngs)
        self.up = Linear(width, config.ffn_width, bias=False, rngs=rngs)
        self.down = Linear(config.ffn_width, width, bias=False, rngs=rngs)

    def __call__(
        self, x: Float[Array, "B T D"], order: TokenOrder
    ) -> tuple[Float[Array, "B W D"], tuple[Float[Array, "B T G E"], Float[Array, "B T G E"]]]:
        """Return the residual stream of the order's wanted rows, and the keys and values of all."""
        theta, positions = self.config.rope_theta, order.positions_bt
        y = self.attention_norm(x)
        key, value = rotate(self._heads(self.key(y)), positions, theta), self._heads(self.value(y))
        query = rotate(self._heads(self.query(order.wanted(y))), order.wanted(positions), theta)
        x = order.wanted(x) + self.out(order.attend(query, key, value))
        y = self.ffn_norm(x)
        return x + self.down(jax.nn.silu(self.gate(y)) * self.up(y)), (key, value)

    def _heads(self, x: Float[Array, "B T E"]) -> Float[Array, "B T H D"]:
        return x.reshape(*x.shape[:2], -1, self.config.head_width)
