"""Whisper's log-mel spectrogram in jax, so that thousands of coalitions' waveforms become features inside one jit.

Follows transformers' `WhisperFeatureExtractor` (Slaney mel filters, periodic Hann, reflect padding, last frame
dropped, log10 clamped eight decades under the clip's maximum, (x + 4) / 4); equality is tested against it.
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
_KNEE_HZ, _KNEE_MEL, _LOG_STEP = 1000.0, 15.0, math.log(6.4) / 27.0


@dataclass(frozen=True, kw_only=True)
class WhisperMelConfig:
    """A Whisper-type log-mel front end (`WhisperFeatureExtractor`): lengths in samples at `rate_hz`."""

    rate_hz: int = 16000
    n_mels: int = 128
    n_fft: int = 400
    hop_samples: int = 160
    window_s: float = 30.0

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> "WhisperMelConfig":
        """Read a `preprocessor_config.json`."""
        return cls(
            rate_hz=config.get("sampling_rate", 16000),
            n_mels=config.get("feature_size", 128),
            n_fft=config.get("n_fft", 400),
            hop_samples=config.get("hop_length", 160),
            window_s=float(config.get("chunk_length", 30)),
        )

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
        """Log-mel frames of waveforms with zeros behind their ends; see `log_mel`."""
        return log_mel(wave_bs, self)

    def local_frames(self, wave_bs: Float[Array, "B S"], n_samples_b: Int[Array, " B"]) -> Float[Array, "B F M"]:
        """Frames that know no more of a waveform than what is within their reach; see `log_power`."""
        return log_power(wave_bs, self)

    def settle(self, log_power_bfm: Float[Array, "B F M"], n_frames_b: Int[Array, " B"]) -> Float[Array, "B F M"]:
        """Make features of local frames by what depends on the whole clip; see `clamp`."""
        return clamp(log_power_bfm)


def log_mel(wave_bs: Float[Array, "B S"], config: WhisperMelConfig) -> Float[Array, "B F M"]:
    """Log-mel of waveforms whose true end is followed by zeros up to S: F = S // hop frames of M mel bins, float32.

    The reference pads every clip to the model's full window. Its padded frames hold the log-mel of silence and the
    clamp looks at the clip's maximum alone, so frames computed from fewer zeros are the same frames.
    """
    return clamp(log_power(wave_bs, config))


def log_power(wave_bs: Float[Array, "B S"], config: WhisperMelConfig) -> Float[Array, "B F M"]:
    """Log-mel before the clamp."""
    half = config.n_fft // 2
    left = wave_bs[:, 1 : half + 1][:, ::-1]
    padded = jnp.concatenate([left, wave_bs, jnp.zeros((wave_bs.shape[0], half), wave_bs.dtype)], axis=1)
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
    return jnp.log10(jnp.maximum(power @ jnp.asarray(mel_filters(config)), 1e-10))


def clamp(log_power_bfm: Float[Array, "B F M"]) -> Float[Array, "B F M"]:
    """Lift what is eight decades below a clip's maximum, and scale."""
    # The reference's maximum runs over the padded window, where silence is the floor of 1e-10.
    floor = jnp.maximum(log_power_bfm.max((1, 2), keepdims=True), -10.0) - 8.0
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
