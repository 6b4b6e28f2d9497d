"""Two levels of tokens, layer by layer: a root that everything shares, and groups of branches that grow out of it.

All tokens of both levels pass a layer together, so nothing is cached and nothing computed twice: groups attend to the
keys that the root wrote in the same layer, and to their own. Which of them a token may see follows from integers: a
token belongs to the leaves (coalitions) from `first` on and before `last`, and has a place in the sequence.
Axes: `R` tokens of the root, `G` groups, `T` tokens of a group, `U` root tokens that a group sees, `W` tokens wanted.
"""

from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int
from sgpa_kernels import tree_attention

from sgpa_jax.models import Decoder, Layer, Order, attention, fold_layers, layer_at, rows_at

Kernels = Literal["xla", "pallas", "interpret"]
"""What computes attention and head: XLA's own code, the Pallas kernels for TPUs, or these interpreted, for tests."""

KERNELS = get_args(Kernels)


class Block(NamedTuple):
    """Rows of tokens, each of which stands for itself in some leaves.

    Attributes:
        x_btd: embeddings.
        positions_bt: rotary positions.
        place_bt: places in the sequence; a token sees those up to its own.
        first_bt, last_bt: the leaves that have this token, half-open; 0 and 0 where there is none.
        before_btk: for convolutions, the index of the token k + 1 places before, -1 for none; in a group, indices
            below U are those of its path, and its own tokens follow. None where the decoder does not convolve.
    """

    x_btd: Float[Array, "B T D"]
    positions_bt: Int[Array, "B T"]
    place_bt: Int[Array, "B T"]
    first_bt: Int[Array, "B T"]
    last_bt: Int[Array, "B T"]
    before_btk: Int[Array, "B T K"] | None = None


def run_blocks(
    decoder: Decoder,
    root: Block,
    groups: Block,
    path_gu: Int[Array, "G U"],
    wanted_gw: Int[Array, "G W"],
    *,
    after_layer: int | None = None,
    kernels: Kernels = "xla",
) -> Float[Array, "G W D"]:
    """Return the normed final hidden states of the groups' wanted tokens, or their residual stream after a layer.

    Args:
        decoder: the layers.
        root: one row, B = 1.
        groups: G rows.
        path_gu: the root's tokens that each group sees, -1 for none.
        wanted_gw: indices of each group's tokens; the last layer computes nothing else.
        after_layer: stop behind this layer, counted from 0.
        kernels: how the groups attend, see `Kernels`.
    """
    last = decoder.n_layers - 1 if after_layer is None else after_layer
    tree = _Tree.of(root, groups, path_gu, kernels)
    root_x, x = tree.fold(decoder, root.x_btd, groups.x_btd, last)
    layer, params = layer_at(decoder, last)
    _, written = layer(params, root_x, tree.root)
    x, _ = layer(params, x, tree.branches._replace(wanted_gw=wanted_gw, written=written))
    return x if after_layer is not None else decoder.norm(decoder.norm_params, x)


def block_residuals(
    decoder: Decoder, root: Block, groups: Block, path_gu: Int[Array, "G U"], *, after_layer: int
) -> tuple[Float[Array, "1 R D"], Float[Array, "G T D"]]:
    """Return the residual stream of all tokens, the root's and the groups', after a layer counted from 0."""
    return _Tree.of(root, groups, path_gu, "xla").fold(decoder, root.x_btd, groups.x_btd, after_layer + 1)


def along_path(rows_r: Array, path_gu: Int[Array, "G U"]) -> Array:
    """Rows of the root by index; zeros, which belong to no leaf, where there is none."""
    found = rows_r[jnp.maximum(path_gu, 0)]
    there = (path_gu >= 0).reshape(*path_gu.shape, *(1,) * (rows_r.ndim - 1))
    return jnp.where(there, found, jnp.zeros((), rows_r.dtype))


