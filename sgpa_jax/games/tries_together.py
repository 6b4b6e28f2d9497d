"""Games of several utterances in the chunks of one plan, where players are absent from the decoder's input.

Coalitions of different recordings have nothing in common, but their tokens stand in one table and their groups fill
the same chunks, so that small games do not run half-empty ones, and all of a queue are one program (`plan_tries`).
"""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Bool

from sgpa_jax.games.passage import Passage
from sgpa_jax.games.queues import Part, Queued
from sgpa_jax.games.speech import COALITIONS_AT_ONCE, coalitions_in_a_plan, with_total
from sgpa_jax.games.trie import run_plan, scene_of, sizes_on
from sgpa_jax.games.trie_plan import TriePlan, plan_tries
from sgpa_jax.models import Model


def evaluate_tries(waiting: Sequence[Queued]) -> Iterator[int]:
    """Evaluate coalitions of games of the decoder's input; yield how many were fetched after every plan."""
    games, masks = zip(*waiting, strict=True)
    model, passages = games[0].model, [game.passage for game in games]
    for queue, plan in planned(model, passages, masks):
        scene = scene_of(*(passages[number] for number, _ in queue))
        found_cr = run_plan(model.decoder, scene, plan, mesh=model.mesh)[plan.leaf_of_c]
        ends = np.cumsum([len(masks_cp) for _, masks_cp in queue])
        for (number, masks_cp), own_cr in zip(queue, np.split(found_cr, ends[:-1]), strict=True):
            game, token_cr = games[number], own_cr[:, : len(passages[number].targets_r)]
            game.remember(masks_cp, with_total(token_cr, game.value), model_forwards=len(masks_cp))
        yield int(ends[-1])


def planned(
    model: Model, passages: Sequence[Passage], masks: Sequence[Bool[np.ndarray, "C P"]]
) -> Iterator[tuple[list[Part], TriePlan]]:
    """Plan coalitions of several passages, as many at once as the host has memory for."""
    group_tokens, chunk_leaves = sizes_on(model.platform)
    for queue in _fitting(passages, masks):
        plan = plan_tries(
            [passages[number] for number, _ in queue],
            [masks_cp for _, masks_cp in queue],
            n_before=model.config.decoder.n_before,
            group_tokens=group_tokens,
            chunk_leaves=chunk_leaves,
            n_devices=1 if model.mesh is None else model.mesh.shape["data"],
        )
        yield queue, plan


def _fitting(passages: Sequence[Passage], masks: Sequence[Bool[np.ndarray, "C P"]]) -> Iterator[list[Part]]:
    """Cut a queue where its plan would be too large, and games that are too large by themselves."""
    queue: list[Part] = []
    room = COALITIONS_AT_ONCE
    for number, (passage, masks_cp) in enumerate(zip(passages, masks, strict=True)):
        at_once = coalitions_in_a_plan(passage)
        for first in range(0, len(masks_cp), at_once):
            some_cp = masks_cp[first : first + at_once]
            # Coalitions of long passages take the room of several.
            size = len(some_cp) * COALITIONS_AT_ONCE // at_once
            if queue and size > room:
                yield queue
                queue, room = [], COALITIONS_AT_ONCE
            queue.append((number, some_cp))
            room -= size
    yield queue
