"""The host's plan of a trie of coalitions: which tokens are run, once each, and where they stand.

What the decoder makes of a token depends on the players before it alone, so coalitions that agree on those share it. A
set of coalitions is sorted, cut into chunks, and a chunk into groups of a bounded number of tokens, between coalitions
that have as little as possible in common. Tokens shared by several groups are the chunk's root; a group sees those on
its path. All chunks have one shape. Any set of coalitions will do: all 2^P are not special.
Axes: `C` coalitions, `P` players, `T` tokens of the passage, `R` scored ones; in the plan, `Q` chunks, `R` tokens of a
root, `G` groups, `T` tokens of a group, `U` of a path, `W` wanted ones.
"""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from sgpa_jax.audio import round_up, round_up_in_octaves
from sgpa_jax.games.passage import Passage

_ROOT_STEP, _PATH_STEP, _TOKEN_STEP, _PARTS = 32, 16, 8, 16
_OWN = 1 << 30
_LEAVES_A_GROUP = 3
"""Coalitions that a group has room for where they share little: more waste attention, fewer waste room."""
_LEAVES_AT_ONCE = 4096
"""Leaves whose tokens the host lays out at once; more share little more."""


class BlockPlan(NamedTuple):
    """Where tokens stand, as `Block` has it; `token` indexes the passage's embeddings, from T on its baseline's."""

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
        wanted: the group's tokens that predict the response, leaf by leaf: int[G, W], W a multiple of R.
        coalition: the coalition of each leaf, -1 for none: int[G, W / R].
    """

    root: BlockPlan
    groups: BlockPlan
    path: Int[np.ndarray, "G U"]
    wanted: Int[np.ndarray, "G W"]
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
    tokens = _Tokens.of(passage)
    # A player without a token changes nothing here: coalitions that differ in such players are one leaf.
    leaves_cp, leaf_of_c = np.unique(masks_cp[:, tokens.players], axis=0, return_inverse=True)
    n_leaves = len(leaves_cp)
    sizes = _Sizes(group_tokens, chunk_leaves, n_devices, 2 if n_leaves == 2 ** leaves_cp.shape[1] else 4)
    planned = [
        chunk
        for start, end in itertools.pairwise(_cuts(_in_common(leaves_cp), _LEAVES_AT_ONCE))
        for chunk in _plan_chunks(tokens, leaves_cp[start:end], start, len(passage.targets_r), n_before, sizes)
    ]
    n_run = sum(len(block.first) for chunk in planned for block in (chunk.root, *chunk.groups))
    chunks = _stack(planned, round_up(len(planned), n_devices))
    n_padded = chunks.root.token.size + chunks.groups.token.size
    return TriePlan(chunks, leaf_of_c.reshape(-1), n_leaves, n_run, n_padded)


class _Sizes(NamedTuple):
    """See `plan_trie`; a group is cut in the last part of what fits, a half or less, where neighbours differ most."""

    group_tokens: int
    chunk_leaves: int
    n_devices: int
    parts: int


@dataclass(frozen=True, eq=False)
class _Tokens:
    """The passage as the plan needs it.

    Attributes:
        players: those with tokens, by their first one.
        owner_t: index into `players`, or the last column (always there) of a mask with one more column.
        level_t: how many of them begin at or before each token: what a token's value depends on.
        is_embedding_t, is_dropped_t, is_closed_t: what an absent player does to its tokens.
    """

    players: Int[np.ndarray, " P"]
    owner_t: Int[np.ndarray, " T"]
    level_t: Int[np.ndarray, " T"]
    is_embedding_t: Bool[np.ndarray, " T"]
    is_dropped_t: Bool[np.ndarray, " T"]
    is_closed_t: Bool[np.ndarray, " T"]

    @classmethod
    def of(cls, passage: Passage) -> "_Tokens":
        owned, first = np.unique(passage.owner_t[passage.owner_t >= 0], return_index=True)
        places = np.flatnonzero(passage.owner_t >= 0)[first]
        players, places = owned[np.argsort(places)], np.sort(places)
        index = np.full(passage.n_players + 1, len(players))
        index[players] = np.arange(len(players))
        level_t = np.searchsorted(places, np.arange(len(passage.owner_t)), side="right")
        closed = passage.absent_t("drop")
        dropped = closed | passage.absent_t("drop_keep")
        return cls(players, index[passage.owner_t], level_t, passage.absent_t("embedding"), dropped, closed)


def _in_common(leaves_cp: Bool[np.ndarray, "C P"]) -> Int[np.ndarray, " C+1"]:
    """Players on which each sorted coalition agrees with the one before, from the first on; -1 at both ends."""
    differs = leaves_cp[1:] != leaves_cp[:-1]
    return np.concatenate([[-1], differs.argmax(axis=1), [-1]]) if len(leaves_cp) > 1 else np.array([-1, -1])


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


class _Nodes(NamedTuple):
    """The N tokens that a chunk runs, by their first leaf and then their place; `before` are numbers among them."""

    token: Int[np.ndarray, " N"]
    positions: Int[np.ndarray, " N"]
    place: Int[np.ndarray, " N"]
    first: Int[np.ndarray, " N"]
    last: Int[np.ndarray, " N"]
    before: Int[np.ndarray, "N K"]


def _grow(
    tokens: _Tokens, leaves_cp: Bool[np.ndarray, "C P"], common: Int[np.ndarray, " C+1"], n_before: int
) -> tuple[_Nodes, Int[np.ndarray, "C T"]]:
    """Return a chunk's nodes, and the number of the node of every leaf and place, -1 where nothing runs."""
    n_leaves, n_tokens = len(leaves_cp), len(tokens.owner_t)
    places = np.arange(n_tokens)
    there_ct = np.concatenate([leaves_cp, np.ones((n_leaves, 1), bool)], axis=1)[:, tokens.owner_t]
    runs_ct = there_ct | tokens.is_embedding_t[None]
    # Leaves share a token as long as they agree on the players that begin before it, or with it.
    begins_lc = common[None, :-1] < np.arange(len(tokens.players) + 1)[:, None]
    start_lc = np.maximum.accumulate(np.where(begins_lc, np.arange(n_leaves)[None], 0), axis=1)
    following_lc = np.where(begins_lc, np.arange(n_leaves)[None], n_leaves)[:, ::-1]
    following_lc = np.minimum.accumulate(following_lc, axis=1)[:, ::-1]
    end_lc = np.concatenate([following_lc[:, 1:], np.full((len(begins_lc), 1), n_leaves)], axis=1)

    first, place = np.nonzero(begins_lc[tokens.level_t].T & runs_ct)
    number_ct = np.full((n_leaves, n_tokens), -1)
    number_ct[first, place] = np.arange(len(first))
    number_ct = np.where(runs_ct, number_ct[start_lc[tokens.level_t].T, places[None]], -1)
    gone_ct = ~there_ct & tokens.is_closed_t[None]
    positions_ct = places[None] - np.cumsum(gone_ct, axis=1) + gone_ct
    # The latest token at or before each place that convolutions do not skip; what does not run is heard as zeros.
    unskipped_ct = np.maximum.accumulate(np.where(~there_ct & tokens.is_dropped_t[None], -1, places[None]), axis=1)
    before, latest = np.full((len(first), n_before), -1), place
    for k in range(n_before):
        latest = np.where(latest > 0, unskipped_ct[first, latest - 1], -1)
        before[:, k] = np.where(latest >= 0, number_ct[first, latest], -1)
    nodes = _Nodes(
        np.where(there_ct[first, place], place, place + n_tokens),
        positions_ct[first, place],
        place,
        first,
        end_lc[tokens.level_t[place], first],
        before,
    )
    return nodes, number_ct


