"""How long do all coalitions of a recording take where every one is encoded anew, and answered or asked for a response?

A small random Qwen2-Audio of the same weights in torch (transformers) and here. `delete` is the way of the authors'
code: absent words are cut out, the rest is encoded, and thirty tokens are generated greedily; the same tokens on both
sides, or there is no row (`max_abs_diff` counts those that differ). `silence` scores a given response.

Peers: `one_by_one` and `batched` as transformers has them, every recording padded to the window of thirty seconds, and
the same with `_cut`: sorted by length and encoded by an encoder cut to the longest of a batch, which gives the same
numbers. Batches and thread counts are the best that were found (`settings`). `trie_attention` is our own trie engine
on the same words: what it would cost if they were absent at the decoder's input instead. `timed` is how many coalitions
a peer was timed on, if not all: its seconds are scaled.
"""

import argparse
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from _harness import Timing, alternate, comparison, parser, report
from _peers import clock
from _speech_peers import SpeechPeer, SpeechSettings
from _speech_toys import SpeechToy, speech_toy

from sgpa_jax.games import response_game, speech_game
from sgpa_jax.players import all_coalitions

N_NEW = 30
Rows = list[dict[str, object]]


def main() -> None:
    """Time both games against their peers and print the table."""
    options = parser(__doc__)
    options.add_argument("--cores", type=int, help="keep to so many cores (default: all that there are)")
    arguments = options.parse_args()
    if arguments.cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.cores])
    report("generation", [*_answered(arguments), *_asked(arguments)], arguments)


def _answered(arguments: argparse.Namespace) -> Rows:
    """The authors' way: cut out, encode anew, generate."""
    n_words, n_new = (3, 6) if arguments.quick else (7, N_NEW)
    with speech_toy(n_words, **_size(arguments)) as toy:
        masks_cp, peer = all_coalitions(n_words), SpeechPeer(toy, "delete")

        def ours() -> np.ndarray:
            game = response_game(toy.model, toy.inputs, toy.players, absence="delete", max_new_tokens=n_new)
            return np.array([response.ids for response in game.evaluate(masks_cp)])

        def theirs(masks: np.ndarray, settings: SpeechSettings) -> np.ndarray:
            return peer.generate(masks, settings, n_new)

        timed = {"one_by_one": 32, "batched": 32}
        rows = _compared(f"n={n_words}, delete, {n_new} tokens", toy, masks_cp, ours, theirs, timed, arguments)
    if any(row["max_abs_diff"] for row in rows):
        raise SystemExit(f"generated tokens differ: {[row['max_abs_diff'] for row in rows]}")
    return rows


def _asked(arguments: argparse.Namespace) -> Rows:
    """The paper's way: silence in an absent word's place, and a given response."""
    n_words = 4 if arguments.quick else 10
    with speech_toy(n_words, **_size(arguments)) as toy:
        masks_cp, peer = all_coalitions(n_words), SpeechPeer(toy, "silence")

        def ours(absence: str = "silence") -> np.ndarray:
            return speech_game(toy.model, toy.inputs, toy.players, absence=absence).values(masks_cp)[:, :1]

        def theirs(masks: np.ndarray, settings: SpeechSettings) -> np.ndarray:
            return peer.log_probs(masks, settings).sum(axis=1, keepdims=True)

        timed = {"one_by_one": 32, "one_by_one_cut": 64, "batched": 64}
        case = f"n={n_words}, silence, {len(toy.inputs.ids_t) - toy.inputs.response_start} tokens scored"
        trie = {"trie_attention": lambda: ours("attention")}
        return _compared(case, toy, masks_cp, ours, theirs, timed, arguments, trie)


def _size(arguments: argparse.Namespace) -> dict[str, int]:
    sizes = {"width": 64, "n_layers": 2, "window_s": 6} if arguments.quick else {}
    return sizes | {"seed": arguments.seed}


def _compared(
    case: str,
    toy: SpeechToy,
    masks_cp: np.ndarray,
    ours: Callable[[], np.ndarray],
    theirs: Callable[[np.ndarray, SpeechSettings], np.ndarray],
    timed: Mapping[str, int],
    arguments: argparse.Namespace,
    own: Mapping[str, Callable[[], Any]] | None = None,
) -> Rows:
    """Rows against every peer, and without values against other engines of ours."""
    rng = np.random.default_rng(arguments.seed)
    order = rng.permutation(len(masks_cp))
    some = {
        name: np.sort(order[: timed.get(name, len(order))])
        for name in ("one_by_one", "one_by_one_cut", "batched", "batched_cut")
    }
    settings = {name: _tuned(name, masks_cp[rows], theirs, arguments.quick) for name, rows in some.items()}
    calls: dict[str, Callable[[], Any]] = {"ours": ours}
    calls |= {name: lambda name=name: theirs(masks_cp[some[name]], settings[name]) for name in some}
    timings = alternate(calls | dict(own or {}), 1 if arguments.quick else 3)
    rows: Rows = []
    for name in list(timings)[1:]:
        factor, difference = 1.0, float("nan")
        if name in some:
            factor = len(masks_cp) / len(some[name])
            theirs_found, found = timings[name].returned, timings["ours"].returned[some[name]]
            difference = (
                float(np.abs(theirs_found - found).max())
                if theirs_found.dtype.kind == "f"
                else int((theirs_found != found).sum())
            )
        peer = _scaled(timings[name], factor)
        n_layers, width = toy.model.config.decoder.n_layers, toy.model.config.decoder.width
        label = f"qwen2-audio, d={width}, {n_layers}+{n_layers} layers, {case}"
        row = comparison(label, name, timings["ours"], peer, difference)
        row |= {"cpu_ratio": peer.cpu_s / timings["ours"].cpu_s, "coalitions": len(masks_cp)}
        rows.append(row | {"timed": round(len(masks_cp) / factor), "settings": str(settings.get(name, "ours"))})
    return rows


def _tuned(
    name: str, masks_cp: np.ndarray, theirs: Callable[[np.ndarray, SpeechSettings], np.ndarray], quick: bool
) -> SpeechSettings:
    """The settings that take the least time on a part of the coalitions."""
    batches = (1,) if name.startswith("one") else (16,) if quick else (8, 32, 128)
    sample_cp = masks_cp[: 2 if quick else 8 if name.startswith("one") else 128]
    best: dict[SpeechSettings, float] = {}
    for batch in batches:
        for threads in sorted({1, len(os.sched_getaffinity(0))}):
            settings = SpeechSettings(batch, threads, name.endswith("_cut"))
            began_s = clock()
            theirs(sample_cp, settings)
            best[settings] = clock() - began_s
    return min(best, key=lambda settings: best[settings])


def _scaled(timing: Timing, factor: float) -> Timing:
    return replace(timing, first_s=timing.first_s * factor, wall_s=timing.wall_s * factor, cpu_s=timing.cpu_s * factor)


if __name__ == "__main__":
    main()
