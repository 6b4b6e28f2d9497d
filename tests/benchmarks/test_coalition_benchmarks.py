"""The peers of the coalition benchmarks give the engines' values, and what the tables count is what was run."""

import importlib
import json
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
from jax.sharding import PartitionSpec

from sgpa_jax.games.passage import TOKEN_ABSENCES
from sgpa_jax.players import all_coalitions

FOLDER = Path(__file__).parents[2] / "benchmarks"
WIDTH, N_PLAYERS = 32, 4
FAMILIES = ("qwen2", "lfm2")


@pytest.fixture(scope="module", autouse=True)
def path():
    """Import the benchmarks as they import each other; the peers' thread count is nobody else's.

    Programs that run once are compiled without the optimisations that cost more than they bring.
    """
    n_threads = torch.get_num_threads()
    sys.path.insert(0, str(FOLDER))
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
    sys.path.remove(str(FOLDER))
    torch.set_num_threads(n_threads)


@pytest.fixture(scope="module")
def toys(path):
    module = importlib.import_module("_toys")
    return {name: getattr(module, f"{name}_toy")(N_PLAYERS, width=WIDTH, segment=3, seed=1) for name in FAMILIES}


@pytest.fixture(scope="module")
def ours(path, toys):
    """What the flat engine makes of every absence, which nothing of the peers or the plan has touched."""
    Ours = importlib.import_module("_ours").Ours
    masks_cp = all_coalitions(N_PLAYERS)
    return {(f, a): Ours(toys[f], a, "flat")(masks_cp) for f in FAMILIES for a in TOKEN_ABSENCES}


@pytest.mark.parametrize("absence", TOKEN_ABSENCES)
@pytest.mark.parametrize("family", FAMILIES)
def test_all_peers_agree_with_us(toys, ours, family, absence):
    peers, trie = importlib.import_module("_peers"), importlib.import_module("_torch_trie")
    masks_cp, toy = all_coalitions(N_PLAYERS), toys[family]
    names = ["one_by_one", "one_by_one_masked", "batched_masked", "batched_dropped"]
    names += ["batched_dropped_prefix"] if family == "qwen2" else []
    found = {name: getattr(peers, name)(toy, masks_cp, absence, peers.Settings(5, 1)) for name in names}
    found["torch_trie"] = trie.torch_trie(toy, masks_cp, absence, trie.TrieSettings(64, 5, 1))
    for name, outcome in found.items():
        np.testing.assert_allclose(outcome.log_probs_cr, ours[family, absence], atol=1e-4, err_msg=name)
    kept = 0.5 if absence != "embedding" else 1
    assert found["batched_masked"].tokens_run == len(masks_cp) * len(toy.x_td)
    assert found["batched_dropped"].tokens_run == len(masks_cp) * (len(toy.x_td) - (1 - kept) * 3 * N_PLAYERS)


def test_absences_are_different_games(ours):
    for family in FAMILIES:
        by_absence = [ours[family, absence].sum(axis=1) for absence in ("embedding", "attention", "drop")]
        by_absence += [ours["lfm2", "drop_keep"].sum(axis=1)] if family == "lfm2" else []
        for i, one in enumerate(by_absence):
            assert all(np.abs(one - other).max() > 0.01 for other in by_absence[:i])


def test_hiding_is_transformers_own_masking(toys, ours, monkeypatch):
    conv = importlib.import_module("_torch_conv")
    peers, toy = importlib.import_module("_peers"), toys["lfm2"]
    theirs = conv.Lfm2ShortConv.forward

    def forward(self, hidden_states, attention_mask=None, **_):
        return theirs(self, hidden_states, attention_mask=attention_mask)

    monkeypatch.setattr(conv.TapConv, "forward", forward)
    found = peers.batched_masked(toy, all_coalitions(N_PLAYERS), "attention", peers.Settings(5, 1))
    np.testing.assert_allclose(found.log_probs_cr, ours["lfm2", "attention"], atol=1e-4)


@pytest.mark.parametrize("absence", ["attention", "embedding"])
def test_token_counts_are_the_closed_formulas(toys, absence):
    ours = importlib.import_module("_ours").Ours(toys["qwen2"], absence)
    n_segments = 2 ** (N_PLAYERS + 1) - 2 if absence == "embedding" else 2**N_PLAYERS - 1
    expected = 16 + 3 * n_segments + 2**N_PLAYERS * (12 + 8 - 1)
    masks_cp = all_coalitions(N_PLAYERS)
    assert ours.closed_form(masks_cp) == expected
    assert ours.tokens_run(masks_cp) == expected


