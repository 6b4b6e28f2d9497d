"""How often do 95 % intervals hold the exact value, far from knowing all coalitions?

Every estimator estimates six games of known answers again and again with other keys, and its t-intervals are counted
that hold the value. Owen values have groups of three players. Columns: the `estimator` and its `estimand`, the `game`,
`n` players, `budget`, `repetitions`, `covered` (the mean over players), `least` (the player that is covered least),
`sampling_error` (of `covered`: the standard deviation of a mean over repetitions), `relative_bias` (root mean square
over players of the mean error, as a share of the true spread), and `spread_ratio` (root mean square told over that
found: below 1, errors are told too small).
"""

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _harness import Row, parser, report
from scipy.special import stdtrit
from sgpa_kernels import exact_banzhaf, exact_shapley

from sgpa_jax.estimators import exact_owen
from sgpa_jax.estimators.methods import METHODS, method_for
from sgpa_jax.players import all_coalitions

N_PLAYERS = 12
GROUPS = tuple(player // 3 for player in range(N_PLAYERS))
CHUNK = 250
EXACT: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "shapley": exact_shapley, "banzhaf": exact_banzhaf, "owen": partial(exact_owen, groups=GROUPS),
}  # fmt: skip
COLUMNS = (
    "estimator", "estimand", "game", "budget", "repetitions", "covered", "least", "sampling_error", "relative_bias",
    "spread_ratio",
)  # fmt: skip


def main() -> None:
    """Count, for every estimator and estimand."""
    options = parser(__doc__)
    sampling = [name for name in METHODS if name != "exact"]
    options.add_argument("--estimators", nargs="+", choices=sampling, default=sampling, metavar="NAME")
    options.add_argument("--repetitions", type=int, default=2000, help="a multiple of 250 (default: 2000)")
    options.add_argument("--per-player", type=int, default=10, help="evaluations for each player (default: 10)")
    arguments = options.parse_args()
    report("intervals", list(_rows(arguments)), arguments, columns=COLUMNS)


def games(n_players: int, seed: int) -> dict[str, np.ndarray]:
    """Return games of known answers: the worth of all coalitions, float64[2^P]."""
    rng = np.random.default_rng(seed)
    masks_np = all_coalitions(n_players).astype(np.float64)
    unanimity_n = np.zeros(len(masks_np))
    for _ in range(20):
        unanimity_n += rng.normal() * masks_np[:, rng.choice(n_players, rng.integers(1, 6), replace=False)].prod(axis=1)
    pair_pp, triple_ppp = rng.normal(size=(n_players,) * 2), rng.normal(size=(n_players,) * 3) / 4
    cubic_n = np.einsum("np,nq,pq->n", masks_np, masks_np, pair_pp, optimize=True)
    cubic_n += np.einsum("np,nq,nr,pqr->n", masks_np, masks_np, masks_np, triple_ppp, optimize=True)
    weights_p = rng.integers(1, 10, n_players)
    half = n_players // 2 - 1
    return {
        "glove": np.minimum(masks_np[:, :half].sum(axis=1), masks_np[:, half:].sum(axis=1)),
        "airport": (masks_np * np.sort(rng.integers(1, 10, n_players))).max(axis=1),
        "unanimity": unanimity_n,
        "cubic": cubic_n,
        "majority": (masks_np @ weights_p > weights_p.sum() / 2).astype(np.float64),
        "log-sigmoid": -np.log1p(np.exp(2 - masks_np @ rng.normal(0.5, 1, n_players))),
    }


def _rows(arguments: argparse.Namespace) -> Iterator[Row]:
    budget = arguments.per_player * N_PLAYERS
    repetitions = CHUNK if arguments.quick else arguments.repetitions
    keys = jax.random.split(jax.random.key(arguments.seed + 7), repetitions).reshape(-1, CHUNK)
    for name in arguments.estimators:
        for estimand in dict.fromkeys(estimand for kind in METHODS[name] for estimand in kind.estimands):
            method = method_for(name, estimand, GROUPS if estimand == "owen" else None, N_PLAYERS, budget)
            for game, table_n in games(N_PLAYERS, arguments.seed).items():
                with jax.enable_x64(True):
                    found = [_repeat(method, chunk, jnp.asarray(table_n / table_n.std())) for chunk in keys]
                values_rp, errors_rp, free_r = (np.concatenate(parts) for parts in zip(*found, strict=True))
                exact_p = EXACT[estimand](table_n / table_n.std())
                yield {
                    "estimator": name, "estimand": estimand, "game": game, "n": N_PLAYERS, "budget": budget,
                    "repetitions": repetitions, **_counted(values_rp, errors_rp, free_r, exact_p),
                }  # fmt: skip


@partial(jax.jit, static_argnums=0)
def _repeat(method: Any, keys: Any, table_n: Any) -> Any:
    """Return what a method finds with each key: values and errors [R, P], degrees of freedom [R]."""

    def once(key):
        state = method.init(key)
        for _ in range(method.n_proposals):
            masks_cp = method.propose(state)
            rows_c = (masks_cp.astype(jnp.int32) @ (1 << jnp.arange(N_PLAYERS, dtype=jnp.int32))[:, None])[:, 0]
            state = method.update(state, masks_cp, table_n[rows_c][:, None])
        found = method.estimate(state)
        return found.values_pk[:, 0], found.standard_errors_pk[:, 0], jnp.asarray(found.degrees_of_freedom)

    return jax.lax.map(once, keys)


def _counted(values_rp: np.ndarray, errors_rp: np.ndarray, free_r: np.ndarray, exact_p: np.ndarray) -> Row:
    off_rp = values_rp - exact_p
    quantile_r = stdtrit(np.minimum(free_r, 1e6).astype(np.float64), 0.975)
    # A player who never adds anything is worth nothing but for rounding.
    held_rp = abs(off_rp) <= quantile_r[:, None] * errors_rp + 1e-12
    spread_p = values_rp.std(axis=0)
    return {
        "covered": held_rp.mean(),
        "least": held_rp.mean(axis=0).min(),
        "sampling_error": held_rp.mean(axis=1).std() / np.sqrt(len(held_rp)),
        "relative_bias": np.sqrt(np.square(off_rp.mean(axis=0)).sum() / np.square(spread_p).sum()),
        "spread_ratio": np.sqrt(np.square(errors_rp).mean(axis=0).sum() / np.square(off_rp).mean(axis=0).sum()),
    }


if __name__ == "__main__":
    main()
