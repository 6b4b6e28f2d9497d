"""Dose and response on a made-up model whose answers are known at every strength, and the controls' norms."""

from types import SimpleNamespace
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgpa_jax.concepts import (
    Activity,
    Dose,
    DoseResponse,
    LatentEdit,
    Push,
    Steered,
    Task,
    best_contrast,
    class_of,
    concept_shares,
    dose,
    dose_response,
    methods,
)
from sgpa_jax.concepts.dose import repeats_itself
from sgpa_jax.errors import UsageError
from sgpa_jax.models import Response
from sgpa_jax.sae import SAEConfig, SAEState

WIDTH, M, LATENT, P99 = 6, 8, 2, 3.0
CLASSES = ("female", "male", "nobody")


def made_up_sae() -> SAEState:
    rows = np.random.default_rng(0).standard_normal((M, WIDTH)).astype(np.float32)
    zeros = jnp.zeros(M)
    return SAEState(
        jnp.asarray(rows), zeros, jnp.asarray(rows), jnp.zeros(WIDTH), zeros, SAEConfig(width=WIDTH, n_latents=M, k=2)
    )


def seen(n: int) -> Activity:
    """Latent 2 and dimension 4 tell the classes apart; latent 7 never fires."""
    is_target = np.arange(n) % 2 == 1
    rng = np.random.default_rng(1)
    mean_nd, mean_nm = rng.standard_normal((n, WIDTH)), rng.uniform(0.1, 1, (n, M))
    mean_nd[:, 4] = np.where(is_target, -3, 3) + 0.1 * rng.standard_normal(n)
    mean_nm[:, LATENT] = np.where(is_target, 2, 0.05)
    density_m, p99_m = np.full(M, 0.3), np.full(M, P99)
    mean_nm[:, 7] = density_m[7] = p99_m[7] = 0
    return Activity(mean_nd, mean_nm, density_m, p99_m)


def response(text: str, ids: tuple[int, ...] = (1, 2)) -> Response:
    return Response(ids, text, ())


@pytest.mark.parametrize("latents", [(LATENT,), (LATENT, 5, 6)])
def test_every_push_has_the_norm_of_the_concepts_own(latents: tuple[int, ...]):
    sae, n = made_up_sae(), 20
    is_target, all_seen = np.arange(n) % 2 == 1, seen(n)
    all_seen.p99_m[5] = 1.0
    share_k = concept_shares(all_seen, latents, is_target)
    ways = methods(sae, latents, share_k, all_seen, is_target, key=jax.random.key(0))
    own_d, p99 = (
        share_k @ np.asarray(sae.w_dec_md)[list(latents)],
        float(np.abs(share_k) @ all_seen.p99_m[list(latents)]),
    )
    for name, way in ways.items():
        if name == "reconstruction alone":
            assert way.unit == 0 and isinstance(way.edit, LatentEdit) and way.edit.mode == "replace"
            continue
        x = jnp.zeros((1, 1, WIDTH))
        push = (
            way.edit.direction_d if isinstance(way.edit, Push) else way.edit(x, jnp.ones(1)) - way.edit(x, jnp.zeros(1))
        )
        np.testing.assert_allclose(
            abs(way.unit) * np.linalg.norm(push), p99 * np.linalg.norm(own_d), rtol=1e-5, err_msg=name
        )
    assert ways["concept backwards"].unit == -ways["concept"].unit == -p99
    raw = next(way.edit for name, way in ways.items() if name == "raw dimension 4")
    assert isinstance(raw, Push) and float(raw.direction_d[4]) == -1 and float(jnp.abs(raw.direction_d).sum()) == 1
    if len(latents) == 1:
        (other,) = [int(name.split()[-1]) for name in ways if name.startswith("random latent")]
        assert other not in (LATENT, 7)
    else:
        several = ways["3 raw dimensions"].edit
        assert "3 random latents" in ways and isinstance(several, Push) and int((several.direction_d != 0).sum()) == 3
    with pytest.raises(UsageError, match="fire on the clips given"):
        methods(sae, range(6), np.ones(6) / 6, all_seen, is_target, key=jax.random.key(0))


