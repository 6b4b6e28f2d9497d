"""The waveform engine for recordings in windows: each window is heard by itself, for its own players.

Coalitions that agree on a window's players sound the same in it, and a batch encodes it once for each pattern of these.
The audio of the windows and the text between them close up to what the decoder reads as one recording.
Axes: as in `waveform.py`, and `N` windows.
"""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from sgpa_jax.games.hearing import hearing_of
from sgpa_jax.games.readout import Readout
from sgpa_jax.games.tokens import text_rows
from sgpa_jax.games.waveform import WaveformEngine, different_rows
from sgpa_jax.games.windows import heard_in_clips, players_of_clip
from sgpa_jax.models import Model, ModelInputs, gathered
from sgpa_jax.players import Players


class WindowsEngine(WaveformEngine):
    """Log-probabilities of a response under coalitions of the players of a recording in windows; else as the other."""

    def _listen(self, inputs: ModelInputs, heard: Players, absence: str) -> None:
        spans = heard_in_clips(inputs, heard)
        self._hearings = [
            hearing_of(self.model, clip, players_of_clip(clip, spans_s, heard), absence)
            for clip, spans_s in zip(inputs.clips, spans, strict=True)
        ]
        # The last column of masks is always there, for a window of nobody's.
        self._own = [list(spans_s) or [len(heard)] for spans_s in spans]
        self._between = _text_between(self.model, inputs)
        self._n_between = sum(len(rows) for rows in self._between)

    @property
    def is_audible_p(self) -> Bool[np.ndarray, " P"]:
        """As of the windows."""
        audible_h = np.ones(len(self.heard) + 1, bool)
        for own, hearing in zip(self._own, self._hearings, strict=True):
            audible_h[own] = hearing.is_audible_p
        changes_p = np.ones(self.n_players, bool)
        changes_p[self.heard] = audible_h[:-1]
        return changes_p

    def n_frames(self, masks_cp: Bool[np.ndarray, "C P"]) -> Int[np.ndarray, " C"]:
        """Mel frames of all windows."""
        return self._n_frames_nc(masks_cp).sum(axis=0)

    def n_audio(self, masks_cp: Bool[np.ndarray, "C P"]) -> Int[np.ndarray, " C"]:
        """Audio positions of all windows, and the text between them."""
        n_audio_nc = self.model.config.encoder.n_tokens(jnp.asarray(self._n_frames_nc(masks_cp)))
        return np.asarray(n_audio_nc).sum(axis=0) + self._n_between

    def length(self, masks_cp: Bool[np.ndarray, "C P"]) -> Int[np.ndarray, " C"]:
        """By frames, and side by side those that sound the same in the first windows."""
        rows = np.column_stack([self.n_frames(masks_cp), *self._masks_of_windows(masks_cp)])
        return np.unique(rows, axis=0, return_inverse=True)[1].reshape(-1)

    def _audio(self, masks_bp: Bool[np.ndarray, "B P"]) -> tuple[Float[Array, "B A D"], Int[Array, " B"]]:
        audio, n_audio = [], []
        for hearing, masks_bh in zip(self._hearings, self._masks_of_windows(masks_bp), strict=True):
            everyone = np.arange(len(masks_bh))
            rows, row_b = (everyone, everyone) if self.model.mesh is not None else different_rows(masks_bh)
            audio_nad, n_audio_b = self._encoded(hearing, masks_bh, rows)
            audio.append(audio_nad[row_b])
            n_audio.append(n_audio_b)
        return _close_up(audio, jnp.stack(n_audio, axis=1), self._between)

    def buckets(self, masks_cp: Bool[np.ndarray, "C P"]) -> tuple[int, ...]:
        """Of every window."""
        n_frames_n = self._n_frames_nc(masks_cp).max(axis=1)
        return tuple(hearing.bucket(int(n)) for hearing, n in zip(self._hearings, n_frames_n, strict=True))

    def _n_tokens(self, *buckets: int, readout: Readout | None = None) -> int:
        return super()._n_tokens(*buckets, n_between=self._n_between, readout=readout)

    def _n_frames_nc(self, masks_cp: Bool[np.ndarray, "C P"]) -> Int[np.ndarray, "N C"]:
        masks = self._masks_of_windows(masks_cp)
        return np.stack([hearing.n_frames(own) for hearing, own in zip(self._hearings, masks, strict=True)])

    def _masks_of_windows(self, masks_cp: Bool[np.ndarray, "C P"]) -> list[Bool[np.ndarray, "C H"]]:
        heard_ch = np.append(masks_cp[:, self.heard], np.ones((len(masks_cp), 1), bool), axis=1)
        return [heard_ch[:, own] for own in self._own]


def _text_between(model: Model, inputs: ModelInputs) -> tuple[Float[np.ndarray, "K D"], ...]:
    """Embeddings of what the chat format puts between every two clips."""
    rows = np.asarray(gathered(text_rows(model, inputs)))
    ends = [np.flatnonzero(inputs.clip_t == clip)[[0, -1]].tolist() for clip in range(len(inputs.clips))]
    return tuple(rows[last + 1 : first] for (_, last), (first, _) in itertools.pairwise(ends))


@jax.jit
def _close_up(
    audio: list[Float[Array, "B A D"]], n_audio_bn: Int[Array, "B N"], between: tuple[Float[Array, "K D"], ...]
) -> tuple[Float[Array, "B A D"], Int[Array, " B"]]:
    """Put clips and what is between them one behind another, without what is not real; the number of what is."""
    parts: list[Any] = []
    exists: list[Any] = []
    for number, audio_bad in enumerate(audio):
        if number:
            text_kd = between[number - 1].astype(audio_bad.dtype)
            parts.append(jnp.broadcast_to(text_kd[None], (len(audio_bad), *text_kd.shape)))
            exists.append(jnp.ones(parts[-1].shape[:2], bool))
        parts.append(audio_bad)
        exists.append(jnp.arange(audio_bad.shape[1])[None] < n_audio_bn[:, number, None])
    exists_ba = jnp.concatenate(exists, axis=1)
    front_ba = jnp.argsort(~exists_ba, axis=1, stable=True)
    joined_bad = jnp.take_along_axis(jnp.concatenate(parts, axis=1), front_ba[:, :, None], axis=1)
    return joined_bad, exists_ba.sum(axis=1, dtype=jnp.int32)
