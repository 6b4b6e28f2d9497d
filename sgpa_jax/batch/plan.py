"""What a data set's run would cost, told from its manifest and its recordings' headers: `sgpa batch --dry-run`.

The words of the transcripts stand for the players; what else may be one, a sound beside the words, adds to that. A
response is assumed to have eight tokens. `programs` are the engine's: two for each length where sound is rendered, one
for each shape of chunks where the decoder's input is changed, and where responses are compared two for each shape of
batches. The aligner, the model's own answers and estimators compile theirs beside them.
"""

import functools
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from sgpa_jax.api import usual_prompt
from sgpa_jax.audio import SAMPLES_STEP_S, Clip
from sgpa_jax.batch.job import Job
from sgpa_jax.batch.run import Runner
from sgpa_jax.games import (
    TOKEN_ABSENCES,
    Passage,
    answers_cost,
    coalition_bytes,
    coalitions_at_once,
    frames_of_everybody,
    tries_cost,
)
from sgpa_jax.models import ModelInputs, with_response
from sgpa_jax.players import all_coalitions

_ASSUMED_TOKENS, _PROMPT_TOKENS = 8, 32


def plan_batch(job: Job) -> dict[str, Any]:
    """Return what a run would do, as plain values that JSON can hold.

    Raises:
        SgpaError: the manifest or the model cannot be loaded.
    """
    runner = Runner(job)
    manifest, asked = runner.manifest, job.asked
    n_words = np.maximum(manifest.n_words, 1).tolist()
    coalitions = [min(2 ** min(n, 62), asked.budget_for(n)) for n in n_words]
    durations_s = manifest.durations_s[np.isfinite(manifest.durations_s)]
    told: dict[str, Any] = {
        "items": len(manifest),
        "unreadable": len(manifest) - len(durations_s),
        "hours": round(float(durations_s.sum()) / 3600, 4),
        "bundles": len(runner.bundles),
        "exact_items": sum(2 ** min(n, 62) == count for n, count in zip(n_words, coalitions, strict=True)),
        "coalitions": sum(coalitions),
    }
    if asked.compares_responses:
        return told | _of_answers(runner, n_words, coalitions)
    if asked.absence in TOKEN_ABSENCES:
        return told | _of_tries(runner, n_words, coalitions)
    return told | _of_the_heard(runner, durations_s[durations_s <= runner.model.window_s])


def _of_the_heard(runner: Runner, durations_s: np.ndarray) -> dict[str, Any]:
    model = runner.model
    buckets = Counter(frames_of_everybody(model, round(length_s * model.rate_hz)) for length_s in durations_s.tolist())
    bytes_each = {n: _bytes(runner, n) for n in buckets}
    return {
        "buckets": [f"{count} items of {n} mel frames" for n, count in sorted(buckets.items())],
        "programs": 2 * len(buckets),
        "bytes_at_once": max(n * coalitions_at_once(model, n) for n in bytes_each.values()) if buckets else 0,
    }


def _bytes(runner: Runner, n_frames: int) -> int:
    model = runner.model
    n_audio = int(model.config.encoder.n_tokens(n_frames - model.config.front_end.room_frames))
    return coalition_bytes(model, n_frames, n_audio + _PROMPT_TOKENS, _PROMPT_TOKENS, _ASSUMED_TOKENS)


def _of_tries(runner: Runner, n_words: Sequence[int], coalitions: Sequence[int]) -> dict[str, Any]:
    """Plan every bundle as if recordings lasted whole buckets of samples and their words the same time each."""
    model, asked = runner.model, runner.asked

    @functools.cache
    def passage_of(n_steps: int, n_players: int) -> Passage:
        inputs = with_response(_prompt_of(runner, n_steps), [0] * _ASSUMED_TOKENS)
        owner_t, is_audio_t = np.full(len(inputs.ids_t) - 1, -1), inputs.clip_t[:-1] >= 0
        owner_t[is_audio_t] = np.arange(is_audio_t.sum()) * n_players // is_audio_t.sum()
        nothing = np.zeros((len(owner_t), 1), np.float32)
        baseline_td = nothing if asked.absence == "embedding" else None
        return Passage(nothing, np.zeros(_ASSUMED_TOKENS, int), owner_t, (asked.absence,) * n_players, baseline_td)

    @functools.cache
    def cost_of(bundle: tuple[tuple[int, int, int], ...]) -> list[tuple[str, int]]:
        passages = [passage_of(n_steps, n_players) for n_steps, n_players, _ in bundle]
        return tries_cost(model, passages, [_some(n_players, count) for _, n_players, count in bundle])

    found: set[tuple[str, int]] = set()
    for heard in _heard(runner):
        found |= {*cost_of(tuple((n_steps, n_words[n], coalitions[n]) for n, n_steps in heard))}
    return _told(found, 1)


def _of_answers(runner: Runner, n_words: Sequence[int], coalitions: Sequence[int]) -> dict[str, Any]:
    """Lay out the prompts of every bundle, as if words lasted the same time each; who is cut out makes one shorter."""
    model, asked = runner.model, runner.asked
    is_cut = asked.absence in ("delete", "mel_delete")

    @functools.cache
    def lengths_of(n_steps: int, n_players: int, count: int) -> Int[np.ndarray, " C"]:
        is_audio_t = _prompt_of(runner, n_steps).clip_t >= 0
        n_there_c = _some(n_players, count).sum(axis=1) if is_cut else np.full(count, n_players)
        return (~is_audio_t).sum() + is_audio_t.sum() * n_there_c // n_players

    found: set[tuple[str, int]] = set()
    for heard in _heard(runner):
        lengths = [lengths_of(n_steps, n_words[n], coalitions[n]) for n, n_steps in heard]
        found |= {*answers_cost(model, lengths, max_new_tokens=asked.max_new_tokens)}
    return _told(found, 2)


def _heard(runner: Runner) -> Iterator[list[tuple[int, int]]]:
    """Of every bundle the items that the model can hear at once, with their lengths in steps."""
    steps, most = runner.manifest.durations_s / SAMPLES_STEP_S, runner.model.window_s / SAMPLES_STEP_S
    for bundle in runner.bundles:
        if heard := [(n, math.ceil(steps[n])) for n in bundle if 0 < steps[n] <= most]:
            yield heard


def _prompt_of(runner: Runner, n_steps: int) -> ModelInputs:
    model = runner.model
    silence = Clip(np.zeros(round(n_steps * SAMPLES_STEP_S * model.rate_hz), np.float32), model.rate_hz)
    return model.prepare(silence, usual_prompt(model, runner.job.prompt), system=runner.asked.system)


def _told(found: set[tuple[str, int]], n_programs: int) -> dict[str, Any]:
    """Of shapes and their bytes, with so many programs for each."""
    return {
        "buckets": sorted(shape for shape, _ in found),
        "programs": n_programs * len(found),
        "bytes_at_once": max((n_bytes for _, n_bytes in found), default=0),
    }


def _some(n_players: int, count: int) -> np.ndarray:
    """All coalitions, or so many that are drawn."""
    if count == 2 ** min(n_players, 62):
        return all_coalitions(n_players)
    return np.random.default_rng(0).random((count, n_players)) < 0.5
