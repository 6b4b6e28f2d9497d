"""The embedder that is fitted to captions: sounds near their own words, and the same again from a folder."""

from pathlib import Path

import numpy as np
import pytest

from sgpa_jax.audio import Clip, write_wav
from sgpa_jax.concepts import CaptionEmbedder, ZeroShotCaptioner, embed_files
from sgpa_jax.concepts.spectrum import spectral_statistics
from sgpa_jax.errors import UsageError

RATE_HZ = 16000
WORDS = {
    "hiss": "a steady hiss", "whistle": "a high whistle", "hum": "the low hum of a motor", "clicks": "clicks, again"
}  # fmt: skip


def sound(kind: str, rng: np.random.Generator) -> Clip:
    n_samples = int(RATE_HZ * rng.uniform(0.4, 0.9))
    time_s, wave_s = np.arange(n_samples) / RATE_HZ, rng.standard_normal(n_samples) * 0.01
    if kind == "hiss":
        wave_s = wave_s * 10
    elif kind == "clicks":
        wave_s[:: int(rng.integers(1200, 2400))] += 0.9
    else:
        hz = rng.uniform(1500, 3000) if kind == "whistle" else rng.uniform(80, 160)
        n_partials = 1 if kind == "whistle" else 12
        wave_s += sum(0.1 * np.sin(2 * np.pi * hz * n * time_s) for n in range(1, n_partials + 1))
    return Clip((wave_s * rng.uniform(0.2, 0.9)).astype(np.float32), RATE_HZ)


@pytest.fixture(scope="module")
def embedder() -> CaptionEmbedder:
    rng, kinds = np.random.default_rng(0), list(WORDS) * 15
    return CaptionEmbedder.fit((sound(kind, rng) for kind in kinds), [WORDS[kind] for kind in kinds])


def test_sounds_lie_near_their_words(embedder: CaptionEmbedder, tmp_path: Path):
    rng, kinds = np.random.default_rng(1), list(WORDS) * 5
    clips = [sound(kind, rng) for kind in kinds]
    unit_ne = embedder.embed_audio(clips)
    np.testing.assert_allclose(np.linalg.norm(unit_ne, axis=1), 1, rtol=1e-5)
    nearest = (unit_ne @ embedder.embed_text(list(WORDS)).T).argmax(axis=1)
    assert sum(list(WORDS)[n] == kind for n, kind in zip(nearest, kinds, strict=True)) >= 18
    captioner = ZeroShotCaptioner(embedder, list(WORDS), n_words=1)
    assert [captioner.caption(clip) for clip in clips[:4]] == list(WORDS)
    with pytest.raises(UsageError, match="a vocabulary of 4 gives no 5 words"):
        ZeroShotCaptioner(embedder, list(WORDS), n_words=5)
    np.testing.assert_array_equal(embedder.embed_text(["zebra"]), 0)

    embedder.save(tmp_path)
    again = CaptionEmbedder.load(tmp_path)
    assert (again.name, again.words) == (embedder.name, embedder.words) and again.name == "captions of 60 clips"
    for n, clip in enumerate(clips[:5]):
        write_wav(tmp_path / f"{n}.wav", clip)
    told = []
    read_ne = embed_files(
        again, [tmp_path / f"{n}.wav" for n in range(5)], batch=2, progress=lambda *done: told.append(done)
    )
    np.testing.assert_allclose(read_ne, unit_ne[:5], atol=0.02)
    assert told == [(2, 5), (4, 5), (5, 5)]


def test_any_features_will_do_but_only_ours_are_saved(tmp_path: Path):
    clips = [Clip(np.full(100, level, np.float32), RATE_HZ) for level in np.linspace(0.1, 0.9, 20)]
    captions = ["soft" if clip.wave_s[0] < 0.5 else "loud" for clip in clips]
    level = CaptionEmbedder.fit(clips, captions, features=lambda clip: clip.wave_s[:1])
    cosine_n = level.embed_audio(clips) @ level.embed_text(["loud"])[0]
    assert [value > 0 for value in cosine_n] == [caption == "loud" for caption in captions]
    with pytest.raises(UsageError, match="only an embedder on spectral_statistics can be saved"):
        level.save(tmp_path)
    with pytest.raises(UsageError, match="20 clips and 19 captions"):
        CaptionEmbedder.fit(clips, captions[1:], features=lambda clip: clip.wave_s[:1])
    with pytest.raises(UsageError, match="no word is in 3 of 20 captions"):
        CaptionEmbedder.fit(clips, [f"w{n}" for n in range(20)], features=lambda clip: clip.wave_s[:1])


def test_refuses_what_is_damaged(embedder: CaptionEmbedder, tmp_path: Path):
    with pytest.raises(UsageError, match=r"holds no embedder\.safetensors"):
        CaptionEmbedder.load(tmp_path)
    embedder.save(tmp_path)
    path = tmp_path / "embedder.safetensors"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UsageError, match="is damaged"):
        CaptionEmbedder.load(tmp_path)


def test_what_describes_a_sound_is_finite_and_of_one_length():
    rng = np.random.default_rng(0)
    for wave_s in (np.zeros(50), np.ones(1), rng.standard_normal(RATE_HZ), rng.standard_normal(30)):
        numbers = spectral_statistics(Clip(wave_s.astype(np.float32), RATE_HZ))
        assert np.isfinite(numbers).all() and numbers.shape == (532,)
    wave_s = 0.1 * rng.standard_normal(RATE_HZ).astype(np.float32)
    apart = spectral_statistics(Clip(wave_s, RATE_HZ)) - spectral_statistics(Clip(2 * wave_s, RATE_HZ))
    assert (np.abs(apart) > 0.05).sum() <= 4 * 48 + 2, "only what describes the level itself"
