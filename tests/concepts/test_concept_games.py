"""Games of concepts: equal to what is computed coalition by coalition, in one pass, and never held whole."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from sgpa_kernels import exact_shapley

from sgpa_jax.audio import Clip
from sgpa_jax.concepts import ablation_game, concept_values, games, latent_readout, strongest_latents
from sgpa_jax.errors import UsageError
from sgpa_jax.games import Game, Passage, Readout, evaluate_coalitions, evaluate_flat, speech_game
from sgpa_jax.models import Model, ModelInputs, decoder_of, load_model
from sgpa_jax.models.qwen2 import Qwen2, Qwen2Config
from sgpa_jax.players import Player, Players, all_coalitions
from sgpa_jax.sae import SAEConfig, SAEState, encode

N_LATENTS, K = 4096, 32


def sae_of(width: int, *, kind: str = "topk", n_latents: int = 48, k: int = 6) -> SAEState:
    rng = np.random.default_rng(1)
    shapes = [(n_latents, width), (n_latents,), (n_latents, width), (width,), (n_latents,)]
    arrays = [jnp.asarray(0.4 * rng.standard_normal(shape), jnp.float32) for shape in shapes]
    return SAEState(*arrays, config=SAEConfig(width=width, n_latents=n_latents, k=k, kind=kind))


@pytest.fixture(scope="module")
def model(tiny_folder) -> Model:
    return load_model(tiny_folder("qwen2_audio"), dtype="float32")


@pytest.fixture(scope="module")
def inputs(model: Model) -> ModelInputs:
    clip = Clip(0.1 * np.random.default_rng(0).standard_normal(12_800).astype(np.float32), 16_000)
    return model.prepare(clip, "which colour?", response="red lamp")


@pytest.fixture(scope="module")
def players() -> Players:
    spans = [(0.05, 0.25), (0.25, 0.45), (0.5, 0.75)]
    return Players(tuple(Player(f"{i}", "word", *span) for i, span in enumerate(spans)), 12_800, 16_000)


def test_a_thousand_coalitions_times_thousands_of_latents_take_one_pass():
    config = Qwen2Config(
        vocab_size=50, width=16, n_layers=3, n_heads=4, n_kv_heads=2, head_width=4, ffn_width=24, rope_theta=1e4,
        norm_eps=1e-6, tied_head=False,
    )  # fmt: skip
    decoder, rng = decoder_of(Qwen2(config, rngs=nnx.Rngs(0))), np.random.default_rng(0)
    owner_t = np.array([-1] * 3 + list(range(10)) + [-1] * 4)
    x_td = jnp.asarray(rng.normal(size=(len(owner_t), 16)), jnp.float32)
    passage = Passage(x_td, rng.integers(0, 50, 2), owner_t, ("attention",) * 10)
    sae = sae_of(16, n_latents=N_LATENTS, k=K)
    readout = latent_readout(sae, 1, positions="response")
    passes = []

    def evaluate(masks_cp: np.ndarray) -> np.ndarray:
        passes.append(len(masks_cp))
        return evaluate_coalitions(decoder, passage, masks_cp, readout=readout)

    game = Game(evaluate, 10, jit=False, microbatch=1024)
    masks_cp = all_coalitions(10)
    values_ck = game.values(masks_cp)
    assert (passes, values_ck.shape, game.evaluations.model_forwards) == ([1024], (1024, N_LATENTS), 1024)
    some = rng.permutation(1024)[:32]
    flat_ck = jax.jit(lambda masks: evaluate_flat(decoder, passage, masks, readout=readout))(
        jnp.asarray(masks_cp[some])
    )
    assert np.asarray(flat_ck).std(axis=0).max() > 1e-3
    np.testing.assert_allclose(values_ck[some], flat_ck, atol=2e-4)

    found = concept_values(game)
    assert found.values_pk.shape == (10, N_LATENTS)
    with jax.enable_x64(True):
        expected_pk = np.asarray(exact_shapley(jnp.asarray(values_ck, jnp.float64)))
    np.testing.assert_allclose(found.values_pk, expected_pk, atol=1e-10)
    np.testing.assert_allclose(found.efficiency_gap_k, 0, atol=1e-10)


def test_values_are_added_batch_after_batch_and_forgotten(monkeypatch: pytest.MonkeyPatch):
    table_nk = np.random.default_rng(2).standard_normal((2**7, 5)).astype(np.float32)
    held = []

    def look_up(masks_cp: np.ndarray) -> np.ndarray:
        held.append(len(game.known()[0]))
        return table_nk[masks_cp @ (1 << np.arange(7))]

    game = Game(look_up, 7, jit=False, microbatch=8, outputs=tuple("abcde"))
    monkeypatch.setattr(games, "NUMBERS_AT_ONCE", 5 * 16)
    monkeypatch.setattr(games, "_LEAST_AT_ONCE", 1)
    monkeypatch.setattr(games, "_COLUMNS", 2)
    found = concept_values(game)
    with jax.enable_x64(True):
        expected_pk = np.asarray(exact_shapley(jnp.asarray(table_nk, jnp.float64)))
    np.testing.assert_allclose(found.values_pk, expected_pk, atol=1e-12)
    np.testing.assert_array_equal(found.empty_value_k, table_nk[0])
    np.testing.assert_array_equal(found.full_value_k, table_nk[-1])
    assert max(held) < 16 and len(held) == 16
    assert (found.evaluations.requested, found.evaluations.unique, len(game.known()[0])) == (2**7, 2**7, 0)
    with pytest.raises(UsageError, match="2\\^21 coalitions"):
        concept_values(Game(look_up, 21, jit=False))


@pytest.mark.parametrize("positions", ["audio", "response"])
@pytest.mark.parametrize(("absence", "reduce"), [("silence", "sum"), ("attention", "max")])
def test_latents_under_an_absence_are_those_of_each_coalition_alone(
    model: Model, inputs: ModelInputs, players: Players, positions, absence: str, reduce
):
    sae = sae_of(32)
    readout = latent_readout(sae, 0, positions=positions, reduce=reduce)
    game = speech_game(model, inputs, players, absence=absence, readout=readout)
    masks_cp = all_coalitions(3)[[0, 3, 5, 7]]
    values_ck = game.values(masks_cp)
    assert values_ck.std(axis=0).max() > 1e-2
    if absence == "attention":
        return _check_flat(model, inputs, players, readout, masks_cp, values_ck)
    read_t = inputs.clip_t >= 0
    if positions == "response":
        place_t = np.arange(len(inputs.ids_t))
        read_t = (place_t >= inputs.response_start - 1) & (place_t < len(inputs.ids_t) - 1)
    owner_s, wave_s = players.owner_s(), inputs.clips[0].wave_s
    for mask_p, value_k in zip(masks_cp, values_ck, strict=True):
        heard_s = np.where((owner_s < 0) | mask_p[np.maximum(owner_s, 0)], wave_s, 0).astype(np.float32)
        alone = replace(inputs, clips=(Clip(heard_s, 16_000),))
        z_tk = encode(sae, model.residuals(alone, [0])[0])
        np.testing.assert_allclose(value_k, np.asarray(z_tk)[read_t].sum(axis=0), atol=5e-4)


def _check_flat(model: Model, inputs: ModelInputs, players: Players, readout, masks_cp, values_ck) -> None:
    from sgpa_jax.games import speech_passage

    passage = speech_passage(model, inputs, players, absence="attention")
    flat_ck = evaluate_flat(model.decoder, passage, jnp.asarray(masks_cp), readout=readout)
    np.testing.assert_allclose(values_ck, flat_ck, atol=1e-4)


@pytest.mark.parametrize("kind", ["topk", "batch_topk", "jumprelu"])
def test_chosen_latents_are_columns_of_all(kind: str):
    sae, x = sae_of(8, kind=kind), jnp.asarray(np.random.default_rng(3).standard_normal((2, 5, 8)), jnp.float32)
    everything, some = latent_readout(sae, 0), latent_readout(sae, 0, latents=[7, 0, 31])
    assert (everything.n_values(8), some.n_values(8)) == (48, 3)
    np.testing.assert_allclose(
        some.read(some.params, x), everything.read(everything.params, x)[..., jnp.array([7, 0, 31])], atol=1e-6
    )


@pytest.mark.parametrize("reduce", ["sum", "mean"])
def test_adding_where_latents_fire_is_adding_all(reduce):
    sae, rng = sae_of(8), np.random.default_rng(3)
    x_btd, there_b1t = (
        jnp.asarray(rng.standard_normal((3, 5, 8)), jnp.float32),
        jnp.asarray(rng.random((3, 1, 5)) < 0.6),
    )
    there_b1t = there_b1t.at[2].set(False)
    for latents in (None, [7, 0, 31]):
        readout = latent_readout(sae, 0, latents=latents, reduce=reduce)
        plain = Readout(0, "audio", readout.read, readout.params, reduce)
        found_b1k = np.asarray(jax.jit(lambda readout: readout(x_btd, there_b1t))(readout))
        np.testing.assert_allclose(found_b1k, plain(x_btd, there_b1t), atol=1e-5)
        assert found_b1k[:2].any() and not found_b1k[2].any()


@pytest.mark.parametrize("positions", ["audio", "response"])
def test_an_absent_concept_is_taken_out_of_the_stream(model: Model, inputs: ModelInputs, positions):
    sae, start, n_tokens = sae_of(32), inputs.response_start, len(inputs.ids_t)
    latents = strongest_latents(model, inputs, sae, 0, 4, positions=positions)
    game = ablation_game(model, inputs, sae, 0, latents, positions=positions)
    masks_cp = np.array([[1, 1, 1, 1], [0, 1, 0, 1], [0, 0, 0, 0]], bool)
    values_ck = game.values(masks_cp)
    assert game.outputs is not None and len(game.outputs) == values_ck.shape[1] == 1 + n_tokens - start
    x_td = model.residuals(inputs, [0])[0]
    z_tm = encode(sae, x_td)
    there_t = inputs.clip_t >= 0 if positions == "audio" else np.arange(n_tokens) >= start - 1
    for mask_p, value_k in zip(masks_cp, values_ck, strict=True):
        gone = latents[~mask_p]
        gone_td = jnp.where(jnp.asarray(there_t)[:, None], z_tm[:, gone] @ sae.w_dec_md[gone], 0.0)

        def tap(layer: int, x_btd: jax.Array, gone_td: jax.Array = gone_td) -> jax.Array:
            room = x_btd.shape[1] - len(gone_td)
            return x_btd - jnp.pad(gone_td, ((0, room), (0, 0)))[None] if layer == 0 else x_btd

        log_probs_tv = np.asarray(jax.nn.log_softmax(model.logits(inputs, edit=tap)[0]))
        said_r = [log_probs_tv[t - 1, inputs.ids_t[t]] for t in range(start, n_tokens)]
        np.testing.assert_allclose(value_k, [np.sum(said_r), *said_r], atol=2e-4)
    assert np.ptp(values_ck[:, 0]) > 1e-3
    mean = ablation_game(model, inputs, sae, 0, latents, positions=positions, value="mean_logprob").values(masks_cp[:1])
    np.testing.assert_allclose(mean[0, 0], values_ck[0, 1:].mean(), rtol=1e-5)


def test_the_strongest_latents_fire_most(model: Model, inputs: ModelInputs):
    sae = sae_of(32)
    z_tm = np.asarray(encode(sae, model.residuals(inputs, [0])[0]))[inputs.clip_t >= 0]
    share_m = z_tm.sum(axis=0) * np.linalg.norm(np.asarray(sae.w_dec_md), axis=1)
    found = strongest_latents(model, inputs, sae, 0, 48)
    np.testing.assert_array_equal(found, np.argsort(-share_m, kind="stable")[: (share_m > 0).sum()])


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"after_layer": 1}, "after_layer is 1 of 2"),
        ({"after_layer": 2, "positions": "response"}, "after_layer is 2 of 2"),
        ({"latents": [1, 1]}, "not all different"),
        ({"latents": [48]}, "from 0 to 47"),
        ({"latents": []}, "are none"),
        ({"value": "tfidf"}, "unknown value 'tfidf'"),
        ({"positions": "text"}, "unknown positions 'text'"),
    ],
)
def test_what_cannot_be_ablated_is_told(model: Model, inputs: ModelInputs, changed: dict, complaint: str):
    with pytest.raises(UsageError, match=complaint):
        ablation_game(model, inputs, sae_of(32), **({"after_layer": 0, "latents": [0, 1]} | changed))


def test_what_cannot_be_read_is_told(model: Model, inputs: ModelInputs, players: Players):
    for latents in (np.array([]), np.array([48]), np.array([0.5])):
        with pytest.raises(UsageError, match="from 0 to 47"):
            latent_readout(sae_of(32), 0, latents=latents)
    with pytest.raises(UsageError, match="the decoder has 2"):
        speech_game(model, inputs, players, readout=latent_readout(sae_of(32), 2))
    with pytest.raises(UsageError, match="recording in windows"):
        speech_game(model, replace(inputs, starts_s=(0.0,)), players, readout=latent_readout(sae_of(32), 0))
