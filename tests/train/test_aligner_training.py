"""The pocket aligner's trainer: labels at frame centres, batches that depend on the step alone, and its own search."""

from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from train import aligner as trainer
from train import aligner_data as data
from train.aligner_score import word_times
from train.phones import PHONES
from train.speech import Span, Utterance

from sgpa_jax.models.aligner import AlignerNetwork


def utterance(n_samples: int = 8000) -> Utterance:
    wave_s = (0.1 * np.random.default_rng(0).standard_normal(n_samples)).astype(np.float32)
    phones = (
        Span("sil", 0.0, 0.1),
        Span("hh", 0.1, 0.204),
        Span("ay", 0.204, 0.4),
        Span("sil", 0.4, n_samples / 16000),
    )
    return Utterance(wave_s, (Span("hi", 0.1, 0.4),), phones)


def test_a_frame_has_the_phone_at_its_centre():
    made = data.example(utterance())
    named = [PHONES[label] for label in made.phone_f]
    assert made.mel_fm.shape == (50, 80)
    assert named == ["sil"] * 10 + ["hh"] * 10 + ["ay"] * 20 + ["sil"] * 10
    assert [data.CHARACTERS[letter] for letter in made.character_n] == ["h", "i"]


def test_batches_depend_on_the_step_and_masks_touch_no_label(tmp_path: Path):
    batches = trainer.Batches(tmp_path, seed=3)
    batches.buckets[256] = [data.example(utterance(n)) for n in (8000, 12000, 30000)]
    first, again, other = batches.draw(5), batches.draw(5), batches.draw(6)
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, two)
    assert any(not np.array_equal(one, two) for one, two in zip(first, other, strict=True))
    _mel, n_frames, phone, _character, _n_characters, _keep = first
    assert ((phone >= 0).sum(1)[:3] == n_frames[:3]).all()
    assert (phone[3:] == -1).all()


def test_losses_ignore_empty_rows_and_padding():
    config = replace(trainer._config(np.zeros(len(PHONES))), width=8, dilations=(1,))
    network = AlignerNetwork(config, rngs=nnx.Rngs(0))
    made = [data.example(utterance())]
    small = trainer.losses(network, *map(jnp.asarray, trainer.collate(made, 64, 1, None)))
    large = trainer.losses(network, *map(jnp.asarray, trainer.collate(made, 128, 3, None)))
    np.testing.assert_allclose(np.array(small), np.array(large), rtol=1e-4)


def test_a_checkpoint_comes_back(tmp_path: Path):
    tree = {"a": jnp.arange(3.0), "b": (jnp.ones((2, 2)), jnp.zeros((), jnp.int32))}
    assert trainer._restore(tmp_path / "state.npz", tree) == (0, tree)
    trainer._save(tmp_path / "state.npz", 7, tree)
    step, back = trainer._restore(tmp_path / "state.npz", {"a": jnp.zeros(3), "b": (jnp.zeros((2, 2)), jnp.ones(()))})
    assert step == 7
    np.testing.assert_array_equal(back["a"], tree["a"])
    np.testing.assert_array_equal(back["b"][0], tree["b"][0])


@pytest.mark.parametrize("n_frames", [60, 8])
def test_search_finds_the_words_that_the_posteriors_hold(n_frames: int):
    hh, ay, b = (PHONES.index(phone) for phone in ("hh", "ay", "b"))
    unit = n_frames // 4
    truth_f = np.repeat([hh, ay, 0, b], unit)
    log_probs_fv = np.full((n_frames, len(PHONES)), -6.0, np.float32)
    log_probs_fv[np.arange(n_frames), truth_f] = -0.1
    times = word_times(log_probs_fv, [[["hh", "ay"], ["hh", "b"]], [["b"]]], 0.01)
    expected = np.array([[0, 2 * unit], [3 * unit, 4 * unit]]) * 0.01
    np.testing.assert_allclose(times, expected, atol=1e-6)


def test_an_edge_lies_where_the_two_phones_cross():
    log_probs_fv = np.full((20, len(PHONES)), -9.0, np.float32)
    b, ay = PHONES.index("b"), PHONES.index("ay")
    log_probs_fv[:10, b], log_probs_fv[10:, ay] = 0.0, 0.0
    log_probs_fv[9, ay] = -3.0
    times = word_times(log_probs_fv, [[["b"]], [["ay"]]], 0.01)
    assert times[0][1] == times[1][0] == pytest.approx((9.5 + 3.0 / 12.0) * 0.01)
