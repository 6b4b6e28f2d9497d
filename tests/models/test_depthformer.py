"""Frames of audio codes: the depthformer against the same written in torch, greedy and drawn frames, embeddings."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sgpa_checkpoints
import torch
import torch.nn.functional as F
from flax import nnx

from sgpa_jax.errors import CheckpointError
from sgpa_jax.models.audio_out import END_OF_AUDIO, AudioOut, AudioOutConfig
from sgpa_jax.models.depthformer import LateCastRMSNorm
from sgpa_jax.models.layers import RMSNorm
from sgpa_jax.models.sampling import Sampling, choose

WIDTH, DEPTH_WIDTH, N_CODEBOOKS = 24, 64, 3
CONFIG = {"codebooks": N_CODEBOOKS, "depthformer": {"layers": 2, "dim": DEPTH_WIDTH, "tie": True}}


@pytest.fixture(scope="module")
def audio_out():
    """A tiny network whose every parameter is random."""
    config, rng = AudioOutConfig.from_hf(CONFIG, width=WIDTH), np.random.default_rng(0)
    module = nnx.eval_shape(lambda: AudioOut(config, rngs=nnx.Rngs(0)))
    for path, leaf in nnx.to_flat_state(nnx.state(module)):
        spread = 0.02 if path[-1] == "table" else leaf.shape[0] ** -0.5 if len(leaf.shape) > 1 else 0.0
        middle = 1.0 if path[-1] == "scale" else 0.0
        value = middle + np.hypot(spread, 0.2) * rng.normal(size=leaf.shape)
        leaf.set_value(jnp.asarray(value, jnp.float32))
    return module


@pytest.fixture(scope="module")
def tensors(audio_out):
    """The network as a checkpoint holds it."""
    flat = nnx.to_flat_state(nnx.state(audio_out))
    named = {".".join(["audio_out", *map(str, path)]): np.asarray(leaf[...]) for path, leaf in flat}
    return {
        name: torch.tensor(value) for name, value in sgpa_checkpoints.export(named, sgpa_checkpoints.LFM2_AUDIO).items()
    }


@pytest.fixture(scope="module")
def hidden():
    return np.random.default_rng(1).normal(size=(4, WIDTH)).astype(np.float32)


@pytest.fixture(scope="module")
def frame(audio_out):
    """The choice of a frame, compiled, of `audio_out` or of other parameters of the same network."""
    graphdef, own = nnx.split(audio_out)

    @functools.partial(jax.jit, static_argnames="sampling")
    def run(state, hidden, **options):
        return nnx.merge(graphdef, state).frame(hidden, **options)

    return lambda hidden, state=own, **options: run(state, hidden, **options)


@pytest.fixture(scope="module")
def logits(audio_out):
    graphdef, state = nnx.split(audio_out)
    run = jax.jit(lambda state, *inputs: nnx.merge(graphdef, state).logits(*inputs))
    return lambda *inputs: run(state, *inputs)


def _norm(x, weight):
    return weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5)


def _rotate(x):
    """Neighbouring pairs as complex numbers, turned by their angles."""
    n, half = x.shape[1], x.shape[-1] // 2
    angle = torch.outer(torch.arange(n), 1e6 ** (-torch.arange(half) / half))
    turned = (
        torch.view_as_complex(x.unflatten(-1, (half, 2)).contiguous()) * torch.polar(torch.ones(()), angle)[:, None]
    )
    return torch.view_as_real(turned).flatten(-2)


def _torch_logits(tensors, hidden, codes):
    x = F.linear(torch.tensor(hidden), tensors["depth_linear.weight"], tensors["depth_linear.bias"])
    x = x.unflatten(-1, (N_CODEBOOKS, DEPTH_WIDTH)).clone()
    for k in range(1, N_CODEBOOKS):
        x[:, k] += tensors[f"depth_embeddings.{k - 1}.embedding.weight"][torch.tensor(codes[:, k - 1])]
    for i in range(2):
        w = {
            name.removeprefix(f"depthformer.layers.{i}."): value
            for name, value in tensors.items()
            if f"former.layers.{i}." in name
        }
        parts = F.linear(_norm(x, w["operator_norm.weight"]), w["operator.qkv_proj.weight"]).split([64, 16, 16], -1)
        query, key, value = (part.unflatten(-1, (-1, DEPTH_WIDTH // 32)) for part in parts)
        query = _rotate(_norm(query, w["operator.bounded_attention.q_layernorm.weight"]))
        key = _rotate(_norm(key, w["operator.bounded_attention.k_layernorm.weight"]))
        query, key, value = (part.transpose(1, 2) for part in (query, key, value))
        mixed = (
            F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
            .transpose(1, 2)
            .flatten(2)
        )
        x = x + F.linear(mixed, w["operator.out_proj.weight"])
        y = _norm(x, w["ffn_norm.weight"])
        gated = F.silu(F.linear(y, w["feed_forward.w1.weight"])) * F.linear(y, w["feed_forward.w3.weight"])
        x = x + F.linear(gated, w["feed_forward.w2.weight"])
    logits = []
    for k in range(N_CODEBOOKS):
        y = _norm(x[:, k], tensors[f"depth_embeddings.{k}.embedding_norm.weight"])
        logits.append(F.linear(y, tensors[f"depth_embeddings.{k}.to_logits.weight"]))
    return torch.stack(logits, dim=1)


def test_logits_of_given_frames_equal_those_written_down_in_torch(logits, tensors, hidden):
    codes = np.random.default_rng(2).integers(0, 2049, (4, N_CODEBOOKS))
    found = logits(hidden, codes)
    assert found.shape == (4, N_CODEBOOKS, 2049) and found.dtype == jnp.float32
    np.testing.assert_allclose(found, _torch_logits(tensors, hidden, codes), atol=1e-4)


def test_a_greedy_frame_is_the_likeliest_code_after_the_likeliest_codes(logits, frame, hidden):
    codes = frame(hidden)
    np.testing.assert_array_equal(logits(hidden, codes).argmax(-1), codes)
    np.testing.assert_array_equal(frame(hidden[::-1]), codes[::-1])


def test_drawn_frames_depend_on_their_row_and_key_alone(frame, hidden):
    keys, sampling = jax.random.split(jax.random.key(3), 4), Sampling(2.0, 5)
    codes = frame(hidden, sampling=sampling, keys_b=keys)
    np.testing.assert_array_equal(frame(hidden[::-1], sampling=sampling, keys_b=keys[::-1]), codes[::-1])
    assert not np.array_equal(frame(hidden, sampling=sampling, keys_b=keys[::-1]), codes)


def test_a_frame_that_ends_the_audio_does_so_throughout(audio_out, frame, hidden):
    module, likeliest = nnx.clone(audio_out), int(frame(hidden)[1, 0])
    table = module.codebooks[0].embedding.table
    table.set_value(table[...].at[END_OF_AUDIO].set(1.5 * table[likeliest]))
    codes = frame(hidden, nnx.state(module))
    assert (codes[1] == END_OF_AUDIO).all()
    ends = codes == END_OF_AUDIO
    assert (ends.all(axis=1) | ~ends[:, 0]).all() and not ends.all()


def test_the_embedding_of_a_frame_is_the_sum_over_codebooks(audio_out):
    codes = np.random.default_rng(4).integers(0, 2049, (2, 5, N_CODEBOOKS))
    table = np.asarray(audio_out.codes.table[...]).reshape(N_CODEBOOKS, 2049, WIDTH)
    expected = sum(table[k][codes[..., k]] for k in range(N_CODEBOOKS))
    np.testing.assert_allclose(audio_out.embed_codes(jnp.asarray(codes)), expected, atol=1e-6)


def test_the_norm_scales_before_it_rounds():
    """In bfloat16 it differs from the decoder's norm, in float32 it does not."""
    late, early, scale = LateCastRMSNorm(64), RMSNorm(64, 1e-5), jnp.linspace(0.5, 2.0, 64)
    late.scale.set_value(scale)
    early.scale.set_value(scale)
    x = jax.random.normal(jax.random.key(0), (8, 64))
    np.testing.assert_allclose(late(x), early(x), atol=1e-6)
    half = x.astype(jnp.bfloat16)
    exact = half.astype(jnp.float32)
    exact = exact / np.sqrt((np.asarray(exact) ** 2).mean(-1, keepdims=True) + 1e-5) * scale[None]
    np.testing.assert_array_equal(late(half), exact.astype(jnp.bfloat16))
    assert late(half).dtype == jnp.bfloat16 and not np.array_equal(late(half), early(half))


def test_draws_keep_to_the_likeliest_and_keep_ties():
    logits = jnp.asarray([[0.0, 3.0, 2.0, 2.0, -1.0]])
    keys = jax.random.split(jax.random.key(5), 200)
    drawn = jax.jit(jax.vmap(lambda key: choose(logits, Sampling(3.0, 2), key[None])[0]))(keys)
    assert set(np.asarray(drawn).tolist()) == {1, 2, 3}
    drawn = jax.jit(jax.vmap(lambda key: choose(logits, Sampling(1.0), key[None])[0]))(keys)
    share = np.bincount(drawn, minlength=5) / 200
    np.testing.assert_allclose(share, jax.nn.softmax(logits[0]), atol=0.1)


def test_heads_of_their_own_are_refused():
    with pytest.raises(CheckpointError, match=r"depthformer\.tie"):
        AudioOutConfig.from_hf(CONFIG | {"depthformer": {"layers": 2, "dim": 64, "tie": False}}, width=WIDTH)
