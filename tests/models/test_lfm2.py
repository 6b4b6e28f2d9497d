"""LFM2's decoder against transformers' on random weights, and what removing, hiding and padding tokens do to it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sgpa_checkpoints
import torch
import transformers
from flax import nnx
from transformers import Lfm2ForCausalLM

from sgpa_jax.errors import CheckpointError
from sgpa_jax.models.audio_lm import Placed
from sgpa_jax.models.fill import fill
from sgpa_jax.models.generate import generate_text
from sgpa_jax.models.lfm2 import Lfm2, Lfm2Config
from sgpa_jax.models.order import Order, causal_order

KINDS = ["conv", "full_attention", "conv", "full_attention"]
N_TAPS = 4


class Holder(nnx.Module):
    """The decoder where the table of names expects it."""

    def __init__(self, config):
        self.decoder = Lfm2(config, rngs=nnx.Rngs(0))


@pytest.fixture(scope="module")
def theirs():
    """A tiny torch decoder whose every parameter is random."""
    torch.manual_seed(0)
    config = transformers.Lfm2Config(
        vocab_size=70, hidden_size=32, intermediate_size=60, num_hidden_layers=len(KINDS), num_attention_heads=4,
        num_key_value_heads=2, layer_types=KINDS, conv_L_cache=N_TAPS, block_multiple_of=8, norm_eps=1e-5,
    )  # fmt: skip
    model = Lfm2ForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="module")
def ours(theirs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lfm2")
    theirs.save_pretrained(folder)
    config = Lfm2Config.from_hf(sgpa_checkpoints.read_json(folder / "config.json"))
    filled = fill(
        lambda: Holder(config),
        folder,
        sgpa_checkpoints.LFM2_AUDIO,
        normalise=lambda name: f"lfm.{name.removeprefix('model.')}",
        dtype="float32",
    )
    return nnx.merge(*filled).decoder


@pytest.fixture(scope="module")
def whole(ours):
    """The whole forward pass, compiled: (embeddings, order) to the residuals after every layer, the end and logits."""

    def run(decoder, x, order):
        seen = []
        hidden = decoder(x, order, edit=lambda _, residual: seen.append(residual) or residual)
        return seen, hidden, decoder.logits(hidden)

    return _compiled(ours, run)


@pytest.fixture(scope="module")
def logits(whole):
    return lambda *inputs: whole(*inputs)[2]


@pytest.fixture(scope="module")
def ids():
    return np.random.default_rng(1).integers(1, 70, (2, 11)).astype(np.int32)


def _compiled(module, function):
    graphdef, state = nnx.split(module)
    jitted = jax.jit(lambda state, *inputs: function(nnx.merge(graphdef, state), *inputs))
    return lambda *inputs: jitted(state, *inputs)


def _random(raw):
    """A decoder of random weights, drawn by numpy: initialisers would be compiled for every shape."""
    config, rng = Lfm2Config.from_hf(raw), np.random.default_rng(3)
    decoder = nnx.eval_shape(lambda: Lfm2(config, rngs=nnx.Rngs(0)))
    for _, leaf in nnx.to_flat_state(nnx.state(decoder)):
        value = rng.normal(size=leaf.shape) * leaf.shape[0] ** -0.5 if len(leaf.shape) > 1 else np.ones(leaf.shape)
        leaf.set_value(jnp.asarray(value, jnp.float32))
    return decoder


def _all(ids):
    return causal_order(jnp.ones(ids.shape, bool))


def _before(predecessor_bt, n=N_TAPS - 1):
    """Follow each token's predecessor (-1: none) n times."""
    steps = [predecessor_bt]
    for _ in range(n - 1):
        further = np.take_along_axis(predecessor_bt, np.maximum(steps[-1], 0), axis=1)
        steps.append(np.where(steps[-1] < 0, -1, further))
    return jnp.asarray(np.stack(steps, axis=-1), jnp.int32)


