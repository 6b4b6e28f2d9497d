"""Qwen2's decoder on embeddings, with the attention mask and the positions as arguments.

Upstream: transformers `Qwen2Model` (5.23). The cache is a plain pytree passed in and out. Attention is given as a mask
rather than assumed causal, so that several questions or coalitions may share one pass over the tokens before them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from sgpa_jax.models.config import only
from sgpa_jax.models.layers import Embedding, Linear, RMSNorm, attention, rotate
from sgpa_jax.models.order import Order


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


class KVCache(NamedTuple):
    """Keys and values of every layer, `[L, B, U, G, D]` for U slots and G key heads."""

    keys: Float[Array, "L B U G D"]
    values: Float[Array, "L B U G D"]


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
            x, _, _ = layer(x, order.positions_bt, order.mask_btu)
            x = x if edit is None else edit(i, x)
        return self.norm(x)

    def prefill(
        self, x: Float[Array, "B T D"], order: Order, last_b: Int[Array, " B"], n_slots: int
    ) -> tuple[Float[Array, "B T D"], KVCache]:
        """Like calling, and return a cache with room for `n_slots` positions, the first T of them filled.

        `last_b`, the index of each row's last token, matters only to decoders whose state is where a row ends.
        """
        keys, values = [], []
        for layer in self.layers:
            x, key, value = layer(x, order.positions_bt, order.mask_btu)
            room = ((0, 0), (0, n_slots - key.shape[1]), (0, 0), (0, 0))
            keys.append(jnp.pad(key, room))
            values.append(jnp.pad(value, room))
        return self.norm(x), KVCache(jnp.stack(keys), jnp.stack(values))

    def step(
        self,
        x: Float[Array, "B 1 D"],
        positions_b1: Int[Array, "B 1"],
        mask_b1u: Bool[Array, "B 1 U"],
        cache: KVCache,
        slot: Int[Array, ""],
    ) -> tuple[Float[Array, "B 1 D"], KVCache]:
        """Run one position a row, written to `slot` of the cache; `mask_b1u` must let it see itself there."""
        keys, values = [], []
        for i, layer in enumerate(self.layers):
            x, key, value = layer(x, positions_b1, mask_b1u, (cache.keys[i], cache.values[i], slot))
            keys.append(key)
            values.append(value)
        return self.norm(x), KVCache(jnp.stack(keys), jnp.stack(values))

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
        self,
        x: Float[Array, "B T D"],
        positions_bt: Int[Array, "B T"],
        mask_btu: Bool[Array, "B T U"],
        cache: tuple[Array, Array, Array] | None = None,
    ) -> tuple[Float[Array, "B T D"], Float[Array, "B U G D"], Float[Array, "B U G D"]]:
        """Return the new residual stream and the keys and values attended to (the cache's with ours written in)."""
        config = self.config
        y = self.attention_norm(x)
        query = self.query(y).reshape(*y.shape[:2], config.n_heads, config.head_width)
        key = self.key(y).reshape(*y.shape[:2], config.n_kv_heads, config.head_width)
        value = self.value(y).reshape(*y.shape[:2], config.n_kv_heads, config.head_width)
        query, key = rotate(query, positions_bt, config.rope_theta), rotate(key, positions_bt, config.rope_theta)
        if cache is not None:
            old_keys, old_values, slot = cache
            key = jax.lax.dynamic_update_slice_in_dim(old_keys, key, slot, axis=1)
            value = jax.lax.dynamic_update_slice_in_dim(old_values, value, slot, axis=1)
        x = x + self.out(attention(query, key, value, mask_btu))
        y = self.ffn_norm(x)
        return x + self.down(jax.nn.silu(self.gate(y)) * self.up(y)), key, value
