"""What a linear probe finds in the residual stream itself: the ceiling of what its concepts can find, with labels.

Logistic regression, one class against the rest, on the mean of every clip's rows. Axes: `N` clips, `D` width,
`J` classes.
"""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from sgpa_jax.concepts.measures import Predictions, measured
from sgpa_jax.errors import UsageError
from sgpa_jax.sae import ActivationStore
from sgpa_jax.typing import PRNGKeyArray

_PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)
_FOLDS = 5
_MOST_STEPS = 200


@dataclass(frozen=True, eq=False)
class PooledClips:
    """Clips of a harvest as the means of their rows; clips without rows are left out."""

    ids: tuple[str, ...]
    labels: tuple[tuple[str, ...], ...]
    mean_nd: Float[np.ndarray, "N D"] = field(repr=False)


def pooled_clips(store: ActivationStore, layer: int) -> PooledClips:
    """Average the rows of every clip of a harvest.

    Raises:
        UsageError: the layer was not harvested.
    """
    store.check_layer(layer)
    heard = [row for row in store.index if row["tokens"] > 0]
    means, shard, rows_nd = [], -1, np.zeros((0, store.width))
    for row in heard:
        if row["shard"] != shard:
            shard, rows_nd = row["shard"], store.rows(row["shard"], layer).astype(np.float32)
        means.append(rows_nd[row["offset"] : row["offset"] + row["tokens"]].mean(axis=0))
    return PooledClips(
        tuple(row["clip"] for row in heard), tuple(tuple(row["labels"]) for row in heard), np.array(means)
    )


def linear_probe(
    dev_nd: Float[np.ndarray, "N D"],
    dev_true_nj: Bool[np.ndarray, "N J"],
    eval_nd: Float[np.ndarray, "N D"],
    *,
    key: PRNGKeyArray,
) -> tuple[Float[np.ndarray, "N J"], Float[np.ndarray, "N J"]]:
    """Scores of the development clips, each from a probe that did not see it, and of the evaluation clips, from all.

    The penalty is that of `_PENALTIES` with the best mAP over the folds.

    Raises:
        UsageError: there are fewer clips than folds.
    """
    n_clips = len(dev_nd)
    if n_clips < _FOLDS:
        raise UsageError(f"{n_clips} clips are too few for {_FOLDS} folds; give more")
    mean_d, scale_d = dev_nd.mean(axis=0), dev_nd.std(axis=0)
    scale_d = np.where(scale_d > 1e-6, scale_d, 1)
    dev_nd, eval_nd = ((part - mean_d) / scale_d for part in (dev_nd, eval_nd))
    folds = np.array_split(np.asarray(jax.random.permutation(key, n_clips)), _FOLDS)
    best: tuple[float, float, np.ndarray] | None = None
    for penalty in _PENALTIES:
        score_nj = np.zeros(dev_true_nj.shape)
        for fold in folds:
            rest = np.setdiff1d(np.arange(n_clips), fold)
            score_nj[fold] = _scores(_fitted(dev_nd[rest], dev_true_nj[rest], penalty), dev_nd[fold])
        found = measured(Predictions(score_nj, score_nj > 0, dev_true_nj, np.ones(dev_true_nj.shape[1], bool)))["mAP"]
        if best is None or found > best[0]:
            best = found, penalty, score_nj
    assert best is not None
    return best[2], _scores(_fitted(dev_nd, dev_true_nj, best[1]), eval_nd)


def _scores(weight_dj: Float[np.ndarray, "D1 J"], x_nd: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "N J"]:
    return x_nd @ weight_dj[:-1] + weight_dj[-1]


def _fitted(
    x_nd: Float[np.ndarray, "N D"], true_nj: Bool[np.ndarray, "N J"], penalty: float
) -> Float[np.ndarray, "D1 J"]:
    """Weights with the intercepts as their last row, by L-BFGS."""
    from scipy.optimize import minimize

    shape = (x_nd.shape[1] + 1, true_nj.shape[1])
    arrays = jnp.asarray(x_nd, jnp.float32), jnp.asarray(true_nj, jnp.float32), jnp.float32(penalty)

    def slope(flat: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope_dj = _loss(jnp.asarray(flat.reshape(shape), jnp.float32), *arrays)
        return float(value), np.asarray(slope_dj, np.float64).ravel()

    found = minimize(slope, np.zeros(shape).ravel(), jac=True, method="L-BFGS-B", options={"maxiter": _MOST_STEPS})
    return found.x.reshape(shape)


@jax.jit
@jax.value_and_grad
def _loss(weight_dj: Array, x_nd: Array, true_nj: Array, penalty: Array) -> Array:
    logit_nj = x_nd @ weight_dj[:-1] + weight_dj[-1:]
    entropy_nj = jax.nn.softplus(logit_nj) - true_nj * logit_nj
    return entropy_nj.mean(axis=0).sum() + penalty / 2 * (weight_dj[:-1] ** 2).sum()
