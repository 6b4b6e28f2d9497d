"""`read_clip`: the formats that it reads, its channel policy, and one clear sentence for every damaged file."""

import os
import struct

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sgpa_jax.audio import Clip, read_clip, wav_bytes
from sgpa_jax.errors import AudioError

RATE_HZ = 16_000
STEREO = np.stack([np.linspace(-0.5, 0.5, 4000), np.full(4000, 0.25)], axis=1)


@pytest.mark.parametrize(
    "name, tolerance", [("a.wav", 1e-4), ("a.flac", 1e-4), ("a.ogg", 0.1), ("a.mp3", 0.1), ("a.aiff", 1e-4)]
)
def test_reads_formats(tmp_path, name, tolerance):
    wave_s = 0.5 * np.sin(np.arange(RATE_HZ) * 0.05)
    soundfile.write(tmp_path / name, wave_s, RATE_HZ)
    clip = read_clip(tmp_path / name)
    assert clip.rate_hz == RATE_HZ and clip.path == str(tmp_path / name)
    assert clip.duration_s == pytest.approx(1.0, abs=0.12)
    np.testing.assert_allclose(clip.wave_s[2000:14000], wave_s[2000:14000], atol=tolerance)


def test_the_content_decides_and_not_the_extension(tmp_path):
    (tmp_path / "a.raw").write_bytes(wav_bytes(Clip(STEREO[:, 0], RATE_HZ)))
    assert read_clip(str(tmp_path / "a.raw")).wave_s.size == 4000


def test_channels(tmp_path):
    soundfile.write(tmp_path / "a.wav", STEREO, RATE_HZ, subtype="FLOAT")
    for source, rate_hz in [(tmp_path / "a.wav", None), (STEREO, RATE_HZ)]:
        np.testing.assert_allclose(read_clip(source, rate_hz=rate_hz).wave_s, STEREO.mean(axis=1), atol=1e-7)
        np.testing.assert_allclose(read_clip(source, rate_hz=rate_hz, channel="1").wave_s, 0.25)
        for channel in ("2", "-1", "left", "", "²"):
            with pytest.raises(AudioError, match="channel"):
                read_clip(source, rate_hz=rate_hz, channel=channel)


def test_resamples_files_and_clips_on_request(tmp_path):
    soundfile.write(tmp_path / "a.wav", STEREO, 48_000)
    assert read_clip(tmp_path / "a.wav", rate_hz=16_000).rate_hz == 16_000
    clip = Clip(STEREO[:, 0], 48_000)
    assert read_clip(clip) is clip and read_clip(clip, rate_hz=24_000).wave_s.size == 2000


@pytest.mark.parametrize(
    "array, expected",
    [
        (np.array([-128, 0, 64], np.int8), [-1, 0, 0.5]),
        (np.array([0, 128, 192], np.uint8), [-1, 0, 0.5]),
        (np.array([-(2**15), 0, 2**14], np.int16), [-1, 0, 0.5]),
        (np.array([-(2**31), 0, 2**30], np.int32), [-1, 0, 0.5]),
        (np.array([-1, 0, 0.5], np.float16), [-1, 0, 0.5]),
    ],
)
def test_integers_are_scaled_by_their_full_scale(array, expected):
    assert read_clip(array, rate_hz=RATE_HZ).wave_s.tolist() == expected


@pytest.mark.parametrize(
    "array, rate_hz, message",
    [
        (np.zeros(4), None, "rate_hz"),
        (np.zeros(0), RATE_HZ, "no samples"),
        (np.zeros((0, 0)), RATE_HZ, "no samples"),
        (np.zeros((4, 0)), RATE_HZ, "no samples"),
        (np.zeros((2, 100)), RATE_HZ, "transpose"),
        (np.zeros((2, 2, 2)), RATE_HZ, "shape"),
        (np.float64(0.0), RATE_HZ, "shape"),
        (np.array([np.inf, -np.inf])[None].repeat(4, 0), RATE_HZ, "NaN or infinite"),
        (np.zeros(4, np.int64), RATE_HZ, "8 to 32-bit"),
        (np.zeros(4, bool), RATE_HZ, "8 to 32-bit"),
        (np.zeros(4, complex), RATE_HZ, "8 to 32-bit"),
        ([0.0, "a"], RATE_HZ, "floating point"),
        ([[0.0], [0.0, 1.0]], RATE_HZ, "not an array"),
        (None, RATE_HZ, "shape"),
    ],
)
def test_refuses_arrays(array, rate_hz, message):
    with pytest.raises(AudioError, match=message):
        read_clip(array, rate_hz=rate_hz)


def wav_of(samples: np.ndarray, tmp_path) -> bytes:
    soundfile.write(tmp_path / "x.wav", samples, RATE_HZ, subtype="FLOAT")
    return (tmp_path / "x.wav").read_bytes()


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "empty"),
        (b"RIFF", "cannot be read"),
        (b"this is a text file, not a recording" * 20, "cannot be read"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "cannot be read"),
    ],
)
def test_refuses_files_that_are_not_audio(tmp_path, content, message):
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(AudioError, match=message):
        read_clip(tmp_path / "a.wav")


def test_refuses_bad_samples(tmp_path):
    for samples, message in [([0.0, np.nan], "NaN"), ([np.inf, 0.0], "NaN"), ([], "no samples")]:
        (tmp_path / "a.wav").write_bytes(wav_of(np.array(samples), tmp_path))
        with pytest.raises(AudioError, match=message):
            read_clip(tmp_path / "a.wav")


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.aiff", "a.mp3"])
@pytest.mark.parametrize("kept", [0.9, 0.5, 0.1])
def test_refuses_truncated_files(tmp_path, name, kept):
    noise_s = np.random.default_rng(0).uniform(-0.5, 0.5, 3 * RATE_HZ)
    soundfile.write(tmp_path / name, noise_s, RATE_HZ)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(AudioError, match=r"truncated|cannot be read"):
        read_clip(tmp_path / name)


def test_accepts_streamed_wavs_of_unknown_length(tmp_path):
    data = bytearray(wav_bytes(Clip(STEREO[:, 0], RATE_HZ)))
    struct.pack_into("<I", data, 4, 0xFFFFFFFF)
    struct.pack_into("<I", data, 40, 0xFFFFFFFF)
    (tmp_path / "a.wav").write_bytes(bytes(data))
    assert read_clip(tmp_path / "a.wav").wave_s.size == 4000


def test_refuses_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "missing.wav", tmp_path / "pipe", "nul\0byte.wav", "x" * 5000, ""):
        with pytest.raises(AudioError, match="expected an audio file"):
            read_clip(path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200), st.integers(0, 60), st.booleans())
def test_no_damage_escapes_as_another_error(tmp_path, junk, position, cut):
    """Random bytes over the header of a real WAV, or alone: a clip or an `AudioError`, nothing else."""
    data = wav_bytes(Clip(STEREO[:50, 0], RATE_HZ))
    damaged = junk if cut else data[:position] + junk + data[position + len(junk) :]
    (tmp_path / "a.wav").write_bytes(damaged)
    try:
        clip = read_clip(tmp_path / "a.wav")
    except AudioError as error:
        assert "a.wav" in str(error)
    else:
        assert np.isfinite(clip.wave_s).all() and clip.wave_s.size > 0
