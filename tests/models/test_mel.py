"""Our log-mel against transformers' WhisperFeatureExtractor, in the hub's settings and in the pocket model's."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from transformers import WhisperFeatureExtractor

from sgpa_jax.models.mel import WhisperMelConfig

CONFIGS = [WhisperMelConfig(), WhisperMelConfig(n_mels=80, n_fft=512, hop_samples=320)]


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("n_samples", [1600, 40123, 480000])
def test_equal_to_the_reference(config, n_samples):
    reference = WhisperFeatureExtractor(
        feature_size=config.n_mels, hop_length=config.hop_samples, n_fft=config.n_fft, chunk_length=30
    )
    wave = (0.1 * np.random.default_rng(0).normal(size=n_samples)).astype(np.float32)
    expected = reference(wave, sampling_rate=16000, return_tensors="np")["input_features"][0].T
    padded = np.zeros((1, n_samples + config.n_fft), np.float32)
    padded[0, :n_samples] = wave
    found = np.asarray(jax.jit(config.features)(jnp.asarray(padded), jnp.array([n_samples])))[0]
    assert len(found) > n_samples // config.hop_samples
    n = min(len(found), len(expected))
    np.testing.assert_allclose(found[:n], expected[:n], atol=2e-5)


def test_silence_is_the_reference_floor():
    config = CONFIGS[1]
    reference = WhisperFeatureExtractor(feature_size=80, hop_length=320, n_fft=512, chunk_length=30)
    expected = reference(np.zeros(8000, np.float32), sampling_rate=16000, return_tensors="np")["input_features"][0]
    found = np.asarray(jax.jit(config.features)(jnp.zeros((1, 8000), jnp.float32), jnp.array([8000])))[0]
    np.testing.assert_allclose(found, expected.T[: len(found)], atol=1e-6)


def test_chunks_of_one_spectrogram_end_where_the_references_do():
    """A clip of exactly a chunk, loudest in its last sample, in a bucket of three: what is behind lifts no floor."""
    config = replace(CONFIGS[0], chunk_s=1.0, window_s=60.0, chunks_apart=False)
    wave = (1e-5 * np.random.default_rng(0).normal(size=16000)).astype(np.float32)
    wave[-1] = 1.0
    reference = WhisperFeatureExtractor(feature_size=128, chunk_length=1)
    expected = reference(wave, sampling_rate=16000, return_tensors="np", padding="longest", pad_to_multiple_of=16000)
    found = jax.jit(config.features)(jnp.asarray(np.pad(wave, (0, 32000)))[None], jnp.array([16000]))[0]
    np.testing.assert_allclose(found[:100], expected["input_features"][0].T, atol=2e-5)
    assert (found[100:] == found[100:].min()).all()
