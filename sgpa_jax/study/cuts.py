"""What a recording is like where it is cut: how much its spectrum changes, whether a phone is cut, whether it clicks.

The paper shows that its refined boundaries have less spectral flux (section 4.4), and flux is part of the cost that
they minimise. So beside the paper's own measure stand three that no cost knows: how far the cepstrum of the 25 ms
before a cut is from that of the 25 ms after it (without its level), the share of cuts in the inside of a phone whose
true times are known, and the click score of the authors' search for α. Low flux is a good place to cut without a click;
between two words the sound changes, and good word edges have more of it, not less.
Axes: `S` samples, `F` frames, `C` cuts, `W` words.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import numpy as np
from jaxtyping import Float
from scipy.fft import dct

from sgpa_jax.align import loudness_and_change
from sgpa_jax.audio import Clip
from sgpa_jax.errors import PlayerError
from sgpa_jax.players import Player, Players
from sgpa_jax.study.corpus import Span
from sgpa_jax.study.heard import Heard
from sgpa_jax.study.notes import Notes
from sgpa_jax.study.partitions import random_edges
from sgpa_jax.study.records import ALIGNMENT, Record, numbers, settings
from sgpa_jax.study.table import Table

TABLE = "cuts"
POSITIONS_S = {"every 80 ms": 0.08, "every 40 ms": 0.04}
"""The native tokens of LFM2-Audio and of Qwen2-Audio."""

INSIDE_MS = (10, 20)
"""A cut is inside of a phone that begins and ends farther away than this."""

_RANDOM_DRAWS, _MASKS = 5, 3
_FRAME, _HOP = 256, 64
_CEPSTRUM_S, _BANDS, _COEFFICIENTS = 0.025, 24, 13
_EDGE_QUANTILE, _EDGES_APART, _CLICK_S, _CLICK_HZ = 0.995, 8, 0.004, 4000


def note_cuts(notes: Notes, heard: Heard, times: Mapping[tuple[str, str], Float[np.ndarray, "W 2"]]) -> None:
    """Note what every partition of an item cuts through; `times` are the words of each method."""
    clip, item = heard.clip, heard.item
    rng = np.random.default_rng(int(clip.sha256[:16], 16))
    partitions: dict[str, list[Float[np.ndarray, "N 2"]]] = {}
    for (emission, stage), times_w2 in times.items():
        partitions[f"{emission} {stage}" if emission != "none" else stage] = [times_w2]
    if item.words:
        partitions["true"] = [np.array([span[1:] for span in item.words])]
    n_words = len(next(iter(times.values())))
    drawn = (random_edges(clip.duration_s, n_words, rng) for _ in range(_RANDOM_DRAWS))
    partitions["random"] = [_between(edges_s) for edges_s in drawn]
    for name, length_s in POSITIONS_S.items():
        partitions[name] = [
            _between(np.append(np.arange(0, clip.duration_s - length_s / 2, length_s), clip.duration_s))
        ]
    for name, drawn_spans in partitions.items():
        measures = [_measures(clip, item.phones, spans_s, rng) for spans_s in drawn_spans]
        for measure in measures[0]:
            notes.add(TABLE, measure, np.mean([own[measure] for own in measures]), players=name)


def cut_times(spans_s: Iterable[Sequence[float]], duration_s: float) -> Float[np.ndarray, "C"]:
    """Return where players begin and end inside of the recording, each moment once."""
    edges_s = {round(float(edge_s), 6) for span in spans_s for edge_s in span}
    return np.array(sorted(edge_s for edge_s in edges_s if 0 < edge_s < duration_s))


def flux_at(clip: Clip, cuts_c: Float[np.ndarray, "C"]) -> Float[np.ndarray, "C"]:
    """Return the paper's spectral flux at each cut, in seconds: squared distance of neighbouring magnitude spectra.

    256 samples every 64 of the whole recording, its peak at 1; the frame nearest to the cut and the one before it.
    """
    wave_s = clip.wave_s / max(float(np.abs(clip.wave_s).max()), 1e-9)
    _, change_f = loudness_and_change(wave_s, frame=_FRAME, hop=_HOP, padding="constant")
    change_f = np.concatenate([change_f[:1], change_f])
    return change_f[np.clip(np.rint(cuts_c * clip.rate_hz / _HOP).astype(int), 0, len(change_f) - 1)]


def cepstral_step(clip: Clip, cuts_c: Float[np.ndarray, "C"]) -> Float[np.ndarray, "C"]:
    """Return how far the sound after each cut is from that before it: Euclidean distance of 12 mel-cepstral
    coefficients of 25 ms on either side. The level, coefficient 0, takes no part. The wave is mirrored at its ends.
    """
    import librosa

    frame = round(_CEPSTRUM_S * clip.rate_hz)
    padded_s = np.pad(clip.wave_s.astype(np.float64), frame, mode="reflect")
    starts = np.clip(np.rint(cuts_c * clip.rate_hz).astype(int), 0, len(clip.wave_s))
    frames = np.stack([padded_s[first + start : first + start + frame] for first in (0, frame) for start in starts])
    mel = librosa.filters.mel(sr=clip.rate_hz, n_fft=frame, n_mels=_BANDS, fmax=min(8000, clip.rate_hz / 2))
    power = np.square(np.abs(np.fft.rfft(frames * np.hanning(frame), axis=1))) @ mel.T.astype(np.float64)
    level = np.log(power + 1e-6 * power.max() + np.finfo(float).tiny)
    cepstra = np.asarray(dct(level, norm="ortho", axis=1))[:, 1:_COEFFICIENTS]
    before, after = np.split(cepstra, 2)
    return np.linalg.norm(after - before, axis=1)


def inside_phones(phones: Sequence[Span], cuts_c: Float[np.ndarray, "C"], within_ms: float) -> float | None:
    """Return the share of cuts that are inside of a phone, more than so far from both its ends; None without cuts."""
    if not len(cuts_c):
        return None
    away_s = within_ms / 1000
    spoken = [span for span in phones if span.label != "sil"]
    inside = [any(span.start_s + away_s < cut_s < span.end_s - away_s for span in spoken) for cut_s in cuts_c]
    return float(np.mean(inside))


def click_score(wave_s: Float[np.ndarray, "S"], rate_hz: int) -> float:
    """Return the authors' click score: at the hardest edges, the largest step and half the share of power above 4 kHz.

    Hard edges are the steps between samples in the largest half percent, at least 8 samples apart; each is looked at
    with 4 ms on both sides. 0 where nothing ever changes.
    """
    step_s = np.abs(np.diff(wave_s.astype(np.float64)))
    hard = np.flatnonzero((step_s >= np.quantile(step_s, _EDGE_QUANTILE)) & (step_s > 0))
    edges: list[int] = []
    for at in hard.tolist():
        if not edges or at - edges[-1] >= _EDGES_APART:
            edges.append(at)
    reach, scores = round(_CLICK_S * rate_hz), []
    for at in edges:
        part_s = wave_s[max(0, at - reach) : at + reach + 1].astype(np.float64)
        power = np.square(np.abs(np.fft.rfft(part_s)))
        high = power[np.fft.rfftfreq(len(part_s), 1 / rate_hz) >= _CLICK_HZ].sum() / max(power.sum(), 1e-12)
        scores.append(float(np.abs(np.diff(part_s)).max() + 0.5 * high))
    return float(np.mean(scores)) if scores else 0.0


def cuts_table(records: Sequence[Record], seed: int) -> Table:
    """What each partition cuts through, mean over recordings."""
    known = [record for record in records if record.subject == ALIGNMENT]
    kinds = list(settings(known, TABLE))
    measures = list(dict.fromkeys(kind.name for kind in kinds))
    rows = []
    for name in dict.fromkeys(kind.players for kind in kinds):
        found = {measure: numbers(known, TABLE, measure, players=name) for measure in measures}
        means = {measure: float(np.mean(list(own.values()))) for measure, own in found.items() if own}
        rows.append({"players": name, "n": max(len(own) for own in found.values()), **means})
    return Table(
        TABLE,
        "What cuts cut through",
        "Means over recordings. `flux` is the paper's (part of the cost that its stage 3 minimises), `cepstral step` "
        "is in nobody's cost; `inside a phone` is the share of cuts farther than so many ms from both ends of the "
        "phone that they fall in, by its true times; `clicks` is the authors' score of three random coalitions with "
        f"silence for the absent. `random`: as many pieces as words, {_RANDOM_DRAWS} draws.",
        ("players", "n", *measures),
        tuple(rows),
    )


def _measures(
    clip: Clip, phones: Sequence[Span], spans_s: Float[np.ndarray, "N 2"], rng: np.random.Generator
) -> dict[str, float]:
    cuts_c = cut_times(spans_s, clip.duration_s)
    if not len(cuts_c):
        raise PlayerError("a partition has no cut inside of the recording: expected at least one")
    found = {
        "cuts": float(len(cuts_c)),
        "flux": float(flux_at(clip, cuts_c).mean()),
        "cepstral step": float(cepstral_step(clip, cuts_c).mean()),
        "clicks": _clicks(clip, spans_s, rng),
    }
    if phones:
        for within_ms in INSIDE_MS:
            found[f"inside a phone by {within_ms} ms"] = inside_phones(phones, cuts_c, within_ms) or 0.0
    return found


def _clicks(clip: Clip, spans_s: Float[np.ndarray, "N 2"], rng: np.random.Generator) -> float:
    """Mean click score of random coalitions, neither empty nor full where there are two players."""
    # A word of the authors' rules may run into the next one, which then has the samples.
    ends_s = np.minimum(spans_s[:, 1], np.append(spans_s[1:, 0], clip.duration_s))
    players = Players(
        tuple(Player(str(n), "window", *span) for n, span in enumerate(zip(spans_s[:, 0], ends_s, strict=True))),
        len(clip.wave_s),
        clip.rate_hz,
    )
    owner_s, scores = players.owner_s(), []
    for _ in range(_MASKS):
        keep = rng.random(len(players) + 1) < 0.5
        keep[rng.integers(len(players))] ^= keep[:-1].all() or not keep[:-1].any()
        # The owner -1, nobody, finds the last entry.
        keep[-1] = True
        scores.append(click_score(np.where(keep[owner_s], clip.wave_s, 0), clip.rate_hz))
    return float(np.mean(scores))


def _between(edges_s: Float[np.ndarray, "E"]) -> Float[np.ndarray, "N 2"]:
    return np.array(list(pairwise(edges_s.tolist())))
