"""What is measured at cuts: the paper's flux against librosa's spectra, cepstra, phones, clicks."""

import librosa
import numpy as np
import pytest

from sgpa_jax.audio import Clip
from sgpa_jax.study.corpus import Span
from sgpa_jax.study.cuts import cepstral_step, click_score, cut_times, flux_at, inside_phones

RATE_HZ = 16_000


def two_sounds(ratio: float = 1.0) -> Clip:
    time_s = np.arange(RATE_HZ) / RATE_HZ
    second_s = 0.4 * ratio * np.sin(2 * np.pi * (300 if ratio != 1 else 2500) * time_s)
    return Clip(np.where(time_s < 0.5, 0.4 * np.sin(2 * np.pi * 300 * time_s), second_s).astype(np.float32), RATE_HZ)


def test_cuts_are_inner_edges_each_once():
    spans_s = [(0.0, 0.2), (0.2, 0.5), (0.6, 1.0)]
    assert cut_times(spans_s, 1.0).tolist() == [0.2, 0.5, 0.6]


def test_flux_is_the_papers():
    clip = two_sounds()
    magnitude = np.abs(librosa.stft(clip.wave_s / np.abs(clip.wave_s).max(), n_fft=256, hop_length=64))
    flux = np.sum(np.diff(magnitude) ** 2, axis=0)
    flux = np.concatenate([flux[:1], flux])
    cuts_s = np.array([0.0, 0.25, 0.5, 0.9])
    frames = np.rint(cuts_s * RATE_HZ / 64).astype(int)
    assert flux_at(clip, cuts_s)[1:] == pytest.approx(flux[frames][1:], rel=1e-3, abs=1e-3)
    assert flux_at(clip, cuts_s).argmax() == 2


def test_the_cepstrum_sees_another_sound_and_not_another_level():
    other = cepstral_step(two_sounds(), np.array([0.3, 0.5]))
    quieter = cepstral_step(two_sounds(0.5), np.array([0.3, 0.5]))
    assert other[1] > 5 * other[0] + 1
    assert quieter[1] < 0.2 * other[1]


def test_cuts_inside_of_phones():
    phones = [Span("sil", 0.0, 0.2), Span("s", 0.2, 0.3), Span("iy", 0.3, 0.32)]
    cuts_s = np.array([0.1, 0.2, 0.215, 0.25, 0.31])
    assert inside_phones(phones, cuts_s, 10) == pytest.approx(2 / 5)
    assert inside_phones(phones, cuts_s, 20) == pytest.approx(1 / 5)
    assert inside_phones(phones, np.array([]), 10) is None


def test_a_hard_cut_clicks():
    smooth = two_sounds(1.0).wave_s[:8000]
    cut = smooth.copy()
    cut[4013:] = 0
    assert click_score(cut, RATE_HZ) > click_score(smooth, RATE_HZ)
    assert click_score(np.zeros(1000, np.float32), RATE_HZ) == 0
