"""`render_coalition` against a slow numpy reference, and the ambient noise."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgpa_jax.audio import Clip
from sgpa_jax.errors import SgpaError
from sgpa_jax.players import (
    ABSENCES,
    NOBODY,
    PADDING,
    all_coalitions,
    ambient_noise,
    as_pcm16,
    join_kept,
    render_coalition,
)

N_SAMPLES = 40
MINIMUM = 7
render = {absence: jax.jit(partial(render_coalition, absence=absence, minimum=MINIMUM)) for absence in ABSENCES}


def reference(wave_s, owner_s, mask_p, noise_s, absence):
    rendered = []
    for sample, owner, noise in zip(wave_s, owner_s, noise_s, strict=True):
        if owner == PADDING:
            continue
        if owner == NOBODY or mask_p[owner]:
            rendered.append(sample)
        elif absence != "delete":
            rendered.append(noise if absence == "noise" else 0.0)
    return np.array(rendered + [0.0] * (len(wave_s) - len(rendered)), np.float32), max(len(rendered), MINIMUM)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(NOBODY, 3), min_size=0, max_size=N_SAMPLES),
    st.lists(st.booleans(), min_size=4, max_size=4),
    st.integers(0, 10**6),
)
def test_equals_the_reference(owners, mask, seed):
    rng = np.random.default_rng(seed)
    wave_s, noise_s = rng.standard_normal((2, N_SAMPLES)).astype(np.float32)
    owner_s = np.array(owners + [PADDING] * (N_SAMPLES - len(owners)), np.int32)
    for absence in ABSENCES:
        heard_s, length = render[absence](wave_s, owner_s, np.array(mask), noise_s=noise_s)
        expected_s, expected_length = reference(wave_s, owner_s, mask, noise_s, absence)
        np.testing.assert_array_equal(heard_s, expected_s)
        assert length == expected_length and length.dtype == jnp.int32
    joined_cs = join_kept(wave_s, owner_s, np.array([mask, ~np.array(mask)]), size=N_SAMPLES + 3)
    for joined_s, mask_p in zip(joined_cs, (mask, ~np.array(mask)), strict=True):
        expected_s, _ = reference(wave_s, owner_s, mask_p, noise_s, "delete")
        np.testing.assert_array_equal(joined_s, np.append(expected_s, np.zeros(3, np.float32)))


@pytest.mark.parametrize("absence", ABSENCES)
def test_vmaps_over_masks_and_leaves_the_full_coalition_untouched(absence):
    rng = np.random.default_rng(0)
    wave_s, noise_s = jnp.asarray(rng.standard_normal((2, 50)), jnp.float32)
    owner_s = jnp.asarray(np.arange(50) // 10 - 1, jnp.int32)
    masks_cp = all_coalitions(4)
    many = jax.jit(jax.vmap(partial(render_coalition, absence=absence, noise_s=noise_s), (None, None, 0)))
    heard_cs, length_c = many(wave_s, owner_s, masks_cp)
    np.testing.assert_array_equal(heard_cs[-1], wave_s)
    for mask_p, heard_s, length in zip(masks_cp, heard_cs, length_c, strict=True):
        alone_s, alone_length = render_coalition(wave_s, owner_s, mask_p, absence=absence, noise_s=noise_s)
        np.testing.assert_array_equal(alone_s, heard_s)
        assert length == alone_length == (10 + 10 * mask_p.sum() if absence == "delete" else 50)


def test_nothing_left_is_silence_of_the_minimum():
    heard_s, length = render_coalition(
        jnp.ones(30), jnp.zeros(30, jnp.int32), jnp.array([False]), absence="delete", minimum=12
    )
    assert length == 12 and not heard_s.any()


def test_lowers_for_tpu():
    shapes = [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in [((64,), jnp.float32), ((64,), jnp.int32)]]
    masks_cp = jax.ShapeDtypeStruct((8, 5), bool)
    for absence in ABSENCES:
        many = jax.vmap(partial(render_coalition, absence=absence, noise_s=jnp.zeros(64)), (None, None, 0))
        assert jax.export.export(jax.jit(many), platforms=["tpu"])(*shapes, masks_cp).platforms == ("tpu",)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"absence": "silense"}, "silence"),
        ({"absence": "noise"}, "noise_s"),
        ({"absence": "delete", "minimum": 31}, "pad the recording"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(SgpaError, match=message):
        render_coalition(jnp.ones(30), jnp.zeros(30, jnp.int32), jnp.array([False]), **arguments)


def test_ambient_noise_is_as_loud_as_the_pauses_and_keyed_by_the_clip():
    rng = np.random.default_rng(0)
    wave_s = 0.01 * rng.standard_normal(16_000)
    wave_s[4000:12_000] += 0.3 * np.sin(np.arange(8000) * 0.1)
    clip = Clip(wave_s, 16_000)
    noise_s = ambient_noise(clip)
    assert noise_s.shape == clip.wave_s.shape and noise_s.dtype == np.float32
    assert noise_s.std() == pytest.approx(0.01, rel=0.15)
    np.testing.assert_array_equal(noise_s, ambient_noise(Clip(wave_s, 16_000)))
    assert abs(np.corrcoef(noise_s, ambient_noise(Clip(-wave_s, 16_000)))[0, 1]) < 0.05


@pytest.mark.parametrize("n_samples", [1, 100, 16_000])
def test_ambient_noise_has_a_floor(n_samples):
    noise_s = ambient_noise(Clip(np.zeros(n_samples), 16_000))
    assert noise_s.shape == (n_samples,) and 0 < abs(noise_s).max() < 0.006


def test_sixteen_bits_as_the_authors_round_them():
    wave_s = np.array([0, 0.5 / 32767, 1.5 / 32767, -2.4 / 32767, 1, -1, 1.5, -7, 20_000.4 / 32767], np.float32)
    found_s = as_pcm16(wave_s)
    assert found_s.dtype == np.float32
    np.testing.assert_array_equal(np.rint(found_s * 32767), [0, 0, 2, -2, 32767, -32767, 32767, -32767, 20_000])
    np.testing.assert_array_equal(as_pcm16(found_s), found_s)
