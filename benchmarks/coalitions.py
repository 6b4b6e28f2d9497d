"""How many coalitions a second, and against which torch? Per absence and decoder family, on the same values.

Small random decoders of the same weights in torch and here (`_toys.py`) score the response of a passage under every
coalition, or under drawn ones. Peers: `one_by_one` (absent tokens left out; `one_by_one_masked`: hidden by a mask),
`batched_masked`, `batched_dropped` (by size, nothing padded; `_prefix` with the prefix's keys and values kept) and
`torch_trie`, our own plan run by eager torch. Each has its best batch and thread count (`settings`). Ours is the trie
engine, and in a row of its own the flat one.

`ratio` compares wall seconds, `cpu_ratio` processor seconds; with other work on the machine take the latter from
`--cores 1`, where both sides have one core and one thread. `timed` is how many coalitions a peer was timed on, if not
all: its seconds are scaled. `tokens_run` counts our tokens without padding, `closed_form` what the formula says,
`peer_tokens` the peer's with padding. The first call of ours compiles. `max_abs_diff` is of the sum over
the response.

Further rows: captum, shapiq and mllm-shap end to end on the same game (`max_abs_diff`: of the Shapley values; a
sampler's is its error), peak memory of many players against few in processes of their own, and what compiles when n
changes.
"""

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import _peers
import numpy as np
from _harness import Timing, alternate, comparison, parser, report
from _libraries import library_rows
from _memory import compile_rows, memory_rows
from _ours import Ours
from _peers import Outcome
from _torch_trie import torch_trie, tuned_trie
from _toys import Toy, leverage_coalitions, lfm2_toy, permutation_coalitions, qwen2_toy

from sgpa_jax.games import TOKEN_ABSENCES
from sgpa_jax.players import all_coalitions

Rows = list[dict[str, object]]
_SHOWN = (
    "case", "peer", "ours_s", "peer_s", "ratio", "ours_cpu_s", "peer_cpu_s", "cpu_ratio", "max_abs_diff", "tokens_run",
    "peer_tokens", "token_ratio", "settings", "peak_bytes", "peak_ratio", "compiles", "compile_s",
)  # fmt: skip
_SINGLE = ("one_by_one", "one_by_one_masked")
_BATCHED = ("batched_masked", "batched_dropped")


def main() -> None:
    """Time every case against its peers and print the table."""
    options = parser(__doc__)
    options.add_argument(
        "--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what to measure (default: all)"
    )
    options.add_argument("--cores", type=int, help="keep to so many cores (default: all that there are)")
    arguments = options.parse_args()
    if arguments.cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.cores])
    rows: Rows = []
    for part in arguments.parts:
        rows += PARTS[part](arguments)
    report("coalitions", rows, arguments, columns=_SHOWN)


