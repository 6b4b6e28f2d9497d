"""The trie engine against the flat one, in every absence and in both families of decoders, and what it computes."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from sgpa_jax.errors import UsageError
from sgpa_jax.games.flat import evaluate_flat
from sgpa_jax.games.passage import TOKEN_ABSENCES, Passage
from sgpa_jax.games.readout import Readout
from sgpa_jax.games.trie import evaluate_coalitions, run_plan, scene_of
from sgpa_jax.games.trie_plan import plan_trie
from sgpa_jax.models import decoder_of
from sgpa_jax.models.lfm2 import Lfm2, Lfm2Config
from sgpa_jax.models.qwen2 import Qwen2, Qwen2Config
from sgpa_jax.players import all_coalitions

SIZES: dict[str, Any] = dict(
    vocab_size=50, width=16, n_heads=4, n_kv_heads=2, head_width=4, ffn_width=24, rope_theta=1e4
)
CONFIGS = {
    "qwen2": Qwen2Config(**SIZES, n_layers=3, norm_eps=1e-6, tied_head=False),
    "lfm2": Lfm2Config(**SIZES, attends=(False, False, True, False), n_taps=3, norm_eps=1e-5, tied_head=True),
}
N_TARGETS = 5
# Players in several pieces, one that begins before another ends, tokens of nobody between, a player without tokens.
OWNERS = np.array([-1] * 4 + [0] * 2 + [-1] + [1] * 3 + [0] + [2] * 2 + [3] + [-1] * 3 + [1] + [-1] * 6)
MIXED = ("drop", "attention", "embedding", "drop_keep", "drop")


@pytest.fixture(scope="module")
def decoder(request):
    """Weights loud enough for coalitions to differ; LFM2's, which has both kinds of layers, where a test names none."""
    config = CONFIGS[getattr(request, "param", "lfm2")]
    rngs = nnx.Rngs(0)
    network = Qwen2(config, rngs=rngs) if isinstance(config, Qwen2Config) else Lfm2(config, rngs=rngs)
    loud = jax.tree.map(lambda leaf: 2 * leaf if leaf.ndim == 2 else leaf, nnx.state(network))
    return decoder_of(nnx.merge(nnx.graphdef(network), loud))


def _passage(absence, owners=OWNERS, n_players=5):
    rng = np.random.default_rng(0)
    x, baseline = (jnp.asarray(rng.normal(size=(len(owners), 16)), jnp.float32) for _ in range(2))
    absence = (absence,) * n_players if isinstance(absence, str) else absence
    return Passage(x, rng.integers(0, 50, N_TARGETS), owners, absence, baseline)


def _flat(decoder, passage, masks_cp, readout=None):
    run = jax.jit(lambda decoder, masks, readout: evaluate_flat(decoder, passage, masks, readout=readout))
    return np.asarray(run(decoder, jnp.asarray(masks_cp), readout))


