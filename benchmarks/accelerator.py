"""How fast are the full-size shapes on the accelerator that is here? One command, a table, and JSON to send home.

    python benchmarks/accelerator.py --json accelerator.json

Qwen2-Audio-7B's and LFM2-Audio-1.5B's networks with random bfloat16 weights, drawn on the device. `trie` scores a
response of 32 tokens under all coalitions of n players of 10 tokens, behind 30 tokens and before 20 (n = 10 and 12);
`floor_s` is what its FLOPs take at the rate that the card reaches in matrix products, where we know that rate, and
`of_floor` how much of that rate was reached. Peers: `flat`, our own engine without sharing, and where torch has a GPU
its decoders of the same weights: `batched_masked`, `batched_dropped`, `one_by_one` and `one_by_one_generation` (32
greedy tokens under each coalition), on as many coalitions as `timed` says, scaled. `silence` encodes every coalition of
10 words anew; the rows `7 words` are a whole game, encoding included. `max_abs_diff` is in nats over the whole
response, in bfloat16.

Without an accelerator it refuses; `--tiny` runs the same on small networks in float32, wherever it is. `--trace DIR`
writes a profile of one run of the trie.
"""

import argparse
import importlib.util
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

# Both libraries share the card: neither may take most of its memory in advance.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax
import jax.numpy as jnp
import numpy as np
from _full_size import MODELS, random_model, recording, torch_decoder
from _harness import Timing, alternate, comparison, parser, report
from compile_targets import flops_formula

from sgpa_jax.games import Passage, evaluate_coalitions, evaluate_flat, plan_for, speech_passage
from sgpa_jax.games.waveform import WaveformEngine
from sgpa_jax.models import Model
from sgpa_jax.models.lfm2 import Lfm2Config
from sgpa_jax.players import all_coalitions

PREFIX, SEGMENT, QUESTION, RESPONSE = 30, 10, 20, 32
PLAYERS = {"qwen2-audio-7b": 10, "lfm2-audio-1.5b": 12}
MATMUL_FLOPS = {"NVIDIA H200": 790e12}
"""Measured rates of bfloat16 matrix products, by the device's name."""

Rows = list[dict[str, object]]


def main() -> None:
    """Run what fits the device and print the table."""
    options = parser(__doc__)
    options.add_argument("--tiny", action="store_true", help="small networks, on whatever is here")
    options.add_argument("--trace", type=Path, metavar="DIR", help="write a profile of one run of the trie there")
    arguments = options.parse_args()
    if jax.default_backend() == "cpu" and not arguments.tiny:
        sys.exit(
            "jax sees no accelerator here, and the full sizes are not for a CPU: install jax for it, or give --tiny"
        )
    rows: Rows = []
    for name in MODELS:
        model = random_model(name, tiny=arguments.tiny, seed=arguments.seed)
        rows += [*_trie(model, arguments), *_silence(model, arguments), *_whole(model, arguments)]
    report("accelerator", rows, arguments, notes={"weights": "random"})


