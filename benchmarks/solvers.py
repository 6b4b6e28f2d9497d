"""How fast are the exact solvers, and do they agree with shapiq's ExactComputer?

Everybody starts from the values of all 2^n coalitions in float64: nobody evaluates a game. shapiq takes them by looking
up a table in its own order of coalitions, once, before the clock starts (`compute_game_values`), so that its seconds
are those of the index alone; its cache of results is emptied for each call. `SV` and `BV` are Shapley and Banzhaf
values, the other names are interaction indices of the given `order`. Columns: `index`, `n` (players), `order`, and
seconds, ratio and `max_abs_diff` over all subsets but the empty one.

shapiq asks `FSII` to fit exactly at ∅ and N by a weight of 1e8, and its solution differs by that; the peer
`constrained least squares` is FSII's definition solved directly, with both as constraints. Other rows: a game of
K = 4096 outputs, n = 12, float32, against reading its values once (the sum of each output, in the precision that is
computed in); and what n = 20 takes, against nobody. Judge a busy machine by the processor seconds and `ratio_cpu`.
"""

from collections.abc import Callable, Mapping
from functools import partial
from itertools import combinations
from math import comb
from typing import Any

import jax.numpy as jnp
import numpy as np
import shapiq
from _harness import alternate, comparison, parser, report
from sgpa_kernels import exact_banzhaf, exact_shapley

from sgpa_jax.estimators import INDICES, interactions
from sgpa_jax.players import all_coalitions

VALUES: dict[str, Callable[[np.ndarray], np.ndarray]] = {"SV": exact_shapley, "BV": exact_banzhaf}
COLUMNS = (
    "case", "peer", "ours_s", "peer_s", "ratio", "ours_cpu_s", "peer_cpu_s", "ratio_cpu", "max_abs_diff",
)  # fmt: skip


def main() -> None:
    """Compare all indices, then the vector game and n = 20."""
    options = parser(__doc__)
    options.add_argument("--repeats", type=int, default=3, help="rounds that shapiq takes part in (default: 3)")
    arguments = options.parse_args()
    quick, seed = arguments.quick, arguments.seed
    repeats = 1 if quick else arguments.repeats
    rows = []
    for n_players in (8, 10) if quick else (8, 10, 12):
        cases = [("SV", 1), ("BV", 1), *((index, order) for order in (2, 3) for index in _compared(INDICES))]
        rows += [_row(index, n_players, order, repeats, seed) for index, order in cases]
        rows += [_row("FSII", n_players, order, repeats, seed, "constrained least squares") for order in (2, 3)]
    rows += [_row("SV", n_players, 1, repeats, seed) for n_players in ((12,) if quick else (14, 16))]
    rows += _vector_rows(10 if quick else 12, 1024 if quick else 4096, seed)
    rows += _large_rows(16 if quick else 20, seed)
    report("solvers", rows, arguments, columns=COLUMNS)


def _compared(indices: tuple[str, ...]) -> list[str]:
    # shapiq computes Möbius coefficients of all orders at once: another job than that of one order.
    return [index for index in indices if index != "Moebius"]


def _row(index: str, n_players: int, order: int, repeats: int, seed: int, peer: str = "shapiq") -> dict[str, object]:
    values_n = _table(n_players, 1, seed)[:, 0]
    solve = _Shapiq(values_n) if peer == "shapiq" else _Constrained(values_n)
    timings = alternate({"ours": lambda: _ours(values_n, index, order), "peer": lambda: solve(index, order)}, repeats)
    ours, theirs = timings["ours"].returned, timings["peer"].returned
    difference = max(abs(value - theirs.get(subset, 0.0)) for subset, value in ours.items() if subset)
    name = f"{index}, n={n_players}" + ("" if index in VALUES else f", order {order}")
    return _with_cpu(comparison(name, peer, timings["ours"], timings["peer"], float(difference))) | {
        "index": index,
        "n": n_players,
        "order": order,
    }


def _ours(values_n: np.ndarray, index: str, order: int) -> Mapping[tuple[int, ...], float]:
    if index in VALUES:
        return {(player,): value for player, value in enumerate(VALUES[index](values_n).tolist())}
    found = interactions(values_n, index, order)
    return dict(zip(found.subsets, found.values_ik[:, 0].tolist(), strict=True))


