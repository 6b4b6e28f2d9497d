"""Steering: edits by their formulas, and a direction planted behind one layer that moves exactly what it must."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgpa_jax.audio import TOKEN_STEP, Clip, round_up
from sgpa_jax.concepts import LatentEdit, Push, steer, with_edit
from sgpa_jax.concepts.edits import MODES, OPERATIONS
from sgpa_jax.errors import UsageError
from sgpa_jax.models import Model, ModelInputs, load_model, with_response
from sgpa_jax.sae import SAEConfig, SAEState, decode, encode

STRENGTHS = (0.0, 6.0)
LATENT = 3
CONCEPT, SHARES = jnp.asarray([3, 17]), jnp.asarray([0.25, 0.75])


def random_sae(width: int, *, seed: int = 1) -> SAEState:
    rng, m = np.random.default_rng(seed), 24
    shapes = [(m, width), (m,), (m, width), (width,), (m,)]
    arrays = [jnp.asarray(0.4 * rng.standard_normal(shape), jnp.float32) for shape in shapes]
    return SAEState(*arrays, config=SAEConfig(width=width, n_latents=m, k=6))


@pytest.fixture(scope="module")
def model(tiny_folder) -> Model:
    return load_model(tiny_folder("qwen2_audio"), dtype="float32")


@pytest.fixture(scope="module")
def prompts(model: Model) -> list[ModelInputs]:
    """Two recordings of different lengths, and what is asked of them."""
    rng = np.random.default_rng(0)
    clips = [Clip(0.1 * rng.standard_normal(n).astype(np.float32), 16_000) for n in (8000, 14_000)]
    return [model.prepare(clip, "which colour?") for clip in clips]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_edit_is_its_formula(operation: str, mode: str):
    sae, x = random_sae(8), jnp.asarray(np.random.default_rng(2).standard_normal((2, 9, 8)), jnp.float32)
    strength_b = jnp.asarray([0.3, 2.0])
    z = encode(sae, x)
    for latents, shares in ((jnp.asarray([LATENT]), jnp.ones(1)), (CONCEPT, SHARES)):
        was = z[:, :, latents]
        assert (was > 0).any() and (was == 0).any()
        a = strength_b[:, None, None]
        amount = a * shares[None, None]
        new = {
            "add": was + amount, "set": 0 * was + amount, "scale": a * was, "clamp": jnp.minimum(was, amount),
            "ablate": 0 * was,
        }[operation]  # fmt: skip
        changed = decode(sae, z.at[:, :, latents].set(new))
        expected = changed if mode == "replace" else x + changed - decode(sae, z)
        found = LatentEdit(sae, latents, shares, operation, mode)(x, strength_b)
        np.testing.assert_allclose(found, expected, atol=2e-6)
    alone = LatentEdit(sae, LATENT, operation=operation, mode=mode)(x, strength_b)
    listed = LatentEdit(sae, jnp.asarray([LATENT]), jnp.ones(1), operation, mode)(x, strength_b)
    np.testing.assert_array_equal(alone, listed)


def test_an_edit_of_nothing_is_nothing_only_where_the_error_is_kept():
    sae, x = random_sae(8), jnp.asarray(np.random.default_rng(2).standard_normal((1, 5, 8)), jnp.float32)
    np.testing.assert_array_equal(LatentEdit(sae, LATENT)(x, jnp.zeros(1)), x)
    np.testing.assert_array_equal(Push(sae.w_dec_md[0])(x, jnp.zeros(1)), x)
    assert float(jnp.abs(LatentEdit(sae, LATENT, mode="replace")(x, jnp.zeros(1)) - x).max()) > 0.1


def test_a_planted_direction_moves_what_it_must_and_nothing_else(model: Model, prompts: list[ModelInputs]):
    inputs, sae = prompts[1], random_sae(32)
    is_audio_t = inputs.clip_t >= 0
    edited_bt = in_bucket(is_audio_t)
    strength_b, edit = np.array([5.0], np.float32), LatentEdit(sae, jnp.asarray(LATENT))
    steered = with_edit(model, edit, strength_b, edited_bt, after_layer=0)
    before_ltd, after_ltd = (np.asarray(one.residuals(inputs, [0, 1])) for one in (model, steered))
    moved_td = after_ltd[0] - before_ltd[0]
    np.testing.assert_allclose(
        moved_td[is_audio_t], np.tile(5 * np.asarray(sae.w_dec_md)[LATENT], (is_audio_t.sum(), 1)), atol=1e-5
    )
    np.testing.assert_array_equal(moved_td[~is_audio_t], 0)
    # What stands before the audio never sees it; all behind does.
    first = int(np.argmax(is_audio_t))
    np.testing.assert_array_equal(after_ltd[1][:first], before_ltd[1][:first])
    assert np.abs(after_ltd[1] - before_ltd[1])[first:].max(axis=1).min() > 0

    there = jnp.asarray(edited_bt)[:, :, None]
    row = 5 * sae.w_dec_md[LATENT][None, None]

    def tap(layer: int, x: jax.Array) -> jax.Array:
        return jnp.where(there, x + row, x) if layer == 0 else x

    np.testing.assert_allclose(steered.logits(inputs), model.logits(inputs, edit=tap), atol=1e-4)
    assert float(jnp.abs(steered.logits(inputs) - model.logits(inputs)).max()) > 0.01
    with pytest.raises(UsageError, match="rows that the model was given the edit for"):
        with_edit(model, edit, strength_b, edited_bt[:, :-1], after_layer=0).logits(inputs)


@pytest.mark.parametrize(("positions", "after_layer"), [("audio", 0), ("response", 1)])
def test_strengths_times_clips_answer_as_each_alone(
    model: Model, prompts: list[ModelInputs], positions: str, after_layer: int
):
    edit, asked = LatentEdit(random_sae(32), jnp.asarray(LATENT)), {"after_layer": after_layer, "positions": positions}
    found = steer(model, prompts, edit, STRENGTHS, **asked, max_new_tokens=3)
    answers = set()
    for a, strength in enumerate(STRENGTHS):
        for n, inputs in enumerate(prompts):
            ids, nats = greedily(model, inputs, edit, strength, asked, n_tokens=3)
            assert list(found.responses_an[a][n].ids) == ids
            np.testing.assert_allclose(found.nats_an[a, n], np.mean(nats) if ids else 0, atol=1e-4)
            answers.add((n, tuple(ids)))
    assert len(answers) > len(prompts), "nothing was steered: the test shows nothing"
    np.testing.assert_array_equal(found.change_an[0], 0)
    is_audio_t = prompts[0].clip_t >= 0
    edited_t = is_audio_t if positions == "audio" else np.arange(len(is_audio_t)) == len(is_audio_t) - 1
    x_td = np.asarray(model.residuals(prompts[0], [after_layer])[0])[edited_t]
    norm = 6 * float(jnp.linalg.norm(edit.sae.w_dec_md[LATENT]))
    np.testing.assert_allclose(found.change_an[1, 0], (norm / np.linalg.norm(x_td, axis=1)).mean(), rtol=1e-4)


def in_bucket(edited_t: np.ndarray) -> np.ndarray:
    """One row, as long as the model makes it."""
    return np.pad(edited_t, (0, round_up(len(edited_t), TOKEN_STEP) - len(edited_t)))[None]


def greedily(
    model: Model, inputs: ModelInputs, edit: Any, strength: float, asked: dict[str, Any], *, n_tokens: int
) -> tuple[list[int], list[float]]:
    """One clip at one strength, one token after another, the whole row anew for each."""
    assert model.chat is not None
    ids: list[int] = []
    nats: list[float] = []
    for _ in range(n_tokens):
        row = with_response(inputs, ids) if ids else inputs
        edited_t = row.clip_t >= 0
        if asked["positions"] == "response":
            edited_t = np.arange(len(row.ids_t)) >= row.response_start - 1
        steered = with_edit(model, edit, np.array([strength], np.float32), in_bucket(edited_t), **asked)
        log_probs_v = np.asarray(jax.nn.log_softmax(steered.logits(row)[0, -1]))
        chosen = int(log_probs_v.argmax())
        if chosen in model.chat.end_ids:
            break
        ids.append(chosen)
        nats.append(float(log_probs_v[chosen]))
    return ids, nats


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"after_layer": 2}, "after_layer is 2"),
        ({"after_layer": 1}, "no token looks at audio positions any more"),
        ({"positions": "text"}, "unknown positions 'text'"),
        ({"strengths": ()}, "2 prompts at the strengths"),
        ({"strengths": (float("nan"),)}, "expected finite ones"),
        ({"batch": []}, "0 prompts"),
    ],
)
def test_what_cannot_be_steered_is_told(model: Model, prompts: list[ModelInputs], changed: dict, complaint: str):
    asked: dict[str, Any] = {"batch": prompts, "edit": Push(jnp.ones(32)), "strengths": (1.0,), "after_layer": 0}
    with pytest.raises(UsageError, match=complaint):
        steer(model, **(asked | changed))


@pytest.mark.parametrize("wrong", [{"operation": "double"}, {"mode": "mix"}])
def test_unknown_edits_are_refused(wrong: dict[str, Any]):
    with pytest.raises(UsageError, match=f"unknown {next(iter(wrong))}"):
        LatentEdit(random_sae(8), 0, **wrong)
