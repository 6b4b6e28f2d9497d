"""How far are estimates from the exact values at an equal budget of evaluations?

Games whose answers are known: sums of unanimity games, airports, weighted votes, random forests, and what all
coalitions of the words of an utterance are worth to the *pocket* model (`speech`; its tables take minutes and are kept
in `--tables DIR`). Budgets are n², 3 n² and 10 n² for n players, where that is less than all 2^n coalitions. Errors are
mean squares over players as a share of the mean square of the exact values, and their mean over games; every game is
drawn and estimated from a seed of its own. A game in which every player is worth nothing tells nothing and is left out.

Columns: `ours` is what `auto` chooses, `best` the best of all our estimators here, `peer` the best peer here; `ratio`
is peer_mse / ours_mse (above 1: we are nearer). The file also has every method's error (`all`). SPEX and ProxySPEX take
seconds a game: rows whose case ends with `first G` compare with them alone, on the first games of the case.
"""

import argparse
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
from _harness import Row, parser, report
from _value_games import FAMILIES, Table, lookup
from _value_peers import quick_peers, slow_peers
from sgpa_kernels import exact_shapley

from sgpa_jax.errors import BudgetError
from sgpa_jax.estimators import ESTIMATORS, choose_estimator, estimate
from sgpa_jax.games import Game

SIZES = (12, 16, 20)
FACTORS = (1, 3, 10)
N_GAMES = {12: 4, 16: 2, 20: 1}
N_SPOKEN = {12: 20, 16: 2, 20: 0}
N_SLOW = {12: 1, 16: 0, 20: 0}
COLUMNS = ("case", "budget", "n", "ours", "ours_mse", "best", "best_mse", "peer", "peer_mse", "ratio")

Method = Callable[[Callable[[np.ndarray], np.ndarray], int, int, int], np.ndarray]
Errors = dict[str, list[float]]
"""By method, of each game; not a number where a method needs a larger budget."""


def main() -> None:
    """Estimate every game by every method at every budget."""
    options = parser(__doc__)
    options.add_argument("--tables", type=Path, metavar="DIR", help="keeps what the utterances' coalitions are worth")
    options.add_argument("--absence", default="attention", help="what an absent word is")
    options.add_argument("--plot", type=Path, metavar="FILE", help="also draw the errors")
    arguments = options.parse_args()
    rows: list[Row] = []
    for case, n_players, games in _cases(arguments):
        for budget in sorted(factor * n_players**2 for factor in FACTORS if factor * n_players**2 < 2**n_players):
            fast = _errors({**_ours(), **quick_peers()}, games, n_players, budget, arguments.seed)
            rows.append(_row(f"{case}, n={n_players}", budget, n_players, fast, quick_peers()))
            few = N_SLOW[n_players]
            if few and not arguments.quick:
                slow = _errors(slow_peers(), games[:few], n_players, budget, arguments.seed)
                first = {name: fast[name][:few] for name in _ours()}
                rows.append(_row(f"{case}, n={n_players}, first {few}", budget, n_players, first | slow, slow_peers()))
    report("estimators", rows, arguments, columns=COLUMNS)
    if arguments.plot is not None:
        _plot(rows, arguments.plot)


def _cases(arguments: argparse.Namespace) -> Iterator[tuple[str, int, Sequence[Table]]]:
    for n_players in SIZES[:1] if arguments.quick else SIZES:
        for family, table in FAMILIES.items():
            games = [table(n_players, 1000 * arguments.seed + number) for number in range(N_GAMES[n_players])]
            yield family, n_players, games[:2] if arguments.quick else games
        n_spoken = 2 if arguments.quick else N_SPOKEN[n_players]
        if n_spoken:
            from _real_tables import speech_tables  # asks for the synthesisers

            options = {"absence": arguments.absence, "folder": arguments.tables}
            yield "speech", n_players, list(speech_tables(n_players, n_spoken, arguments.seed, **options))


