"""Where the edge between two labels lies: what the labels, the sound and the lengths of the labels say, weighed.

Over a window of moments 2 ms apart a weighted sum of `FEATURES` is the logarithm of a posterior, and the edge is placed
where the expected distance to it, counted up to 30 ms, is smallest: sharp evidence moves an edge, vague evidence leaves
it in the middle of what is possible. The weights are learned by `checkpoints/train/edges.py` from synthesised speech,
its times blurred by 5 ms, so that how one synthesiser draws its edges counts for no more than it should.
Axes: `G` moments of a window, `N` features, `T` frames.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from sgpa_jax.align.path import Path, Run
from sgpa_jax.align.spectral import loudness_step, sharpness
from sgpa_jax.audio import Clip

HOP_S = 0.002
"""Edges lie on this grid."""

FEATURES = ("labels", "distance", "sharpness", "loudness", "left", "left_squared", "right", "right_squared")
"""What is weighed at a moment: how much likelier the labels are with their edge there; minus the distance to where the
path alone would put it, in 10 ms; the log of the spectrum's change; how much louder it gets (at a word's start) or
quieter (at its end), either of them between words; and between words the logarithms of the lengths that this gives
the labels on both sides, over the usual length in this recording, with minus their squares: few are much shorter."""

FARTHEST_S = 0.03
"""An edge that is wrong by more is as wrong as it can be."""

_SHORTEST_S = 0.008
_IMPOSSIBLE = -60.0


@dataclass(frozen=True)
class Habits:
    """What one kind of emissions is like.

    Attributes:
        reach_s: windows go so far to both sides.
        outside_s: an edge next to silence is expected so far outside of its label.
        overhang: labels are taken to be longer than their frames by so many frames on either side.
        weights: of `FEATURES`, at edges between words ("joined"), and between silence and a word ("start", "end").
    """

    reach_s: float
    outside_s: float
    overhang: float
    weights: Mapping[str, tuple[float, ...]]


PHONES = Habits(
    reach_s=0.04,
    outside_s=0.0,
    overhang=0.0,
    weights={
        "joined": (0.22, 0.14, 0.22, 0.19, 0.85, 0.48, 0.83, 0.33),
        "start": (0.11, 0.61, 0.01, 1.15, 0.0, 0.0, 0.0, 0.0),
        "end": (0.17, 0.23, 0.1, 0.53, 0.0, 0.0, 0.0, 0.0),
    },
)
# CTC labels are spikes inside of their sounds.
SPIKES = Habits(
    reach_s=0.15,
    outside_s=0.03,
    overhang=0.5,
    weights={
        "joined": (0.19, 0.17, 0.36, 0.81, -0.52, 0.46, 1.41, -0.01),
        "start": (-0.02, 0.45, -0.02, 2.18, 0.0, 0.0, 0.0, 0.0),
        "end": (-0.02, 0.27, 0.05, 1.8, 0.0, 0.0, 0.0, 0.0),
    },
)


@dataclass(frozen=True, eq=False)
class Window:
    """Where an edge may lie.

    Attributes:
        kind: "joined", "start" or "end".
        centre_s: where the path alone would put it.
        at_g: float64[G], the moments, in seconds; empty where the sound gives nothing to go by.
        features_gn: float64[G, N].
    """

    kind: str
    centre_s: float
    at_g: Float[np.ndarray, "G"]
    features_gn: Float[np.ndarray, "G N"]


class EdgeFinder:
    """Finds the edges of one clip."""

    def __init__(self, clip: Clip, path: Path) -> None:
        self.clip, self.path = clip, path
        self.habits = PHONES if path.emissions.blank is None else SPIKES
        hop = max(1, round(HOP_S * clip.rate_hz))
        self.step_s = hop / clip.rate_hz
        own = [run for run in path.runs if run.owner >= 0]
        covered = own[-1].end - own[0].first - sum(run.end - run.first for run in path.runs if run.owner < 0)
        self.usual_s = max(covered / len(own) * path.emissions.frame_s, _SHORTEST_S)
        self.sharpness_f = sharpness(clip.wave_s, clip.rate_hz, hop=hop)
        self.louder_f = loudness_step(clip.wave_s, clip.rate_hz, hop=hop)

    def time_s(self, frame: float) -> float:
        """Return when a frame begins, inside of the clip."""
        emissions = self.path.emissions
        return min(max(emissions.offset_s + frame * emissions.frame_s, 0.0), self.clip.duration_s)

    def joined(self, left: Run, right: Run, low: float, high: float) -> Window:
        """Return the window of the edge that two labels share, between two frames."""
        meet = left.end == right.first
        centre = self._crossing(left.end) if meet else (left.end + right.first) / 2
        return self._window("joined", left, right, self.time_s(centre), low, high)

    def start(self, right: Run, low: float, high: float) -> Window:
        """Return the window of the edge before a label that follows silence."""
        centre_s = max(0.0, self.time_s(self._crossing(right.first)) - self.habits.outside_s)
        return self._window("start", None, right, centre_s, low, high)

    def end(self, left: Run, low: float, high: float) -> Window:
        """Return the window of the edge after a label that silence follows."""
        centre_s = min(self.clip.duration_s, self.time_s(self._crossing(left.end)) + self.habits.outside_s)
        return self._window("end", left, None, centre_s, low, high)

    def _crossing(self, frame: int) -> float:
        """Where between the centres of frames `frame - 1` and `frame` their states are equally likely, in frames."""
        score_ts, state_t = self.path.score_ts, self.path.state_t
        if frame in (0, len(state_t)):
            return float(frame)
        old, new = state_t[frame - 1], state_t[frame]
        lead = max(0.0, float(score_ts[frame - 1, old] - score_ts[frame - 1, new]))
        lag = max(0.0, float(score_ts[frame, new] - score_ts[frame, old]))
        return frame - 0.5 + lead / (lead + lag) if 0 < lead + lag < np.inf else float(frame)

    def _window(
        self, kind: str, left: Run | None, right: Run | None, centre_s: float, low: float, high: float
    ) -> Window:
        last, first = (
            left.end if left else right.first if right else 0,
            right.first if right else left.end if left else 0,
        )
        middle_s = (self.time_s(last) + self.time_s(first)) / 2
        over = self.habits.overhang
        if left:
            low = max(low, left.first - over)
        if right:
            high = min(high, right.end + over)
        low_s, high_s = self.time_s(low), self.time_s(high)
        from_s = max(low_s + (_SHORTEST_S if left else 0.0), middle_s - self.habits.reach_s)
        to_s = min(high_s - (_SHORTEST_S if right else 0.0), middle_s + self.habits.reach_s)
        grid = np.arange(int(np.ceil(from_s / self.step_s)), min(int(to_s / self.step_s) + 1, len(self.sharpness_f)))
        sharpness_g = self.sharpness_f[grid]
        if len(grid) < 3 or np.ptp(sharpness_g) == 0:
            return Window(kind, centre_s, np.empty(0), np.empty((0, len(FEATURES))))
        at_g, louder_g = grid * self.step_s, self.louder_f[grid]
        sharp_g = np.log(sharpness_g + 1e-6)
        # Next to silence lengths say nothing that holds for other voices.
        known = kind == "joined"
        left_g = self._log_length(at_g - low_s) if known else np.zeros(len(at_g))
        right_g = self._log_length(high_s - at_g) if known else np.zeros(len(at_g))
        features = (
            self._labels(at_g, last, first),
            -np.abs(at_g - centre_s) / 0.01,
            sharp_g - sharp_g.mean(),
            np.abs(louder_g) if kind == "joined" else louder_g if kind == "start" else -louder_g,
            left_g,
            -np.square(left_g),
            right_g,
            -np.square(right_g),
        )
        return Window(kind, centre_s, at_g, np.stack(features, axis=1))

    def _log_length(self, length_g: Float[np.ndarray, "G"]) -> Float[np.ndarray, "G"]:
        return np.log(np.clip(length_g, _SHORTEST_S, self.usual_s) / self.usual_s)

    def _labels(self, at_g: Float[np.ndarray, "G"], last: int, first: int) -> Float[np.ndarray, "G"]:
        """How likely the two labels are with their edge at each moment, as a logarithm, 0 at best."""
        state_t, score_ts, emissions = self.path.state_t, self.path.score_ts, self.path.emissions
        if last == 0 or first == len(state_t):
            return np.zeros(len(at_g))
        frame_g = np.clip((at_g - emissions.offset_s) / emissions.frame_s, 0, len(state_t))
        begin, end = int(frame_g[0]), min(int(frame_g[-1]) + 1, len(state_t))
        pair_t2 = np.maximum(score_ts[begin:end, [state_t[last - 1], state_t[first]]], _IMPOSSIBLE)
        lead_t = np.append(0.0, np.cumsum(pair_t2[:, 0] - pair_t2[:, 1]))
        total_g = np.interp(frame_g, np.arange(begin, end + 1), lead_t)
        return np.maximum(total_g - total_g.max(), _IMPOSSIBLE)


def place(window: Window, weights_n: tuple[float, ...] | Float[np.ndarray, "N"]) -> tuple[float, bool]:
    """Return where the edge is, in seconds, and whether the sound had a say in it."""
    if len(window.at_g) == 0:
        return window.centre_s, False
    total_g = window.features_gn @ np.asarray(weights_n)
    posterior_g = np.exp(total_g - total_g.max())
    wrong_gg = np.minimum(np.abs(window.at_g[:, None] - window.at_g), FARTHEST_S)
    return float(window.at_g[np.argmin(wrong_gg @ posterior_g)]), True
