"""`Game`: batches, caching, counting, meshes, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from sgpa_jax.errors import UsageError
from sgpa_jax.games import Evaluations, Game
from sgpa_jax.players import all_coalitions

WEIGHT_PK = np.random.default_rng(0).standard_normal((6, 2)).astype(np.float32)
MASKS_CP = all_coalitions(6)


def traceable(masks_cp):
    return jnp.tanh(jnp.asarray(masks_cp, jnp.float32) @ jnp.asarray(WEIGHT_PK))


def plain(masks_cp):
    return np.tanh(np.array([WEIGHT_PK[mask].sum(axis=0) for mask in np.asarray(masks_cp)]))


@pytest.mark.parametrize("microbatch", [1, 5, 64, 1000])
def test_values_do_not_depend_on_batches(microbatch):
    values_ck = Game(traceable, 6, microbatch=microbatch).values(MASKS_CP)
    assert values_ck.dtype == np.float32 and values_ck.shape == (64, 2)
    np.testing.assert_allclose(values_ck, plain(MASKS_CP), atol=1e-6)


@pytest.mark.parametrize("jit", [True, False])
def test_values_on_eight_devices_equal_those_on_one(jit):
    mesh = Mesh(np.array(jax.devices()).reshape(8), ("data",))
    seen = []

    def fn(masks_cp):
        seen.append(masks_cp)
        return traceable(masks_cp)

    game = Game(fn, 6, microbatch=16, mesh=mesh, jit=jit)
    np.testing.assert_allclose(game.values(MASKS_CP[:50]), plain(MASKS_CP[:50]), atol=1e-6)
    if not jit:
        assert len(seen[0].sharding.device_set) == 8 and seen[0].addressable_shards[0].data.shape == (2, 6)


def test_the_mesh_may_have_other_axes_and_weights_of_its_own():
    mesh = Mesh(np.array(jax.devices()).reshape(4, 2), ("data", "model"))
    weight_pk = jax.device_put(WEIGHT_PK, jax.NamedSharding(mesh, jax.P(None, "model")))
    bias_k = jnp.ones(2)
    game = Game(lambda masks_cp: masks_cp.astype(jnp.float32) @ weight_pk + bias_k[None], 6, microbatch=8, mesh=mesh)
    np.testing.assert_allclose(game.values(MASKS_CP), MASKS_CP @ WEIGHT_PK + 1, atol=1e-5)


def test_a_traceable_function_is_traced_once_and_its_weights_are_arguments():
    calls = []
    weight_pk = jnp.asarray(WEIGHT_PK)

    def fn(masks_cp):
        calls.append(type(masks_cp))
        return masks_cp.astype(jnp.float32) @ weight_pk

    game = Game(fn, 6, microbatch=8)
    game.values(MASKS_CP)
    assert len(calls) == 1 and game.jit


@pytest.mark.parametrize("jit", [True, False])
def test_a_plain_function_gets_numpy_masks(jit):
    kinds = set()

    def fn(masks_cp):
        values = [float(mask @ WEIGHT_PK[:, 0]) for mask in np.asarray(masks_cp)]
        kinds.add((type(masks_cp), masks_cp.shape))
        return values

    game = Game(fn, 6, microbatch=7, jit=jit)
    np.testing.assert_allclose(game.values(MASKS_CP)[:, 0], MASKS_CP @ WEIGHT_PK[:, 0], atol=1e-6)
    assert kinds == {(np.ndarray, (7, 6))} and not game.jit


def test_an_error_of_the_function_is_the_callers_own():
    with pytest.raises(ZeroDivisionError):
        Game(lambda masks_cp: 1 / 0, 2).values(np.ones((1, 2), bool))


def test_every_coalition_is_evaluated_once_and_counted():
    asked = []

    def fn(masks_cp):
        asked.extend(map(tuple, masks_cp.tolist()))
        return masks_cp.sum(axis=1)

    game = Game(fn, 6, microbatch=4, jit=False)
    first = game.values(MASKS_CP[[3, 5, 3, 9, 5, 3]])
    assert first[:, 0].tolist() == [2, 2, 2, 2, 2, 2]
    assert game.evaluations == Evaluations(requested=6, unique=3, model_forwards=4)
    assert asked[:3] == [tuple(mask) for mask in MASKS_CP[[3, 5, 9]].tolist()]
    game.values(jnp.asarray(MASKS_CP[:10]))
    assert game.evaluations == Evaluations(requested=16, unique=10, model_forwards=12)
    game.values(MASKS_CP[:10])
    assert game.evaluations == Evaluations(requested=26, unique=10, model_forwards=12)


def test_more_than_eight_players_stay_apart_in_the_cache():
    masks_cp = np.eye(20, dtype=bool)
    game = Game(lambda masks_cp: masks_cp.astype(jnp.float32) @ jnp.arange(20.0), 20)
    assert game.values(masks_cp)[:, 0].tolist() == list(range(20))


def test_a_small_game_does_not_pay_for_a_large_batch():
    game = Game(lambda masks_cp: masks_cp.astype(jnp.float32).sum(axis=1), 3, microbatch=64)
    game.values(all_coalitions(3))
    assert game.evaluations.model_forwards == 8


def test_progress_is_told_after_every_batch():
    told = []
    game = Game(traceable, 6, microbatch=30, progress=lambda done, planned: told.append((done, planned)))
    game.values(MASKS_CP)
    game.values(MASKS_CP)
    assert told == [(30, 64), (60, 64), (64, 64)]


def test_outputs_are_counted_or_named():
    assert Game(traceable, 6).n_outputs == 2
    named = Game(traceable, 6, outputs=("a", "b"))
    assert named.n_outputs == 2 and named.evaluations == Evaluations() and named.outputs == ("a", "b")
    with pytest.raises(UsageError, match="3"):
        Game(traceable, 6, outputs=("a", "b", "c")).values(MASKS_CP)


@pytest.mark.parametrize(("jit", "bad"), [(True, np.nan), (True, -np.inf), (False, np.nan), (False, 1e39)])
def test_a_value_that_is_not_finite_names_its_coalition(jit, bad):
    def fn(masks_cp):
        xp = jnp if jit else np
        hit_c = masks_cp[:, 1] & masks_cp[:, 4] & ~masks_cp[:, 0]
        return xp.stack([xp.zeros(len(masks_cp)), xp.where(hit_c, bad, 0.0)], axis=1)

    with pytest.raises(UsageError, match=r"coalition \[1, 4\] \(output 1\)"):
        Game(fn, 6, jit=jit).values(MASKS_CP[::2])


@pytest.mark.parametrize(
    "returned",
    [np.zeros(7), np.zeros((8, 0)), np.zeros((8, 2, 2)), np.zeros(8, complex), np.array(1.0), np.array(["a"] * 8)],
)
def test_refuses_values_of_another_shape_or_kind(returned):
    with pytest.raises(UsageError, match="the function returned"):
        Game(lambda masks_cp: returned, 6, microbatch=8, jit=False).values(MASKS_CP[:3])


def test_refuses_a_number_of_outputs_that_changes():
    shapes = iter([(8, 2), (8, 3)])
    game = Game(lambda masks_cp: np.zeros(next(shapes)), 6, microbatch=8, jit=False)
    game.values(MASKS_CP[:8])
    with pytest.raises(UsageError, match="float\\[8, 2\\]"):
        game.values(MASKS_CP[8:16])


@pytest.mark.parametrize(
    "masks", [np.ones((2, 5), bool), np.ones(6, bool), np.ones((2, 6)), np.ones((0, 6), bool), [[0, 1, 0, 1, 0, 1]]]
)
def test_refuses_masks(masks):
    with pytest.raises(UsageError, match="masks are"):
        Game(traceable, 6).values(masks)


def test_refuses_arguments():
    mesh = Mesh(np.array(jax.devices()), ("data",))
    for players, settings, message in [
        (0, {}, "at least 1"),
        (3, {"microbatch": 0}, "at least 1"),
        (3, {"microbatch": 12, "mesh": mesh}, "multiple"),
        (3, {"mesh": Mesh(np.array(jax.devices()), ("model",))}, "'data'"),
    ]:
        with pytest.raises(UsageError, match=message):
            Game(traceable, players, **settings)


def test_bfloat16_values_are_widened():
    values_ck = Game(lambda masks_cp: masks_cp.astype(jnp.bfloat16).sum(axis=1), 6).values(MASKS_CP)
    assert values_ck.dtype == np.float32 and values_ck[-1] == 6


def word_lists(masks_cp):
    """An output that is no number: the names of the players, in a list."""
    return [["abcdef"[p] for p in np.flatnonzero(mask)] for mask in np.asarray(masks_cp)]


def share_of_full(outputs, reference):
    return [len(words) / len(reference.full) for words in outputs]


def test_outputs_are_kept_and_a_score_turns_them_into_values():
    asked = []

    def fn(masks_cp):
        asked.append(len(masks_cp))
        return word_lists(masks_cp)

    game = Game(fn, 6, score=share_of_full, microbatch=16, jit=False)
    values_ck = game.values(MASKS_CP[[5, 5, 7]])
    np.testing.assert_allclose(values_ck, [[2 / 6], [2 / 6], [3 / 6]], rtol=1e-6)
    assert values_ck.dtype == np.float32 and game.n_outputs == 1
    assert game.evaluate(MASKS_CP[[7, 63]]) == [["a", "b", "c"], ["a", "b", "c", "d", "e", "f"]]
    # The full coalition was evaluated beside those that were asked for.
    assert asked == [16] and game.evaluations == Evaluations(requested=5, unique=3, model_forwards=16)
    np.testing.assert_allclose(game.score([["a"], []]), [[1 / 6], [0]])


def test_another_score_needs_no_model():
    game = Game(traceable, 6, microbatch=64)
    total_c1 = game.values(MASKS_CP).sum(axis=1, keepdims=True)
    again = game.rescore(lambda outputs, reference: outputs.sum(axis=1) - reference.full.sum(), outputs=("gap",))
    np.testing.assert_allclose(again.values(MASKS_CP), total_c1 - total_c1[-1], atol=1e-6)
    assert again.n_outputs == 1 and again.outputs == ("gap",) and game.n_outputs == 2 and game.outputs is None
    assert again.evaluations - game.evaluations == Evaluations(requested=64)
    small = Game(traceable, 6, microbatch=8)
    small.rescore(lambda outputs, _: outputs[:, :1]).values(MASKS_CP)
    np.testing.assert_allclose(small.values(MASKS_CP), plain(MASKS_CP), atol=1e-6)
    assert small.evaluations == Evaluations(requested=64)


def test_array_outputs_keep_their_shape_and_are_traced():
    game = Game(
        lambda masks_cp: jnp.stack([traceable(masks_cp)] * 3, axis=1),
        6,
        microbatch=5,
        score=lambda outputs_crk, _: outputs_crk.mean(axis=1),
    )
    assert game.evaluate(MASKS_CP[:7]).shape == (7, 3, 2) and game.jit
    np.testing.assert_allclose(game.values(MASKS_CP), plain(MASKS_CP), atol=1e-6)


def test_the_reference_stays_what_it_was_when_the_game_was_scored_first():
    seen = []

    def score(outputs, reference):
        seen.append((reference.full, len(reference.corpus)))
        return np.zeros(len(outputs))

    game = Game(word_lists, 6, score=score, jit=False)
    game.values(MASKS_CP[:10])
    game.values(MASKS_CP[:40])
    assert seen == [(list("abcdef"), 11)] * 2
    game.rescore(score).values(MASKS_CP[:2])
    assert seen[-1] == (list("abcdef"), 41)


def test_batches_are_filled_by_length():
    batches = []

    def fn(masks_cp):
        batches.append(masks_cp.sum(axis=1).tolist())
        return masks_cp.sum(axis=1)

    game = Game(fn, 6, microbatch=8, jit=False, length=lambda masks_cp: masks_cp.sum(axis=1))
    assert game.values(MASKS_CP)[:, 0].tolist() == MASKS_CP.sum(axis=1).tolist()
    flat = [size for batch in batches for size in batch]
    assert flat == sorted(flat) and len(batches) == 8


def test_refuses_outputs_and_scores_of_another_number():
    for returned in ([[]] * 7, np.zeros((7, 2)), np.float32(1)):
        with pytest.raises(UsageError, match="a row for each"):
            Game(lambda masks_cp, r=returned: r, 6, microbatch=8, jit=False, score=share_of_full).values(MASKS_CP[:3])
    with pytest.raises(UsageError, match="the score returned"):
        Game(word_lists, 6, score=lambda outputs, _: np.zeros(2), jit=False).values(MASKS_CP[:3])
    with pytest.raises(UsageError, match=r"nan to the coalition \[1\]"):
        Game(word_lists, 6, score=lambda outputs, _: [0, np.nan, 0], jit=False).values(MASKS_CP[[0, 2, 3]])


def test_coalitions_that_differ_in_players_who_do_not_matter_are_one():
    asked = []

    def fn(masks_cp):
        asked.extend(masks_cp.tolist())
        return masks_cp @ [1, 2, 4]

    game = Game(fn, 3, microbatch=4, jit=False, matters_p=np.array([True, False, True]))
    masks_cp = all_coalitions(3)
    assert game.values(masks_cp)[:, 0].tolist() == [0, 1, 0, 1, 4, 5, 4, 5]
    assert game.evaluations == Evaluations(requested=8, unique=4, model_forwards=4) and len(asked) == 4
    scored = game.rescore(lambda outputs, reference: outputs - reference.full)
    assert scored.values(masks_cp[6:])[:, 0].tolist() == [-1, 0] and len(asked) == 4
