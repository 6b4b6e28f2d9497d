"""Our log-mel against transformers' WhisperFeatureExtractor, in the hub's settings and in the pocket model's."""

import jax.numpy as jnp
import numpy as np
import pytest
from transformers import WhisperFeatureExtractor

from sgpa_jax.models.mel import WhisperMelConfig, log_mel

CONFIGS = [WhisperMelConfig(), WhisperMelConfig(n_mels=80, n_fft=512, hop_samples=320)]


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("n_samples", [1600, 40123])
def test_equal_to_the_reference(config, n_samples):
    reference = WhisperFeatureExtractor(
        feature_size=config.n_mels, hop_length=config.hop_samples, n_fft=config.n_fft, chunk_length=30
    )
    wave = (0.1 * np.random.default_rng(0).normal(size=n_samples)).astype(np.float32)
    expected = reference(wave, sampling_rate=16000, return_tensors="np")["input_features"][0].T
    padded = np.zeros((1, n_samples + config.n_fft), np.float32)
    padded[0, :n_samples] = wave
    found = np.asarray(log_mel(jnp.asarray(padded), config))[0]
    assert len(found) > n_samples // config.hop_samples
    np.testing.assert_allclose(found, expected[: len(found)], atol=2e-5)


def test_silence_is_the_reference_floor():
    config = CONFIGS[1]
    reference = WhisperFeatureExtractor(feature_size=80, hop_length=320, n_fft=512, chunk_length=30)
    expected = reference(np.zeros(8000, np.float32), sampling_rate=16000, return_tensors="np")["input_features"][0]
    found = np.asarray(log_mel(jnp.zeros((1, 8000), jnp.float32), config))[0]
    np.testing.assert_allclose(found, expected.T[: len(found)], atol=1e-6)
