"""`Clip`: what it refuses, what identifies it, and how it is resampled and written."""

import io

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from sgpa_jax.audio import Clip, read_clip, round_up, wav_bytes, write_wav
from sgpa_jax.errors import AudioError


def tone(rate_hz: int, duration_s: float = 0.5, frequency_hz: float = 440.0) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * frequency_hz * np.arange(int(rate_hz * duration_s)) / rate_hz)


@pytest.mark.parametrize(
    "wave_s, rate_hz, message",
    [
        (np.zeros(0), 16_000, "no samples"),
        (np.zeros((2, 3)), 16_000, "one axis"),
        (np.array([0.0, np.nan]), 16_000, "NaN or infinite"),
        (np.array([0.0, np.inf]), 16_000, "NaN or infinite"),
        (np.array([0.0, 1e300]), 16_000, "NaN or infinite"),
        (np.zeros(4, np.int16), 16_000, "floating point"),
        (np.zeros(4, object), 16_000, "floating point"),
        (np.zeros(4), 0, "0 Hz"),
        (np.zeros(4), -16_000, "-16000 Hz"),
        (np.zeros(4), 16_000.5, "whole number"),
        (np.zeros(4), float("nan"), "whole number"),
        (np.zeros(4), float("inf"), "whole number"),
        (np.zeros(4), "16000", "whole number"),
        (np.zeros(4), True, "whole number"),
    ],
)
def test_refuses_what_is_not_a_recording(wave_s, rate_hz, message):
    with pytest.raises(AudioError, match=message):
        Clip(wave_s, rate_hz)


def test_samples_are_copied_and_frozen():
    mine_s = tone(16_000).astype(np.float32)
    clip = Clip(mine_s, 16_000)
    digest = clip.sha256
    mine_s[:] = 0
    assert clip.wave_s.dtype == np.float32 and clip.wave_s.max() > 0.4 and clip.sha256 == digest
    with pytest.raises(ValueError, match="read-only"):
        clip.wave_s[0] = 1


def test_sha256_tells_samples_and_rates_apart():
    wave_s = tone(16_000)
    digests = {Clip(wave_s, 16_000).sha256, Clip(wave_s, 8_000).sha256, Clip(-wave_s, 16_000).sha256}
    assert len(digests) == 3 and Clip(wave_s, 16_000, "a.wav").sha256 in digests


@pytest.mark.parametrize("from_hz, to_hz", [(44_100, 16_000), (8_000, 16_000), (48_000, 24_000)])
def test_resampling_keeps_a_tone(from_hz, to_hz):
    clip = Clip(tone(from_hz), from_hz).at_rate(to_hz)
    assert clip.rate_hz == to_hz and clip.duration_s == pytest.approx(0.5, abs=1e-3)
    inside = slice(to_hz // 20, -to_hz // 20)
    np.testing.assert_allclose(clip.wave_s[inside], tone(to_hz)[: clip.wave_s.size][inside], atol=2e-3)


def test_resampling_to_the_same_rate_is_the_same_clip():
    clip = Clip(tone(16_000), 16_000)
    assert clip.at_rate(16_000) is clip
    with pytest.raises(AudioError, match="rate"):
        clip.at_rate(0)


def test_wav_round_trip_is_exact_for_16_bit_samples(tmp_path):
    pcm_s = np.array([-32768, -1, 0, 1, 32767], np.int16)
    clip = read_clip(pcm_s, rate_hz=16_000)
    write_wav(tmp_path / "deep" / "a.wav", clip)
    again = read_clip(tmp_path / "deep" / "a.wav")
    assert again.rate_hz == 16_000 and (again.wave_s == clip.wave_s).all()


def test_wav_clips_what_is_too_loud():
    samples, _ = soundfile.read(io.BytesIO(wav_bytes(Clip(np.array([2.0, -2.0]), 16_000))), dtype="int16")
    assert samples.tolist() == [32767, -32768]


@given(st.integers(0, 10**6), st.integers(1, 10**4))
def test_round_up(length, step):
    rounded = round_up(length, step)
    assert rounded % step == 0 and rounded >= max(length, 1) and rounded - step < max(length, 1)
