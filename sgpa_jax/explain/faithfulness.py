"""Does the ranking of an attribution matter to the model? Players are taken away or brought back in its order.

Deletion and insertion curves follow Petsiuk et al. 2018 (RISE), comprehensiveness and sufficiency DeYoung et al. 2020
(ERASER). Taking away much of a recording hurts whatever it was, so each is set beside random choices *of the same
duration*. A game judges: not necessarily the one that was explained, so that a value function is not its own witness.

Rankings are by value, largest first: who raises the output most. Give |φ| to rank by size instead, as the SGPA authors
do. Axes: `P` players, `K` outputs of the judging game, `N` = P + 1 steps, `D` random draws, `O` orders, `Q` fractions.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from sgpa_jax.errors import UsageError
from sgpa_jax.explain.statistics import generator
from sgpa_jax.games import Game
from sgpa_jax.typing import PRNGKeyArray

DRAWS = 20
FRACTIONS = (0.1, 0.2, 0.5)
"""Those of ERASER's that are different numbers of players in a sentence."""


@dataclass(frozen=True, eq=False)
class RankCurves:
    """What is left of the outputs while players go or come in the order of a ranking.

    Attributes:
        share_n: float64[N], share of the whole duration in the first n players of the ranking, from 0 to 1.
        deletion_nk: float64[N, K], v without the first n players; low is faithful.
        insertion_nk: float64[N, K], v of the first n players alone; high is faithful.
        deletion_area_k, insertion_area_k: float64[K], areas under the curves over `share_n`, in the unit of v.
        random_deletion_area_dk, random_insertion_area_dk: float64[D, K], the same of random orders: at equal places the
            curves have taken away or brought back equally long players.
    """

    share_n: Float[np.ndarray, "N"]
    deletion_nk: Float[np.ndarray, "N K"]
    insertion_nk: Float[np.ndarray, "N K"]
    deletion_area_k: Float[np.ndarray, "K"]
    insertion_area_k: Float[np.ndarray, "K"]
    random_deletion_area_dk: Float[np.ndarray, "D K"]
    random_insertion_area_dk: Float[np.ndarray, "D K"]


@dataclass(frozen=True, eq=False)
class Erasure:
    """What the first players of a ranking are worth together; see `erasure`.

    Attributes:
        fractions: of the players.
        n_taken_q: int64[Q], how many players that is.
        comprehensiveness_qk: float64[Q, K], v(N) − v(all others): high is faithful.
        sufficiency_qk: float64[Q, K], v(N) − v(these alone): low is faithful.
        random_comprehensiveness_dqk, random_sufficiency_dqk: float64[D, Q, K], of random players as long together.
    """

    fractions: tuple[float, ...]
    n_taken_q: Int[np.ndarray, "Q"]
    comprehensiveness_qk: Float[np.ndarray, "Q K"]
    sufficiency_qk: Float[np.ndarray, "Q K"]
    random_comprehensiveness_dqk: Float[np.ndarray, "D Q K"]
    random_sufficiency_dqk: Float[np.ndarray, "D Q K"]


def rank_curves(
    game: Game,
    values_p: Float[np.ndarray, "P"],
    durations_p: Float[np.ndarray, "P"] | None = None,
    *,
    n_draws: int = DRAWS,
    key: PRNGKeyArray,
) -> RankCurves:
    """Take players away, and bring them back, in the order of their values, and in random orders for comparison.

    Over durations it is value per second that makes a curve steep: of two players of the same value the shorter does.

    Args:
        game: what judges; every coalition goes to it in one request.
        values_p: one output's attribution; all outputs of the game are followed along its ranking.
        durations_p: of the players, in any unit; None: all count the same, as where text takes part.
        n_draws: D, random orders.
        key: a typed key (`jax.random.key`) for them: with the same one, rankings of equally many players have the same
            rivals.

    Raises:
        UsageError: values or durations are not finite, not one for each player of the game, or not above zero.
    """
    values_p, durations_p = _checked(game, values_p, durations_p)
    order_op = np.concatenate([ranking(values_p)[None], _random_orders(len(values_p), n_draws, key)])
    share_on = _shares_taken(order_op, durations_p)
    first_onp = _first_players(order_op)
    n_orders, n_steps, n_players = first_onp.shape
    masks_cp = np.concatenate([~first_onp, first_onp]).reshape(-1, n_players)
    values_honk = _values(game, masks_cp).reshape(2, n_orders, n_steps, -1)
    deletion_onk, insertion_onk = values_honk
    deletion_area_ok, insertion_area_ok = np.trapezoid(values_honk, share_on[None, :, :, None], axis=2)
    return RankCurves(
        share_n=share_on[0],
        deletion_nk=deletion_onk[0],
        insertion_nk=insertion_onk[0],
        deletion_area_k=deletion_area_ok[0],
        insertion_area_k=insertion_area_ok[0],
        random_deletion_area_dk=deletion_area_ok[1:],
        random_insertion_area_dk=insertion_area_ok[1:],
    )


