"""Reading on behind what was read, against passes over whole rows, for both families of decoders."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sgpa_jax.models.audio_lm import Placed
from sgpa_jax.models.cache import read, read_on
from sgpa_jax.models.generate import generate_text
from sgpa_jax.models.lfm2 import Lfm2, Lfm2Config
from sgpa_jax.models.order import Order, causal_order
from sgpa_jax.models.qwen2 import Qwen2, Qwen2Config

SIZES = {"vocab_size": 60, "width": 16, "n_heads": 4, "n_kv_heads": 2, "head_width": 4, "ffn_width": 24,
         "rope_theta": 100.0, "norm_eps": 1e-5, "tied_head": True}  # fmt: skip
N_PROMPT, N_MORE, N_SHARED = 9, 3, 3
LENGTHS = np.array([9, 6, 5])
ALL = np.arange(N_PROMPT + N_MORE)


@pytest.fixture(scope="module", params=["qwen2", "lfm2"])
def decoder(request):
    """Random, with what its layers write large enough to matter."""
    if request.param == "qwen2":
        network = Qwen2(Qwen2Config(n_layers=2, **SIZES), rngs=nnx.Rngs(0))
    else:
        network = Lfm2(Lfm2Config(attends=(False, True, False), n_taps=3, **SIZES), rngs=nnx.Rngs(0))
    network.embedding.table.set_value(network.embedding.table[...] * 50)
    return network


@pytest.fixture(scope="module")
def x():
    """Three rows that begin with the same tokens: inputs of prompt and continuation."""
    rows = np.random.default_rng(0).normal(size=(3, N_PROMPT + N_MORE, 16)).astype(np.float32)
    rows[:, :N_SHARED] = rows[:1, :N_SHARED]
    return jnp.asarray(rows)


@functools.partial(jax.jit, static_argnums=(0, 5))
def _read_all(graphdef, state, prompts, order, more, n_shared):
    """Final hidden states of the prompts' last tokens and of those behind them, [B, 1 + N, D]."""
    network = nnx.merge(graphdef, state)
    hidden, reading = read(network, prompts, order, jnp.asarray(LENGTHS) - 1, room=N_MORE, n_shared=n_shared)
    found = [hidden]
    for count in range(N_MORE):
        hidden, reading = read_on(network, more[:, count], reading, jnp.asarray(count))
        found.append(hidden)
    return jnp.stack(found, axis=1)


@functools.partial(jax.jit, static_argnums=0)
def _whole(graphdef, state, rows, order):
    return nnx.merge(graphdef, state)(rows, order)


def _prompts(x):
    """The first tokens of every row, rubbish behind its end, and those that follow the end."""
    prompts = np.full((3, N_PROMPT, 16), 7.0, np.float32)
    for row, n in enumerate(LENGTHS):
        prompts[row, :n] = x[row, :n]
    return jnp.asarray(prompts), jnp.stack([x[row, n : n + N_MORE] for row, n in enumerate(LENGTHS)])


@pytest.mark.parametrize("n_shared", [0, N_SHARED])
def test_rows_of_any_length_go_on_from_their_own_ends(decoder, x, n_shared):
    prompts, more = _prompts(x)
    order = causal_order(jnp.arange(N_PROMPT)[None] < LENGTHS[:, None])
    found = _read_all(*nnx.split(decoder), prompts, order, more, n_shared)
    expected = _whole(*nnx.split(decoder), x, causal_order(jnp.ones(x.shape[:2], bool)))
    for row, n in enumerate(LENGTHS):
        np.testing.assert_allclose(found[row], expected[row, n - 1 : n + N_MORE], atol=2e-5)


def test_prompts_may_have_holes_that_those_behind_them_see_as_well(decoder, x):
    """Token 3 is hidden where it stands; a convolution's taps follow the pointers over it."""
    present = ALL != 3
    before = np.stack([ALL - 1, ALL - 2], axis=-1)
    before[4], before[5] = (2, 1), (4, 2)
    before = np.broadcast_to(np.maximum(before, -1), (3, len(ALL), 2))
    mask = np.broadcast_to(np.tril(np.ones((len(ALL), len(ALL)), bool)) & present[None], (3, len(ALL), len(ALL)))
    positions = np.broadcast_to(ALL, (3, len(ALL)))
    whole = Order(*map(jnp.asarray, (positions, mask, before)))
    expected = _whole(*nnx.split(decoder), x, whole)
    prompts, more = _prompts(x)
    exists = np.arange(N_PROMPT)[None, None] < LENGTHS[:, None, None]
    part = Order(*map(jnp.asarray, (positions[:, :9], mask[:, :9, :9] & exists, before[:, :9])))
    found = _read_all(*nnx.split(decoder), prompts, part, more, N_SHARED)
    for row, n in enumerate(LENGTHS):
        np.testing.assert_allclose(found[row], expected[row, n - 1 : n + N_MORE], atol=2e-5)
    without = _whole(*nnx.split(decoder), x, causal_order(jnp.ones(x.shape[:2], bool)))
    assert np.abs(np.asarray(expected - without))[:, 4:].max() > 0.01


def test_shared_tokens_change_no_answer(decoder, x):
    prompts, _ = _prompts(x)
    placed = Placed(prompts, jnp.asarray(LENGTHS))
    run = functools.partial(generate_text, *nnx.split(decoder), placed, jnp.asarray(5), room=5, end_ids=())
    shared, own = run(n_shared=N_SHARED), run()
    assert shared.tolist() == own.tolist() and len({tuple(row) for row in own.tolist()}) == 3


def test_reading_on_is_lowered_for_tpus(decoder, x):
    placed = Placed(_prompts(x)[0], jnp.asarray(LENGTHS))
    graphdef, state = nnx.split(decoder)
    run = functools.partial(generate_text, graphdef, room=5, end_ids=(1,), n_shared=N_SHARED)
    exported = jax.export.export(jax.jit(run), platforms=["tpu"])(nnx.to_pure_dict(state), placed, jnp.asarray(5))
    assert exported.platforms == ("tpu",)
