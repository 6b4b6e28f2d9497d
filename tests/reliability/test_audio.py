"""Damaged recordings: read, or refused in one sentence, whatever their headers promise."""

import io
from collections.abc import Callable

import numpy as np
import pytest
import soundfile

from sgpa_jax.audio import read, read_clip
from sgpa_jax.errors import AudioError


@pytest.mark.parametrize(
    ("format", "subtype"), [("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("MP3", None)]
)
def test_recordings(campaign: Callable[..., None], format: str, subtype: str | None):
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, (1600, 2)) * np.hanning(1600)[:, None]
    whole = io.BytesIO()
    soundfile.write(whole, wave, 16_000, format=format, subtype=subtype)
    campaign(format.lower(), whole.getvalue(), read_clip)


def test_a_bomb_is_refused(tmp_path, monkeypatch: pytest.MonkeyPatch):
    """Compressed silence, of which a few bytes are hours: memory follows a bound, not the file."""
    path = tmp_path / "bomb.flac"
    soundfile.write(path, np.zeros(2**20, np.int16), 16_000)
    assert path.stat().st_size < 2**14
    monkeypatch.setattr(read, "MOST_SAMPLES", 2**18)
    with pytest.raises(AudioError, match="holds more than 262144 samples"):
        read_clip(path)
