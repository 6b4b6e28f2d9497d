"""The pocket aligner: what it hears depends on the speech alone, not on padding, level or neighbours in a batch."""

import gzip
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import librosa
import numpy as np
import pytest
import sgpa_checkpoints
from flax import nnx
from safetensors.numpy import load_file, save_file

from sgpa_jax.audio import Clip
from sgpa_jax.models.aligner import (
    AlignerConfig,
    AlignerNetwork,
    Block,
    PocketAligner,
    count_frames,
    log_mel,
    normalise,
    parameters,
    parse_lexicon,
)

FOLDER = Path(sgpa_checkpoints.__file__).parent / "pocket_aligner"
SMALL = AlignerConfig(
    width=16,
    taps=3,
    dilations=(1, 4),
    phones=("sil", "aa", "b"),
    characters=("<blank>", "|", "a", "b"),
    log_prior=tuple(float(p) for p in np.log([0.5, 0.3, 0.2])),
    prior_weight=0.5,
)


@pytest.fixture(scope="module")
def network() -> AlignerNetwork:
    network = AlignerNetwork(SMALL, rngs=nnx.Rngs(0))
    rng = np.random.default_rng(0)
    # The blocks' last layers begin at zero: give all layers something to do.
    for slot in parameters(network).values():
        slot.set_value(jnp.asarray(0.3 * rng.standard_normal(slot.shape), jnp.float32))
    return network


@pytest.fixture(scope="module")
def aligner(network: AlignerNetwork) -> PocketAligner:
    return PocketAligner(network, SMALL, lexicon={"ab": (("aa", "b"),)}, name="small", digest="0")


@pytest.fixture(scope="module")
def shipped() -> PocketAligner:
    return PocketAligner.from_folder(FOLDER)