def _plan_chunks(
    tokens: _Tokens, leaves_cp: Bool[np.ndarray, "C P"], offset: int, n_scored: int, n_before: int, sizes: _Sizes
) -> Iterator["_Pieces"]:
    common = _in_common(leaves_cp)
    nodes, number_ct = _grow(tokens, leaves_cp, common, n_before)
    cuts = np.array(_group_cuts(nodes, common, sizes))
    n_groups, n_leaves = len(cuts) - 1, len(leaves_cp)
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
        root = _take(nodes, shared, offset)
        pieces = _Pieces(root._replace(before=_pick(slot, root.before)), [], [], [], [])
        for g in chunk:
            begin, end = int(cuts[g]), int(cuts[g + 1])
            path = np.flatnonzero((nodes.first[shared] < end) & (nodes.last[shared] > begin))
            on_path = np.full(len(nodes.first), -1)
            on_path[shared[path]] = np.arange(len(path))
            branch = _take(nodes, members[g + 1], offset)
            own = (branch.before >= 0) & ~is_shared[branch.before]
            before = np.where(own, slot[branch.before] + _OWN, _pick(on_path, branch.before))
            pieces.groups.append(branch._replace(before=before))
            pieces.paths.append(path)
            pieces.wanted.append(slot[number_ct[begin:end, -n_scored:]].reshape(-1))
            pieces.coalitions.append(offset + np.arange(begin, end))
        yield pieces


