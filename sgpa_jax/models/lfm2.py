"""LFM2's decoder: gated short convolutions in most layers, grouped-query attention in the others.

Upstream: transformers `Lfm2Model` (5.23). A convolution reads the tokens just before, whatever attention may see, so
`Order.before_btk` says which those are: a token that is removed is skipped by the pointers, one that is hidden is a -1.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from sgpa_jax.errors import CheckpointError
from sgpa_jax.models.config import only
from sgpa_jax.models.layers import Embedding, Linear, RMSNorm, attention, rotate
from sgpa_jax.models.order import Order


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


class Lfm2Cache(NamedTuple):
    """What the next token needs: U slots of keys and values per attention layer, K inputs per convolution.

    Attributes:
        keys: `[L, B, U, G, D]` over the attention layers.
        values: the same.
        convs: `[L, B, K, D]` over the convolutions, each row's last K inputs, the latest last.
    """

    keys: Float[Array, "L B U G D"]
    values: Float[Array, "L B U G D"]
    convs: Float[Array, "M B K E"]


class Lfm2(nnx.Module):
    """Embeddings in, next-token logits out."""

    def __init__(self, config: Lfm2Config, *, rngs: nnx.Rngs):
        self.config = config
        self.embedding = Embedding(config.vocab_size, config.width, rngs=rngs)
        self.layers = nnx.List([Lfm2Layer(config, i, rngs=rngs) for i in range(len(config.attends))])
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

    def prefill(
        self, x: Float[Array, "B T D"], order: Order, last_b: Int[Array, " B"], n_slots: int
    ) -> tuple[Float[Array, "B T D"], Lfm2Cache]:
        """Like calling, and return a cache of `n_slots` positions, the first T filled, to go on behind `last_b`."""
        config, n_rows, n_attending = self.config, x.shape[0], sum(self.config.attends)
        keys = jnp.zeros((n_attending, n_rows, n_slots, config.n_kv_heads, config.head_width), x.dtype)
        convs = jnp.zeros((len(config.attends) - n_attending, n_rows, config.n_taps - 1, config.width), x.dtype)
        cache = Lfm2Cache(keys, keys, convs)
        for layer in self.layers:
            x, written = layer(x, order)
            cache = layer.operator.store(cache, written, order, last_b)
        return self.norm(x), cache

    def step(
        self,
        x: Float[Array, "B 1 D"],
        positions_b1: Int[Array, "B 1"],
        mask_b1u: Bool[Array, "B 1 U"],
        cache: Lfm2Cache,
        slot: Int[Array, ""],
    ) -> tuple[Float[Array, "B 1 D"], Lfm2Cache]:
        """Run one position a row, written to `slot` of the cache; `mask_b1u` must let it see itself there."""
        for layer in self.layers:
            x, cache = layer.step(x, Order(positions_b1, mask_b1u), cache, slot)
        return self.norm(x), cache

    def logits(self, hidden: Float[Array, "*batch D"]) -> Float[Array, "*batch V"]:
        """Next-token logits in float32."""
        return (self.embedding if self.head is None else self.head).logits(hidden)


class Lfm2Layer(nnx.Module):
    """Attention or a short convolution, then SwiGLU, each behind an RMSNorm, added to the residual stream."""

    def __init__(self, config: Lfm2Config, index: int, *, rngs: nnx.Rngs):
        width, n_attending = config.width, sum(config.attends[:index])
        attends = config.attends[index]
        self.operator_norm = RMSNorm(width, config.norm_eps)
        self.attention = Attention(config, n_attending, rngs=rngs) if attends else None
        self.conv = None if attends else ShortConv(config, index - n_attending, rngs=rngs)
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

    def __call__(self, x: Float[Array, "B T D"], order: Order) -> tuple[Float[Array, "B T D"], Any]:
        """Return the new residual stream, and what the operator would store."""
        y, written = self.operator(self.operator_norm(x), order)
        return self._feed_forward(x + y), written

    def step(
        self, x: Float[Array, "B 1 D"], order: Order, cache: Lfm2Cache, slot: Int[Array, ""]
    ) -> tuple[Float[Array, "B 1 D"], Lfm2Cache]:
        """Return the new residual stream of one position, and the cache with it."""
        y, cache = self.operator.step(self.operator_norm(x), order, cache, slot)
        return self._feed_forward(x + y), cache

    def _feed_forward(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        y = self.ffn_norm(x)
        return x + self.down(jax.nn.silu(self.gate(y)) * self.up(y))


class Attention(nnx.Module):
    """Grouped-query attention whose queries and keys are normed per head before they are rotated.

    `place` is its index among the attention layers, which its part of the cache has.
    """

    def __init__(self, config: Lfm2Config, place: int, *, rngs: nnx.Rngs):
        self.config, self.place = config, place
        width, head_width = config.width, config.head_width
        self.query = Linear(width, config.n_heads * head_width, bias=False, rngs=rngs)
        self.key = Linear(width, config.n_kv_heads * head_width, bias=False, rngs=rngs)
        self.value = Linear(width, config.n_kv_heads * head_width, bias=False, rngs=rngs)
        self.query_norm = RMSNorm(head_width, config.norm_eps)
        self.key_norm = RMSNorm(head_width, config.norm_eps)
        self.out = Linear(config.n_heads * head_width, width, bias=False, rngs=rngs)

    def __call__(self, x: Float[Array, "B T D"], order: Order) -> tuple[Float[Array, "B T D"], tuple[Array, Array]]:
        """Attend, and return the keys and values as well."""
        query, key, value = self._project(x, order.positions_bt)
        return self.out(attention(query, key, value, order.mask_btu)), (key, value)

    def store(self, cache: Lfm2Cache, written: tuple[Array, Array], order: Order, last_b: Array) -> Lfm2Cache:
        """Put keys and values of a whole prompt in the first slots."""
        return self._write(cache, *written, jnp.zeros((), jnp.int32))

    def step(
        self, x: Float[Array, "B 1 D"], order: Order, cache: Lfm2Cache, slot: Int[Array, ""]
    ) -> tuple[Float[Array, "B 1 D"], Lfm2Cache]:
        """Attend from one position to the cache's and itself."""
        query, key, value = self._project(x, order.positions_bt)
        cache = self._write(cache, key, value, slot)
        return self.out(attention(query, cache.keys[self.place], cache.values[self.place], order.mask_btu)), cache

    def _project(self, x: Float[Array, "B T D"], positions_bt: Int[Array, "B T"]) -> tuple[Array, Array, Array]:
        query, key, value = (
            project(x).reshape(*x.shape[:2], -1, self.config.head_width)
            for project in (self.query, self.key, self.value)
        )
        theta = self.config.rope_theta
        return (
            rotate(self.query_norm(query), positions_bt, theta),
            rotate(self.key_norm(key), positions_bt, theta),
            value,
        )

    def _write(self, cache: Lfm2Cache, key: Array, value: Array, slot: Int[Array, ""]) -> Lfm2Cache:
        start = (self.place, 0, slot, 0, 0)
        keys = jax.lax.dynamic_update_slice(cache.keys, key[None], start)
        return cache._replace(keys=keys, values=jax.lax.dynamic_update_slice(cache.values, value[None], start))


