"""Which paths through the frames spell a transcript: states, the label each one hears, and who may come before whom.

Two shapes, one representation: the CTC lattice of characters (Graves et al. 2006; SGPA, section 3.2), and a
left-to-right chain of phones in which words have several pronunciations and silence may stand between any two of them.
Axes: `S` states, `K` predecessors.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from sgpa_jax.align.letters import SEPARATOR
from sgpa_jax.align.pronounce import Pronunciation
from sgpa_jax.align.transcript import Token

SILENCE = "sil"


@dataclass(frozen=True, eq=False)
class Topology:
    """A graph of states in topological order.

    Attributes:
        label_s: int32[S], column of the emissions that the state hears.
        unit_s: int32[S], the label of the transcript that the state is part of; a run of one unit is one label.
        owner_s: int32[S], the word that the state belongs to, -1 for nobody's (blank, separator, silence).
        before_sk: int32[S, K], from where a state may be entered, in order of preference on ties: itself first (stay),
            then its predecessors; -1 pads.
        enter_s, leave_s: bool[S], where a path may begin and end.
    """

    label_s: Int[np.ndarray, "S"]
    unit_s: Int[np.ndarray, "S"]
    owner_s: Int[np.ndarray, "S"]
    before_sk: Int[np.ndarray, "S K"]
    enter_s: Bool[np.ndarray, "S"]
    leave_s: Bool[np.ndarray, "S"]

    def fewest_frames(self) -> int:
        """Return how many frames the shortest path has."""
        needed: list[int] = []
        for state, enter in enumerate(self.enter_s):
            others = [needed[before] for before in self.before_sk[state, 1:] if before >= 0]
            needed.append(1 if enter else 1 + min(others))
        return min(n for n, leave in zip(needed, self.leave_s, strict=True) if leave)


def ctc_topology(tokens: Sequence[Token], column: Mapping[str, int], *, blank: int) -> Topology:
    """Return the lattice blank, label, blank … of the characters of all words, with separators if the model has one.

    A label may follow the label before it without a blank between them unless the two are equal.
    """
    labels, owners = [], []
    for owner, spoken in ((owner, spoken) for owner, token in enumerate(tokens) for spoken in token.spoken):
        if labels and SEPARATOR in column:
            labels.append(column[SEPARATOR])
            owners.append(-1)
        labels += [column[character] for character in spoken]
        owners += [owner] * len(spoken)
    build = _Builder()
    build.add(blank, -1, [], enter=True)
    for number, (label, owner) in enumerate(zip(labels, owners, strict=True)):
        state = 2 * number + 1
        jump = [state - 2] if number and labels[number - 1] != label else []
        build.add(label, owner, [state - 1, *jump], enter=number == 0)
        build.add(blank, -1, [state])
    return build.topology(leave=[2 * len(labels) - 1, 2 * len(labels)])


def phone_topology(
    words: Sequence[tuple[int, Sequence[Pronunciation]]], column: Mapping[str, int], *, hold: int
) -> Topology:
    """Return the graph of spoken words, each an (owner, pronunciations), with optional silence around every one.

    Every phone lasts at least `hold` frames.
    """
    build = _Builder()
    exits = [build.add(column[SILENCE], -1, [], enter=True)]
    for position, (owner, spoken) in enumerate(words):
        ends: list[int] = []
        for pronunciation in spoken:
            before, earlier = exits, []
            for number, label in enumerate(pronunciation.labels):
                skip = earlier if pronunciation.skippable else []
                enter = position == 0 and number <= int(pronunciation.skippable)
                state = build.add(column[label], owner, [*before, *skip], enter=enter)
                before, earlier = [build.hold(state, hold - 1)], before
            ends += before
            if pronunciation.skippable and len(pronunciation.labels) > 1:
                ends += earlier
        exits = [*ends, build.add(column[SILENCE], -1, ends)]
    return build.topology(leave=exits)


class _Builder:
    """Collects states; `add` returns the new state's number."""

    def __init__(self) -> None:
        self.labels: list[int] = []
        self.units: list[int] = []
        self.owners: list[int] = []
        self.before: list[list[int]] = []
        self.enter: list[bool] = []

    def add(self, label: int, owner: int, before: Sequence[int], *, enter: bool = False) -> int:
        state = len(self.labels)
        self.labels.append(label)
        self.units.append(state)
        self.owners.append(owner)
        self.before.append([state, *before])
        self.enter.append(enter)
        return state

    def hold(self, state: int, times: int) -> int:
        """Repeat `state`, in sequence and as one unit; return the last repetition."""
        last = state
        for _ in range(times):
            last = self.add(self.labels[state], self.owners[state], [last])
            self.units[last] = state
        return last

    def topology(self, *, leave: Sequence[int]) -> Topology:
        width = max(map(len, self.before))
        before = [[*states, *[-1] * (width - len(states))] for states in self.before]
        leave_s = np.zeros(len(self.labels), bool)
        leave_s[list(leave)] = True
        return Topology(
            np.array(self.labels, np.int32),
            np.array(self.units, np.int32),
            np.array(self.owners, np.int32),
            np.array(before, np.int32),
            np.array(self.enter, bool),
            leave_s,
        )
