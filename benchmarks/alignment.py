"""How far are word boundaries from the truth? Emissions × stage 3 as a grid, and two methods that hear no words.

Sentences are synthesised in voices that the aligner never heard (`unseen_engine`: by an engine that it never heard), so
that every word's start and end are known to the sample. The same utterances are heard `clean`, with `noise` of 5 to
20 dB, with `reverb` of 0.2 to 0.6 s, and `fast` (1.2 to 1.4 times). Methods:

  ctc, sgpa_authors, character_sgpa   a path over characters: raw, refined by the authors' rules, by ours
  phone, phone_authors, sgpa          the same over phones; `sgpa` is what `sgpa_jax.align` does by default
  uniform                             equal parts of the stretch that is louder than its surroundings
  energy                              the same cuts, each moved to the quietest moment within half a part

An error is |estimated − true| of one edge; every word has two, its start and its end. Where a method gives neighbours
one shared edge and the truth has a pause between them, that edge is compared with both sides of the pause and cannot be
right for both. Such edges (`pause_ms` is their median) count like those between words that touch (`joined_ms`) and the
first and last of an utterance (`outer_ms`). An utterance that a method cannot align counts only in `failed`.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from _harness import parser, report
from jaxtyping import Float
from train.aligner_data import test_utterances
from train.augment import augment
from train.sentences import Sentences
from train.speech import RATE_HZ, Utterance

from sgpa_jax.align import AcousticModel, Emissions, align
from sgpa_jax.audio import Clip
from sgpa_jax.errors import AlignmentError
from sgpa_jax.models import load_aligner

CONDITIONS = ("clean", "noise", "reverb", "fast", "unseen_engine")
GRID = {
    ("character", "none"): "ctc",
    ("character", "authors"): "sgpa_authors",
    ("character", "sgpa"): "character_sgpa",
    ("phone", "none"): "phone",
    ("phone", "authors"): "phone_authors",
    ("phone", "sgpa"): "sgpa",
}
WITHIN_MS = (10, 20, 50, 100)
KINDS = ("joined", "pause", "outer")
# Trainers take small seeds; these are utterances that no training and no choice of weights has seen.
_FIRST_SEED = 1000
_FRAME_S, _HOP_S = 0.025, 0.005
_QUIETEST_DB, _QUIET_PERCENT = 60.0, 10


@dataclass
class Errors:
    """Errors of one method in one condition: milliseconds and kind of every edge, and utterances without any."""

    edges_ms: list[float] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    failed: int = 0

    def add(self, found_w2: Float[np.ndarray, "W 2"], true_w2: Float[np.ndarray, "W 2"]) -> None:
        """Compare an utterance's words with the truth."""
        self.edges_ms += (1000 * np.abs(found_w2 - true_w2)).ravel().tolist()
        gaps = ["pause" if gap_s > 1 / RATE_HZ else "joined" for gap_s in true_w2[1:, 0] - true_w2[:-1, 1]]
        self.kinds += ["outer", *(kind for gap in gaps for kind in (gap, gap)), "outer"]

    def row(self) -> dict[str, object]:
        """Return the columns that are measured."""
        edges_ms, kinds = np.array(self.edges_ms), np.array(self.kinds)
        return {
            "median_ms": float(np.median(edges_ms)),
            "mean_ms": float(edges_ms.mean()),
            **{f"within_{limit}ms": float((edges_ms <= limit).mean()) for limit in WITHIN_MS},
            **{f"{kind}_ms": float(np.median(edges_ms[kinds == kind])) for kind in KINDS if kind in kinds},
            "n": len(edges_ms),
            "failed": self.failed,
        }


class HeardOnce:
    """An acoustic model that hears every clip once, whatever is then asked of it."""

    def __init__(self, model: AcousticModel) -> None:
        self.name, self.digest = model.name, model.digest
        self.rate_hz, self.lexicon, self.transcribes = model.rate_hz, model.lexicon, model.transcribes
        self._model = model
        self._heard: dict[str, dict[str, Emissions]] = {}

    def emissions(self, clips: Sequence[Clip]) -> list[dict[str, Emissions]]:
        """Return what the model would."""
        for clip in clips:
            if clip.sha256 not in self._heard:
                self._heard[clip.sha256] = self._model.emissions([clip])[0]
        return [self._heard[clip.sha256] for clip in clips]