def test_every_layer_and_the_logits_equal_the_reference(theirs, ours, whole, ids):
    with torch.no_grad():
        expected = theirs(torch.tensor(ids), output_hidden_states=True)
    seen, hidden, logits = whole(ours.embedding(ids), _all(ids))
    for layer in range(len(KINDS) - 1):
        np.testing.assert_allclose(seen[layer], expected.hidden_states[layer + 1], atol=1e-5)
    np.testing.assert_allclose(hidden, expected.hidden_states[-1], atol=1e-5)
    np.testing.assert_allclose(logits, expected.logits, atol=1e-4)


@pytest.mark.parametrize("absent", [slice(0, 4), slice(4, 7)], ids=["left", "interior"])
def test_hidden_tokens_are_those_of_an_attention_mask(theirs, ours, logits, ids, absent):
    """Upstream zeroes what a masked position gives a convolution and keeps all positions: pointers of -1."""
    exists = np.ones(ids.shape, bool)
    exists[1, absent] = False
    with torch.no_grad():
        expected = theirs(torch.tensor(ids), attention_mask=torch.tensor(exists.astype(np.int64))).logits.numpy()
    place = np.arange(ids.shape[1])
    before = place[None, :, None] - 1 - np.arange(N_TAPS - 1)[None, None, :]
    heard = (before >= 0) & np.take_along_axis(exists[:, :, None], np.maximum(before, 0), axis=1)
    positions = jnp.broadcast_to(jnp.asarray(place), ids.shape)
    order = Order(positions, causal_order(jnp.asarray(exists)).mask_btu, jnp.asarray(np.where(heard, before, -1)))
    found = np.asarray(logits(ours.embedding(ids), order))
    np.testing.assert_allclose(found[exists], expected[exists], atol=1e-4)


def test_padding_behind_a_row_changes_nothing(ours, logits, ids):
    x = ours.embedding(ids)
    rubbish = jnp.asarray(np.random.default_rng(2).normal(size=(2, 5, x.shape[2])), x.dtype)
    exists = jnp.broadcast_to(jnp.arange(16)[None, :] < 11, (2, 16))
    padded = logits(jnp.concatenate([x, rubbish], axis=1), causal_order(exists))
    np.testing.assert_allclose(padded[:, :11], logits(x, _all(ids)), atol=1e-5)


def test_pointers_to_the_neighbours_are_the_row_itself(ours, logits, ids):
    x, order = ours.embedding(ids), _all(ids)
    neighbours = np.broadcast_to(np.arange(ids.shape[1]) - 1, ids.shape)
    pointed = logits(x, order._replace(before_btk=_before(neighbours)))
    np.testing.assert_allclose(pointed, logits(x, order), atol=1e-5)


def test_removed_tokens_leave_no_trace(ours, logits, ids):
    """Tokens that pointers skip, attention hides and positions close up over are as if cut out of the row."""
    kept = np.r_[0:4, 7:11]
    exists = np.isin(np.arange(11), kept)[None].repeat(2, axis=0)
    predecessor = np.full(11, -1)
    predecessor[kept[1:]] = kept[:-1]
    order = causal_order(jnp.asarray(exists))._replace(before_btk=_before(predecessor[None].repeat(2, axis=0)))
    found = np.asarray(logits(ours.embedding(ids), order))[:, kept]
    cut_out = ours.embedding(np.pad(ids[:, kept], ((0, 0), (0, 3))))
    expected = logits(cut_out, causal_order(jnp.broadcast_to(jnp.arange(11)[None, :] < 8, (2, 11))))
    np.testing.assert_allclose(found, expected[:, :8], atol=1e-5)


