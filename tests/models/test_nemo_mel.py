"""NeMo's log-mel against transformers' ParakeetFeatureExtractor and the features that liquid-audio made."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from transformers import ParakeetFeatureExtractor

from sgpa_jax.errors import CheckpointError
from sgpa_jax.models.mel import slaney_filters
from sgpa_jax.models.nemo_mel import NemoMelConfig, _window, nemo_log_mel

GOLDENS = Path(__file__).parents[1] / "goldens" / "lfm2_audio_tiny.safetensors"
CONFIG = NemoMelConfig()
LENGTHS = [320, 1600, 9999, 16037, 48001]
PREPROCESSOR = {
    "sample_rate": 16000, "normalize": "per_feature", "window_size": 0.025, "window_stride": 0.01, "window": "hann",
    "features": 128, "n_fft": 512, "log": True, "frame_splicing": 1, "dither": 1e-05, "pad_to": 0, "pad_value": 0.0,
}  # fmt: skip


def _wave(n_samples):
    return (0.1 * np.random.default_rng(n_samples).normal(size=n_samples)).astype(np.float32)


_log_mel = jax.jit(nemo_log_mel, static_argnums=2)


def _alone(wave):
    return np.asarray(_log_mel(jnp.asarray(wave[None]), jnp.array([len(wave)]), CONFIG))[0]


def _in_float64(wave):
    """The recipe once more, frame by frame and in double precision."""
    emphasised = np.append(wave[:1], wave[1:].astype(np.float64) - 0.97 * wave[:-1])
    padded = np.pad(emphasised, 256)
    frames = np.stack([padded[k : k + 512] for k in range(0, len(wave) + 1, 160)])
    power = np.abs(np.fft.rfft(frames * np.pad(np.hanning(400), 56))) ** 2
    log_mel = np.log(power @ slaney_filters(16000, 512, 128) + 2.0**-24)
    real = log_mel[: len(wave) // 160]
    normal = (real - real.mean(0)) / (real.std(0, ddof=1) + 1e-5)
    return np.vstack([normal, np.zeros((1, 128))])


def test_the_window_is_that_of_torch():
    left = (CONFIG.n_fft - CONFIG.frame_samples) // 2
    theirs = np.pad(torch.hann_window(CONFIG.frame_samples, periodic=False).numpy(), left)
    np.testing.assert_allclose(_window(CONFIG), theirs, atol=6e-8, rtol=0)


@pytest.mark.parametrize("n_samples", LENGTHS)
def test_equal_to_the_reference(n_samples):
    wave = _wave(n_samples)
    theirs = ParakeetFeatureExtractor(feature_size=128)(wave, sampling_rate=16000, return_tensors="np")
    theirs, found, exact = theirs["input_features"][0], _alone(wave), _in_float64(wave)
    assert found.shape == theirs.shape == (CONFIG.n_frames(n_samples), 128)
    assert np.quantile(np.abs(found - theirs), 0.999) <= 5e-5
    # Where a bin's power all but cancels, the reference's float32 transform is further than 1e-4 from the truth.
    for other in (theirs, exact):
        np.testing.assert_allclose(found, other, atol=2e-4)


def test_equal_to_liquid_audio():
    golden = load_file(GOLDENS)
    for wave, mel in (("wav", "mel"), ("wav2", "mel2")):
        found, theirs = _alone(golden[wave][0]).T, golden[mel][0]
        np.testing.assert_allclose(found, theirs, atol=1e-4, strict=True)
        np.testing.assert_allclose(found, _in_float64(golden[wave][0]).T, atol=1e-4)
    # The clips of a message lie one behind the other, each with its last frame of zeros.
    np.testing.assert_array_equal(golden["audio_in"], np.concatenate([golden["mel"][0], golden["mel2"][0]], axis=1))


def test_clips_in_one_bucket_are_as_alone():
    lengths = [0, 100, 200, *LENGTHS]
    waves = np.full((len(lengths), 48800), 0.5, np.float32)
    for row, n_samples in zip(waves, lengths, strict=True):
        row[:n_samples] = _wave(n_samples)
    found = _log_mel(jnp.asarray(waves), jnp.asarray(lengths), CONFIG)
    assert np.isfinite(found).all()
    for mel, n_samples in zip(np.asarray(found), lengths, strict=True):
        n_frames = CONFIG.n_frames(n_samples)
        if n_samples:
            np.testing.assert_allclose(mel[:n_frames], _alone(_wave(n_samples)), atol=2e-5)
        assert not mel[n_frames - 1 :].any()


def test_vmap_is_the_batch():
    waves = jnp.asarray(np.stack([_wave(3200), _wave(3200)[::-1]]))
    lengths = jnp.array([3200, 2000])
    rows = jax.jit(jax.vmap(lambda wave, n: nemo_log_mel(wave[None], n[None], CONFIG)[0]))(waves, lengths)
    np.testing.assert_allclose(rows, _log_mel(waves, lengths, CONFIG), atol=1e-5)


def test_silence_and_one_frame_are_zero():
    silent = _log_mel(jnp.zeros((1, 4000), jnp.float32), jnp.array([4000]), CONFIG)
    one_frame = _log_mel(jnp.asarray(_wave(319)[None]), jnp.array([319]), CONFIG)
    assert not np.asarray(silent).any() and not np.asarray(one_frame).any()


def test_the_shortest_clip_has_nine_frames():
    assert CONFIG.n_frames(CONFIG.minimum_samples) == 9
    assert CONFIG.n_frames(CONFIG.minimum_samples - 1) == 8


def test_the_configuration_is_read():
    assert NemoMelConfig.from_hf(PREPROCESSOR) == CONFIG
    small = NemoMelConfig.from_hf({**PREPROCESSOR, "features": 80, "n_fft": None, "window_stride": 0.02})
    assert small == NemoMelConfig(n_mels=80, hop_samples=320)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("normalize", "all_features"), ("normalize", None), ("window", "hamming"), ("frame_splicing", 3),
        ("pad_to", 16), ("log_zero_guard_type", "clamp"), ("log", False), ("preemph", None),
        ("mel_norm", None), ("highfreq", 7000),
    ],
)  # fmt: skip
def test_other_features_are_refused(key, value):
    with pytest.raises(CheckpointError, match=f"preprocessor.{key}"):
        NemoMelConfig.from_hf({**PREPROCESSOR, key: value})
