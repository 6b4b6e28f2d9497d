"""NeMo's log-mel spectrogram, the front end of LFM2-Audio and Parakeet, in jax inside the jit of the coalitions.

Follows transformers' `ParakeetFeatureExtractor` and NeMo's `AudioToMelSpectrogramPreprocessor`: pre-emphasis, a
symmetric Hann window centred in the transform, zero padding at both ends, Slaney filters, log(x + 2^-24), and every
mel bin normalised over the clip. So a clip whose audio is changed anywhere is changed in every frame.
"""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from sgpa_jax.errors import CheckpointError
from sgpa_jax.models.mel import slaney_filters

Count = TypeVar("Count", int, Array)

_PREEMPHASIS, _LOG_GUARD, _STD_GUARD = 0.97, 2.0**-24, 1e-5
# NeMo's default of every setting that has one implemented value here, and that value.
_FIXED = {
    "normalize": ("per_feature", "per_feature"),
    "window": ("hann", "hann"),
    "log": (True, True),
    "log_zero_guard_type": ("add", "add"),
    "log_zero_guard_value": (_LOG_GUARD, _LOG_GUARD),
    "frame_splicing": (1, 1),
    "pad_to": (16, 0),
    "pad_value": (0.0, 0.0),
    "preemph": (_PREEMPHASIS, _PREEMPHASIS),
    "mag_power": (2.0, 2.0),
    "mel_norm": ("slaney", "slaney"),
    "lowfreq": (0, 0),
    "exact_pad": (False, False),
}


@dataclass(frozen=True, kw_only=True)
class NemoMelConfig:
    """A NeMo log-mel front end: lengths in samples at `rate_hz`."""

    rate_hz: int = 16000
    n_mels: int = 128
    n_fft: int = 512
    frame_samples: int = 400
    hop_samples: int = 160

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> "NemoMelConfig":
        """Read the `preprocessor` of an LFM2-Audio `config.json`; `dither` serves training alone and is not read.

        Raises:
            CheckpointError: a setting that changes the features and that is not implemented.
        """
        rate_hz = config.get("sample_rate", 16000)
        for key, (default, implemented) in {**_FIXED, "highfreq": (None, rate_hz / 2)}.items():
            found = config.get(key, default)
            if found != implemented and not (key == "highfreq" and found is None):
                raise CheckpointError(
                    f"config.json sets preprocessor.{key} to {found!r}, but only {implemented!r} is implemented"
                )
        frame_samples = int(config.get("window_size", 0.02) * rate_hz)
        return cls(
            rate_hz=rate_hz,
            n_mels=config.get("features", 64),
            n_fft=config.get("n_fft") or 1 << (frame_samples - 1).bit_length(),
            frame_samples=frame_samples,
            hop_samples=int(config.get("window_stride", 0.01) * rate_hz),
        )

    @property
    def window_s(self) -> float:
        """The longest recording that the model hears at once: any, as its encoder knows distances alone."""
        return math.inf

    @property
    def most_frames(self) -> None:
        """Mel frames of the longest clip: there is none."""
        return None

    @property
    def minimum_samples(self) -> int:
        """The shortest clip of nine mel frames, the fewest that LFM2-Audio says it takes."""
        return 8 * self.hop_samples

    @property
    def room_samples(self) -> int:
        """Zeros needed behind a clip's end: none, what is behind it is not looked at."""
        return 0

    @property
    def room_frames(self) -> int:
        """Frames needed behind a clip's last: none, as for samples."""
        return 0

    @property
    def reach_samples(self) -> int:
        """How far from its middle, frame f's being sample f * hop, a frame looks before it is settled."""
        return self.n_fft // 2 + 1  # the pre-emphasis looks one sample back

    def n_frames(self, n_samples: Count) -> Count:
        """Mel frames of clips of `n_samples`, the last one, of zeros, included."""
        return n_samples // self.hop_samples + 1

    def features(self, wave_bs: Float[Array, "B S"], n_samples_b: Int[Array, " B"]) -> Float[Array, "B F M"]:
        """Log-mel frames of clips with zeros behind their ends; see `nemo_log_mel`."""
        return nemo_log_mel(wave_bs, n_samples_b, self)

    def local_frames(self, wave_bs: Float[Array, "B S"], n_samples_b: Int[Array, " B"]) -> Float[Array, "B F M"]:
        """Frames that know no more of a clip than what is within their reach, and its end; see `log_power`."""
        return log_power(wave_bs, n_samples_b, self)

    def settle(self, log_power_bfm: Float[Array, "B F M"], n_frames_b: Int[Array, " B"]) -> Float[Array, "B F M"]:
        """Make features of local frames by what depends on the whole clip; see `normalise`."""
        return normalise(log_power_bfm, n_frames_b - 1)


