"""What steering along a concept is compared with, all pushes of one norm: what else would have done, or done nothing.

As many random latents that fire about as often, the difference of two classes' means, the raw dimension of the residual
stream in which they differ most (AR&D's "Poly. Feats.") and as many of these, the concept's own push backwards, and the
reconstruction alone. Axes: `N` clips, `T` tokens, `D` width, `M` latents, `K` latents of the concept.
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


def concept_shares(seen: Activity, latents: Sequence[int], is_target_n: np.ndarray) -> Float[np.ndarray, " K"]:
    """Return how far each latent of a concept is turned, 1 in all: how much more it fires in target clips.

    One that fires less there, as those of the opposite concept do, is turned down: its share is negative. A latent that
    is alone is turned up, whatever it does.

    Raises:
        UsageError: no latents, one that there is not, none that fires, or all of several fire alike in both classes.
    """
    n_latents = len(seen.density_m)
    outside = [m for m in latents if not 0 <= m < n_latents]
    if not len(latents):
        raise UsageError("a concept without latents was to be turned: expected one at least")
    if outside or not seen.density_m[list(latents)].any():
        latent = [*outside, *latents][0]
        raise UsageError(f"latent {latent} of {n_latents} never fires on the clips given; choose another")
    if len(latents) == 1:
        return np.ones(1)
    mean_nk = seen.mean_nm[:, list(latents)]
    more_k = mean_nk[is_target_n].mean(axis=0) - mean_nk[~is_target_n].mean(axis=0)
    if not more_k.any():
        raise UsageError(
            f"the latents {', '.join(map(str, latents))} fire alike in clips of both classes; choose others"
        )
    return more_k / np.abs(more_k).sum()


def methods(
    sae: SAEState,
    latents: Sequence[int],
    share_k: Float[np.ndarray, " K"],
    seen: Activity,
    is_target_n: np.ndarray,
    *,
    key: PRNGKeyArray,
) -> dict[str, Method]:
    """Return how to steer along a concept, and the controls; every push has the norm of the concept's at its p99.

    A concept's direction is that of its latents by their shares, its 99th percentile theirs by the size of these.

    Args:
        sae: takes the residual stream's own numbers.
        latents, share_k: those of the concept, and their `concept_shares`.
        seen: what clips of both classes do, none of which is steered afterwards.
        is_target_n: which of them are of the class to be steered to; the others are of the one to be steered from.
        key: draws the random latents.

    Raises:
        UsageError: fewer others fire.
    """
    rows_md = np.asarray(sae.w_dec_md)
    own_d, p99 = share_k @ rows_md[list(latents)], float(np.abs(share_k) @ seen.p99_m[list(latents)])
    norm = p99 * float(np.linalg.norm(own_d))
    means = [seen.mean_nd[is_target_n == flag] for flag in (True, False)]
    apart_d = means[0].mean(axis=0) - means[1].mean(axis=0)
    spread_d = np.sqrt(sum(part.var(axis=0) for part in means) / 2)
    dimensions = np.argsort(-np.abs(apart_d) / np.maximum(spread_d, 1e-12))[: len(latents)]
    others = _alike(seen.density_m, latents, key=key)
    pushes = {
        _told("random latent", others): share_k @ rows_md[others],
        "difference of means": apart_d,
        _told("raw dimension", dimensions[:1]): _only(apart_d, dimensions[:1]),
        _told("raw dimension", dimensions): _only(apart_d, dimensions),
    }
    own = Push(jnp.asarray(own_d, jnp.float32))
    replaced = LatentEdit(sae, jnp.asarray(latents), jnp.asarray(share_k, jnp.float32), mode="replace")
    return {
        "concept": Method(own, p99),
        "concept, replace": Method(replaced, p99),
        "reconstruction alone": Method(replaced, 0.0),
        "concept backwards": Method(own, -p99),
    } | {name: Method(Push(jnp.asarray(_unit(push_d), jnp.float32)), norm) for name, push_d in pushes.items()}


def _unit(push_d: np.ndarray) -> np.ndarray:
    return push_d / max(float(np.linalg.norm(push_d)), 1e-12)


def _only(push_d: np.ndarray, dimensions: np.ndarray) -> np.ndarray:
    kept_d = np.zeros_like(push_d)
    kept_d[dimensions] = push_d[dimensions]
    return kept_d


def _told(what: str, numbers: np.ndarray) -> str:
    return f"{what} {numbers[0]}" if len(numbers) == 1 else f"{len(numbers)} {what}s"


def _alike(density_m: np.ndarray, latents: Sequence[int], *, key: PRNGKeyArray) -> np.ndarray:
    """Draw, for each of some latents, another one of those that fire about as often."""
    alive = np.flatnonzero(density_m > 0)
    left = alive[~np.isin(alive, latents)]
    if len(left) < len(latents):
        raise UsageError(
            f"only {len(left)} latents but the {len(latents)} chosen ever fire on the clips given; give more clips"
        )
    drawn: list[int] = []
    for latent, one_key in zip(latents, jax.random.split(key, len(latents)), strict=True):
        far = np.abs(np.log(density_m[left]) - np.log(max(density_m[latent], 1e-12)))
        nearest = left[np.argsort(far, kind="stable")[:_ALIKE]]
        drawn.append(int(nearest[int(jax.random.randint(one_key, (), 0, len(nearest)))]))
        left = left[left != drawn[-1]]
    return np.array(drawn)
