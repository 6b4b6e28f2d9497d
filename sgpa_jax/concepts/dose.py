"""Dose and response: how answers move with the strength of steering, and what else moves with them.

Clips of a source class are steered to a target class; the strength is chosen on one half of them and reported on the
other. `sensitivity` is the share of clips that were answered with the source class and are now answered with the
target; `flip_any` the share that left the source, `off_target` to each other class; `selectivity` is sensitivity less
the largest of these; `degenerate_rate` the share of answers that name no single class, repeat themselves, or
of which the steered model is less than half as sure per token as the unsteered model was of its own. `collateral` is
what happens to the accuracy on another task.
"""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from sgpa_jax.concepts.controls import Method, activity, best_contrast, concept_shares, methods
from sgpa_jax.concepts.edits import Push
from sgpa_jax.concepts.steer import Steered, steer
from sgpa_jax.errors import UsageError
from sgpa_jax.models import Model, ModelInputs, Response
from sgpa_jax.sae import SAEState

_ROWS_AT_ONCE = 256
_LEAST_SURE = float(np.log(2))
"""Nats a token: twice the perplexity."""
_REPEATS = 3
_TOLD = ("source", "target", "latents", "shares", "auc", "p99", "chosen")


@dataclass(frozen=True, eq=False)
class Task:
    """Recordings, each with a question, and the right one of several classes.

    Raises:
        UsageError: there is not one label for each, or one is no class.
    """

    batch: tuple[ModelInputs, ...]
    labels: tuple[str, ...]
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuse what does not fit together."""
        if len(self.batch) != len(self.labels) or not set(self.labels) <= set(self.classes):
            raise UsageError(
                f"a task of {len(self.batch)} recordings came with {len(self.labels)} labels, of the classes "
                f"{', '.join(self.classes)}: expected one of these for each"
            )

    def of(self, *classes: str) -> np.ndarray:
        """Numbers of the recordings of some classes."""
        return np.array([n for n, label in enumerate(self.labels) if label in classes], int)

    def pick(self, numbers: Sequence[int] | np.ndarray) -> "Task":
        """Some of the recordings."""
        return Task(tuple(self.batch[n] for n in numbers), tuple(self.labels[n] for n in numbers), self.classes)


@dataclass(frozen=True)
class Dose:
    """What a strength does; every share is of `n` clips, or not a number where there is none.

    Attributes:
        strength: in multiples of the concept's 99th percentile where it fires, or its norm.
        amount: what the edit was given.
        change: ‖Δx‖ / ‖x‖, mean over positions and clips.
        n: clips of the source class that the unsteered model answers so.
        sensitivity, flip_any, off_target, degenerate_rate: see the module.
        collateral: accuracy on the other task less that of the unsteered model; None without one.
    """

    strength: float
    amount: float
    change: float
    n: int
    sensitivity: float
    flip_any: float
    off_target: dict[str, float]
    degenerate_rate: float
    collateral: float | None = None

    @property
    def selectivity(self) -> float:
        """Sensitivity less the largest share that went anywhere else."""
        return self.sensitivity - max(self.off_target.values(), default=0.0)


@dataclass(frozen=True)
class DoseResponse:
    """Steering from one class to another, along a concept and by every control.

    Attributes:
        source, target: the classes.
        latents: those of the concept.
        shares: their `concept_shares`.
        auc: how well its mean tells the classes apart on the dev half.
        p99: its 99th percentile where it fires, there.
        chosen: of each method the weakest strength that is the most selective on the dev half, within a clip.
        dev, test: of each method a `Dose` for every strength, on either half.
    """

    source: str
    target: str
    latents: tuple[int, ...]
    shares: tuple[float, ...]
    auc: float
    p99: float
    chosen: dict[str, float] = field(default_factory=dict)
    dev: dict[str, tuple[Dose, ...]] = field(default_factory=dict)
    test: dict[str, tuple[Dose, ...]] = field(default_factory=dict)

    def reported(self, method: str) -> Dose:
        """What a method does to the test half at the strength chosen on the dev half."""
        return next(dose for dose in self.test[method] if dose.strength == self.chosen[method])

    def area(self, method: str) -> float:
        """Mean sensitivity over the range of strengths, on the test half."""
        strength, sensitivity = np.array([[dose.strength, dose.sensitivity] for dose in self.test[method]]).T
        if len(strength) == 1:
            return float(sensitivity[0])
        return float(np.trapezoid(sensitivity, strength) / np.ptp(strength))

    def to_dict(self) -> dict[str, Any]:
        """All figures as plain data; what is not a number is null."""
        told = {name: getattr(self, name) for name in _TOLD}
        told["methods"] = {
            name: {
                "reported": _told(self.reported(name)),
                "area": _finite(self.area(name)),
                "dev": [_told(dose) for dose in self.dev[name]],
                "test": [_told(dose) for dose in self.test[name]],
            }
            for name in self.test
        }
        return told


def dose_response(
    model: Model,
    sae: SAEState,
    task: Task,
    *,
    source: str,
    target: str,
    after_layer: int,
    strengths: Sequence[float] = (0.5, 1.0, 2.0, 4.0, 8.0),
    latents: Sequence[int] | None = None,
    positions: str = "audio",
    collateral: Task | None = None,
    max_new_tokens: int = 8,
    key: PRNGKeyArray,
) -> DoseResponse:
    """Steer from one class to another at several strengths, along a concept and by every control.

    Args:
        model: the audio language model.
        sae: takes the residual stream's own numbers (`TrainedSAE.folded`).
        task: clips of both classes; any others count as neither.
        source, target: the classes.
        after_layer: whose residual stream the autoencoder takes, counted from 0.
        strengths: in multiples of the concept's 99th percentile where it fires.
        latents: those of the concept; None: the one whose mean tells the classes apart best on the dev half.
        positions: one of `POSITIONS`.
        collateral: another task.
        max_new_tokens: of the longest answer.
        key: cuts the halves and draws the random latents.

    Raises:
        UsageError: fewer than two clips of either class, no clip of the source class that the unsteered model answers
            so in one of the halves, or what `concept_shares`, `methods` and `steer` refuse.
    """
    strengths = sorted({float(strength) for strength in strengths})
    halves_key, random_key = jax.random.split(key)
    halves = [task.pick(numbers) for numbers in _halves(task, source, target, halves_key)]
    seen = activity(model, sae, halves[0].batch, after_layer)
    is_target_n = np.array([label == target for label in halves[0].labels])
    if latents is None:
        latents = [best_contrast(seen.mean_nm, is_target_n)[0]]
    share_k = concept_shares(seen, latents, is_target_n)
    _, auc = best_contrast((seen.mean_nm[:, list(latents)] @ share_k)[:, None], is_target_n)
    ways = methods(sae, latents, share_k, seen, is_target_n, key=random_key)
    p99 = ways["concept"].unit
    found = DoseResponse(source, target, tuple(map(int, latents)), tuple(share_k.tolist()), auc, p99)
    asked: dict[str, Any] = {"after_layer": after_layer, "positions": positions, "max_new_tokens": max_new_tokens}
    tasks = [half.pick(half.of(source)) for half in halves]
    clean = [_answers(model, part, None, (0.0,), asked) for part in tasks]
    other = None if collateral is None else (collateral, _answers(model, collateral, None, (0.0,), asked))
    for name, method in ways.items():
        some = strengths if method.unit else [0.0]
        aside = [None] * len(some) if other is None else _aside(model, *other, method, some, asked)
        for part, before, doses in zip(tasks, clean, (found.dev, found.test), strict=True):
            doses[name] = _doses(model, part, before, method, some, source, target, aside, asked)
        best = max(dose.selectivity for dose in found.dev[name])
        found.chosen[name] = min(dose.strength for dose in found.dev[name] if _as_good(dose, best))
    return found


def class_of(text: str, classes: Sequence[str]) -> str | None:
    """Return the one class whose words are in a text, as whole words next to each other; None if it is not one."""
    named = [name for name in classes if _words(name) in _words(text)]
    # "dog bark" names the dog's bark alone, where "bark" is a class as well.
    named = [name for name in named if not any(name != longer and _words(name) in _words(longer) for longer in named)]
    return named[0] if len(named) == 1 else None


def repeats_itself(response: Response) -> bool:
    """Whether a token stands three times in a row."""
    runs = zip(*(response.ids[shift:] for shift in range(_REPEATS)), strict=False)
    return any(len(set(run)) == 1 for run in runs)


def _words(text: str) -> str:
    """Words between single spaces, without their marks."""
    words = re.findall(r"[\w-]+", text.casefold())
    return f" {' '.join(words)} "


def _halves(task: Task, source: str, target: str, key: PRNGKeyArray) -> list[np.ndarray]:
    parts: list[list[np.ndarray]] = [[], []]
    for name, part_key in zip((source, target), jax.random.split(key), strict=True):
        numbers = task.of(name)
        if len(numbers) < 2:
            raise UsageError(f"there are {len(numbers)} clips of the class {name!r}: expected two, one for each half")
        drawn = numbers[np.asarray(jax.random.permutation(part_key, len(numbers)))]
        parts[0].append(drawn[::2])
        parts[1].append(drawn[1::2])
    return [np.sort(np.concatenate(part)) for part in parts]


def _answers(
    model: Model, task: Task, method: Method | None, strengths: Sequence[float], asked: dict[str, Any]
) -> Steered:
    """Answers of any number of clips, so many at once that the rows of a batch are bounded; without a method, clean."""
    if method is None:
        method = Method(Push(jnp.zeros(model.config.decoder.width)), 1.0)
    at_once = min(len(task.batch), max(1, _ROWS_AT_ONCE // len(strengths)))
    parts = []
    for first in range(0, len(task.batch), at_once):
        batch = list(task.batch[first : first + at_once])
        padded = [*batch, *[batch[0]] * (at_once - len(batch))]
        done = steer(model, padded, method.edit, [method.unit * strength for strength in strengths], **asked)
        parts.append((done, len(batch)))
    said = tuple(
        tuple(response for done, n in parts for response in done.responses_an[a][:n]) for a in range(len(strengths))
    )
    change_an, nats_an = (
        np.concatenate([getattr(done, name)[:, :n] for done, n in parts], axis=1) for name in ("change_an", "nats_an")
    )
    return Steered(parts[0][0].strengths_a, said, change_an, nats_an)


def _doses(
    model: Model, task: Task, clean: Steered, method: Method, strengths: Sequence[float], source: str, target: str,
    aside: Sequence[float | None], asked: dict[str, Any],
) -> tuple[Dose, ...]:  # fmt: skip
    right = [n for n, said in enumerate(clean.responses_an[0]) if class_of(said.text, task.classes) == source]
    if not right:
        raise UsageError(
            f"{model.name} answers {source!r} to none of the {len(task.batch)} clips of that class in one of the "
            "halves, so that nothing can be steered away from it; give clips that it answers right"
        )
    done, doses = _answers(model, task, method, strengths, asked), []
    for a, strength in enumerate(strengths):
        said = [done.responses_an[a][n] for n in right]
        named = [class_of(response.text, task.classes) for response in said]
        unsure = [done.nats_an[a, n] < clean.nats_an[0, n] - _LEAST_SURE for n in right]
        off = {name: named.count(name) / len(right) for name in task.classes if name not in (source, target)}
        broken = [
            name is None or repeats_itself(response) or is_unsure
            for name, response, is_unsure in zip(named, said, unsure, strict=True)
        ]
        gone, left = named.count(target) / len(right), 1 - named.count(source) / len(right)
        change, degenerate = float(done.change_an[a].mean()), float(np.mean(broken))
        amount = strength * method.unit
        doses.append(Dose(strength, amount, change, len(right), gone, left, off, degenerate, aside[a]))
    return tuple(doses)


def _aside(
    model: Model, task: Task, clean: Steered, method: Method, strengths: Sequence[float], asked: dict[str, Any]
) -> list[float]:
    """Accuracy on another task, less that of the unsteered model."""
    done = _answers(model, task, method, strengths, asked)
    before, *after = (
        np.mean(
            [class_of(response.text, task.classes) == label for response, label in zip(row, task.labels, strict=True)]
        )
        for row in (clean.responses_an[0], *done.responses_an)
    )
    return [float(share - before) for share in after]


def _as_good(dose: Dose, selectivity: float) -> bool:
    """Whether a dose is as selective, within a clip."""
    return (selectivity - dose.selectivity) * dose.n < 1 + 1e-6


def _told(dose: Dose) -> dict[str, Any]:
    return {name: _finite(value) for name, value in (asdict(dose) | {"selectivity": dose.selectivity}).items()}


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not np.isfinite(value) else value
