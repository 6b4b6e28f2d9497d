"""Whisper's log-mel spectrogram in jax, so that thousands of coalitions' waveforms become features inside one jit.

Follows transformers' `WhisperFeatureExtractor` (Slaney mel filters, periodic Hann, reflect padding, last frame
dropped, log10 clamped eight decades under the clip's maximum, (x + 4) / 4); equality is tested against it. The encoder
hears so many seconds at once (`chunk_s`). What a longer clip's frames know of each other is the family's: nothing
across chunks where upstream extracts each by itself (Audio Flamingo 3), or all of it (Voxtral).
"""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

Count = TypeVar("Count", int, Array)
_SILENCE = -10.0
"""Log-mel of silence, the floor."""
_KNEE_HZ, _KNEE_MEL, _LOG_STEP = 1000.0, 15.0, math.log(6.4) / 27.0


@dataclass(frozen=True, kw_only=True)
class WhisperMelConfig:
    """A Whisper-type log-mel front end (`WhisperFeatureExtractor`): lengths in samples at `rate_hz`.

    Attributes:
        window_s: the longest clip.
        chunk_s: how much of a clip the encoder hears at once, and the reference pads clips to multiples of.
        chunks_apart: whether the features of each chunk are made as if it were a clip of its own.
    """

    rate_hz: int = 16000
    n_mels: int = 128
    n_fft: int = 400
    hop_samples: int = 160
    window_s: float = 30.0
    chunk_s: float = 30.0
    chunks_apart: bool = True

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> "WhisperMelConfig":
        """Read a `preprocessor_config.json`."""
        return cls(
            rate_hz=config.get("sampling_rate", 16000),
            n_mels=config.get("feature_size", 128),
            n_fft=config.get("n_fft", 400),
            hop_samples=config.get("hop_length", 160),
            window_s=float(config.get("chunk_length", 30)),
            chunk_s=float(config.get("chunk_length", 30)),
        )

    @property
    def chunk_samples(self) -> int:
        """Length of a chunk."""
        return int(self.chunk_s * self.rate_hz)

    @property
    def most_frames(self) -> int:
        """Mel frames of the longest clip."""
        return self.n_frames(int(self.window_s * self.rate_hz))

    @property
    def minimum_samples(self) -> int:
        """The shortest waveform that still gives one audio position to a decoder behind a pooling by four."""
        return 3 * self.hop_samples

    @property
    def room_samples(self) -> int:
        """Zeros needed behind a clip's end: the last window, and the two frames that Whisper's stem looks at."""
        return self.n_fft + 3 * self.hop_samples

    @property
    def room_frames(self) -> int:
        """Frames needed behind a clip's last: those that its last samples reach, and the two of Whisper's stem."""
        return max(2, -(-self.reach_samples // self.hop_samples))

    @property
    def reach_samples(self) -> int:
        """How far from its middle, frame f's being sample f * hop, a frame looks before it is settled."""
        return self.n_fft // 2

    def n_frames(self, n_samples: Count) -> Count:
        """Mel frames of waveforms of `n_samples`."""
        return -(-n_samples // self.hop_samples)

    def features(self, wave_bs: Float[Array, "B S"], n_samples_b: Int[Array, " B"]) -> Float[Array, "B F M"]:
        """Log-mel of waveforms whose true end is followed by zeros up to S: F = S // hop frames of M mel bins, float32.

        The reference pads every clip to whole chunks. Its padded frames hold the log-mel of silence and the clamp looks
        at the maximum alone, so frames computed from fewer zeros are the same frames.
        """
        return self.settle(self.local_frames(wave_bs, n_samples_b), self.n_frames(n_samples_b))

    def local_frames(self, wave_bs: Float[Array, "B S"], n_samples_b: Int[Array, " B"]) -> Float[Array, "B F M"]:
        """Frames that know no more of a waveform than what is within their reach: log-mel before the clamp."""
        half, size = self.n_fft // 2, wave_bs.shape[1]
        if not self.chunks_apart:
            end_b1 = -(-n_samples_b // self.chunk_samples)[:, None] * self.chunk_samples
            wave_bs = _mirrored_at(wave_bs, end_b1, half)
            frames_bfm = _log_power(wave_bs[:, :size], wave_bs[:, size:], self)
            # Behind its own chunks a clip of a larger bucket has no frames, for `settle` neither.
            middle_f = jnp.arange(frames_bfm.shape[1]) * self.hop_samples
            return jnp.where((middle_f[None] < end_b1)[:, :, None], frames_bfm, _SILENCE)
        whole = size // self.chunk_samples * self.chunk_samples
        chunks, rest = wave_bs[:, :whole].reshape(-1, self.chunk_samples), wave_bs[:, whole:]
        parts = []
        if whole:
            parts.append(_log_power(chunks, chunks[:, -half - 1 : -1][:, ::-1], self))
        if size > whole:
            parts.append(_log_power(rest, jnp.zeros((len(rest), half), rest.dtype), self))
        return jnp.concatenate([part.reshape(len(wave_bs), -1, self.n_mels) for part in parts], axis=1)

    def settle(self, log_power_bfm: Float[Array, "B F M"], n_frames_b: Int[Array, " B"]) -> Float[Array, "B F M"]:
        """Make features of local frames: lift what is eight decades below the maximum, and scale."""
        n_frames = log_power_bfm.shape[1]
        step = self.chunk_samples // self.hop_samples if self.chunks_apart else n_frames
        return jnp.concatenate([_clamp(log_power_bfm[:, at : at + step]) for at in range(0, n_frames, step)], axis=1)


def _log_power(wave_bs: Float[Array, "B S"], right_bh: Float[Array, "B H"], config: WhisperMelConfig) -> Array:
    """Log-mel of frames centred on every hop of a waveform, mirrored at its left end and going on at its right."""
    half = config.n_fft // 2
    left_bh = jnp.pad(wave_bs, ((0, 0), (0, half)))[:, 1 : half + 1][:, ::-1]
    padded = jnp.concatenate([left_bh, wave_bs, right_bh], axis=1)
    n_frames = wave_bs.shape[1] // config.hop_samples
    # Frames as strided windows: rows of `hop` samples laid side by side, without a gather of F * n_fft indices.
    n_rows = math.ceil(config.n_fft / config.hop_samples)
    needed = (n_frames + n_rows - 1) * config.hop_samples
    padded = jnp.pad(padded, ((0, 0), (0, max(0, needed - padded.shape[1]))))[:, :needed]
    rows = padded.reshape(wave_bs.shape[0], n_frames + n_rows - 1, config.hop_samples)
    frames = jnp.concatenate([rows[:, i : i + n_frames] for i in range(n_rows)], axis=-1)[..., : config.n_fft]
    window = jnp.asarray(_window(config.n_fft))[None, None, :]
    spectrum = jnp.fft.rfft(frames.astype(jnp.float32) * window, axis=-1)
    power = spectrum.real**2 + spectrum.imag**2
    return jnp.log10(jnp.maximum(power @ jnp.asarray(mel_filters(config)), 10**_SILENCE))


def _mirrored_at(wave_bs: Float[Array, "B S"], end_b1: Int[Array, "B 1"], n: int) -> Float[Array, "B S+n"]:
    """Put `n` samples more behind, and mirror each waveform where the reference's ends; it is zero behind its own."""
    size = wave_bs.shape[1]
    at_1s = jnp.arange(size + n)[None]
    there = jnp.pad(wave_bs, ((0, 0), (0, n)))
    back = jnp.take_along_axis(there, jnp.clip(2 * end_b1 - 2 - at_1s, 0, size), axis=1)
    return jnp.where(at_1s < end_b1, there, back)


def _clamp(log_power_bfm: Float[Array, "B F M"]) -> Float[Array, "B F M"]:
    # The reference's maximum runs over the padded chunk, where silence is the floor.
    floor = jnp.maximum(log_power_bfm.max((1, 2), keepdims=True), _SILENCE) - 8.0
    return (jnp.maximum(log_power_bfm, floor) + 4.0) / 4.0


def mel_filters(config: WhisperMelConfig) -> np.ndarray:
    """Return the filters of Whisper's front end: float32[bins, M]."""
    return slaney_filters(config.rate_hz, config.n_fft, config.n_mels)


@functools.cache
def slaney_filters(rate_hz: int, n_fft: int, n_mels: int) -> np.ndarray:
    """Slaney-normalised triangular filters on the Slaney mel scale from 0 Hz to half the rate: float32[bins, M]."""
    bins_hz = np.linspace(0.0, rate_hz / 2, n_fft // 2 + 1)
    edges_hz = mel_to_hz(np.linspace(0.0, float(hz_to_mel(rate_hz / 2)), n_mels + 2))
    width_hz = np.diff(edges_hz)
    ramps = edges_hz[None, :] - bins_hz[:, None]
    rising, falling = -ramps[:, :-2] / width_hz[None, :-1], ramps[:, 2:] / width_hz[None, 1:]
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    return (triangles * (2.0 / (edges_hz[2:] - edges_hz[:-2]))[None, :]).astype(np.float32)


def hz_to_mel(hz: float) -> float:
    """Slaney's mel scale: linear below 1 kHz, logarithmic above."""
    return hz * 3.0 / 200.0 if hz < _KNEE_HZ else _KNEE_MEL + math.log(hz / _KNEE_HZ) / _LOG_STEP


def mel_to_hz(mel: np.ndarray) -> np.ndarray:
    """Invert `hz_to_mel`."""
    return np.where(mel < _KNEE_MEL, mel * 200.0 / 3.0, _KNEE_HZ * np.exp(_LOG_STEP * (mel - _KNEE_MEL)))


@functools.cache
def _window(n_fft: int) -> np.ndarray:
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)).astype(np.float32)