def erasure(
    game: Game,
    values_p: Float[np.ndarray, "P"],
    durations_p: Float[np.ndarray, "P"] | None = None,
    *,
    fractions: Sequence[float] = FRACTIONS,
    n_draws: int = DRAWS,
    key: PRNGKeyArray,
) -> Erasure:
    """Take away, and keep alone, the first max(1, ⌈fraction · P⌉) players of a ranking.

    Their rivals begin a random order, with the number of players that comes nearest to the same duration. The mean over
    fractions is what ERASER calls the area over the perturbation curve.

    Args:
        game: what judges; every coalition goes to it in one request.
        values_p: one output's attribution.
        durations_p: of the players, in any unit; None: all count the same.
        fractions: each above 0 and at most 1.
        n_draws: D, random orders.
        key: a typed key (`jax.random.key`) for them.

    Raises:
        UsageError: values or durations are not finite, not one for each player of the game, or not above zero, or a
            fraction is out of its range.
    """
    values_p, durations_p = _checked(game, values_p, durations_p)
    if not fractions or not all(0 < fraction <= 1 for fraction in fractions):
        raise UsageError(f"fractions {list(fractions)} of the players: expected some above 0 and at most 1")
    n_players = len(values_p)
    # A product such as 0.28 · 25 is a little more than the whole number that is meant.
    n_taken_q = np.array([max(1, math.ceil(round(fraction * n_players, 9))) for fraction in fractions])
    order_op = np.concatenate([ranking(values_p)[None], _random_orders(n_players, n_draws, key)])
    share_on = _shares_taken(order_op, durations_p)
    distance_oqn = np.abs(share_on[:, None, 1:] - share_on[0, n_taken_q][None, :, None])
    steps_oq = 1 + np.argmin(distance_oqn.round(12), axis=2)
    taken_oqp = np.take_along_axis(_first_players(order_op), steps_oq[:, :, None], axis=1)
    everybody_p = np.ones((1, n_players), bool)
    masks_cp = np.concatenate([everybody_p, (~taken_oqp).reshape(-1, n_players), taken_oqp.reshape(-1, n_players)])
    values_ck = _values(game, masks_cp)
    loss_hoqk = (values_ck[:1] - values_ck[1:]).reshape(2, *steps_oq.shape, -1)
    comprehensiveness_oqk, sufficiency_oqk = loss_hoqk
    return Erasure(
        fractions=tuple(fractions),
        n_taken_q=n_taken_q,
        comprehensiveness_qk=comprehensiveness_oqk[0],
        sufficiency_qk=sufficiency_oqk[0],
        random_comprehensiveness_dqk=comprehensiveness_oqk[1:],
        random_sufficiency_dqk=sufficiency_oqk[1:],
    )


def evidence_hit(values_p: Float[np.ndarray, "P"], evidence: Iterable[int]) -> bool:
    """Whether each player of the evidence has a larger value than any other: one ranks first, two are the top two.

    A tie with somebody else is no hit: an attribution that tells nobody apart never finds anything.

    Raises:
        UsageError: there is no evidence, it is no index of a player, or a value is not finite.
    """
    values_p, indices = np.asarray(values_p, np.float64), sorted(set(evidence))
    if not indices or indices[0] < 0 or indices[-1] >= len(values_p) or not np.isfinite(values_p).all():
        raise UsageError(
            f"evidence {indices} among {len(values_p)} players: expected indices of players, and finite values"
        )
    is_evidence_p = np.isin(np.arange(len(values_p)), indices)
    return bool(values_p[is_evidence_p].min() > values_p[~is_evidence_p].max(initial=-np.inf))


def ranking(values_p: Float[np.ndarray, "P"]) -> Int[np.ndarray, "P"]:
    """Return the players by value, largest first; of equals the earlier player first."""
    return np.argsort(-np.asarray(values_p), kind="stable")


def _random_orders(n_players: int, n_draws: int, key: PRNGKeyArray) -> Int[np.ndarray, "D P"]:
    if n_draws < 0:
        raise UsageError(f"{n_draws} random draws: expected at least 0")
    # Row by row from one stream: more draws begin with the same ones.
    return np.argsort(generator(key).random((n_draws, n_players)), axis=1)


def _first_players(order_op: Int[np.ndarray, "O P"]) -> Bool[np.ndarray, "O N P"]:
    place_op = np.argsort(order_op, axis=1)
    return place_op[:, None, :] < np.arange(order_op.shape[1] + 1)[None, :, None]


def _shares_taken(order_op: Int[np.ndarray, "O P"], durations_p: Float[np.ndarray, "P"]) -> Float[np.ndarray, "O N"]:
    taken_op = np.cumsum(durations_p[order_op], axis=1)
    return np.pad(taken_op / taken_op[:, -1:], ((0, 0), (1, 0)))


def _values(game: Game, masks_cp: Bool[np.ndarray, "C P"]) -> Float[np.ndarray, "C K"]:
    return game.values(masks_cp).astype(np.float64)


def _checked(game: Game, values_p: Any, durations_p: Any) -> tuple[Float[np.ndarray, "P"], Float[np.ndarray, "P"]]:
    values_p = np.asarray(values_p, np.float64)
    durations_p = np.ones(len(values_p)) if durations_p is None else np.asarray(durations_p, np.float64)
    if not values_p.shape == durations_p.shape == (game.n_players,):
        raise UsageError(
            f"values {list(values_p.shape)} and durations {list(durations_p.shape)} for a game of {game.n_players} "
            "players: expected one of each a player"
        )
    if not (np.isfinite(values_p).all() and np.isfinite(durations_p).all() and (durations_p > 0).all()):
        raise UsageError("values or durations are not finite, or no player's duration is above zero: expected both")
    return values_p, durations_p