def test_two_continuations_share_a_prefix(ours, logits, ids):
    """A row of prefix, one end and another end gives each end what it would get alone."""
    prefix, ends = ids[:1, :5], (ids[:1, 5:9], ids[1:, 5:11])
    alone = [np.concatenate([prefix, end], axis=1) for end in ends]
    # Both in one shape, the shorter one padded behind its end, and everything in pairs: nothing new to compile.
    rows = np.stack([np.pad(row[0], (0, 11 - row.shape[1])) for row in alone])
    expected = [np.asarray(logits(ours.embedding(rows[[i, i]]), _all(rows[[i, i]])))[0] for i in range(2)]
    branch = np.repeat([0, 1, 2], [5, 4, 6])
    place = np.arange(15)
    positions = np.where(branch == 2, place - 4, place)
    sees = (place[None, :] <= place[:, None]) & ((branch[None, :] == 0) | (branch[None, :] == branch[:, None]))
    predecessor = np.where(place == 9, 4, place - 1)
    order = Order(*(jnp.asarray(np.stack([row, row])) for row in (positions, sees, _before(predecessor[None])[0])))
    packed = np.concatenate([prefix, *ends], axis=1).repeat(2, axis=0)
    found = logits(ours.embedding(packed), order)
    np.testing.assert_allclose(found[0, :9], expected[0][:9], atol=1e-5)
    np.testing.assert_allclose(found[0, np.r_[0:5, 9:15]], expected[1], atol=1e-5)


def test_greedy_generation_equals_the_reference(theirs, ours, ids):
    options = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    expected = theirs.generate(torch.tensor(ids[:1]), **options)[0, ids.shape[1] :].tolist()
    placed = Placed(jnp.pad(ours.embedding(ids[:1]), ((0, 0), (0, 5), (0, 0))), jnp.array([ids.shape[1]]))
    found = generate_text(*nnx.split(ours), placed, jnp.asarray(8), room=8, end_ids=())
    assert found[0].tolist() == expected


def test_convolutions_reach_exactly_as_far_as_their_taps():
    """In a stack of convolutions alone, a hole and a removal differ at two places a layer, and nowhere else."""
    raw = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "block_ff_dim": 24,
           "num_key_value_heads": 2, "block_multiple_of": 4, "full_attn_idxs": []}  # fmt: skip
    decoder, place = _random(raw), np.arange(24)
    x = np.random.default_rng(4).normal(size=(24, 16)).astype(np.float32)
    neighbours = _before(place[None] - 1, 2)[0]
    removed = _before(np.where(place == 10, 7, place - 1)[None], 2)[0]
    hidden = jnp.where((neighbours == 8) | (neighbours == 9), -1, neighbours)
    zeroed = np.where((place == 8) | (place == 9), 0, x.T).T
    rows, order = jnp.asarray(np.stack([x, x, zeroed])), causal_order(jnp.ones((3, 24), bool))
    run = _compiled(decoder, lambda decoder, *inputs: decoder(*inputs))
    removed, hidden, zeroed = run(rows, order._replace(before_btk=jnp.stack([removed, hidden, neighbours])))
    others = np.r_[0:8, 10:24]
    np.testing.assert_allclose(hidden[others], zeroed[others], atol=1e-6)
    differs = np.abs(np.asarray(hidden - removed)).max(axis=-1) > 1e-5
    assert set(np.flatnonzero(differs)) - {8, 9} == set(range(10, 18))


def test_gradients_flow_through_either_way_of_convolving():
    raw = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "block_ff_dim": 24,
           "num_key_value_heads": 2, "block_multiple_of": 4, "full_attn_idxs": [1]}  # fmt: skip
    x = jnp.asarray(np.random.default_rng(6).normal(size=(1, 11, 16)), jnp.float32)
    order, neighbours = causal_order(jnp.ones((1, 11), bool)), _before(np.arange(11)[None] - 1, 2)

    def slope(decoder, x, before):
        return jax.grad(lambda x: decoder.logits(decoder(x, order._replace(before_btk=before)))[0, -1, 3])(x)

    run = _compiled(_random(raw), slope)
    plain, pointed = run(x, None), run(x, neighbours)
    np.testing.assert_allclose(plain, pointed, atol=1e-5)
    assert np.abs(np.asarray(plain)).max(axis=-1).min() > 0


