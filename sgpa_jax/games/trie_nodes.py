"""The tokens of tries of coalitions: which of them are run, once each, for which coalitions, and where they stand.

What the decoder makes of a token depends on the players before it alone, so sorted coalitions (leaves) that agree on
those share it. Leaves of several passages share nothing.
Axes: `C` leaves, `P` players, `T` tokens of the passage, `R` scored ones, `N` nodes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from sgpa_jax.games.passage import Passage


class Nodes(NamedTuple):
    """The N tokens that are run, by their first leaf and then their place; `before` are numbers among them."""

    token: Int[np.ndarray, " N"]
    positions: Int[np.ndarray, " N"]
    place: Int[np.ndarray, " N"]
    first: Int[np.ndarray, " N"]
    last: Int[np.ndarray, " N"]
    before: Int[np.ndarray, "N K"]

    def take(self, members: Int[np.ndarray, " M"], offset: int) -> "Nodes":
        """Some nodes, their leaves counted from the first of all."""
        some = Nodes(*(column[members] for column in self))
        return some._replace(first=some.first + offset, last=some.last + offset)


@dataclass(frozen=True, eq=False)
class Tokens:
    """A passage as plans need it.

    Attributes:
        players: those with tokens, by their first one.
        owner_t: index into `players`, or the last column (always there) of a mask with one more column.
        level_t: how many of them begin at or before each token: what a token's value depends on.
        is_embedding_t, is_dropped_t, is_closed_t: what an absent player does to its tokens.
        targets_r: what the last R tokens predict.
        first_row: of its embeddings among those of all passages; its baseline's are behind them.
    """

    players: Int[np.ndarray, " P"]
    owner_t: Int[np.ndarray, " T"]
    level_t: Int[np.ndarray, " T"]
    is_embedding_t: Bool[np.ndarray, " T"]
    is_dropped_t: Bool[np.ndarray, " T"]
    is_closed_t: Bool[np.ndarray, " T"]
    targets_r: Int[np.ndarray, " R"]
    first_row: int

    @classmethod
    def of(cls, passage: Passage, first_row: int) -> "Tokens":
        """Look a passage over."""
        owned, first = np.unique(passage.owner_t[passage.owner_t >= 0], return_index=True)
        places = np.flatnonzero(passage.owner_t >= 0)[first]
        players, places = owned[np.argsort(places)], np.sort(places)
        index = np.full(passage.n_players + 1, len(players))
        index[players] = np.arange(len(players))
        level_t = np.searchsorted(places, np.arange(len(passage.owner_t)), side="right")
        closed = passage.absent_t("drop")
        dropped = closed | passage.absent_t("drop_keep")
        return cls(
            players, index[passage.owner_t], level_t, passage.absent_t("embedding"), dropped, closed,
            passage.targets_r, first_row,
        )  # fmt: skip


class Leaves(NamedTuple):
    """Sorted coalitions of the players of one passage."""

    tokens: Tokens
    masks_cp: Bool[np.ndarray, "C P"]


class Grown(NamedTuple):
    """The nodes of C leaves, of one passage or of several.

    Attributes:
        nodes: theirs.
        common: players on which each leaf agrees with the one before, see `in_common`.
        scored_cr: numbers of the nodes that predict each leaf's response, -1 behind its last token.
        targets_cr: the tokens that these predict.
    """

    nodes: Nodes
    common: Int[np.ndarray, " C+1"]
    scored_cr: Int[np.ndarray, "C R"]
    targets_cr: Int[np.ndarray, "C R"]


def in_common(masks_cp: Bool[np.ndarray, "C P"]) -> Int[np.ndarray, " C+1"]:
    """Players on which each sorted coalition agrees with the one before, from the first on; -1 at both ends."""
    differs = masks_cp[1:] != masks_cp[:-1]
    return np.concatenate([[-1], differs.argmax(axis=1), [-1]]) if len(masks_cp) > 1 else np.array([-1, -1])


def grow(several: Sequence[Leaves], n_scored: int, n_before: int) -> Grown:
    """Grow the nodes of leaves, those of several passages one behind another, with room for `n_scored` targets."""
    parts: list[Grown] = []
    n_leaves = n_nodes = 0
    for leaves in several:
        nodes, common, scored_cr, targets_cr = _grow(leaves, n_scored, n_before)
        nodes = nodes._replace(
            first=nodes.first + n_leaves,
            last=nodes.last + n_leaves,
            before=np.where(nodes.before >= 0, nodes.before + n_nodes, -1),
        )
        parts.append(Grown(nodes, common[1:], np.where(scored_cr >= 0, scored_cr + n_nodes, -1), targets_cr))
        n_leaves, n_nodes = n_leaves + len(leaves.masks_cp), n_nodes + len(nodes.first)
    nodes, common, scored, targets = zip(*parts, strict=True)
    joined = Nodes(*map(np.concatenate, zip(*nodes, strict=True)))
    return Grown(joined, np.concatenate([[-1], *common]), np.concatenate(scored), np.concatenate(targets))


def _grow(leaves: Leaves, n_scored: int, n_before: int) -> Grown:
    tokens, masks_cp = leaves
    common = in_common(masks_cp)
    n_leaves, n_tokens, n_targets = len(masks_cp), len(tokens.owner_t), len(tokens.targets_r)
    places = np.arange(n_tokens)
    there_ct = np.concatenate([masks_cp, np.ones((n_leaves, 1), bool)], axis=1)[:, tokens.owner_t]
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
    nodes = Nodes(
        tokens.first_row + np.where(there_ct[first, place], place, place + n_tokens),
        positions_ct[first, place],
        place,
        first,
        end_lc[tokens.level_t[place], first],
        before,
    )
    spare = ((0, 0), (0, n_scored - n_targets))
    targets_cr = np.repeat(tokens.targets_r[None], n_leaves, axis=0)
    scored_cr = np.pad(number_ct[:, -n_targets:], spare, constant_values=-1)
    return Grown(nodes, common, scored_cr, np.pad(targets_cr, spare))