def _trie(model: Model, arguments: argparse.Namespace) -> Rows:
    """All coalitions of a passage by the trie, and by those who share less."""
    n_players, repeats = 4 if arguments.tiny else PLAYERS[model.name], 1 if arguments.quick else 5
    passage, masks_cp = _passage(model, n_players, arguments.seed), all_coalitions(n_players)
    ours = partial(evaluate_coalitions, model.decoder, passage)
    flat = jax.jit(lambda decoder, masks: evaluate_flat(decoder, passage, masks))
    some = {
        name: masks_cp[:: max(1, len(masks_cp) // n)]
        for name, n in (("flat", 256), ("few", 2 if arguments.tiny else 8))
    }
    calls: dict[str, Callable[[], Any]] = {
        "ours": lambda: ours(masks_cp),
        "flat": lambda: np.concatenate([flat(model.decoder, part) for part in np.split(some["flat"], 4)]),
    }
    peers, settings = _torch_calls(model, passage, masks_cp, some["few"], arguments)
    timings = alternate(calls | peers, repeats)
    if arguments.trace is not None:
        with jax.profiler.trace(arguments.trace / model.name):
            ours(masks_cp)
    plan = plan_for(model.decoder, passage, masks_cp)
    flops = flops_formula(model.config.decoder, model.decoder, n_players)
    rate = MATMUL_FLOPS.get(jax.devices()[0].device_kind)
    floor = {}
    if rate is not None and not arguments.tiny:
        floor = {"floor_s": flops / rate, "of_floor": flops / rate / timings["ours"].wall_s}
    rows: Rows = []
    for name in list(timings)[1:]:
        timed = timings[name]
        rows_c = {"flat": some["flat"], "one_by_one": some["few"], "one_by_one_generation": some["few"]}.get(
            name, masks_cp
        )
        difference = float("nan")
        if not name.endswith("generation"):
            found_c = ours(rows_c).sum(axis=1, dtype=np.float64)
            difference = float(np.abs(found_c - np.asarray(timed.returned).sum(axis=1, dtype=np.float64)).max())
        factor = len(masks_cp) / len(rows_c)
        case = f"{_label(model)}, n={n_players}, trie"
        row = comparison(case, name, timings["ours"], _scaled(timed, factor), difference)
        row |= {"coalitions": len(masks_cp), "timed": len(rows_c), "tokens_run": plan.tokens_run}
        row |= {"tokens_padded": plan.tokens_padded, "settings": settings.get(name, "ours")} | floor
        rows.append(row)
    return rows


def _silence(model: Model, arguments: argparse.Namespace) -> Rows:
    """Every coalition of a recording encoded anew, the response scored."""
    n_words = 4 if arguments.tiny else 10
    inputs, players = recording(model, n_words, RESPONSE, arguments.seed)
    engine, masks_cp = WaveformEngine(model, inputs, players, absence="silence"), all_coalitions(n_words)
    timing = alternate({"ours": lambda: _heard(engine, masks_cp)}, 1 if arguments.quick else 5)["ours"]
    return [_row(f"{_label(model)}, n={n_words}, silence", timing, len(masks_cp))]


def _whole(model: Model, arguments: argparse.Namespace) -> Rows:
    """A recording of seven words, from the waveform to the values of all coalitions."""
    n_words = 3 if arguments.tiny else 7
    inputs, players = recording(model, n_words, RESPONSE, arguments.seed)
    masks_cp = all_coalitions(n_words)

    def embedding() -> np.ndarray:
        passage = speech_passage(model, inputs, players, absence="embedding")
        return evaluate_coalitions(model.decoder, passage, masks_cp)

    def silence() -> np.ndarray:
        return _heard(WaveformEngine(model, inputs, players, absence="silence"), masks_cp)

    timings = alternate({"embedding": embedding, "silence": silence}, 1 if arguments.quick else 5)
    case = f"{_label(model)}, {n_words} words, whole game"
    return [_row(f"{case}, {name}", timing, len(masks_cp)) for name, timing in timings.items()]


def _passage(model: Model, n_players: int, seed: int) -> Passage:
    rng, dtype = np.random.default_rng(seed), jnp.dtype(model.dtype)
    owner = np.full(PREFIX + n_players * SEGMENT + QUESTION + RESPONSE - 1, -1, np.int32)
    owner[PREFIX : PREFIX + n_players * SEGMENT] = np.repeat(np.arange(n_players), SEGMENT)
    x_td = jnp.asarray(rng.standard_normal((len(owner), model.config.decoder.width)), dtype)
    targets = rng.integers(model.config.decoder.vocab_size, size=RESPONSE).astype(np.int32)
    return Passage(x_td, targets, owner, ("attention",) * n_players)


def _torch_calls(
    model: Model, passage: Passage, masks_cp: np.ndarray, few_cp: np.ndarray, arguments: argparse.Namespace
) -> tuple[dict[str, Callable[[], Any]], dict[str, str]]:
    """torch's peers, where it is installed and has a GPU (or the networks are tiny)."""
    if not importlib.util.find_spec("torch"):
        return {}, {}
    import torch
    from _peers import Settings, batched_dropped, batched_masked, one_by_one, tuned
    from _toys import Toy

    if not torch.cuda.is_available() and not arguments.tiny:
        return {}, {}
    network = torch_decoder(model, "cpu" if arguments.tiny else "cuda")
    family = "lfm2" if isinstance(model.config.decoder, Lfm2Config) else "qwen2"
    x_td = np.asarray(passage.x_td, np.float32)
    toy = Toy(family, network, x_td, x_td, passage.owner_t, passage.targets_r, PREFIX)
    single = Settings(1, 1)
    calls: dict[str, Callable[[], Any]] = {
        "one_by_one": lambda: one_by_one(toy, few_cp, "attention", single).log_probs_cr,
        "one_by_one_generation": lambda: _generated(toy, few_cp),
    }
    settings = {name: str(single) for name in calls}
    for peer in (batched_masked, batched_dropped):
        best = tuned(peer, toy, masks_cp, "attention", batches=(16, 64, 256), sample=256)
        calls[peer.__name__] = lambda peer=peer, best=best: peer(toy, masks_cp, "attention", best).log_probs_cr
        settings[peer.__name__] = str(best)
    return calls, settings


def _generated(toy: Any, masks_cp: np.ndarray) -> np.ndarray:
    """Greedy answers to one prompt after another, absent tokens left out."""
    import torch

    found = []
    for mask in masks_cp:
        there_t = np.append(mask, True)[toy.owner_t][: -(RESPONSE - 1)]
        x = torch.from_numpy(toy.x_td[: len(there_t)][there_t])[None]
        x = x.to(device=toy.network.device, dtype=toy.network.dtype)
        with torch.inference_mode():
            ids = toy.network.generate(inputs_embeds=x, max_new_tokens=RESPONSE, do_sample=False, use_cache=True)
        found.append(ids[0, -RESPONSE:].cpu().numpy())
    return np.stack(found)


def _heard(engine: WaveformEngine, masks_cp: np.ndarray) -> np.ndarray:
    size = min(len(masks_cp), engine.microbatch())
    return np.concatenate([engine.log_probs(masks_cp[i : i + size]) for i in range(0, len(masks_cp), size)])


def _label(model: Model) -> str:
    return f"tiny {model.name}" if model.dtype == "float32" else model.name


def _row(case: str, timing: Timing, n_coalitions: int) -> dict[str, object]:
    return {
        "case": case, "ours_s": timing.wall_s, "ours_cpu_s": timing.cpu_s, "ours_first_s": timing.first_s,
        "coalitions": n_coalitions,
    }  # fmt: skip


def _scaled(timing: Timing, factor: float) -> Timing:
    return replace(timing, first_s=timing.first_s * factor, wall_s=timing.wall_s * factor, cpu_s=timing.cpu_s * factor)


if __name__ == "__main__":
    main()
