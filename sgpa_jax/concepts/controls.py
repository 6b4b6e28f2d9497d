"""What steering along a latent is compared with, all pushes of one norm: what else would have done, or done nothing.

A random latent that fires about as often, the difference of two classes' means, the raw dimension of the residual
stream in which they differ most (AR&D's "Poly. Feats."), the latent's own push backwards, and the reconstruction alone.
Axes: `N` clips, `T` tokens, `D` width, `M` latents.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PRNGKeyArray
from scipy.stats import rankdata

from sgpa_jax.concepts.edits import Edit, LatentEdit, Push
from sgpa_jax.errors import UsageError
from sgpa_jax.models import Model, ModelInputs
from sgpa_jax.sae import SAEState, audio_residuals, encode

_CLIPS_AT_ONCE = 8
_ALIKE = 16

_encode = jax.jit(encode)


class Method(NamedTuple):
    """A way to steer: at strength s the edit is given s times `unit`."""

    edit: Edit
    unit: float


class Activity(NamedTuple):
    """What clips do to a layer, on average, and to the latents there.

    Attributes:
        mean_nd: mean of the residual stream over a clip's audio positions.
        mean_nm: mean of the latents over them.
        density_m: share of all positions at which a latent fires.
        p99_m: 99th percentile of a latent where it fires; 0 where it never does.
    """

    mean_nd: Float[np.ndarray, "N D"]
    mean_nm: Float[np.ndarray, "N M"]
    density_m: Float[np.ndarray, " M"]
    p99_m: Float[np.ndarray, " M"]


def activity(model: Model, sae: SAEState, batch: Sequence[ModelInputs], after_layer: int) -> Activity:
    """Run clips up to a layer and encode their audio positions; `sae` takes the residual stream's own numbers."""
    means_d, means_m, rows = [], [], []
    for first in range(0, len(batch), _CLIPS_AT_ONCE):
        for found in audio_residuals(model, batch[first : first + _CLIPS_AT_ONCE], (after_layer,)):
            x_td = found[0].astype(np.float32)
            room = -len(x_td) % 64
            z_tm = np.asarray(_encode(sae, jnp.asarray(np.pad(x_td, ((0, room), (0, 0))))))[: len(x_td)]
            means_d.append(x_td.mean(axis=0))
            means_m.append(z_tm.mean(axis=0))
            rows.append(z_tm)
    z_tm = np.concatenate(rows)
    fires_tm = z_tm > 0
    p99_m = np.zeros(z_tm.shape[1])
    for latent in np.flatnonzero(fires_tm.any(axis=0)):
        p99_m[latent] = np.percentile(z_tm[fires_tm[:, latent], latent], 99)
    return Activity(np.stack(means_d), np.stack(means_m), fires_tm.mean(axis=0), p99_m)


def best_contrast(score_nm: Float[np.ndarray, "N M"], is_target_n: np.ndarray) -> tuple[int, float]:
    """Return the latent whose score tells target clips from the others best, and the area under its ROC curve.

    Raises:
        UsageError: there are not clips of both kinds.
    """
    if is_target_n.all() or not is_target_n.any():
        raise UsageError("all clips are of one class, so that nothing tells two apart; give clips of both")
    rank_nm, n_target = rankdata(score_nm, axis=0), int(is_target_n.sum())
    above_m = rank_nm[is_target_n].sum(axis=0) - n_target * (n_target + 1) / 2
    areas_m = above_m / (n_target * (len(is_target_n) - n_target))
    return int(np.argmax(areas_m)), float(np.max(areas_m))


def methods(
    sae: SAEState, latent: int, seen: Activity, is_target_n: np.ndarray, *, key: PRNGKeyArray
) -> dict[str, Method]:
    """Return how to steer along a latent, and the controls; every push has the norm of the latent's at its p99.

    Args:
        sae: takes the residual stream's own numbers.
        latent: which one.
        seen: what clips of both classes do, none of which is steered afterwards.
        is_target_n: which of them are of the class to be steered to; the others are of the one to be steered from.
        key: draws the random latent.

    Raises:
        UsageError: the latent never fires, or no other does.
    """
    if not 0 <= latent < sae.config.n_latents or seen.density_m[latent] == 0:
        raise UsageError(f"latent {latent} of {sae.config.n_latents} never fires on the clips given; choose another")
    rows_md, p99 = np.asarray(sae.w_dec_md), float(seen.p99_m[latent])
    norm = p99 * float(np.linalg.norm(rows_md[latent]))
    other = _alike(seen.density_m, latent, key=key)
    means = [seen.mean_nd[is_target_n == flag] for flag in (True, False)]
    apart_d = means[0].mean(axis=0) - means[1].mean(axis=0)
    spread_d = np.sqrt(sum(part.var(axis=0) for part in means) / 2)
    dimension = int(np.argmax(np.abs(apart_d) / np.maximum(spread_d, 1e-12)))
    raw_d = np.zeros_like(apart_d)
    raw_d[dimension] = np.sign(apart_d[dimension])
    own, mean = Push(jnp.asarray(rows_md[latent])), apart_d / max(float(np.linalg.norm(apart_d)), 1e-12)
    return {
        "latent": Method(own, p99),
        "latent, replace": Method(LatentEdit(sae, jnp.asarray(latent), mode="replace"), p99),
        "reconstruction alone": Method(LatentEdit(sae, jnp.asarray(latent), mode="replace"), 0.0),
        "latent backwards": Method(own, -p99),
        f"random latent {other}": Method(
            Push(jnp.asarray(rows_md[other])), norm / max(float(np.linalg.norm(rows_md[other])), 1e-12)
        ),
        "difference of means": Method(Push(jnp.asarray(mean)), norm),
        f"raw dimension {dimension}": Method(Push(jnp.asarray(raw_d)), norm),
    }


def _alike(density_m: np.ndarray, latent: int, *, key: PRNGKeyArray) -> int:
    """Draw one of the latents that fire about as often as another one."""
    alive = np.flatnonzero(density_m > 0)
    others = alive[alive != latent]
    if not len(others):
        raise UsageError(f"no latent but {latent} ever fires on the clips given; give more clips")
    far = np.abs(np.log(density_m[others]) - np.log(density_m[latent]))
    nearest = others[np.argsort(far, kind="stable")[:_ALIKE]]
    return int(nearest[int(jax.random.randint(key, (), 0, len(nearest)))])
