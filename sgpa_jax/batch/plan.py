"""What a data set's run would cost, told from its manifest and its recordings' headers: `sgpa batch --dry-run`.

The words of the transcripts stand for the players; what else may be one, a sound beside the words, adds to that. A
response is assumed to have eight tokens. `programs` are the engine's, two for each length; aligner, answers and
estimators compile theirs beside them.
"""

from collections import Counter
from typing import Any

import numpy as np

from sgpa_jax.batch.job import Job
from sgpa_jax.batch.run import Runner
from sgpa_jax.games import TOKEN_ABSENCES, coalition_bytes, coalitions_at_once, frames_of_everybody

_ASSUMED_TOKENS, _PROMPT_TOKENS = 8, 32


def plan_batch(job: Job) -> dict[str, Any]:
    """Return what a run would do, as plain values that JSON can hold.

    Raises:
        SgpaError: the manifest or the model cannot be loaded.
    """
    runner = Runner(job)
    manifest, model, asked = runner.manifest, runner.model, job.asked
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
    if asked.absence in TOKEN_ABSENCES or asked.compares_responses:
        return told
    heard = durations_s[durations_s <= model.window_s]
    buckets = Counter(frames_of_everybody(model, round(length_s * model.rate_hz)) for length_s in heard.tolist())
    bytes_each = {n: _bytes(runner, n) for n in buckets}
    return told | {
        "buckets": [f"{count} items of {n} mel frames" for n, count in sorted(buckets.items())],
        "programs": 2 * len(buckets),
        "bytes_at_once": max(n * coalitions_at_once(model, n) for n in bytes_each.values()) if buckets else 0,
    }


def _bytes(runner: Runner, n_frames: int) -> int:
    model = runner.model
    n_audio = int(model.config.encoder.n_tokens(n_frames - model.config.front_end.room_frames))
    return coalition_bytes(model, n_frames, n_audio + _PROMPT_TOKENS, _PROMPT_TOKENS, _ASSUMED_TOKENS)