def test_a_concepts_latents_share_it_by_how_much_more_they_fire():
    is_target, all_seen = np.arange(20) % 2 == 1, seen(20)
    all_seen.mean_nm[:, 5] = np.where(is_target, 0.7, 0.05)
    all_seen.mean_nm[:, 6] = np.where(is_target, 0.1, 0.75)
    all_seen.mean_nm[:, 1] = 0.4
    np.testing.assert_allclose(concept_shares(all_seen, (LATENT, 5, 6), is_target), [0.6, 0.2, -0.2], atol=1e-12)
    np.testing.assert_array_equal(concept_shares(all_seen, (6,), is_target), [1])
    with pytest.raises(UsageError, match="the latents 1, 1 fire alike"):
        concept_shares(all_seen, (1, 1), is_target)
    np.testing.assert_array_equal(concept_shares(all_seen, (LATENT, 7), is_target), [1, 0])
    for absent in ((7,), (LATENT, 8)):
        with pytest.raises(UsageError, match=f"latent {absent[-1]} of 8 never fires"):
            concept_shares(all_seen, absent, is_target)


def test_the_best_contrast_is_the_area_under_the_curve():
    rng = np.random.default_rng(4)
    score_nm, is_target_n = rng.integers(0, 4, (17, 5)).astype(float), rng.uniform(size=17) < 0.4
    above = score_nm[is_target_n][:, None] - score_nm[~is_target_n][None]
    areas = ((above > 0) + 0.5 * (above == 0)).mean(axis=(0, 1))
    latent, area = best_contrast(score_nm, is_target_n)
    assert (latent, area) == (int(areas.argmax()), pytest.approx(areas.max()))
    with pytest.raises(UsageError, match="of one class"):
        best_contrast(score_nm, np.ones(17, bool))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a male voice", "male"), ("Female.", "female"), ("female or male", None), ("malefic", None), ("", None),
        ("it is nobody", "nobody"),
    ],
)  # fmt: skip
def test_an_answer_is_read_by_whole_words(text: str, found: str | None):
    assert class_of(text, CLASSES) == found
    assert class_of("a dog bark", ("bark", "dog bark")) == "dog bark"


def test_repetition_is_three_times_the_same():
    assert repeats_itself(response("", (4, 1, 1, 1)))
    assert not repeats_itself(response("", (1, 1, 2, 1, 1)))
    assert not repeats_itself(response("", ()))


# Clips 0, 1, … alternate between female and male; the unsteered model calls every fourth female clip nobody's. Steered
# along latent 2, female clips but one turn male at strength 2, and at 8 to nonsense; backwards, to nobody at 2.
STUBBORN = 4


def made_up_answer(clip: int, edit: Any, amount: float, sae: SAEState) -> tuple[Response, float]:
    label = CLASSES[clip % 2]
    if clip % 8 == 6:
        return response("nobody"), -0.1
    own = not isinstance(edit, Push) or bool(jnp.array_equal(edit.direction_d, sae.w_dec_md[LATENT]))
    strength = amount / P99 if own else 0.0
    if label == "female" and strength >= 8:
        return response("male male male", (1, 1, 1)), -0.1
    if label == "female" and strength >= (2 if clip != STUBBORN else 8):
        return response("male"), -0.1 - 0.2 * strength
    if label == "female" and strength <= -2:
        return response("nobody"), -0.1
    return response(label), -0.1


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> tuple[Any, SAEState, Task]:
    sae, calls = made_up_sae(), []

    def steer(model: Any, batch: Any, edit: Any, strengths: Any, **asked: Any) -> Steered:
        calls.append(len(batch) * len(strengths))
        told = [[made_up_answer(clip, edit, amount, sae) for clip in batch] for amount in strengths]
        change_an = np.abs(np.asarray(strengths))[:, None] * np.ones((1, len(batch))) / 100
        nats_an = np.array([[nats for _, nats in row] for row in told])
        return Steered(np.asarray(strengths), tuple(tuple(said for said, _ in row) for row in told), change_an, nats_an)

    def activity(model: Any, sae: SAEState, batch: Any, layer: int) -> Activity:
        assert {label for clip in batch for label in [CLASSES[clip % 2]]} == {"female", "male"}
        everybody = seen(64)
        return everybody._replace(mean_nd=everybody.mean_nd[list(batch)], mean_nm=everybody.mean_nm[list(batch)])

    monkeypatch.setattr(dose, "steer", steer)
    monkeypatch.setattr(dose, "activity", activity)
    model = SimpleNamespace(name="made up", config=SimpleNamespace(decoder=SimpleNamespace(width=WIDTH)), calls=calls)
    clips = cast(Any, tuple(range(32)))
    return model, sae, Task(clips, tuple(CLASSES[clip % 2] for clip in range(32)), CLASSES)