class _Shapiq:
    """shapiq's ExactComputer on a table of values, without a memory of earlier calls."""

    def __init__(self, values_n: np.ndarray) -> None:
        n_players = len(values_n).bit_length() - 1
        bits_p = 1 << np.arange(n_players)
        self._computer = shapiq.ExactComputer(
            lambda masks: values_n[masks @ bits_p], n_players=n_players, evaluate_game=True
        )

    def __call__(self, index: str, order: int) -> Mapping[tuple[int, ...], float]:
        self._computer._computed.clear()
        return self._computer(index, order).interactions  # pyright: ignore[reportArgumentType]


class _Constrained:
    """FSII by its definition: the best polynomial of degree `order` under KernelSHAP's weights, exact at ∅ and N."""

    def __init__(self, values_n: np.ndarray) -> None:
        self._values_n = values_n
        self._masks_np = all_coalitions(len(values_n).bit_length() - 1)
        n_players, size_n = self._masks_np.shape[1], self._masks_np.sum(axis=1)[1:-1].tolist()
        self._weight_n = np.array([0.0, *(1 / comb(n_players - 2, size - 1) for size in size_n), 0.0])

    def __call__(self, index: str, order: int) -> Mapping[tuple[int, ...], float]:
        n_players = self._masks_np.shape[1]
        subsets = [subset for size in range(order + 1) for subset in combinations(range(n_players), size)]
        products_ni = np.stack([self._masks_np[:, subset].all(axis=1) for subset in subsets], axis=1).astype(float)
        weighted_in = products_ni.T * self._weight_n
        ends_ei = products_ni[[0, -1]]
        system = np.block([[weighted_in @ products_ni, ends_ei.T], [ends_ei, np.zeros((2, 2))]])
        right = np.concatenate([weighted_in @ self._values_n, self._values_n[[0, -1]]])
        return dict(zip(subsets, np.linalg.solve(system, right).tolist(), strict=False))


def _vector_rows(n_players: int, n_outputs: int, seed: int) -> list[dict[str, object]]:
    values_nk = _table(n_players, n_outputs, seed).astype(np.float32)
    on_device_nk = jnp.asarray(values_nk)
    cases: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
        "host, float64": (lambda: exact_shapley(values_nk), lambda: values_nk.sum(axis=0, dtype=np.float64)),
        "jitted, float32": (lambda: exact_shapley(on_device_nk), lambda: jnp.sum(on_device_nk, axis=0)),
    }
    rows = []
    for where, (solve, read) in cases.items():
        timings = alternate({"ours": solve, "peer": read}, 9)
        case = f"SV, n={n_players}, K={n_outputs}, {where}"
        checked_p = exact_shapley(values_nk[:, 7].astype(np.float64))
        difference = float(np.abs(np.asarray(timings["ours"].returned)[:, 7] - checked_p).max())
        row = _with_cpu(comparison(case, "reading once", timings["ours"], timings["peer"], difference))
        rows.append(row | {"index": "SV", "n": n_players, "order": 1})
    return rows


def _large_rows(n_players: int, seed: int) -> list[dict[str, object]]:
    values_n = _table(n_players, 1, seed)[:, 0]
    cases = [("SV", 1), ("BV", 1), *((index, order) for order in (2, 3) for index in INDICES)]
    rows = []
    for index, order in cases:
        timing = alternate({"ours": partial(_ours, values_n, index, order)}, 1)["ours"]
        name = f"{index}, n={n_players}" + ("" if index in VALUES else f", order {order}")
        rows.append({
            "case": name, "peer": "none", "ours_s": timing.wall_s, "ours_cpu_s": timing.cpu_s,
            "index": index, "n": n_players, "order": order,
        })  # fmt: skip
    return rows


def _with_cpu(row: dict[str, Any]) -> dict[str, object]:
    return row | {"ratio_cpu": row["peer_cpu_s"] / row["ours_cpu_s"]}


def _table(n_players: int, n_outputs: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((2**n_players, n_outputs))


if __name__ == "__main__":
    main()