@pytest.mark.parametrize("decoder", CONFIGS, indirect=True)
@pytest.mark.parametrize("absence", [*TOKEN_ABSENCES, MIXED], ids=[*TOKEN_ABSENCES, "mixed"])
def test_every_coalition_is_worth_what_it_is_alone(decoder, absence):
    passage, masks = _passage(absence), all_coalitions(5)
    expected = _flat(decoder, passage, masks)
    assert expected.std(axis=0).min() > 1e-3
    found = evaluate_coalitions(decoder, passage, masks, group_tokens=40, chunk_leaves=8)
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_any_set_of_coalitions_in_any_order_will_do(decoder):
    passage, masks = _passage(MIXED), all_coalitions(5)[np.random.default_rng(3).permutation(32)[:11]]
    expected = np.repeat(_flat(decoder, passage, masks), 2, axis=0)
    for group_tokens, chunk_leaves in ((20, 5), (200, 32)):
        rows = np.repeat(masks, 2, axis=0)
        found = evaluate_coalitions(decoder, passage, rows, group_tokens=group_tokens, chunk_leaves=chunk_leaves)
        np.testing.assert_allclose(found, expected, atol=2e-5)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_plan_lets_every_leaf_see_its_own_tokens_and_no_other(data):
    """Read off the arrays alone: tokens, positions, and where convolutions look."""
    n_players = data.draw(st.integers(1, 5))
    owned = data.draw(st.lists(st.integers(-1, n_players - 1), min_size=1, max_size=10))
    owners = np.array([*owned, *[-1] * (N_TARGETS + 1)])
    kinds = tuple(data.draw(st.sampled_from(TOKEN_ABSENCES)) for _ in range(n_players))
    rows = st.lists(st.booleans(), min_size=n_players, max_size=n_players)
    masks = np.array(data.draw(st.lists(rows, min_size=1, max_size=20)))
    passage = _passage(kinds, owners, n_players)
    plan = plan_trie(
        passage,
        masks,
        n_before=2,
        group_tokens=data.draw(st.integers(1, 60)),
        chunk_leaves=data.draw(st.integers(1, 8)),
        n_devices=data.draw(st.integers(1, 3)),
    )
    seen = dict(_leaves(plan.chunks, len(owners)))
    assert len(seen) == plan.n_leaves
    for mask, leaf in zip(masks, plan.leaf_of_c, strict=True):
        assert seen[leaf] == _expected(owners, kinds, mask)


def _leaves(chunks, n_tokens):
    """For every leaf, what stands behind its tokens: (token, position, tokens that its convolution hears) by place."""
    for q, g, i in np.argwhere(chunks.coalition >= 0):
        root, group = (type(block)(*(column[q, row] for column in block)) for block, row in
                       ((chunks.root, 0), (chunks.groups, g)))  # fmt: skip
        path, n_path = chunks.path[q, g], chunks.path.shape[2]
        leaf = chunks.coalition[q, g, i]

        def row_of(index, root=root, group=group, path=path, n_path=n_path):
            return (root, path[index]) if index < n_path else (group, index - n_path)

        def token(block, index):
            return int(block.token[index])

        found = []
        for index in [*np.flatnonzero(path >= 0), *range(n_path, n_path + len(group.token))]:
            block, row = row_of(index)
            if not block.first[row] <= leaf < block.last[row]:
                continue
            before = [int(pointer) for pointer in block.before[row]]
            if block is group:
                heard = [token(*row_of(pointer)) if pointer >= 0 else None for pointer in before]
            else:
                heard = [token(root, pointer) if pointer >= 0 else None for pointer in before]
            found.append((int(block.place[row]), token(block, row), int(block.positions[row]), tuple(heard)))
        scored = chunks.wanted[q, g].reshape(chunks.coalition.shape[2], -1)[i]
        assert group.place[scored].tolist() == list(range(n_tokens - N_TARGETS, n_tokens))
        assert all(group.first[scored] == leaf) and all(group.last[scored] == leaf + 1)
        yield chunks.coalition[q, g, i], sorted(found)


def _expected(owners, kinds, mask):
    rows, stands, gone = [], [], 0
    for place, owner in enumerate(owners):
        kind = None if owner < 0 or mask[owner] else kinds[owner]
        token = place if kind is None else place + len(owners)
        if kind in (None, "embedding"):
            heard = [stands[-k] if k <= len(stands) else None for k in (1, 2)]
            rows.append((place, token, place - gone, tuple(heard)))
            stands.append(token)
        elif kind == "attention":
            stands.append(None)
        gone += kind == "drop"
    return rows