def test_drawn_coalitions_are_distinct_and_of_their_kind(path):
    toys, rng = importlib.import_module("_toys"), np.random.default_rng(0)
    pairs = toys.leverage_coalitions(9, 60, rng)
    np.testing.assert_array_equal(pairs[::2], ~pairs[1::2])
    chains = toys.permutation_coalitions(9, 60, rng)
    for drawn in (pairs, chains):
        assert len(np.unique(drawn, axis=0)) == len(drawn) == 60
    steps = np.count_nonzero(chains[1:] != chains[:-1], axis=1)
    assert np.median(steps) == 1


def test_tuning_takes_the_quickest_settings(toys, monkeypatch):
    peers = importlib.import_module("_peers")
    seconds = {1: 5.0, 4: 1.0, 16: 3.0}
    now = [0.0]

    def peer(toy, masks_cp, absence, settings):
        now[0] += seconds[settings.batch] + settings.threads

    monkeypatch.setattr(peers, "clock", lambda: now[0])
    best = peers.tuned(peer, toys["qwen2"], all_coalitions(N_PLAYERS), "attention", batches=tuple(seconds))
    assert (best.batch, best.threads) == (4, 1)


def test_a_row_compares_the_coalitions_that_were_timed(toys):
    coalitions, peers = (importlib.import_module(name) for name in ("coalitions", "_peers"))
    masks_cp = all_coalitions(N_PLAYERS)
    settings = {"batched_masked": peers.Settings(8, 1)}
    (row,) = coalitions.compared("a", toys["qwen2"], masks_cp, "drop", settings, 1, timed={"batched_masked": 4})
    assert row["max_abs_diff"] < 1e-4
    assert (row["coalitions"], row["timed"], row["settings"]) == (16, 4, "batch 8, threads 1")
    assert row["peer_tokens"] == 16 * len(toys["qwen2"].x_td) and row["tokens_run"] == row["closed_form"]
    assert row["ratio"] == pytest.approx(row["peer_s"] / row["ours_s"])


def test_libraries_play_the_same_game(toys):
    libraries, peers = importlib.import_module("_libraries"), importlib.import_module("_peers")
    rows = {row["peer"]: row for row in libraries.library_rows(toys["qwen2"], peers.Settings(8, 1), 1)}
    assert rows["shapiq_exact"]["max_abs_diff"] < 1e-4
    assert rows["shapiq_exact"]["timed"] >= 16
    assert "captum_sampling" not in rows or rows["captum_sampling"]["max_abs_diff"] < 5


def test_devices_share_without_talking(toys):
    devices = importlib.import_module("devices")
    row = devices.row_of("a", toys["lfm2"], all_coalitions(N_PLAYERS))
    assert row["max_abs_diff"] < 1e-4
    assert row["collectives"] == 0
    assert row["balance"] >= 1


def test_collectives_are_counted():
    devices = importlib.import_module("devices")
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:2])
    total = jax.shard_map(
        lambda x: jax.lax.psum(x, "data"), mesh=mesh, in_specs=PartitionSpec("data"), out_specs=PartitionSpec()
    )
    program = jax.jit(total).lower(np.ones(4, np.float32)).compile().as_text()
    assert devices.count_collectives(program or "") == 1


def test_accelerator_refuses_a_cpu_in_one_sentence(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["accelerator"])
    with pytest.raises(SystemExit, match=r"jax sees no accelerator here.*--tiny$"):
        importlib.import_module("accelerator").main()


def test_accelerator_runs_tiny(monkeypatch, tmp_path, capsys):
    path = tmp_path / "rows.json"
    accelerator = importlib.import_module("accelerator")
    monkeypatch.setattr(sys, "argv", ["accelerator", "--tiny", "--quick", "--json", str(path)])
    monkeypatch.setattr(accelerator, "MODELS", accelerator.MODELS[1:])
    accelerator.main()
    rows = json.loads(path.read_text())["rows"]
    compared = [row for row in rows if row.get("max_abs_diff") is not None]
    assert {row["peer"] for row in compared} == {"flat", "one_by_one", "batched_masked", "batched_dropped"}
    assert all(row["max_abs_diff"] < 1e-4 for row in compared)
    assert any("silence" in row["case"] for row in rows) and any("embedding" in row["case"] for row in rows)


def test_generation_runs_quick(monkeypatch, tmp_path, capsys):
    path = tmp_path / "rows.json"
    monkeypatch.setattr(sys, "argv", ["generation", "--quick", "--json", str(path)])
    importlib.import_module("generation").main()
    rows = json.loads(path.read_text())["rows"]
    answered = [row for row in rows if "delete" in row["case"]]
    assert {row["peer"] for row in answered} == {"one_by_one", "one_by_one_cut", "batched", "batched_cut"}
    assert all(row["max_abs_diff"] == 0 for row in answered)
    scored = [row for row in rows if "silence" in row["case"] and row["peer"] != "trie_attention"]
    assert len(scored) == 4 and all(row["max_abs_diff"] < 1e-4 for row in scored)