def compared(
    case: str,
    toy: Toy,
    masks_cp: np.ndarray,
    absence: str,
    peers: Mapping[str, Any],
    repeats: int,
    *,
    timed: Mapping[str, int] | None = None,
    engine: str = "trie",
    seed: int = 0,
) -> Rows:
    """Return a row for each peer, by name with its settings, over the same coalitions; `timed` are fewer of them."""
    ours, rng = Ours(toy, absence, engine), np.random.default_rng(seed)
    some = {name: np.sort(rng.permutation(len(masks_cp))[: (timed or {}).get(name, len(masks_cp))]) for name in peers}
    calls: dict[str, Callable[[], Any]] = {"ours": partial(ours, masks_cp)}
    for name, settings in peers.items():
        calls[name] = partial(_peer(name), toy, masks_cp[some[name]], absence, settings)
    timings = alternate(calls, repeats)
    found_c = timings["ours"].returned.sum(axis=1, dtype=np.float64)
    rows = []
    for name, settings in peers.items():
        outcome: Outcome = timings[name].returned
        peer = _scaled(timings[name], len(masks_cp) / len(some[name]))
        difference = np.abs(found_c[some[name]] - outcome.log_probs_cr.sum(axis=1, dtype=np.float64)).max()
        row = comparison(case, name, timings["ours"], peer, float(difference))
        row["cpu_ratio"] = peer.cpu_s / timings["ours"].cpu_s
        row |= {"coalitions": len(masks_cp), "timed": len(some[name]), "engine": engine, "absence": absence}
        row |= {"tokens_run": ours.tokens_run(masks_cp), "closed_form": ours.closed_form(masks_cp)}
        row |= {"peer_tokens": outcome.tokens_run * len(masks_cp) // len(some[name]), "settings": str(settings)}
        rows.append(row)
    return rows


def tuned(names: Sequence[str], toy: Toy, masks_cp: np.ndarray, absence: str, quick: bool) -> dict[str, Any]:
    """Return each peer's best settings for these coalitions."""
    found: dict[str, Any] = {}
    batches = (64,) if quick else _peers.BATCHES
    for name in names:
        if name == "torch_trie":
            sizes = {"groups": (128,), "chunks": (64,)} if quick else {}
            found[name] = tuned_trie(toy, masks_cp, absence, **sizes)
        else:
            single = name in _SINGLE
            # A part of the coalitions would not fill batches of those of one size.
            sample = 8 if quick else 64 if single else 256 if name == "batched_masked" else len(masks_cp)
            found[name] = _peers.tuned(
                _peer(name), toy, masks_cp, absence, batches=(1,) if single else batches, sample=sample
            )
    return found


def _qwen2(arguments: argparse.Namespace) -> Rows:
    toy = qwen2_toy(6 if arguments.quick else 10, seed=arguments.seed)
    return _every_absence("qwen2, d=256", toy, (*_SINGLE, *_BATCHED, "batched_dropped_prefix", "torch_trie"), arguments)


def _lfm2(arguments: argparse.Namespace) -> Rows:
    toy = lfm2_toy(5 if arguments.quick else 8, seed=arguments.seed)
    return _every_absence("lfm2, d=256", toy, (*_SINGLE, *_BATCHED, "torch_trie"), arguments)


def _every_absence(case: str, toy: Toy, names: Sequence[str], arguments: argparse.Namespace) -> Rows:
    masks_cp = all_coalitions(toy.n_players)
    settings = tuned(names, toy, masks_cp, "attention", arguments.quick)
    timed = {"one_by_one": 64, "one_by_one_masked": 64, "batched_masked": 256}
    rows: Rows = []
    for absence in TOKEN_ABSENCES:
        # Nothing is left out under `embedding`: dropping would be masking, and the single ones are one another.
        useless = {"one_by_one_masked", "batched_dropped"} if absence == "embedding" else set()
        peers = {name: setting for name, setting in settings.items() if name not in useless}
        label = f"{case}, n={toy.n_players}, {absence}"
        # What drops runs as many tokens as what hides: it is here for its values.
        repeats = 3 if absence in ("embedding", "attention") and not arguments.quick else 1
        rows += compared(label, toy, masks_cp, absence, peers, repeats, timed=timed)
    flat = {"batched_masked": settings["batched_masked"]}
    return rows + compared(
        f"{case}, n={toy.n_players}, attention, flat",
        toy,
        masks_cp,
        "attention",
        flat,
        1,
        timed=timed,
        engine="flat",
    )


def _wide(arguments: argparse.Namespace) -> Rows:
    """Width 512: how near the ratio of seconds comes to that of tokens; settings are those found for the fewest."""
    rows: Rows = []
    settings: dict[str, Any] = {}
    for n_players in (6,) if arguments.quick else (8, 10, 12):
        toy = qwen2_toy(n_players, width=128 if arguments.quick else 512, seed=arguments.seed)
        masks_cp = all_coalitions(n_players)
        settings = settings or tuned(("batched_masked", "torch_trie"), toy, masks_cp, "attention", arguments.quick)
        label = f"qwen2, d={toy.x_td.shape[1]}, n={n_players}, attention"
        repeats, timed = 1 if arguments.quick or n_players > 10 else 3, {"batched_masked": 256}
        for row in compared(label, toy, masks_cp, "attention", settings, repeats, timed=timed):
            rows.append(row | {"token_ratio": row["peer_tokens"] / row["tokens_run"]})  # pyright: ignore
    return rows


def _sampled(arguments: argparse.Namespace) -> Rows:
    """Drawn coalitions of more players than can be enumerated; settings are those found for a part of the first."""
    n_players, count = (12, 128) if arguments.quick else (24, 4096)
    toy, rng = qwen2_toy(n_players, seed=arguments.seed), np.random.default_rng(arguments.seed)
    rows: Rows = []
    names = ("batched_masked", "batched_dropped", "batched_dropped_prefix", "torch_trie")
    drawn = {"leverage": leverage_coalitions, "permutation": permutation_coalitions}
    settings: dict[str, Any] = {}
    for name, draw in drawn.items():
        masks_cp = draw(n_players, count, rng)
        settings = settings or tuned(names, toy, rng.permutation(masks_cp)[:512], "attention", arguments.quick)
        timed = {"batched_masked": 256, "batched_dropped": 512, "batched_dropped_prefix": 1024}
        label = f"qwen2, d=256, n={n_players}, {count} drawn by {name}, attention"
        rows += compared(label, toy, masks_cp, "attention", settings, 1, timed=timed)
    return rows


def _libraries(arguments: argparse.Namespace) -> Rows:
    toy = qwen2_toy(6 if arguments.quick else 10, seed=arguments.seed)
    settings = tuned(("batched_dropped",), toy, all_coalitions(toy.n_players), "attention", arguments.quick)
    return library_rows(toy, settings["batched_dropped"], 1 if arguments.quick else 3)


def _memory(arguments: argparse.Namespace) -> Rows:
    return memory_rows(*((6, 8) if arguments.quick else (12, 16)), arguments.seed)


def _compile(arguments: argparse.Namespace) -> Rows:
    return compile_rows((5, 6) if arguments.quick else (8, 9, 10, 11, 12), arguments.seed)


def _peer(name: str) -> Any:
    return torch_trie if name == "torch_trie" else getattr(_peers, name)


def _scaled(timing: Timing, factor: float) -> Timing:
    return replace(timing, first_s=timing.first_s * factor, wall_s=timing.wall_s * factor, cpu_s=timing.cpu_s * factor)


PARTS: dict[str, Callable[[argparse.Namespace], Rows]] = {
    "qwen2": _qwen2,
    "lfm2": _lfm2,
    "wide": _wide,
    "sampled": _sampled,
    "libraries": _libraries,
    "memory": _memory,
    "compile": _compile,
}


if __name__ == "__main__":
    main()