def speechlike(n_samples: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    swell_s = 0.5 + 0.5 * np.sin(np.arange(n_samples) / 900.0)
    return (0.2 * swell_s * rng.standard_normal(n_samples)).astype(np.float32)


def hear(network: AlignerNetwork, wave_s: np.ndarray, n_samples: int) -> tuple[np.ndarray, np.ndarray]:
    frames_b = jnp.array([count_frames(n_samples)], jnp.int32)
    phones, characters = network(normalise(log_mel(jnp.asarray(wave_s)[None]), frames_b), frames_b)
    return np.asarray(phones)[0], np.asarray(characters)[0]


def test_a_frame_hears_the_middle_of_its_ten_milliseconds():
    wave_s = np.zeros(8000, np.float32)
    wave_s[160 * 20 + 80] = 1.0
    mel_fm = np.asarray(log_mel(jnp.asarray(wave_s)[None]))[0]
    energy_f = mel_fm.mean(1)
    assert mel_fm.shape == (50, 80)
    assert energy_f.argmax() == 20
    np.testing.assert_allclose(energy_f[19], energy_f[21], rtol=1e-4)


def test_mel_bands_are_slaneys():
    wave_s = speechlike(8000)
    frame_w = wave_s[160 * 10 - 120 : 160 * 10 + 280] * np.hanning(401)[:-1]
    power = np.abs(np.fft.rfft(frame_w, 512)) ** 2
    expected_m = np.log(librosa.filters.mel(sr=16000, n_fft=512, n_mels=80) @ power)
    np.testing.assert_allclose(np.asarray(log_mel(jnp.asarray(wave_s)[None]))[0, 10], expected_m, atol=2e-3)


def test_normalisation_forgets_level_and_channel_and_ignores_padding():
    mel_fm = np.random.default_rng(0).normal(size=(30, 80)).astype(np.float32)
    colour_m = np.linspace(-2, 2, 80, dtype=np.float32)
    frames_b = jnp.array([30], jnp.int32)
    x_fm = np.asarray(normalise(jnp.asarray(mel_fm)[None], frames_b))[0]
    np.testing.assert_allclose(x_fm.mean(0), 0.0, atol=1e-5)
    assert x_fm.std() == pytest.approx(1.0, abs=1e-2)
    louder = np.asarray(normalise(jnp.asarray(mel_fm + colour_m + 3)[None], frames_b))[0]
    np.testing.assert_allclose(louder, x_fm, atol=1e-4)
    longer = np.concatenate([mel_fm, np.full((10, 80), 50.0, np.float32)])
    padded = np.asarray(normalise(jnp.asarray(longer)[None], frames_b))[0]
    np.testing.assert_allclose(padded[:30], x_fm, atol=1e-6)
    assert not padded[30:].any()


@pytest.mark.parametrize("dilation", [1, 3])
def test_a_block_is_a_dilated_convolution(dilation: int):
    block = Block(4, 5, dilation, rngs=nnx.Rngs(0))
    block.out.kernel.set_value(jnp.eye(4))
    x_btd = jax.random.normal(jax.random.key(1), (2, 17, 4))
    kernel = block.mix.kernel[...].reshape(5, 4, 4)
    mixed = jax.lax.conv_general_dilated(
        block.norm(x_btd), kernel, (1,), "SAME", rhs_dilation=(dilation,), dimension_numbers=("NWC", "WIO", "NWC")
    )
    expected = x_btd + jax.nn.gelu(mixed, approximate=False)
    np.testing.assert_allclose(block(x_btd, jnp.ones((2, 17, 1))), expected, atol=1e-5)


@pytest.mark.parametrize("n_samples", [12345, 159])
def test_padding_and_neighbours_change_nothing(network: AlignerNetwork, n_samples: int):
    wave_s = speechlike(n_samples)
    n_pairs = -(-count_frames(n_samples) // 2)
    exact_s = np.zeros(n_pairs * 320, np.float32)
    exact_s[:n_samples] = wave_s
    phones_fv, characters_tv = hear(network, exact_s, n_samples)
    both_bs = np.zeros((2, 32000), np.float32)
    both_bs[0, :n_samples], both_bs[1] = wave_s, speechlike(32000, seed=1)
    frames_b = jnp.array([count_frames(n_samples), 200], jnp.int32)
    phones, characters = network(normalise(log_mel(jnp.asarray(both_bs)), frames_b), frames_b)
    n_frames = count_frames(n_samples)
    np.testing.assert_allclose(np.asarray(phones)[0, :n_frames], phones_fv[:n_frames], atol=1e-4)
    np.testing.assert_allclose(np.asarray(characters)[0, :n_pairs], characters_tv[:n_pairs], atol=1e-4)


def test_emissions_are_log_probabilities_less_half_the_prior(aligner: PocketAligner):
    heard = aligner.emissions([Clip(speechlike(16100), 16000), Clip(speechlike(24000), 24000)])
    assert [sorted(one) for one in heard] == [["character", "phone"]] * 2
    character, phone = heard[0]["character"], heard[0]["phone"]
    assert (character.frame_s, character.offset_s, character.blank) == (0.02, 0.0, 0)
    assert (phone.frame_s, phone.offset_s, phone.blank) == (0.01, 0.0, None)
    assert character.log_probs_tv.shape == (51, 4)
    assert phone.log_probs_tv.shape == (101, 3)
    assert heard[1]["phone"].log_probs_tv.shape == (100, 3)
    np.testing.assert_allclose(np.exp(character.log_probs_tv).sum(1), 1.0, atol=1e-5)
    posterior = np.exp(phone.log_probs_tv + 0.5 * np.array(SMALL.log_prior))
    np.testing.assert_allclose(posterior.sum(1), 1.0, atol=1e-5)


def test_level_does_not_matter(shipped: PocketAligner):
    wave_s = speechlike(16000)
    loud, soft = shipped.emissions([Clip(wave_s, 16000), Clip(wave_s * np.float32(0.05), 16000)])
    np.testing.assert_allclose(loud["phone"].log_probs_tv, soft["phone"].log_probs_tv, atol=1e-2)


def test_silence_is_heard_as_finite_numbers(shipped: PocketAligner):
    heard = shipped.emissions([Clip(np.zeros(4000, np.float32), 16000)])[0]
    assert np.isfinite(heard["phone"].log_probs_tv).all()
    assert np.isfinite(heard["character"].log_probs_tv).all()


def test_what_ships_is_small_and_whole(shipped: PocketAligner):
    sizes = {path.name: path.stat().st_size for path in FOLDER.iterdir()}
    assert sizes["model.safetensors"] < 5_000_000
    assert sizes["lexicon.txt.gz"] < 900_000
    assert "Carnegie Mellon" in (FOLDER / "LICENSE.lexicon.txt").read_text()
    assert shipped.config.phones[0] == "sil"
    assert len(shipped.config.phones) == len(shipped.config.log_prior) == 40
    assert shipped.config.characters == ("<blank>", "|", "'", *"abcdefghijklmnopqrstuvwxyz")
    assert shipped.lexicon["speech"] == (("s", "p", "iy", "ch"),)
    assert len(shipped.lexicon["the"]) > 1
    known = set(shipped.config.phones)
    assert all(known.issuperset(phones) for spoken in shipped.lexicon.values() for phones in spoken)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "lexicon.txt.gz"])
@pytest.mark.parametrize("damage", ["missing", "cut", "other"])
def test_a_damaged_folder_is_refused(tmp_path: Path, name: str, damage: str):
    shutil.copytree(FOLDER, tmp_path, dirs_exist_ok=True)
    path = tmp_path / name
    data = path.read_bytes()
    path.unlink()
    if damage == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "other":
        path.write_bytes(gzip.compress(b"no tab here\n") if name.endswith(".gz") else b"[]")
    with pytest.raises(sgpa_checkpoints.FormatError):
        PocketAligner.from_folder(tmp_path)


def test_tensors_of_another_network_are_told_in_one_message(tmp_path: Path):
    shutil.copytree(FOLDER, tmp_path, dirs_exist_ok=True)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["stem.bias"]
    tensors["norm.scale"] = tensors["norm.scale"][:-1].copy()
    tensors["more"] = np.zeros(2, np.float32)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(sgpa_checkpoints.FormatError, match=r"in 3 places.*") as caught:
        PocketAligner.from_folder(tmp_path)
    assert all(name in str(caught.value) for name in ("stem.bias", "norm.scale", "more"))


def test_a_configuration_without_a_field_is_refused(tmp_path: Path):
    shutil.copytree(FOLDER, tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["network"]["taps"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(sgpa_checkpoints.FormatError, match="taps"):
        PocketAligner.from_folder(tmp_path)


def test_lexicon_lines_hold_alternatives():
    data = gzip.compress(b"a\tah|ey\nit's\tih t s\n")
    assert parse_lexicon(data) == {"a": (("ah",), ("ey",)), "it's": (("ih", "t", "s"),)}