class _Pieces(NamedTuple):
    """A chunk before it is padded; a group's pointers to its own tokens are raised by `_OWN`."""

    root: _Nodes
    groups: list[_Nodes]
    paths: list[Int[np.ndarray, " U"]]
    wanted: list[Int[np.ndarray, " W"]]
    coalitions: list[Int[np.ndarray, " leaves"]]


def _group_cuts(nodes: _Nodes, common: Int[np.ndarray, " C+1"], sizes: _Sizes) -> list[int]:
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
        cuts.append(_cut(common, start, min(start + fits, n_leaves), sizes.parts))
    return cuts


def _take(nodes: _Nodes, members: Int[np.ndarray, " M"], offset: int) -> _Nodes:
    """Some nodes, their leaves counted from the first of all."""
    some = _Nodes(*(column[members] for column in nodes))
    return some._replace(first=some.first + offset, last=some.last + offset)


def _stack(pieces: list[_Pieces], n_chunks: int) -> Chunk:
    """Pad all chunks to one shape, with empty ones behind them."""
    n_root = _bucket((len(chunk.root.first) for chunk in pieces), _ROOT_STEP)
    n_path = _bucket((len(path) for chunk in pieces for path in chunk.paths), _PATH_STEP)
    n_tokens = _bucket((len(group.first) for chunk in pieces for group in chunk.groups), _TOKEN_STEP)
    n_groups = _bucket((len(chunk.groups) for chunk in pieces), 1)
    n_leaves = _bucket((len(some) for chunk in pieces for some in chunk.coalitions), 1, parts=2)
    width = n_leaves * (len(pieces[0].wanted[0]) // len(pieces[0].coalitions[0]))
    n_before = pieces[0].root.before.shape[1]
    shape = (n_chunks, n_groups)
    chunk = Chunk(
        _empty((n_chunks, 1, n_root), n_before),
        _empty((*shape, n_tokens), n_before),
        np.full((*shape, n_path), -1, np.int32),
        np.zeros((*shape, width), np.int32),
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
                (chunk.path, piece.paths[g]), (chunk.wanted, piece.wanted[g]), (chunk.coalition, piece.coalitions[g])
            ):  # fmt: skip
                padded[q, g, : len(values)] = values
    return chunk


def _bucket(lengths: Iterable[int], step: int, parts: int = _PARTS) -> int:
    return round_up_in_octaves(max(lengths), step=step, parts=parts)


def _empty(shape: tuple[int, ...], n_before: int) -> BlockPlan:
    token, positions, place, first, last = (np.zeros(shape, np.int32) for _ in range(5))
    return BlockPlan(token, positions, place, first, last, np.full((*shape, n_before), -1, np.int32))


def _fill(block: BlockPlan, row: tuple[int, int], nodes: _Nodes) -> None:
    for padded, values in zip(block, nodes, strict=True):
        padded[row][: len(values)] = values


def _pick(values: Int[np.ndarray, " N"], index: np.ndarray) -> np.ndarray:
    """`values[index]`, -1 where the index is negative."""
    return np.where(index >= 0, values[index], -1)
