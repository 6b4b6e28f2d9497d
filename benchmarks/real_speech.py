"""Does alignment hold on real speech? Against the SGPA authors' segments and pocketsphinx, per set of recordings.

The recordings are those of the folder that `SGPA_SPEECH_DATA` names (wavs, mp3s and `manifest.json`); where it is unset
the script ends at once. `sgpa` and `authors` are the rule sets (over phones, and over characters), `phone` is `sgpa`
without its refinement. Neither reference is the truth: the authors' segments (`recorded`) come from wav2vec2 through
their refinement, with holes between words; pocketsphinx is a hidden Markov model with frames of 10 ms (so has `phone`),
whose edges are 17 ms off (median) on synthesised speech, half of it noisy.

Compared are `centres` of words, or `edges`: the start and the end of every word, where a pause in one and a shared edge
in the other count like anything else. `median_ms` and `within_…` are of absolute differences; percentiles (`p5_ms` to
`p95_ms`) keep the sign, positive where the method is later than the reference.

A clip that the method cannot align counts in `failed`; one that pocketsphinx refuses, or whose words are not all in its
dictionary, in `no_reference`. The rows of `recorded` against pocketsphinx say how far apart the references are.
"""

import json
import os
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from _harness import parser, report
from jaxtyping import Float

from sgpa_jax.align import AcousticModel, align
from sgpa_jax.align.transcript import read_transcript
from sgpa_jax.audio import Clip, read_clip
from sgpa_jax.errors import AlignmentError
from sgpa_jax.models import load_aligner

METHODS = ("phone", "sgpa", "authors")
COMPARISONS = (
    *((method, "recorded", "centres") for method in METHODS),
    *((method, "pocketsphinx", "edges") for method in (*METHODS, "recorded")),
)
WITHIN_MS = (20, 50, 100)
PERCENTILES = (5, 25, 50, 75, 95)
_ALPHABET = frozenset("'abcdefghijklmnopqrstuvwxyz")
_SPHINX_HZ, _SPHINX_FRAME_S = 16_000, 0.01
_PADDING_S = 0.2
_DITHER = 20
# The best settings that we found on synthesised speech. With its search for a best path through the lattice (on by
# default) it gives the silence after the last word to that word, or finds nothing, in most clips.
_SETTINGS = {"beam": 1e-120, "pbeam": 1e-120, "wbeam": 1e-120, "bestpath": False}


@dataclass
class Differences:
    """Signed differences of one comparison in one set, and clips without any."""

    found_ms: list[float] = field(default_factory=list)
    clips: int = 0
    failed: int = 0
    no_reference: int = 0

    def add(
        self, what: str, words_w2: Float[np.ndarray, "W 2"] | None, reference_w2: Float[np.ndarray, "W 2"] | None
    ) -> None:
        """Compare the words of a clip."""
        self.clips += 1
        self.failed += words_w2 is None
        self.no_reference += reference_w2 is None
        if words_w2 is not None and reference_w2 is not None:
            late_w2 = 1000 * (words_w2 - reference_w2)
            self.found_ms += (late_w2.mean(axis=1) if what == "centres" else late_w2.ravel()).tolist()

    def row(self) -> dict[str, object]:
        """Return the columns that are measured."""
        found = np.array(self.found_ms)
        return {
            "clips": self.clips,
            "failed": self.failed,
            "no_reference": self.no_reference,
            "n": len(found),
            "median_ms": float(np.median(np.abs(found))),
            **{f"within_{limit}ms": float((np.abs(found) <= limit).mean()) for limit in WITHIN_MS},
            **{f"p{percent}_ms": float(np.percentile(found, percent)) for percent in PERCENTILES},
        }