class _Tree(NamedTuple):
    """The orders of both levels."""

    root: Order
    branches: "_Branches"

    @classmethod
    def of(cls, root: Block, groups: Block, path_gu: Int[Array, "G U"], kernels: Kernels) -> "_Tree":
        keys = (
            jnp.concatenate([along_path(shared[0], path_gu), own], axis=1)
            for shared, own in zip(root[2:5], groups[2:5], strict=True)
        )
        seen = _Seen(groups.first_bt, groups.place_bt, *keys)
        return cls(
            Order(root.positions_bt, _Seen.of(root).mask(), root.before_btk),
            _Branches(groups.positions_bt, seen, path_gu, groups.before_btk, kernels),
        )

    def fold(self, decoder: Decoder, root_x: Array, x: Array, n_layers: int) -> tuple[Array, Array]:
        """Take both levels through the first layers."""

        def step(layer: Layer, params: Any, carry: tuple[Array, Array]) -> tuple[Array, Array]:
            root_x, written = layer(params, carry[0], self.root)
            return root_x, layer(params, carry[1], self.branches._replace(written=written))[0]

        return fold_layers(decoder, step, (root_x, x), n_layers=n_layers)


class _Branches(NamedTuple):
    """The order of the groups in one layer: `written` is what the layer wrote for the root's tokens."""

    positions_bt: Int[Array, "G T"]
    seen: "_Seen"
    path_gu: Int[Array, "G U"]
    before_gtk: Int[Array, "G T K"] | None
    kernels: Kernels
    wanted_gw: Int[Array, "G W"] | None = None
    written: Any = None

    def wanted(self, rows_bt: Array) -> Array:
        """Rows that somebody reads."""
        if self.wanted_gw is None:
            return rows_bt
        index = self.wanted_gw.reshape(*self.wanted_gw.shape, *(1,) * (rows_bt.ndim - 2))
        return jnp.take_along_axis(rows_bt, index, axis=1)

    def attend(self, query: Array, key: Array, value: Array) -> Array:
        """Attend to the path and to the group."""
        seen = self.seen._replace(first_gw=self.wanted(self.seen.first_gw), place_gw=self.wanted(self.seen.place_gw))
        if self.kernels != "xla":
            keys, values = _with_path(self.written, self.path_gu, key, value)
            first, place, place_k, first_k, last_k = seen
            return tree_attention(
                query, keys, values, first, place, first_k, last_k, place_k,
                impl="pallas", interpret=self.kernels == "interpret",
            )  # fmt: skip
        # On a CPU group by group, so that keys and scores stay in its cache: twice as fast.
        return jax.lax.platform_dependent(
            self.written, self.path_gu, query, key, value, seen.mask(), cpu=_attend_one_by_one, default=_attend
        )

    def earlier(self, inputs: Array, k: int) -> Array:
        """Follow the pointers into the path and the group."""
        assert self.before_gtk is not None
        rows = jnp.concatenate([along_path(self.written[0], self.path_gu), inputs], axis=1)
        return rows_at(rows, self.wanted(self.before_gtk[:, :, k - 1]))


class _Seen(NamedTuple):
    """Who sees whom: a query's leaf and place, and every key's place and leaves, `[G, W]` and `[G, U + T]`."""

    first_gw: Int[Array, "G W"]
    place_gw: Int[Array, "G W"]
    key_place_gu: Int[Array, "G U"]
    key_first_gu: Int[Array, "G U"]
    key_last_gu: Int[Array, "G U"]

    @classmethod
    def of(cls, block: Block) -> "_Seen":
        return cls(block.first_bt, block.place_bt, block.place_bt, block.first_bt, block.last_bt)

    def mask(self) -> Bool[Array, "G W U"]:
        first, place = self.first_gw[:, :, None], self.place_gw[:, :, None]
        of_leaf = (self.key_first_gu[:, None] <= first) & (first < self.key_last_gu[:, None])
        return of_leaf & (self.key_place_gu[:, None] <= place)


def _with_path(root: tuple[Array, Array], path_gu: Array, key: Array, value: Array) -> tuple[Array, Array]:
    """Keys and values of a group behind those of its path."""
    keys, values = (
        jnp.concatenate([along_path(shared[0], path_gu), own], axis=1)
        for shared, own in zip(root, (key, value), strict=True)
    )
    return keys, values


def _attend(root: tuple[Array, Array], path_gu: Array, query: Array, key: Array, value: Array, mask: Array) -> Array:
    return attention(query, *_with_path(root, path_gu, key, value), mask)


def _attend_one_by_one(root: tuple[Array, Array], *groups: Array) -> Array:
    return jax.lax.map(lambda group: _attend(root, *(array[None] for array in group))[0], groups)