@pytest.mark.parametrize(
    ("positions", "reduce"),
    [("response", "mean"), ("response", "max"), ("audio", "mean"), ("audio", "sum"), ("audio", "max")],
)
def test_readouts_of_any_layer_are_those_of_the_flat_engine(decoder, positions, reduce):
    passage, masks = _passage(MIXED), all_coalitions(5)
    probe = jnp.asarray(np.random.default_rng(1).normal(size=(16, 7)), jnp.float32)
    readout = Readout(1, positions, _latents, probe, reduce)
    found = evaluate_coalitions(decoder, passage, masks, readout=readout, group_tokens=40, chunk_leaves=8)
    assert found.shape == (32, 7) and found.std(axis=0).max() > 0.01
    np.testing.assert_allclose(found, _flat(decoder, passage, masks, readout), rtol=1e-5, atol=1e-4)


def _latents(probe, hidden):
    return jax.nn.relu(hidden @ probe)


def test_tokens_run_are_those_of_the_closed_formulas(decoder):
    """2^n - 1 segments where the absent are not run, 2^(n+1) - 2 where they are replaced."""
    n, prefix, segment, leaf = 6, 5, 3, 4 + N_TARGETS
    owners = np.r_[[-1] * prefix, np.repeat(np.arange(n), segment), [-1] * leaf]
    for absence, segments in (("attention", 2**n - 1), ("drop", 2**n - 1), ("embedding", 2 ** (n + 1) - 2)):
        passage = _passage(absence, owners, n)
        plan = plan_trie(passage, all_coalitions(n), n_before=2, group_tokens=60, chunk_leaves=2**n)
        assert plan.tokens_run == prefix + segments * segment + 2**n * leaf
        assert plan.tokens_padded < 1.5 * plan.tokens_run


def test_one_program_serves_other_numbers_of_players(decoder):
    with jax.log_compiles(), _counted() as compiled:
        for n in (7, 8):
            owners = np.r_[[-1] * 4, np.repeat(np.arange(n), 2), [-1] * 6]
            evaluate_coalitions(
                decoder, _passage("attention", owners, n), all_coalitions(n), group_tokens=60, chunk_leaves=32
            )
    assert compiled.count("run_chunks") == 1


class _counted:
    """Names of the functions compiled meanwhile."""

    def __enter__(self):
        import logging

        self.names, self.logger = [], logging.getLogger("jax._src.interpreters.pxla")
        self.handler = logging.Handler()
        self.handler.emit = lambda record: self.names.append(record.getMessage())
        self.logger.addHandler(self.handler)
        return self

    def __exit__(self, *_):
        self.logger.removeHandler(self.handler)

    def count(self, name):
        return sum(f"Compiling jit({name})" in message or f"Compiling {name}" in message for message in self.names)


@pytest.mark.parametrize("decoder", CONFIGS, indirect=True)
def test_the_kernels_for_tpus_give_the_same(decoder):
    passage, masks = _passage("attention"), all_coalitions(5)
    found = evaluate_coalitions(decoder, passage, masks, kernels="interpret", group_tokens=40, chunk_leaves=8)
    np.testing.assert_allclose(found, _flat(decoder, passage, masks), atol=2e-5)


def test_devices_share_the_work_and_change_nothing(decoder):
    passage, masks = _passage("drop"), all_coalitions(5)
    expected = evaluate_coalitions(decoder, passage, masks)
    for shape, names in (((8,), ("data",)), ((4, 2), ("data", "model"))):
        mesh = jax.make_mesh(shape, names, axis_types=(jax.sharding.AxisType.Auto,) * len(shape))
        np.testing.assert_allclose(evaluate_coalitions(decoder, passage, masks, mesh=mesh), expected, atol=2e-5)
    shared = plan_trie(passage, masks, n_before=2, group_tokens=64, chunk_leaves=64, n_devices=8)
    assert len(shared.chunks.path) == 8