def nemo_log_mel(
    wave_bs: Float[Array, "B S"], n_samples_b: Int[Array, " B"], config: NemoMelConfig
) -> Float[Array, "B F M"]:
    """Log-mel of clips of `n_samples_b` samples in a bucket of S: F = S // hop + 1 frames of M mel bins, float32.

    A clip of N samples has N // hop + 1 frames, as alone: what the bucket holds behind its end is not looked at.
    The last of them, which NeMo leaves out of the normalisation, is zero, and so are all behind it.
    """
    return normalise(log_power(wave_bs, n_samples_b, config), n_samples_b // config.hop_samples)


def log_power(
    wave_bs: Float[Array, "B S"], n_samples_b: Int[Array, " B"], config: NemoMelConfig
) -> Float[Array, "B F M"]:
    """Log-mel before the normalisation."""
    wave = wave_bs.astype(jnp.float32)
    emphasised = wave - _PREEMPHASIS * jnp.pad(wave, ((0, 0), (1, 0)))[:, :-1]
    # Behind the end too there would be a sample, made of the last one: the reference has none.
    emphasised = jnp.where(jnp.arange(wave.shape[1])[None] < n_samples_b[:, None], emphasised, 0.0)
    frames = _frames(emphasised, config)
    spectrum = jnp.fft.rfft(frames * jnp.asarray(_window(config))[None, None], axis=-1)
    power = spectrum.real**2 + spectrum.imag**2
    return jnp.log(power @ jnp.asarray(slaney_filters(config.rate_hz, config.n_fft, config.n_mels)) + _LOG_GUARD)


def normalise(log_mel: Float[Array, "B F M"], n_frames_b: Int[Array, " B"]) -> Float[Array, "B F M"]:
    """Bring every mel bin to mean 0 and deviation 1 over the first `n_frames_b` frames; those behind become zero.

    A single frame has no deviation to divide by: it is zero, as in NeMo.
    """
    real_bf1 = (jnp.arange(log_mel.shape[1])[None] < n_frames_b[:, None])[:, :, None]
    count_b11 = n_frames_b.astype(jnp.float32)[:, None, None]
    # Counted from the first frame: else the mean of a silent clip is off by a rounding, and dividing by next to nothing
    # makes features of it.
    log_mel = log_mel - log_mel[:, :1]
    mean = jnp.where(real_bf1, log_mel, 0.0).sum(1, keepdims=True) / jnp.maximum(count_b11, 1.0)
    centred = jnp.where(real_bf1, log_mel - mean, 0.0)
    variance = (centred**2).sum(1, keepdims=True) / jnp.maximum(count_b11 - 1.0, 1.0)
    return centred / (jnp.sqrt(variance) + _STD_GUARD)


def _frames(wave_bs: Float[Array, "B S"], config: NemoMelConfig) -> Float[Array, "B F N"]:
    """Windows of n_fft samples centred on every hop: rows of `hop` samples side by side, without a large gather."""
    n_batch, n_samples = wave_bs.shape
    hop, half = config.hop_samples, config.n_fft // 2
    n_frames = n_samples // hop + 1
    n_rows = -(-config.n_fft // hop)
    needed = (n_frames + n_rows - 1) * hop
    padded = jnp.pad(wave_bs, ((0, 0), (half, max(0, needed - n_samples - half))))[:, :needed]
    rows = padded.reshape(n_batch, n_frames + n_rows - 1, hop)
    return jnp.concatenate([rows[:, i : i + n_frames] for i in range(n_rows)], axis=-1)[..., : config.n_fft]


@functools.cache
def _window(config: NemoMelConfig) -> np.ndarray:
    """A symmetric Hann window, centred in n_fft samples as torch's STFT places it.

    Its angles are float32, as torch makes them: where a bin's power all but cancels, that is seen in the features.
    """
    left = (config.n_fft - config.frame_samples) // 2
    angle = np.arange(config.frame_samples, dtype=np.float32) * np.float32(2 * np.pi / (config.frame_samples - 1))
    hann = np.float32(0.5) - np.float32(0.5) * np.cos(angle.astype(np.float64)).astype(np.float32)
    return np.pad(hann, (left, config.n_fft - config.frame_samples - left))