class ShortConv(nnx.Module):
    """A depthwise causal convolution between two multiplicative gates; `place` is its index among its kind.

    Its three input projections are one tensor in the checkpoint, kept apart so that each can be split over devices.
    """

    def __init__(self, config: Lfm2Config, place: int, *, rngs: nnx.Rngs):
        self.place = place
        width = config.width
        self.input_gate = Linear(width, width, bias=False, rngs=rngs)
        self.output_gate = Linear(width, width, bias=False, rngs=rngs)
        self.content = Linear(width, width, bias=False, rngs=rngs)
        taps = jax.random.normal(rngs.params(), (config.n_taps, width), jnp.float32)
        self.kernel = nnx.Param(taps * config.n_taps**-0.5)
        self.out = Linear(width, width, bias=False, rngs=rngs)

    def __call__(self, x: Float[Array, "B T D"], order: Order) -> tuple[Float[Array, "B T D"], Float[Array, "B T D"]]:
        """Convolve, and return the convolution's inputs as well."""
        inputs = self.input_gate(x) * self.content(x)
        n_before = self.kernel.shape[0] - 1
        if order.before_btk is None:
            shifts = range(n_before, 0, -1)
            n_tokens = x.shape[1]
            earlier = [jnp.pad(inputs, ((0, 0), (k, 0), (0, 0)))[:, :n_tokens] for k in shifts]
        else:
            earlier = [_at(inputs, order.before_btk[:, :, k]) for k in reversed(range(n_before))]
        return self._mix(x, [*earlier, inputs]), inputs

    def store(self, cache: Lfm2Cache, written: Float[Array, "B T D"], order: Order, last_b: Array) -> Lfm2Cache:
        """Keep the inputs of the token at `last_b` and of those before it."""
        n_before = cache.convs.shape[2]
        if order.before_btk is None:
            places_bk = last_b[:, None] - jnp.arange(n_before)[None, :]
        else:
            before_b1k = jnp.take_along_axis(order.before_btk, last_b[:, None, None], axis=1)
            places_bk = jnp.concatenate([last_b[:, None], before_b1k[:, 0]], axis=1)[:, :n_before]
        return cache._replace(convs=cache.convs.at[self.place].set(_at(written, places_bk[:, ::-1])))

    def step(
        self, x: Float[Array, "B 1 D"], order: Order, cache: Lfm2Cache, slot: Int[Array, ""]
    ) -> tuple[Float[Array, "B 1 D"], Lfm2Cache]:
        """Convolve the cache's inputs and one more, which pushes the earliest out."""
        window = jnp.concatenate([cache.convs[self.place], self.input_gate(x) * self.content(x)], axis=1)
        taps = [window[:, k : k + 1] for k in range(window.shape[1])]
        return self._mix(x, taps), cache._replace(convs=cache.convs.at[self.place].set(window[:, 1:]))

    def _mix(self, x: Float[Array, "B T D"], inputs: list[Array]) -> Float[Array, "B T D"]:
        """Weigh the inputs, the earliest first, sum in float32, gate and project."""
        kernel = self.kernel[...].astype(jnp.float32)
        terms = [u.astype(jnp.float32) * kernel[k][None, None] for k, u in enumerate(inputs)]
        mixed = functools.reduce(jnp.add, terms)
        return self.out(self.output_gate(x) * mixed.astype(x.dtype))


def _at(inputs: Float[Array, "B T D"], places_bn: Int[Array, "B N"]) -> Float[Array, "B N D"]:
    """Rows of `inputs`, zeros where the index is negative."""
    found = jnp.take_along_axis(inputs, jnp.maximum(places_bn, 0)[:, :, None], axis=1)
    return jnp.where(places_bn[:, :, None] >= 0, found, jnp.zeros((), inputs.dtype))


def _attending_layers(config: Mapping[str, Any]) -> tuple[bool, ...]:
    """Which layers attend: `layer_types` if it is given, `full_attn_idxs` if not, all of them without either."""
    n_layers, kinds = config.get("num_hidden_layers", 32), config.get("layer_types")
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