def _ours() -> dict[str, Method]:
    """Return our estimators by name."""

    def method(name: str) -> Method:
        def solve(values: Callable[[np.ndarray], np.ndarray], n_players: int, budget: int, seed: int) -> np.ndarray:
            game = Game(values, n_players, jit=False)
            return estimate(game, name, budget=budget, key=jax.random.key(seed)).values_pk[:, 0]

        return solve

    return {name: method(name) for name in ESTIMATORS if name != "exact"}


def _errors(methods: Mapping[str, Method], games: Sequence[Table], n_players: int, budget: int, seed: int) -> Errors:
    found: Errors = defaultdict(list)
    for number, table_n in enumerate(games):
        exact_p = exact_shapley(table_n)
        scale = np.square(exact_p).mean()
        if scale == 0:
            continue
        for name, method in methods.items():
            try:
                value_p = method(lookup(table_n), n_players, budget, 7919 * seed + number)
            except BudgetError:
                error = float("nan")
            except ValueError as refused:
                # SPEX says so when a budget is too small for it.
                if "budget" not in str(refused):
                    raise
                error = float("nan")
            else:
                error = float(np.square(value_p - exact_p).mean() / scale)
            found[name].append(error)
    return dict(found)


def _row(case: str, budget: int, n_players: int, errors: Errors, theirs: Mapping[str, object]) -> Row:
    mse = {name: statistics.fmean(of_games) for name, of_games in errors.items()}
    ours = choose_estimator("auto", n_players, budget)
    best = min((name for name in mse if name not in theirs), key=lambda name: _or_infinite(mse[name]))
    peer = min((name for name in mse if name in theirs), key=lambda name: _or_infinite(mse[name]))
    return {
        "case": case,
        "budget": budget,
        "n": n_players,
        "games": len(errors[ours]),
        "ours": ours,
        "ours_mse": mse[ours],
        "best": best,
        "best_mse": mse[best],
        "peer": peer,
        "peer_mse": mse[peer],
        "ratio": mse[peer] / mse[ours],
        "all": mse,
    }


def _or_infinite(error: float) -> float:
    return float("inf") if np.isnan(error) else error


def _plot(rows: Sequence[Row], path: Path) -> None:
    """Draw error over budget: a row of panels for each number of players, a column for each family."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shown = [row for row in rows if "first" not in str(row["case"])]
    families = list(dict.fromkeys(str(row["case"]).split(",")[0] for row in shown))
    sizes = sorted({int(str(row["n"])) for row in shown})
    figure, axes = pyplot.subplots(
        len(sizes), len(families), figsize=(2.4 * len(families), 2.0 * len(sizes)), squeeze=False, layout="constrained"
    )
    for axis_f, n_players in zip(axes, sizes, strict=True):
        for axis, family in zip(axis_f, families, strict=True):
            mine = [row for row in shown if row["case"] == f"{family}, n={n_players}"]
            if not mine:
                axis.set_axis_off()
                continue
            axis.set_title(f"{family}, n={n_players}", fontsize=8)
            for name in dict.fromkeys(name for row in mine for name in row["all"]):  # pyright: ignore[reportAttributeAccessIssue, reportGeneralTypeIssues]
                is_peer = name in quick_peers()
                axis.loglog(
                    [row["budget"] for row in mine],
                    [row["all"][name] for row in mine],  # pyright: ignore[reportIndexIssue]
                    color="0.7" if is_peer else f"C{ESTIMATORS.index(name) - 1}",
                    linewidth=0.8 if is_peer else 1.3,
                    linestyle=":" if is_peer else "-",
                    label="peers" if is_peer else name,
                )
            axis.minorticks_off()
            axis.set_xticks([row["budget"] for row in mine], [str(row["budget"]) for row in mine])
            axis.tick_params(labelsize=6)
    handles = {
        label: handle for axis in axes.flat for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=5, fontsize=7)
    figure.supylabel("mean squared error, relative, by evaluations", fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