def main() -> None:
    """Measure every method in every condition and print the table."""
    options = parser(__doc__)
    options.add_argument("--n", type=int, default=150, help="utterances in each condition (default: 150)")
    options.add_argument("--aligner", default="pocket", help="a shipped name or a folder (default: pocket)")
    arguments = options.parse_args()
    n = min(arguments.n, 10) if arguments.quick else arguments.n
    aligner = load_aligner(arguments.aligner)
    found: dict[tuple[str, str], Errors] = defaultdict(Errors)
    for condition, utterance in _utterances(Sentences(aligner.lexicon or {}), _FIRST_SEED + arguments.seed, n):
        clip = Clip(utterance.wave_s, RATE_HZ)
        true_w2 = np.array([(word.start_s, word.end_s) for word in utterance.words])
        for method, words_w2 in _estimates(clip, utterance, HeardOnce(aligner)).items():
            errors = found[method, condition]
            if words_w2 is None:
                errors.failed += 1
            else:
                errors.add(words_w2, true_w2)
    cells = {method: cell for cell, method in GRID.items()}
    rows = []
    for condition in CONDITIONS:
        for method in (*GRID.values(), "uniform", "energy"):
            emissions, stage_3 = cells.get(method, ("none", "none"))
            place = {"condition": condition, "method": method, "emissions": emissions, "stage_3": stage_3}
            rows.append(place | found[method, condition].row())
    report("alignment", rows, arguments, notes={"aligner": aligner.name, "digest": aligner.digest, "utterances": n})


def _utterances(sentences: Sentences, seed: int, n: int) -> Iterator[tuple[str, Utterance]]:
    spoken = test_utterances(sentences, seed, "clean", n)
    for condition in CONDITIONS[:-1]:
        rng = np.random.default_rng(seed)
        yield from ((condition, augment(utterance, rng, condition=condition)) for utterance in spoken)
    yield from (("unseen_engine", utterance) for utterance in test_utterances(sentences, seed, "unseen_engine", n))


def _estimates(
    clip: Clip, utterance: Utterance, aligner: AcousticModel
) -> Mapping[str, Float[np.ndarray, "W 2"] | None]:
    """Start and end of every word by every method; None where it has none."""
    transcript = " ".join(word.label for word in utterance.words)
    estimates: dict[str, Float[np.ndarray, "W 2"] | None] = {}
    for emission in ("character", "phone"):
        for rules in ("authors", "sgpa"):
            try:
                words = align(clip, transcript, model=aligner, rules=rules, emission=emission).words
            except AlignmentError:
                estimates[GRID[emission, rules]] = None
                continue
            estimates[GRID[emission, rules]] = np.array([(word.start_s, word.end_s) for word in words])
            if rules == "sgpa":
                raw = [(word.ctc_start_s, word.ctc_end_s) for word in words]
                estimates[GRID[emission, "none"]] = np.array(raw, float)
        estimates.setdefault(GRID[emission, "none"], None)
    level_f = _level_db(clip)
    uniform_e = _uniform_edges(level_f, len(utterance.words))
    estimates["uniform"] = _words_between(uniform_e)
    estimates["energy"] = _words_between(_quiet_edges(level_f, uniform_e))
    return estimates


def _words_between(edges_e: Float[np.ndarray, "E"]) -> Float[np.ndarray, "W 2"]:
    return np.stack([edges_e[:-1], edges_e[1:]], axis=1)


def _level_db(clip: Clip) -> Float[np.ndarray, "F"]:
    """Loudness in decibels below the loudest frame, every 5 ms."""
    frame, hop = round(_FRAME_S * clip.rate_hz), round(_HOP_S * clip.rate_hz)
    padded = np.pad(clip.wave_s.astype(np.float64), frame // 2, mode="reflect")
    frames_fs = np.lib.stride_tricks.sliding_window_view(padded, frame)[::hop]
    power_f = np.mean(np.square(frames_fs), axis=1)
    return np.maximum(10 * np.log10(power_f / power_f.max() + 1e-12), -_QUIETEST_DB)


def _uniform_edges(level_f: Float[np.ndarray, "F"], n_words: int) -> Float[np.ndarray, "E"]:
    """Equal parts between the first and the last frame that is nearer to the loudest than to the quiet ones (in dB).

    What counts as quiet, the threshold and no smoothing did best of 24 settings on utterances of another seed.
    """
    loud = np.flatnonzero(level_f > (np.percentile(level_f, _QUIET_PERCENT) + level_f.max()) / 2)
    return np.linspace(loud[0], loud[-1] + 1, n_words + 1) * _HOP_S


def _quiet_edges(level_f: Float[np.ndarray, "F"], edges_e: Float[np.ndarray, "E"]) -> Float[np.ndarray, "E"]:
    """Move each inner edge to the quietest frame within half a part on either side."""
    reach = (edges_e[1] - edges_e[0]) / 2
    moved = edges_e.copy()
    for number, edge_s in enumerate(edges_e[1:-1], start=1):
        first = int(np.ceil((edge_s - reach) / _HOP_S))
        region_f = level_f[first : max(first + 1, int((edge_s + reach) / _HOP_S))]
        moved[number] = (first + int(np.argmin(region_f))) * _HOP_S
    return moved


if __name__ == "__main__":
    main()
