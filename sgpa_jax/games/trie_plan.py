"""The host's plan of tries of coalitions: how the tokens that are run (`trie_nodes.py`) are computed together.

A set of coalitions is sorted, cut into chunks, and a chunk into groups of a bounded number of tokens, between
coalitions that have as little as possible in common. Tokens shared by several groups are the chunk's root; a group sees
those on its path. All chunks have one shape. Any set of coalitions will do: all 2^P are not special. Coalitions of
several passages stand one behind another, and have nothing in common: small games share a chunk, or a group.
Axes: `C` coalitions, `P` players, `T` tokens of the passage, `R` scored ones; in the plan, `Q` chunks, `R` tokens of a
root, `G` groups, `T` tokens of a group, `U` of a path, `W` wanted ones.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from sgpa_jax.audio import round_up, round_up_in_octaves
from sgpa_jax.games.passage import Passage
from sgpa_jax.games.trie_nodes import Grown, Leaves, Nodes, Tokens, grow, in_common

_ROOT_STEP, _PATH_STEP, _TOKEN_STEP, _RESPONSE_STEP = 32, 16, 8, 4
_PARTS, _FEW_PARTS = 16, 4
"""Sizes an octave that are told apart: padding wastes little of a game, and few programs serve many games."""

_OWN = 1 << 30
_LEAVES_A_GROUP = 3
"""Coalitions that a group has room for where they share little: more waste attention, fewer waste room."""
_LEAVES_AT_ONCE = 4096
"""Leaves whose tokens the host lays out at once; more share little more."""


class BlockPlan(NamedTuple):
    """Where tokens stand, as `Block` has it; `token` indexes a scene's rows: embeddings, then the baseline's."""

    token: Int[np.ndarray, "*B T"]
    positions: Int[np.ndarray, "*B T"]
    place: Int[np.ndarray, "*B T"]
    first: Int[np.ndarray, "*B T"]
    last: Int[np.ndarray, "*B T"]
    before: Int[np.ndarray, "*B T K"]


class Chunk(NamedTuple):
    """The arrays of one chunk, or of Q chunks with a leading axis.

    Attributes:
        root: one row of tokens.
        groups: G rows.
        path: the root's tokens that each group sees, -1 for none: int[G, U].
        wanted: the group's tokens that predict the response, leaf by leaf, -1 for none: int[G, W], W a multiple of R.
        targets: what they predict: int[G, W].
        coalition: the coalition of each leaf, -1 for none: int[G, W / R].
    """

    root: BlockPlan
    groups: BlockPlan
    path: Int[np.ndarray, "G U"]
    wanted: Int[np.ndarray, "G W"]
    targets: Int[np.ndarray, "G W"]
    coalition: Int[np.ndarray, "G leaves"]


@dataclass(frozen=True)
class TriePlan:
    """Chunks, and what they cost.

    Attributes:
        chunks: arrays with a leading axis over the Q chunks.
        leaf_of_c: the leaf (a row of what the chunks give) of every coalition asked for, int[C].
        n_leaves: different coalitions, as far as the tokens tell them apart.
        tokens_run: tokens that are computed, padding left out.
        tokens_padded: the same with it.
    """

    chunks: Chunk
    leaf_of_c: Int[np.ndarray, " C"]
    n_leaves: int
    tokens_run: int
    tokens_padded: int


def plan_trie(
    passage: Passage,
    masks_cp: Bool[np.ndarray, "C P"],
    *,
    n_before: int,
    group_tokens: int,
    chunk_leaves: int,
    n_devices: int = 1,
) -> TriePlan:
    """Plan the run of a set of coalitions.

    Args:
        passage: the tokens and their players.
        masks_cp: the coalitions, in any order and with repetitions.
        n_before: how many tokens back the decoder's convolutions look.
        group_tokens: tokens in a group, or more if a few coalitions that share little want more.
        chunk_leaves: about how many coalitions are in a chunk.
        n_devices: the number of chunks becomes a multiple of this, and they share the work evenly.
    """
    sizes = _Sizes(group_tokens, chunk_leaves, n_devices, len(passage.targets_r), _PARTS)
    return _plan([passage], [masks_cp], n_before, sizes)


def plan_tries(
    passages: Sequence[Passage],
    masks: Sequence[Bool[np.ndarray, "C P"]],
    *,
    n_before: int,
    group_tokens: int,
    chunk_leaves: int,
    n_devices: int = 1,
) -> TriePlan:
    """Plan the run of coalitions of several passages, one behind another; the shapes are few whatever they are.

    See `plan_trie`. Behind the last token of a response shorter than others is room for theirs.
    """
    n_scored = round_up(max(len(passage.targets_r) for passage in passages), _RESPONSE_STEP)
    return _plan(passages, masks, n_before, _Sizes(group_tokens, chunk_leaves, n_devices, n_scored, _FEW_PARTS))


class _Sizes(NamedTuple):
    """See `plan_trie`; room for targets, and how many sizes an octave are told apart where chunks are padded."""

    group_tokens: int
    chunk_leaves: int
    n_devices: int
    n_scored: int
    parts: int


def _plan(
    passages: Sequence[Passage], masks: Sequence[Bool[np.ndarray, "C P"]], n_before: int, sizes: _Sizes
) -> TriePlan:
    leaves: list[Leaves] = []
    leaf_of_c: list[Int[np.ndarray, " C"]] = []
    n_rows = n_leaves = n_all = 0
    for passage, masks_cp in zip(passages, masks, strict=True):
        tokens = Tokens.of(passage, n_rows)
        # A player without a token changes nothing here: coalitions that differ in such players are one leaf.
        leaves_cp, own_leaf_c = np.unique(masks_cp[:, tokens.players], axis=0, return_inverse=True)
        cuts = _cuts(in_common(leaves_cp), _LEAVES_AT_ONCE)
        leaves += [Leaves(tokens, leaves_cp[start:end]) for start, end in itertools.pairwise(cuts)]
        leaf_of_c.append(n_leaves + own_leaf_c.reshape(-1))
        n_rows += len(passage.owner_t) * (1 if passage.baseline_td is None else 2)
        n_leaves, n_all = n_leaves + len(leaves_cp), n_all + 2 ** leaves_cp.shape[1]
    # Where all coalitions are there, neighbours that differ most are not far.
    cut_parts, planned, offset = 2 if n_leaves == n_all else 4, [], 0
    for some in _at_once(leaves):
        planned += _plan_chunks(grow(some, sizes.n_scored, n_before), offset, cut_parts, sizes)
        offset += sum(len(own.masks_cp) for own in some)
    n_run = sum(len(block.first) for chunk in planned for block in (chunk.root, *chunk.groups))
    chunks = _stack(planned, round_up(len(planned), sizes.n_devices), sizes)
    n_padded = chunks.root.token.size + chunks.groups.token.size
    return TriePlan(chunks, np.concatenate(leaf_of_c), n_leaves, n_run, n_padded)


def _cuts(common: Int[np.ndarray, " C+1"], size: int) -> list[int]:
    """Cut into pieces of at most `size`, where neighbours have least in common."""
    cuts, n = [0], len(common) - 1
    while cuts[-1] < n:
        cuts.append(_cut(common, cuts[-1], min(cuts[-1] + size, n), 2))
    return cuts


def _cut(common: Int[np.ndarray, " C+1"], start: int, latest: int, parts: int) -> int:
    """The best place to cut in the last of so many parts of what fits; of equals the last."""
    places = np.arange(start + (latest - start) * (parts - 1) // parts + 1, latest + 1)
    return int(places[::-1][np.argmin(common[places][::-1])])


def _at_once(leaves: Sequence[Leaves]) -> Iterator[list[Leaves]]:
    """Take leaves of several passages together, as many as the host lays out at once."""
    some: list[Leaves] = []
    for own in leaves:
        if some and sum(len(other.masks_cp) for other in [*some, own]) > _LEAVES_AT_ONCE:
            yield some
            some = []
        some.append(own)
    yield some


def _plan_chunks(grown: Grown, offset: int, cut_parts: int, sizes: _Sizes) -> Iterator["_Pieces"]:
    nodes, common = grown.nodes, grown.common
    cuts = np.array(_group_cuts(nodes, common, cut_parts, sizes))
    n_groups, n_leaves = len(cuts) - 1, len(common) - 1
    group_of_c = np.repeat(np.arange(n_groups), np.diff(cuts))
    first_group, last_group = group_of_c[nodes.first], group_of_c[nodes.last - 1]
    is_shared = first_group < last_group
    # By group, the shared ones first; where each stands in its group or root.
    order = np.argsort(np.where(is_shared, -1, first_group), kind="stable")
    members = np.split(order, np.cumsum(np.bincount(np.where(is_shared, 0, first_group + 1), minlength=n_groups + 1)))
    slot = np.zeros(len(order), int)
    for some in members:
        slot[some] = np.arange(len(some))
    at_once = max(1, round(sizes.chunk_leaves * n_groups / n_leaves))
    n_chunks = min(n_groups, round_up(-(-n_groups // at_once), sizes.n_devices))
    for chunk in np.array_split(np.arange(n_groups), n_chunks):
        begin, end = cuts[chunk[0]], cuts[chunk[-1] + 1]
        shared = members[0][(nodes.first[members[0]] < end) & (nodes.last[members[0]] > begin)]
        slot[shared] = np.arange(len(shared))
        root = nodes.take(shared, offset)
        pieces = _Pieces(root._replace(before=_pick(slot, root.before)), [], [], [], [], [])
        for g in chunk:
            begin, end = int(cuts[g]), int(cuts[g + 1])
            path = np.flatnonzero((nodes.first[shared] < end) & (nodes.last[shared] > begin))
            on_path = np.full(len(nodes.first), -1)
            on_path[shared[path]] = np.arange(len(path))
            branch = nodes.take(members[g + 1], offset)
            own = (branch.before >= 0) & ~is_shared[branch.before]
            before = np.where(own, slot[branch.before] + _OWN, _pick(on_path, branch.before))
            pieces.groups.append(branch._replace(before=before))
            pieces.paths.append(path)
            pieces.wanted.append(_pick(slot, grown.scored_cr[begin:end]).reshape(-1))
            pieces.targets.append(grown.targets_cr[begin:end].reshape(-1))
            pieces.coalitions.append(offset + np.arange(begin, end))
        yield pieces


class _Pieces(NamedTuple):
    """A chunk before it is padded; a group's pointers to its own tokens are raised by `_OWN`."""

    root: Nodes
    groups: list[Nodes]
    paths: list[Int[np.ndarray, " U"]]
    wanted: list[Int[np.ndarray, " W"]]
    targets: list[Int[np.ndarray, " W"]]
    coalitions: list[Int[np.ndarray, " leaves"]]


