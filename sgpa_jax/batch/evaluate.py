"""What the device does for a bundle: its items' answers, and then their games, in common batches, round by round."""

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from sgpa_jax.api import Answer, Asked, Prepared, answered, explanation_of, game_facts, game_of
from sgpa_jax.batch.outcome import Coalitions, Outcome
from sgpa_jax.batch.prepare import Ready
from sgpa_jax.errors import SgpaError
from sgpa_jax.estimators import Estimate, estimating
from sgpa_jax.games import Game, evaluate_together
from sgpa_jax.models import Model
from sgpa_jax.typing import MaskCP, ValueCK


@dataclass(frozen=True, eq=False)
class _Running:
    """An item whose game is being played."""

    prepared: Prepared
    answer: Answer
    facts: dict[str, Any]
    game: Game


def evaluate_bundle(
    model: Model,
    several: Sequence[Ready],
    asked: Asked,
    *,
    known: Mapping[str, Coalitions],
    progress: Callable[[int, int], None] | None = None,
) -> list[Outcome]:
    """Explain the items of a bundle; one that fails is told of and leaves the others alone.

    Args:
        model: the audio language model.
        several: the items.
        asked: what is asked of all of them.
        known: coalitions of earlier runs by the keys of their games, which are not evaluated again.
        progress: called with (coalitions evaluated, coalitions to evaluate) of one round after every batch.
    """
    began_s = time.perf_counter()
    failed = {one.id: one.error for one in several if one.error is not None}
    ready = {one.id: one.prepared for one in several if one.prepared is not None}
    running: dict[str, _Running] = {}
    for (id, one), answer in zip(ready.items(), answered(model, list(ready.values()), asked), strict=True):
        try:
            running[id] = _started(model, one, answer, asked, known)
        except SgpaError as error:
            failed[id] = str(error)
    found = _estimated(running, asked, failed, progress)
    each_s = (time.perf_counter() - began_s) / max(len(several), 1)
    outcomes = []
    for one in several:
        seconds = round(one.seconds + each_s, 4)
        if one.id in failed:
            outcomes.append(Outcome(one.id, one.name, None, None, failed[one.id], seconds))
            continue
        item, estimate = running[one.id], found[one.id]
        explanation = explanation_of(
            model, item.prepared, item.answer, asked, game=item.game, facts=item.facts, found=estimate,
            timings={"prepare": round(one.seconds, 4), "evaluate": round(each_s, 4)},
        )  # fmt: skip
        outcomes.append(Outcome(one.id, one.name, explanation, _kept(item, estimate), None, seconds))
    return outcomes


def _started(
    model: Model, one: Prepared, answer: Answer | SgpaError, asked: Asked, known: Mapping[str, Coalitions]
) -> _Running:
    if isinstance(answer, SgpaError):
        raise answer
    facts = game_facts(model, one, answer, asked)
    game = game_of(model, one, answer, asked)
    if (kept := known.get(facts["key"])) is not None:
        outputs = kept.outputs
        if not isinstance(outputs, np.ndarray):
            outputs = [model.response([*ids]) for ids in outputs]
        game.remember(kept.masks_cp, outputs)
    return _Running(one, answer, facts, game)


def _estimated(
    running: Mapping[str, _Running],
    asked: Asked,
    failed: dict[str, str],
    progress: Callable[[int, int], None] | None,
) -> dict[str, Estimate]:
    """Play all games to their ends, every round of them together; a game that fails is told of in `failed`."""
    key = jax.random.key(asked.seed)
    rounds: dict[str, Generator[MaskCP, ValueCK, Estimate]] = {
        id: estimating(
            len(one.prepared.players), one.prepared.estimator, estimand=asked.estimand, groups=one.prepared.groups,
            budget=one.prepared.budget, tolerance=asked.wanted, key=key,
        )
        for id, one in running.items()
    }  # fmt: skip
    wanted = {id: next(generator) for id, generator in rounds.items()}
    found: dict[str, Estimate] = {}
    while wanted:
        _evaluate({id: running[id].game for id in wanted}, wanted, progress)
        following = {}
        for id, masks_cp in wanted.items():
            game = running[id].game
            try:
                following[id] = rounds[id].send(game.values(masks_cp))
            except StopIteration as stopped:
                found[id] = replace(stopped.value, evaluations=game.evaluations)
            except SgpaError as error:
                failed[id] = str(error)
        wanted = following
    return found


def _evaluate(
    games: Mapping[str, Game], wanted: Mapping[str, MaskCP], progress: Callable[[int, int], None] | None
) -> None:
    try:
        evaluate_together(list(games.values()), list(wanted.values()), progress=progress)
    except SgpaError:
        # One of them has no finite value: each is asked by itself, and tells.
        return


def _kept(item: _Running, found: Estimate) -> Coalitions:
    """What is kept of a game: all that is known of it, and which of this the estimate rests on."""
    game = item.game
    known_cp, _ = game.known()
    # Coalitions that differ in players alone whom nobody hears are known as one, and stand each for itself here.
    rows: dict[bytes, int] = {}
    masks = np.concatenate([known_cp, found.masks_cp])
    for row in np.packbits(masks, axis=1):
        rows.setdefault(row.tobytes(), len(rows))
    place_s = np.array([rows[row.tobytes()] for row in np.packbits(masks, axis=1)], np.int32)
    masks_cp = masks[np.unique(place_s, return_index=True)[1]]
    outputs = game.evaluate(masks_cp)
    if not isinstance(outputs, np.ndarray):
        outputs = tuple(response.ids for response in outputs)
    sample_s = place_s[len(known_cp) :]
    return Coalitions(item.facts["key"], masks_cp, outputs, sample_s, found.coalition_values_ck)