def test_soft_masks_are_differentiable_and_hard_ones_their_ends(decoder):
    passage = _passage("embedding")
    masks = np.random.default_rng(2).random((3, 5)) < 0.5
    hard = _flat(decoder, passage, masks)
    soft = np.asarray(evaluate_flat(decoder, passage, jnp.asarray(masks, jnp.float32)))
    np.testing.assert_allclose(soft, hard, atol=2e-5)

    @jax.jit
    def value(mask_p):
        return evaluate_flat(decoder, passage, mask_p[None]).sum()

    middle, step = jnp.full(5, 0.5), 2e-3
    slope = jax.jit(jax.grad(value))(middle)
    assert slope[4] == 0, "a player without tokens"
    for player in range(4):
        move = step * jnp.eye(5)[player]
        numeric = (value(middle + move) - value(middle - move)) / (2 * step)
        np.testing.assert_allclose(slope[player], numeric, atol=2e-2)


def test_values_are_fetched_by_leaf(decoder):
    passage = _passage("attention")
    masks = all_coalitions(5)[[3, 3, 19, 0]]  # 3 and 19 differ in the player without tokens alone
    plan = plan_trie(passage, masks, n_before=decoder.n_before, group_tokens=40, chunk_leaves=8)
    assert plan.n_leaves == 2 and plan.leaf_of_c.tolist() == [1, 1, 1, 0]
    assert run_plan(decoder, scene_of(passage), plan).shape == (2, N_TARGETS)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"absence_p": ("attention", "silent")}, "silent"),
        ({"targets_r": np.zeros(0, int)}, "0 targets"),
        ({"owner_t": np.array([0, 1, -1])}, "owners"),
        ({"owner_t": np.array([0, 2, -1, -1])}, "-1 to P - 1"),
        ({"owner_t": np.array([0, -1, -1, 1])}, "response"),
        ({"absence_p": ("attention", "embedding")}, "baseline"),
    ],
)
def test_what_does_not_fit_is_told(change, says):
    right = {"x_td": jnp.zeros((4, 16)), "targets_r": np.array([1, 2]), "owner_t": np.array([0, 1, -1, -1]),
             "absence_p": ("attention", "drop")}  # fmt: skip
    Passage(**right)
    with pytest.raises(UsageError, match=says):
        Passage(**(right | change))


def test_layers_and_kernels_that_are_not_there_are_refused(decoder):
    passage, masks = _passage("drop"), all_coalitions(5)
    beyond = Readout(decoder.n_layers, "audio", _latents)
    with pytest.raises(UsageError, match="0 to 3"):
        evaluate_coalitions(decoder, passage, masks, readout=beyond)
    with pytest.raises(UsageError, match="0 to 3"):
        evaluate_flat(decoder, passage, jnp.asarray(masks), readout=beyond)
    with pytest.raises(UsageError, match="pallas"):
        evaluate_coalitions(decoder, passage, masks, kernels="palas")  # pyright: ignore[reportArgumentType]
    with pytest.raises(UsageError, match="readout"):
        evaluate_coalitions(decoder, passage, masks, kernels="pallas", readout=Readout(0, "audio", _latents))


def test_readouts_of_the_audio_leave_text_players_out(decoder):
    """Positions of a player that is text are read by nobody: as if its tokens were nobody's, where it is there."""
    masks = all_coalitions(5)[::2] | np.eye(5, dtype=bool)[[2]]
    probe = jnp.asarray(np.random.default_rng(1).normal(size=(16, 7)), jnp.float32)
    readout = Readout(1, "audio", _latents, probe)
    passage = replace(_passage("attention"), is_text_p=(False, False, True, False, False))
    nobodys = replace(_passage("attention"), owner_t=np.where(OWNERS == 2, -1, OWNERS))
    found = evaluate_coalitions(decoder, passage, masks, readout=readout)
    np.testing.assert_allclose(
        found, evaluate_coalitions(decoder, nobodys, masks, readout=readout), rtol=1e-5, atol=1e-4
    )
    np.testing.assert_allclose(found, _flat(decoder, passage, masks, readout), rtol=1e-5, atol=1e-4)
    assert abs(found - evaluate_coalitions(decoder, _passage("attention"), masks, readout=readout)).max() > 1e-3
