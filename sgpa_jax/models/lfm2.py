"""LFM2's decoder: gated short convolutions in most layers, grouped-query attention in the others.

Upstream: transformers `Lfm2Model` (5.23). A convolution reads the tokens just before, whatever attention may see, so
`Order.before_btk` says which those are: a token that is removed is skipped by the pointers, one that is hidden is a -1.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from sgpa_jax.errors import CheckpointError
from sgpa_jax.models.config import MOST_LAYERS, only, size
from sgpa_jax.models.layers import Embedding, Linear, RMSNorm, rotate
from sgpa_jax.models.order import Order, TokenOrder


@dataclass(frozen=True, kw_only=True)
class Lfm2Config:
    """Sizes, and for every layer whether it attends or convolves; `n_taps` is the convolution's length."""

    vocab_size: int
    width: int
    attends: tuple[bool, ...]
    n_heads: int
    n_kv_heads: int
    head_width: int
    n_taps: int
    ffn_width: int
    rope_theta: float
    norm_eps: float
    tied_head: bool

    @property
    def n_before(self) -> int:
        """How many tokens back convolutions look."""
        return self.n_taps - 1

    @property
    def n_layers(self) -> int:
        """Layers of both kinds."""
        return len(self.attends)

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> "Lfm2Config":
        """Read the `config.json` of an LFM2 checkpoint, or `lfm` of an LFM2-Audio one, old and new spellings.

        Raises:
            CheckpointError: a setting that changes the mathematics and that we do not implement.
        """
        width, n_heads = config.get("hidden_size", 2560), config.get("num_attention_heads", 32)
        rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
        rope_type = "rope_type" if "rope_type" in rope else "type"
        only(config, "lfm.model_type", "model_type", ("lfm2",), default="lfm2")
        only(rope, "lfm.rope_parameters.rope_type", rope_type, ("default",), default="default")
        only(config, "lfm.conv_bias", "conv_bias", (False,), default=False)
        only(config, "lfm.conv_dim", "conv_dim", (width,), default=width)
        only(config, "lfm.conv_dim_out", "conv_dim_out", (width,), default=width)
        only(config, "lfm.block_use_swiglu", "block_use_swiglu", (True,), default=True)
        only(config, "lfm.use_pos_enc", "use_pos_enc", (True,), default=True)
        return cls(
            vocab_size=config.get("vocab_size", 65536),
            width=width,
            attends=_attending_layers(config),
            n_heads=n_heads,
            n_kv_heads=config.get("num_key_value_heads", 8),
            head_width=config.get("head_dim") or width // n_heads,
            n_taps=config.get("conv_L_cache", 3),
            ffn_width=_ffn_width(config),
            rope_theta=float(rope.get("rope_theta") or config.get("rope_theta") or 1e6),
            norm_eps=config.get("norm_eps", 1e-5),
            tied_head=config.get("tie_embedding", config.get("tie_word_embeddings", True)),
        )


class Lfm2(nnx.Module):
    """Embeddings in, next-token logits out."""

    def __init__(self, config: Lfm2Config, *, rngs: nnx.Rngs):
        self.config = config
        self.embedding = Embedding(config.vocab_size, config.width, rngs=rngs)
        self.layers = nnx.List([Lfm2Layer(config, attends=attends, rngs=rngs) for attends in config.attends])
        self.norm = RMSNorm(config.width, config.norm_eps)
        self.head = None if config.tied_head else Embedding(config.vocab_size, config.width, rngs=rngs)

    def __call__(
        self, x: Float[Array, "B T D"], order: Order, *, edit: Callable[[int, Array], Array] | None = None
    ) -> Float[Array, "B T D"]:
        """Return the final, normed hidden states.

        `edit(i, residual)` sees the residual stream after layer i and returns the one that goes on.
        """
        for i, layer in enumerate(self.layers):
            x, _ = layer(x, order)
            x = x if edit is None else edit(i, x)
        return self.norm(x)

    def logits(self, hidden: Float[Array, "*batch D"]) -> Float[Array, "*batch V"]:
        """Next-token logits in float32."""
        return (self.embedding if self.head is None else self.head).logits(hidden)


class Lfm2Layer(nnx.Module):
    """Attention or a short convolution, then SwiGLU, each behind an RMSNorm, added to the residual stream."""

    def __init__(self, config: Lfm2Config, *, attends: bool, rngs: nnx.Rngs):
        width = config.width
        self.operator_norm = RMSNorm(width, config.norm_eps)
        self.attention = Attention(config, rngs=rngs) if attends else None
        self.conv = None if attends else ShortConv(config, rngs=rngs)
        self.ffn_norm = RMSNorm(width, config.norm_eps)
        self.gate = Linear(width, config.ffn_width, bias=False, rngs=rngs)
        self.up = Linear(width, config.ffn_width, bias=False, rngs=rngs)
        self.down = Linear(config.ffn_width, width, bias=False, rngs=rngs)

    @property
    def operator(self) -> "Attention | ShortConv":
        """The part that mixes positions; the checkpoint calls it so as well."""
        operator = self.conv if self.attention is None else self.attention
        assert operator is not None
        return operator

    def __call__(self, x: Float[Array, "B T D"], order: TokenOrder) -> tuple[Float[Array, "B W D"], Any]:
        """Return the residual stream of the order's wanted rows, and what the operator wrote for all."""
        y, written = self.operator(self.operator_norm(x), order)
        x = order.wanted(x) + y
        y = self.ffn_norm(x)
        return x + self.down(jax.nn.silu(self.gate(y)) * self.up(y)), written


