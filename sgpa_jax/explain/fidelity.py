"""Do the numbers of an attribution foretell what the game does? Infidelity, and monotonicity in two readings.

Rankings are judged in `faithfulness`; here the values themselves are. Any game of the same players and outputs may
judge, whichever was explained. Axes: `P` players, `K` outputs, `C` coalitions.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from sgpa_jax.errors import UsageError
from sgpa_jax.explain.stability import spearman
from sgpa_jax.explain.statistics import generator
from sgpa_jax.games import Game
from sgpa_jax.typing import PRNGKeyArray


class Infidelity(NamedTuple):
    """How far an attribution's sums are from the game's losses.

    Attributes:
        squared_error_k: float64[K], mean (Σ_{i absent} φ_i − (v(N) − v(S)))²; 0 for additive games, low is faithful.
        unexplained_k: float64[K], the same after the best common factor on φ, as a share of the mean squared loss, in
            [0, 1]: what is left when another game, of another unit, judges; nan where no coalition loses anything.
    """

    squared_error_k: Float[np.ndarray, "K"]
    unexplained_k: Float[np.ndarray, "K"]


class Monotonicity(NamedTuple):
    """Whether more important players matter more.

    Attributes:
        correlation_k: float64[K], Spearman's correlation of φ_i and the loss v(N) − v(N∖i) without i alone (after
            Nguyen and Martínez 2020); nan where either is the same for all.
        agreeing_k: float64[K], the share of players that move v to the side of their sign, or not at all, when they
            come back in the order of |φ|, the least first; 1 is what Luss et al. 2021 call monotonic.
    """

    correlation_k: Float[np.ndarray, "K"]
    agreeing_k: Float[np.ndarray, "K"]


def infidelity(game: Game, values_pk: Float[np.ndarray, "P K"], *, n_draws: int = 256, key: PRNGKeyArray) -> Infidelity:
    """Return the infidelity of Yeh et al. 2019 when players are absent: their number uniform in 1 … P, then who.

    Args:
        game: what judges, in one request.
        values_pk: attributions of its outputs.
        n_draws: coalitions, with repetitions.
        key: a typed key (`jax.random.key`): with the same one, attributions of equally many players are judged by the
            same coalitions.

    Raises:
        UsageError: the values are not finite float[P, K] of the game, or there is no draw.
    """
    values_pk = _checked(game, values_pk)
    masks_cp = _draw_coalitions(game.n_players, n_draws, key)
    outcome_ck = game.values(np.concatenate([np.ones((1, game.n_players), bool), masks_cp])).astype(np.float64)
    loss_ck = outcome_ck[:1] - outcome_ck[1:]
    foretold_ck = (~masks_cp).astype(np.float64) @ values_pk
    losses_k, foretold_k = np.square(loss_ck).sum(axis=0), np.square(foretold_ck).sum(axis=0)
    both_k = (loss_ck * foretold_ck).sum(axis=0)
    explained_k = np.square(both_k) / np.where(foretold_k > 0, foretold_k, 1)
    unexplained_k = np.clip(1 - explained_k / np.where(losses_k > 0, losses_k, 1), 0, 1)
    return Infidelity(np.square(foretold_ck - loss_ck).mean(axis=0), np.where(losses_k > 0, unexplained_k, np.nan))


def monotonicity(game: Game, values_pk: Float[np.ndarray, "P K"]) -> Monotonicity:
    """Return whether players of larger values change more, taken away alone and brought back one after the other.

    Args:
        game: what judges, in one request.
        values_pk: attributions of its outputs; each output has a ranking of its own.

    Raises:
        UsageError: the values are not finite float[P, K] of the game.
    """
    values_pk = _checked(game, values_pk)
    n_players, n_outputs = values_pk.shape
    alone_cp = np.concatenate([np.ones((1, n_players), bool), ~np.eye(n_players, dtype=bool)])
    order_pk = np.argsort(np.abs(values_pk), axis=0, kind="stable")
    place_pk = np.argsort(order_pk, axis=0)
    back_knp = place_pk.T[:, None, :] < np.arange(n_players + 1)[None, :, None]
    outcome_ck = game.values(np.concatenate([alone_cp, back_knp.reshape(-1, n_players)])).astype(np.float64)
    loss_pk = outcome_ck[:1] - outcome_ck[1 : n_players + 1]
    path_knk = outcome_ck[n_players + 1 :].reshape(n_outputs, n_players + 1, n_outputs)
    gain_pk = np.diff(np.diagonal(path_knk, axis1=0, axis2=2), axis=0)
    agrees_pk = gain_pk * np.sign(np.take_along_axis(values_pk, order_pk, axis=0)) >= 0
    return Monotonicity(spearman(values_pk.T, loss_pk.T), agrees_pk.mean(axis=0))


def _draw_coalitions(n_players: int, n_draws: int, key: PRNGKeyArray) -> Bool[np.ndarray, "C P"]:
    if n_draws < 1:
        raise UsageError(f"{n_draws} coalitions to judge by: expected at least 1")
    # Row by row from one stream: more draws begin with the same ones.
    uniform = generator(key).random((n_draws, n_players + 1))
    n_absent_c = 1 + np.floor(uniform[:, 0] * n_players)
    place_cp = np.argsort(np.argsort(uniform[:, 1:], axis=1), axis=1)
    return place_cp >= n_absent_c[:, None]


def _checked(game: Game, values_pk: Any) -> Float[np.ndarray, "P K"]:
    values_pk = np.asarray(values_pk, np.float64)
    if values_pk.shape != (game.n_players, game.n_outputs) or not np.isfinite(values_pk).all():
        raise UsageError(
            f"values of shape {list(values_pk.shape)}, not all finite or for a game of {game.n_players} players and "
            f"{game.n_outputs} outputs: expected finite float[{game.n_players}, {game.n_outputs}]"
        )
    return values_pk