def test_an_edit_replaces_the_residual_stream(ours, ids):
    """What stands after layer 1 is all that the layers behind it know; the norm and the head follow."""
    x, order = ours.embedding(ids), _all(ids)
    other = jnp.asarray(np.random.default_rng(5).normal(size=x.shape), x.dtype)

    def run(decoder, x, other):
        y = other
        for layer in decoder.layers[2:]:
            y, _ = layer(y, order)
        return decoder(x, order, edit=lambda layer, residual: other if layer == 1 else residual), decoder.norm(y)

    found, expected = _compiled(ours, run)(x, other)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_bfloat16_stays_bfloat16_and_close(theirs, ours, ids):
    halves = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), nnx.state(ours))
    decoder = nnx.merge(nnx.graphdef(ours), halves)
    run = _compiled(
        decoder, lambda decoder, x: (decoder(x, _all(ids)), [layer(x, _all(ids)) for layer in decoder.layers])
    )
    hidden, written = run(decoder.embedding(ids))
    assert {leaf.dtype for leaf in jax.tree.leaves((hidden, written))} == {jnp.dtype(jnp.bfloat16)}
    found = decoder.logits(hidden)
    assert found.dtype == jnp.float32
    with torch.no_grad():
        exact = theirs(torch.tensor(ids)).logits.numpy()
    assert np.corrcoef(np.asarray(found).ravel(), exact.ravel())[0, 1] > 0.995


@pytest.mark.parametrize(
    "raw",
    [
        {},
        {"block_ff_dim": 12288, "hidden_size": 2048, "num_hidden_layers": 16, "full_attn_idxs": [2, 5, 8, 10, 12, 14]},
        {"num_hidden_layers": 2, "layer_types": ["conv", "full_attention"], "full_attn_idxs": [0, 1]},
        {"intermediate_size": 1000, "block_ffn_dim_multiplier": 2, "tie_embedding": False, "conv_L_cache": 4},
        {"intermediate_size": 1000, "block_auto_adjust_ff_dim": False, "rope_theta": 5e5},
    ],
)
def test_configurations_mean_what_they_mean_upstream(raw):
    ours, theirs = Lfm2Config.from_hf(raw), transformers.Lfm2Config(**raw)
    upstream = theirs.to_dict()
    with torch.device("meta"):
        ffn_width = transformers.models.lfm2.modeling_lfm2.Lfm2MLP(theirs).w1.out_features
    assert dataclasses.asdict(ours) == {
        "vocab_size": theirs.vocab_size,
        "width": theirs.hidden_size,
        "attends": tuple(kind == "full_attention" for kind in upstream["layer_types"]),
        "n_heads": theirs.num_attention_heads,
        "n_kv_heads": theirs.num_key_value_heads,
        "head_width": theirs.hidden_size // theirs.num_attention_heads,
        "n_taps": theirs.conv_L_cache,
        "ffn_width": ffn_width,
        "rope_theta": upstream["rope_parameters"]["rope_theta"],
        "norm_eps": theirs.norm_eps,
        "tied_head": theirs.tie_word_embeddings,
    }
    assert Lfm2Config.from_hf(raw | {"block_ffn_dim_multiplier": 1}) == Lfm2Config.from_hf(
        raw | {"block_ffn_dim_multiplier": 1.0}
    )


@pytest.mark.parametrize(
    "raw",
    [
        {"rope_parameters": {"rope_type": "yarn"}},
        {"rope_scaling": {"type": "linear", "factor": 2.0}},
        {"conv_bias": True},
        {"conv_dim": 7},
        {"model_type": "lfm2_moe"},
        {"num_hidden_layers": 2, "layer_types": ["conv"]},
        {"num_hidden_layers": 1, "layer_types": ["sliding_attention"]},
    ],
)
def test_settings_that_change_the_mathematics_are_refused(raw):
    with pytest.raises(CheckpointError, match=r"config\.json sets"):
        Lfm2Config.from_hf(raw)