class Attention(nnx.Module):
    """Grouped-query attention whose queries and keys are normed per head before they are rotated."""

    def __init__(self, config: Lfm2Config, *, rngs: nnx.Rngs):
        self.config = config
        width, head_width = config.width, config.head_width
        self.query = Linear(width, config.n_heads * head_width, bias=False, rngs=rngs)
        self.key = Linear(width, config.n_kv_heads * head_width, bias=False, rngs=rngs)
        self.value = Linear(width, config.n_kv_heads * head_width, bias=False, rngs=rngs)
        self.query_norm = RMSNorm(head_width, config.norm_eps)
        self.key_norm = RMSNorm(head_width, config.norm_eps)
        self.out = Linear(config.n_heads * head_width, width, bias=False, rngs=rngs)

    def __call__(
        self, x: Float[Array, "B T D"], order: TokenOrder
    ) -> tuple[Float[Array, "B W D"], tuple[Array, Array]]:
        """Attend, and return the keys and values as well."""
        theta, positions = self.config.rope_theta, order.positions_bt
        key, value = self.key_norm(self._heads(self.key(x))), self._heads(self.value(x))
        query = self.query_norm(self._heads(self.query(order.wanted(x))))
        key, query = rotate(key, positions, theta), rotate(query, order.wanted(positions), theta)
        return self.out(order.attend(query, key, value)), (key, value)

    def _heads(self, x: Float[Array, "B T E"]) -> Float[Array, "B T H D"]:
        return x.reshape(*x.shape[:2], -1, self.config.head_width)


class ShortConv(nnx.Module):
    """A depthwise causal convolution between two multiplicative gates.

    Its three input projections are one tensor in the checkpoint, kept apart so that each can be split over devices.
    """

    def __init__(self, config: Lfm2Config, *, rngs: nnx.Rngs):
        width = config.width
        self.input_gate = Linear(width, width, bias=False, rngs=rngs)
        self.output_gate = Linear(width, width, bias=False, rngs=rngs)
        self.content = Linear(width, width, bias=False, rngs=rngs)
        taps = jax.random.normal(rngs.params(), (config.n_taps, width), jnp.float32)
        self.kernel = nnx.Param(taps * config.n_taps**-0.5)
        self.out = Linear(width, width, bias=False, rngs=rngs)

    def __call__(
        self, x: Float[Array, "B T D"], order: TokenOrder
    ) -> tuple[Float[Array, "B W D"], Float[Array, "B T D"]]:
        """Convolve, summing in float32, and return the convolution's inputs as well."""
        inputs = self.input_gate(x) * self.content(x)
        kernel = self.kernel[...].astype(jnp.float32)
        n_before = kernel.shape[0] - 1
        taps = [*(order.earlier(inputs, k) for k in range(n_before, 0, -1)), order.wanted(inputs)]
        terms = [u.astype(jnp.float32) * kernel[k][None, None] for k, u in enumerate(taps)]
        mixed = functools.reduce(jnp.add, terms)
        return self.out(self.output_gate(order.wanted(x)) * mixed.astype(x.dtype)), inputs


def _attending_layers(config: Mapping[str, Any]) -> tuple[bool, ...]:
    """Which layers attend: `layer_types` if it is given, `full_attn_idxs` if not, all of them without either."""
    kinds = config.get("layer_types")
    n_layers = size("lfm.num_hidden_layers", config.get("num_hidden_layers", 32), most=MOST_LAYERS)
    if kinds is None:
        attending = config.get("full_attn_idxs")
        return tuple(attending is None or i in attending for i in range(n_layers))
    if len(kinds) != n_layers or not set(kinds) <= {"conv", "full_attention"}:
        raise CheckpointError(
            f"config.json sets lfm.layer_types to {kinds!r}, but {n_layers} entries of 'conv' and 'full_attention' "
            "were expected"
        )
    return tuple(kind == "full_attention" for kind in kinds)


def _ffn_width(config: Mapping[str, Any]) -> int:
    """Width of the feed-forward: two thirds of the stated one, scaled and rounded up, or just the stated one."""
    width = config.get("block_ff_dim", config.get("intermediate_size", 12288))
    if not config.get("block_auto_adjust_ff_dim", True):
        return width
    width, multiplier = int(2 * width / 3), config.get("block_ffn_dim_multiplier", 1.0)
    if multiplier is None:
        return width
    step = config.get("block_multiple_of", 256)
    return -(-int(multiplier * width) // step) * step