def _group_cuts(nodes: Nodes, common: Int[np.ndarray, " C+1"], cut_parts: int, sizes: _Sizes) -> list[int]:
    """Cut leaves into groups whose own tokens, those shared with no other group, fit into a group."""
    n_leaves, cuts = len(common) - 1, [0]
    budget = max(sizes.group_tokens, _LEAVES_A_GROUP * len(nodes.first) // n_leaves)
    # A few that share much must not make room in every group for as many.
    most = max(1, 3 * budget * n_leaves // (2 * len(nodes.first)))
    while cuts[-1] < n_leaves:
        start = cuts[-1]
        # Nodes are sorted by their first leaf, and each leaf has at least one of its own.
        some = slice(*np.searchsorted(nodes.first, [start, start + budget]))
        # A node belongs to the group alone if the group reaches its last leaf.
        cost = np.cumsum(np.bincount(nodes.last[some] - start, minlength=2))[1 : n_leaves - start + 1]
        fits = min(most, max(1, int(np.searchsorted(cost, budget, side="right"))))
        cuts.append(_cut(common, start, min(start + fits, n_leaves), cut_parts))
    return cuts


def _stack(pieces: list[_Pieces], n_chunks: int, sizes: _Sizes) -> Chunk:
    """Pad all chunks to one shape, with empty ones behind them."""
    parts, n_scored = sizes.parts, sizes.n_scored
    n_root = _bucket((len(chunk.root.first) for chunk in pieces), _ROOT_STEP, parts)
    n_path = _bucket((len(path) for chunk in pieces for path in chunk.paths), _PATH_STEP, parts)
    n_tokens = _bucket((len(group.first) for chunk in pieces for group in chunk.groups), _TOKEN_STEP, parts)
    n_groups = _bucket((len(chunk.groups) for chunk in pieces), 1, parts)
    n_leaves = _bucket((len(some) for chunk in pieces for some in chunk.coalitions), 1, 2)
    n_before = pieces[0].root.before.shape[1]
    shape = (n_chunks, n_groups)
    chunk = Chunk(
        _empty((n_chunks, 1, n_root), n_before),
        _empty((*shape, n_tokens), n_before),
        np.full((*shape, n_path), -1, np.int32),
        np.full((*shape, n_leaves * n_scored), -1, np.int32),
        np.zeros((*shape, n_leaves * n_scored), np.int32),
        np.full((*shape, n_leaves), -1, np.int32),
    )
    for q, piece in enumerate(pieces):
        _fill(chunk.root, (q, 0), piece.root)
        for g, group in enumerate(piece.groups):
            own = group.before >= _OWN
            _fill(
                chunk.groups, (q, g), group._replace(before=np.where(own, group.before - _OWN + n_path, group.before))
            )
            for padded, values in (
                (chunk.path, piece.paths[g]), (chunk.wanted, piece.wanted[g]), (chunk.targets, piece.targets[g]),
                (chunk.coalition, piece.coalitions[g]),
            ):  # fmt: skip
                padded[q, g, : len(values)] = values
    return chunk


def _bucket(lengths: Iterable[int], step: int, parts: int) -> int:
    return round_up_in_octaves(max(lengths), step=step, parts=parts)


def _empty(shape: tuple[int, ...], n_before: int) -> BlockPlan:
    token, positions, place, first, last = (np.zeros(shape, np.int32) for _ in range(5))
    return BlockPlan(token, positions, place, first, last, np.full((*shape, n_before), -1, np.int32))


def _fill(block: BlockPlan, row: tuple[int, int], nodes: Nodes) -> None:
    for padded, values in zip(block, nodes, strict=True):
        padded[row][: len(values)] = values


def _pick(values: Int[np.ndarray, " N"], index: np.ndarray) -> np.ndarray:
    """`values[index]`, -1 where the index is negative."""
    return np.where(index >= 0, values[index], -1)