def main() -> None:
    """Align every recording, compare, and print the table."""
    options = parser(__doc__)
    options.add_argument("--aligner", default="pocket", help="a shipped name or a folder (default: pocket)")
    arguments = options.parse_args()
    folder = os.environ.get("SGPA_SPEECH_DATA")
    if not folder:
        print("skipped: SGPA_SPEECH_DATA is unset; let it name the folder with the recordings and their manifest.json")
        return
    aligner = load_aligner(arguments.aligner)
    rng = np.random.default_rng(arguments.seed)
    items = json.loads((Path(folder) / "manifest.json").read_text("utf-8"))["items"]
    found: dict[tuple[tuple[str, str, str], str], Differences] = defaultdict(Differences)
    for item in items[::8] if arguments.quick else items:
        clip = read_clip(Path(folder) / item["file"])
        times = _aligned(clip, item["transcript"], aligner)
        segments = item["authors_sgpa_segments"]
        times["recorded"] = np.array([(segment["start_sec"], segment["end_sec"]) for segment in segments])
        times["pocketsphinx"] = _pocketsphinx(clip, item["transcript"], rng)
        for comparison in COMPARISONS:
            method, reference, what = comparison
            for subset in (item["subset"], "all"):
                found[comparison, subset].add(what, times[method], times[reference])
    subsets = [*dict.fromkeys(item["subset"] for item in items), "all"]
    rows = [
        {"method": comparison[0], "reference": comparison[1], "compared": comparison[2], "subset": subset}
        | found[comparison, subset].row()
        for comparison in COMPARISONS
        for subset in subsets
        if found[comparison, subset].found_ms
    ]
    report("real_speech", rows, arguments, notes={"aligner": aligner.name, "digest": aligner.digest})


def _aligned(clip: Clip, transcript: str, aligner: AcousticModel) -> dict[str, Float[np.ndarray, "W 2"] | None]:
    """Start and end of every word by each of `METHODS`; None where a clip could not be aligned."""
    times: dict[str, Float[np.ndarray, "W 2"] | None] = dict.fromkeys(METHODS)
    for rules in ("sgpa", "authors"):
        try:
            words = align(clip, transcript, model=aligner, rules=rules).words
        except AlignmentError as error:
            print(f"{clip.path}: {error}", file=sys.stderr)
            continue
        times[rules] = np.array([(word.start_s, word.end_s) for word in words])
        if rules == "sgpa":
            times["phone"] = np.array([(word.ctc_start_s, word.ctc_end_s) for word in words], float)
    return times


def _pocketsphinx(clip: Clip, transcript: str, rng: np.random.Generator) -> Float[np.ndarray, "W 2"] | None:
    """Words by pocketsphinx as it does best: silence around the speech, a little noise, and beams that drop nothing."""
    from pocketsphinx import Decoder  # pyright: ignore[reportMissingImports]  comes with the extra `bench`

    decoder = Decoder(lm=None, loglevel="FATAL", **_SETTINGS)
    tokens = read_transcript(transcript, alphabet=_ALPHABET).tokens
    spoken = [(owner, word) for owner, token in enumerate(tokens) for word in token.spoken]
    if any(decoder.lookup_word(word) is None for _, word in spoken):
        return None
    wave_s = np.pad(clip.at_rate(_SPHINX_HZ).wave_s, round(_PADDING_S * _SPHINX_HZ))
    scaled_s = wave_s * (0.8 * 32767 / np.abs(wave_s).max()) + rng.normal(0, _DITHER, wave_s.size)
    try:
        decoder.set_align_text(" ".join(word for _, word in spoken))
        decoder.start_utt()
        decoder.process_raw(scaled_s.astype(np.int16).tobytes(), full_utt=True)
        decoder.end_utt()
        segments = [segment for segment in decoder.seg() or () if segment.word[0] not in "<["]
    except RuntimeError:
        return None
    if [segment.word.partition("(")[0] for segment in segments] != [word for _, word in spoken]:
        return None
    times = np.full((len(tokens), 2), np.nan)
    for (owner, _), segment in zip(spoken, segments, strict=True):
        if np.isnan(times[owner, 0]):
            times[owner, 0] = segment.start_frame * _SPHINX_FRAME_S - _PADDING_S
        times[owner, 1] = (segment.end_frame + 1) * _SPHINX_FRAME_S - _PADDING_S
    return times


if __name__ == "__main__":
    main()