def test_the_strength_is_chosen_on_one_half_and_reported_on_the_other(made_up):
    model, sae, task = made_up
    found = dose_response(
        model, sae, task, source="female", target="male", after_layer=0, strengths=(8, 1, 2), collateral=task,
        key=jax.random.key(3),
    )  # fmt: skip
    assert (found.latents, found.shares, found.auc, found.p99) == ((LATENT,), (1.0,), 1.0, P99)
    own = found.reported("concept")
    assert (found.chosen["concept"], own.strength, own.amount, own.change) == (2, 2, 2 * P99, pytest.approx(0.06))
    # Half of 16 female clips, less those that the unsteered model gets wrong.
    assert 4 <= own.n <= 8 and own.n + found.dev["concept"][0].n == 12
    assert (own.sensitivity, own.flip_any, own.off_target, own.selectivity) == (1.0, 1.0, {"nobody": 0.0}, 1.0)
    assert own.degenerate_rate == 0
    # Eleven of thirty-two answers, which were right, turn wrong.
    assert own.collateral == pytest.approx(-11 / 32)
    # A clip of the dev half that it takes strength 8 for is not worth the push.
    assert found.dev["concept"][1].sensitivity < 1 == found.dev["concept"][2].sensitivity
    weak, _, strong = found.test["concept"]
    assert (weak.sensitivity, weak.collateral, strong.sensitivity, strong.degenerate_rate) == (0, 0, 1, 1)
    back = found.test["concept backwards"][1]
    assert (back.sensitivity, back.flip_any, back.off_target, back.selectivity) == (0, 1, {"nobody": 1.0}, -1)
    for name in found.test:
        if name.startswith(("random", "raw", "difference", "reconstruction")):
            assert found.reported(name).flip_any == 0 and found.area(name) == 0
    assert len(found.test["reconstruction alone"]) == 1
    assert found.area("concept") == pytest.approx((0.5 * 1 + 6 * 1) / 7)
    told = found.to_dict()
    assert told["methods"]["concept"]["reported"]["selectivity"] == 1.0
    assert len(told["methods"]["concept"]["dev"]) == 3


def test_unsure_answers_are_degenerate(made_up):
    model, sae, task = made_up
    found = dose_response(
        model, sae, task, source="female", target="male", after_layer=0, strengths=(3, 4), latents=[LATENT],
        key=jax.random.key(3),
    )  # fmt: skip
    # 0.2 nats a token less for each unit of strength: more than log 2 from 3.5 on.
    assert [one.degenerate_rate for one in found.test["concept"]] == [0, 1]


def test_rows_of_a_batch_are_bounded(made_up, monkeypatch: pytest.MonkeyPatch):
    model, sae, task = made_up
    asked: dict[str, Any] = {"source": "female", "target": "male", "after_layer": 0, "key": jax.random.key(3)}
    whole = dose_response(model, sae, task, **asked)
    monkeypatch.setattr(dose, "_ROWS_AT_ONCE", 10)
    model.calls.clear()
    assert dose_response(model, sae, task, **asked).to_dict() == whole.to_dict()
    assert max(model.calls) <= 10


def test_figures_that_are_no_numbers_are_null():
    nothing = Dose(1.0, 3.0, 0.1, 0, float("nan"), float("nan"), {}, float("nan"))
    told = DoseResponse(
        "a", "b", (0,), (1.0,), 0.5, 1.0, {"concept": 1.0}, {"concept": (nothing,)}, {"concept": (nothing,)}
    ).to_dict()
    assert told["methods"]["concept"]["reported"]["sensitivity"] is None and told["methods"]["concept"]["area"] is None


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"target": "child"}, "there are 0 clips of the class 'child'"),
        ({"source": "nobody"}, "there are 0 clips of the class 'nobody'"),
        ({"latents": [7]}, "latent 7 of 8 never fires"),
        ({"latents": []}, "a concept without latents"),
    ],
)
def test_what_cannot_be_measured_is_told(made_up, changed: dict[str, Any], complaint: str):
    model, sae, task = made_up
    asked = {"source": "female", "target": "male", "after_layer": 0, "key": jax.random.key(3)} | changed
    with pytest.raises(UsageError, match=complaint):
        dose_response(model, sae, task, **asked)


def test_a_model_that_answers_nothing_right_cannot_be_steered_away(made_up):
    model, sae, _ = made_up
    clips = cast(Any, (6, 14, 22, 30, 1, 3, 5, 7))
    task = Task(clips, tuple(CLASSES[clip % 2] for clip in clips), CLASSES)
    with pytest.raises(UsageError, match="answers 'female' to none of the 2 clips"):
        dose_response(model, sae, task, source="female", target="male", after_layer=0, key=jax.random.key(0))


def test_a_task_has_a_known_label_for_each_clip():
    with pytest.raises(UsageError, match="a task of 1 recordings came with 1 labels"):
        Task(cast(Any, (1,)), ("dog",), ("cat",))
