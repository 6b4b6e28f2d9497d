"""A recording in memory: mono float32 samples at one rate, never changed once made.

Axes: `S` samples.
"""

import hashlib
import io
import os
import wave
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float

from sgpa_jax.errors import AudioError
from sgpa_jax.files import atomic_write

RATES_HZ = (1_000, 768_000)
"""Sampling rates outside of these are taken for a mistake."""


@dataclass(frozen=True, eq=False)
class Clip:
    """A mono recording.

    Attributes:
        wave_s: float32[S], finite, at least one sample; copied and made read-only.
        rate_hz: samples per second.
        path: the file it was read from, if any.

    Raises:
        AudioError: the samples are empty, not one-dimensional or not finite, or the rate is not a usable one.
    """

    wave_s: Float[np.ndarray, "S"]
    rate_hz: int
    path: str | None = None

    def __post_init__(self) -> None:
        """Check and freeze what was given."""
        name = self.path or "the array"
        wave_s = _float32(self.wave_s, name)
        if wave_s.ndim != 1:
            raise AudioError(f"{name} has shape {wave_s.shape}: expected one axis of samples; read it with read_clip")
        if wave_s.size == 0:
            raise AudioError(f"{name} holds no samples: expected a recording with sound in it")
        if not np.isfinite(wave_s).all():
            raise AudioError(f"{name} holds NaN or infinite samples: expected finite ones; export the recording again")
        wave_s.setflags(write=False)
        object.__setattr__(self, "wave_s", wave_s)
        object.__setattr__(self, "rate_hz", _checked_rate(self.rate_hz, name))

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.wave_s.size / self.rate_hz

    @cached_property
    def sha256(self) -> str:
        """Hexadecimal digest of the rate and of the float32 samples (little-endian)."""
        digest = hashlib.sha256(f"{self.rate_hz}\n".encode())
        digest.update(self.wave_s.astype("<f4", copy=False).tobytes())
        return digest.hexdigest()

    def at_rate(self, rate_hz: int) -> "Clip":
        """Return this recording at `rate_hz`, resampled by soxr's high quality filter; itself when it is there already.

        Raises:
            AudioError: the rate is not a usable one, or the recording is too short to keep a sample at it.
        """
        rate_hz = _checked_rate(rate_hz, "the rate asked for")
        if rate_hz == self.rate_hz:
            return self
        import soxr

        resampled_s = soxr.resample(self.wave_s, self.rate_hz, rate_hz, quality="HQ")
        return Clip(np.asarray(resampled_s, np.float32), rate_hz, self.path)


def wav_bytes(clip: Clip) -> bytes:
    """Return `clip` as a 16-bit PCM WAV file; samples outside [-1, 1] are clipped."""
    pcm_s = np.clip(np.rint(clip.wave_s.astype(np.float64) * 32768), -32768, 32767).astype("<i2")
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(clip.rate_hz)
        file.writeframes(pcm_s.tobytes())
    return buffer.getvalue()


def write_wav(path: str | os.PathLike[str], clip: Clip) -> None:
    """Write `clip` to `path` as a 16-bit PCM WAV file.

    Raises:
        UsageError: the file cannot be written.
    """
    atomic_write(path, wav_bytes(clip))


def _float32(samples: Any, name: str) -> np.ndarray:
    array = np.asarray(samples)
    if array.dtype.kind != "f":
        raise AudioError(f"{name} has samples of type {array.dtype}: expected floating point; read it with read_clip")
    # Too large for float32 becomes infinite here and is refused by the caller.
    with np.errstate(over="ignore"):
        return np.array(array, dtype=np.float32, order="C")


def _checked_rate(rate_hz: Any, name: str) -> int:
    low, high = RATES_HZ
    if isinstance(rate_hz, bool) or not isinstance(rate_hz, (int, float, np.integer, np.floating)):
        raise AudioError(f"{name} has the rate {rate_hz!r}: expected a whole number of Hz")
    if not low <= rate_hz <= high or int(rate_hz) != rate_hz:
        raise AudioError(f"{name} has the rate {rate_hz} Hz: expected a whole number from {low} to {high}")
    return int(rate_hz)
