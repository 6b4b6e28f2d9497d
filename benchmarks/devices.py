"""Do many devices give the values of one, without talking to each other, and share the work evenly?

Eight virtual devices of one processor run the trie engine under `shard_map` along the mesh's axis `data`. They show
equality, what the compiler put in (`collectives`, counted in the compiled program) and how the work is divided;
seconds on virtual devices say nothing about real ones. `balance` is the busiest device's tokens over an eighth of those
that one device alone runs; `balance_padded` the same with padding, which is computed as well.

A last row has the devices of two processes, joined by `jax.distributed`, in one mesh, each process on a core of its
own: `efficiency` is half of how many times quicker the two are than one process with as many devices as either;
`efficiency_cpu` says it in processor seconds, which other programs on the machine disturb less.
"""

import os
import re
import subprocess
import sys

import jax
import numpy as np
from _harness import alternate, comparison, parser, report
from _ours import Ours
from _processes import process_row
from _toys import Toy, leverage_coalitions, lfm2_toy, qwen2_toy
from jax.sharding import AxisType

from sgpa_jax.games import scene_of
from sgpa_jax.games.trie import run_chunks
from sgpa_jax.games.trie_plan import TriePlan
from sgpa_jax.players import all_coalitions

N_DEVICES = 8
_COLLECTIVES = r" (all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute|collective-broadcast)(-start)?\("


def main() -> None:
    """Compare eight devices with one, and print the table."""
    arguments = parser(__doc__).parse_args()
    if len(jax.devices()) < N_DEVICES:
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={N_DEVICES}"
        environment = os.environ | {"XLA_FLAGS": flags.strip(), "JAX_PLATFORMS": "cpu"}
        sys.exit(subprocess.run([sys.executable, __file__, *sys.argv[1:]], env=environment).returncode)
    quick, seed = arguments.quick, arguments.seed
    width = 64 if quick else 256
    toys = {
        "qwen2": qwen2_toy(6 if quick else 10, width=width, seed=seed),
        "lfm2": lfm2_toy(6 if quick else 10, width=width, seed=seed),
    }
    rows = [
        row_of(f"{family}, d={width}, n={toy.n_players}", toy, all_coalitions(toy.n_players))
        for family, toy in toys.items()
    ]
    n_players, count = (10, 128) if quick else (24, 1024)
    drawn_cp = leverage_coalitions(n_players, count, np.random.default_rng(seed))
    drawn = qwen2_toy(n_players, width=width, seed=seed)
    rows.append(row_of(f"qwen2, d={width}, n={n_players}, {count} drawn by leverage", drawn, drawn_cp))
    n_players = 6 if quick else 10
    case = f"two processes, qwen2, d={width}, n={n_players}, attention"
    rows.append(process_row(case, n_players, width, 1 if quick else 5, seed))
    report("devices", rows, arguments)


def row_of(case: str, toy: Toy, masks_cp: np.ndarray) -> dict[str, object]:
    """Return the row that compares `N_DEVICES` devices with one."""
    mesh = jax.make_mesh((N_DEVICES,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:N_DEVICES])
    ours = Ours(toy, "attention")
    timings = alternate({"ours": lambda: ours(masks_cp, mesh), "peer": lambda: ours(masks_cp)}, 1)
    difference = np.abs(timings["ours"].returned - timings["peer"].returned).max()
    shared, alone = ours.plan(masks_cp, mesh), ours.plan(masks_cp)
    busiest = _tokens_of_devices(shared).max()
    padded = shared.tokens_padded / N_DEVICES
    row = comparison(f"{case}, attention", "one_device", timings["ours"], timings["peer"], float(difference))
    return row | {
        "devices": N_DEVICES,
        "coalitions": len(masks_cp),
        "collectives": _collectives(ours, shared, mesh),
        "tokens_run": shared.tokens_run,
        "peer_tokens": alone.tokens_run,
        "balance": float(busiest / (alone.tokens_run / N_DEVICES)),
        "balance_padded": padded / (alone.tokens_padded / N_DEVICES),
    }


def _tokens_of_devices(plan: TriePlan) -> np.ndarray:
    """Tokens that each device runs, padding left out; chunks go round the devices in their order."""
    tokens_q = sum(
        (block.last > block.first).reshape(len(block.last), -1).sum(axis=1)
        for block in (plan.chunks.root, plan.chunks.groups)
    )
    return np.asarray(tokens_q).reshape(-1, N_DEVICES).sum(axis=0)


def _collectives(ours: Ours, plan: TriePlan, mesh: jax.sharding.Mesh) -> int:
    """How often devices talk to each other in the compiled engine."""
    first = jax.tree.map(lambda array: array[:N_DEVICES], plan.chunks)
    lowered = run_chunks.lower(ours.decoder, scene_of(ours.passage), first, None, mesh)
    return count_collectives(lowered.compile().as_text() or "")


def count_collectives(program: str) -> int:
    """Count the instructions by which devices talk to each other in a compiled program's text."""
    return len(re.findall(_COLLECTIVES, program))


if __name__ == "__main__":
    main()
