"""The clips that a latent is most and least about, with controls for chance, for ties and for length.

Most clips have a score of zero for most latents of a TopK autoencoder, so that the least representative clips are a
draw: a seeded one here, of its own for every latent. Short clips of one source win by r (means over tokens), so that
the least representative clips can be drawn with the durations of the most representative ones. The random baseline is
`top_clips` of scores that are all zero. Axes: `N` clips, `M` latents, `P` clips of a latent.
"""

import functools
from collections import Counter
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from sgpa_jax.concepts.clips import ClipScores
from sgpa_jax.errors import UsageError
from sgpa_jax.typing import PRNGKeyArray

_LATENTS_AT_ONCE = 64
_PARTS_OF_OCTAVE = 3


def top_clips(
    score_nm: Float[np.ndarray, "N M"], p: int = 4, *, key: PRNGKeyArray | None = None
) -> Int[np.ndarray, "M P"]:
    """Numbers of the p clips with the highest scores, highest first; ties as drawn from `key`, else in clips' order.

    Raises:
        UsageError: there are fewer than p clips.
    """
    return _chosen(score_nm, p, key)


def bottom_clips(score_nm: Float[np.ndarray, "N M"], p: int = 4, *, key: PRNGKeyArray) -> Int[np.ndarray, "M P"]:
    """Numbers of the p clips with the lowest scores, lowest first; ties as drawn from `key` for every latent.

    Raises:
        UsageError: there are fewer than p clips.
    """
    return _chosen(-np.asarray(score_nm), p, key)


def matched_bottom_clips(
    score_nm: Float[np.ndarray, "N M"],
    top_mp: Int[np.ndarray, "M P"],
    seconds_n: Float[np.ndarray, " N"],
    *,
    key: PRNGKeyArray,
) -> Int[np.ndarray, "M P"]:
    """For every one of a latent's top clips another one as long: the lowest score of its third of an octave.

    No clip is taken twice or from the top clips; where the third is used up, the nearest that is not serves.

    Raises:
        UsageError: there are fewer than twice as many clips.
    """
    n_clips, p = len(score_nm), top_mp.shape[1]
    if n_clips < 2 * p:
        raise UsageError(f"{n_clips} clips are too few to set {p} against {p} others; give more clips or a smaller p")
    bin_n = np.floor(_PARTS_OF_OCTAVE * np.log2(np.maximum(seconds_n, 1e-3))).astype(np.int32)
    found = _matched(jnp.asarray(score_nm, jnp.float32), jnp.asarray(top_mp), jnp.asarray(bin_n), key)
    return np.asarray(found)


def split_half_overlap(
    first: ClipScores, second: ClipScores, p: int = 4, *, scorer: str = "representativeness"
) -> Float[np.ndarray, " M"]:
    """Jaccard index of a latent's p top clips by one random half of every clip's tokens and by the other.

    Not a number for latents that fire in fewer than p clips of either half (`half_scores`).
    """
    pairs = zip(top_clips(first.by(scorer), p), top_clips(second.by(scorer), p), strict=True)
    overlap_m = np.array([len(common := {*a} & {*b}) / (2 * p - len(common)) for a, b in pairs])
    return np.where(np.minimum(first.n_firing_m, second.n_firing_m) >= p, overlap_m, np.nan)


def label_precision(top_mp: Int[np.ndarray, "M P"], labels: Sequence[Sequence[str]]) -> Float[np.ndarray, " M"]:
    """Share of a latent's top clips that carry the label which most of them have."""
    counts = (Counter(label for n in top_p for label in set(labels[n])) for top_p in top_mp)
    return np.array([max(count.values(), default=0) / top_mp.shape[1] for count in counts])


def _chosen(score_nm: Float[np.ndarray, "N M"], p: int, key: PRNGKeyArray | None) -> Int[np.ndarray, "M P"]:
    n_clips = len(score_nm)
    if not 1 <= p <= n_clips:
        raise UsageError(f"{p} clips a latent cannot be chosen from {n_clips}; give more clips, or another p")
    score_mn = jnp.asarray(score_nm, jnp.float32).T
    if key is None:
        return np.asarray(jax.lax.top_k(score_mn, p)[1])
    return np.asarray(_largest(score_mn, key, p))


@functools.partial(jax.jit, static_argnums=2)
def _largest(score_mn: Float[Array, "M N"], key: PRNGKeyArray, p: int) -> Int[Array, "M P"]:
    def one(latent: tuple[Array, Array]) -> Array:
        # Of equal scores top_k takes the first: let that be the first of a drawn order.
        score_n, number = latent
        order_n = jax.random.permutation(jax.random.fold_in(key, number), len(score_n))
        return order_n[jax.lax.top_k(score_n[order_n], p)[1]]

    return jax.lax.map(one, (score_mn, jnp.arange(len(score_mn))), batch_size=min(_LATENTS_AT_ONCE, len(score_mn)))


@jax.jit
def _matched(
    score_nm: Float[Array, "N M"], top_mp: Int[Array, "M P"], bin_n: Int[Array, " N"], key: PRNGKeyArray
) -> Int[Array, "M P"]:
    def least(value_n: Array, free_n: Array) -> Array:
        """Which of the free ones have the least value."""
        worst = jnp.asarray(jnp.iinfo(value_n.dtype).max if value_n.dtype == jnp.int32 else jnp.inf, value_n.dtype)
        value_n = jnp.where(free_n, value_n, worst)
        return free_n & (value_n == value_n.min())

    def one(latent: tuple[Array, Array, Array]) -> Array:
        score_n, top_p, number = latent
        lot_n = jax.random.permutation(jax.random.fold_in(key, number), len(score_n)).astype(jnp.int32)

        def step(free_n: Array, like: Array) -> tuple[Array, Array]:
            near_n = least(jnp.abs(bin_n - bin_n[like]), free_n)
            taken = jnp.argmax(least(lot_n, least(score_n, near_n)))
            return free_n.at[taken].set(False), taken

        free_n = jnp.ones(len(score_n), bool).at[top_p].set(False)
        return jax.lax.scan(step, free_n, top_p)[1]

    return jax.lax.map(
        one, (score_nm.T, top_mp, jnp.arange(len(top_mp))), batch_size=min(_LATENTS_AT_ONCE, len(top_mp))
    )
