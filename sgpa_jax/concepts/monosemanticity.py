"""How much a latent's clips have in common, against its least representative ones, chance, and clips never looked at.

AR&D's score (arXiv 2602.22253) is m = (E_H − E_L) / σ: E is the mean cosine of the pairs of a set of clips, here of
unit embeddings of the most (H) and the least (L) representative ones; σ² is the mean of the two sets' variances over
pairs (unbiased). Choosing the best latents by m raises their mean m even where there is nothing to find, so it comes
with its null, the same latents with the clips' embeddings permuted, and with what those latents reach on the half of
the clips that they were not chosen on. The score of Pach et al. (arXiv 2504.02821), the mean cosine of all pairs
weighted by both clips' scores, has no p and no L. Axes: `N` clips, `M` latents, `P` clips of a latent, `E` width.
"""

from dataclasses import dataclass, field

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from sgpa_jax.concepts.retrieve import bottom_clips, top_clips
from sgpa_jax.errors import UsageError
from sgpa_jax.typing import PRNGKeyArray

_LEAST_SPREAD = 1e-6
_LATENTS_AT_ONCE = 4096


@dataclass(frozen=True, eq=False)
class Monosemanticity:
    """Scores of all latents, and of the best of them; not a number where a latent fires in fewer than p clips.

    Attributes:
        score_m: m of every latent.
        pach_m: of every latent, without sets.
        held_out_m: m on the half of the clips that a latent was not chosen on, where it was chosen on the other; the
            mean where on both.
        kept: the latents with the highest m, best first.
        all_alive, top: mean m of all latents, and of those kept.
        null_all, null_top: the same with permuted embeddings, means over permutations.
        p_all, p_top: share of permutations, this one with them, that reach what was found.
        held_out_top: mean m, on one half of the clips, of the latents with the highest m on the other half.
    """

    score_m: Float[np.ndarray, " M"] = field(repr=False)
    pach_m: Float[np.ndarray, " M"] = field(repr=False)
    held_out_m: Float[np.ndarray, " M"] = field(repr=False)
    kept: tuple[int, ...] = field(repr=False)
    n_alive: int
    all_alive: float
    top: float
    null_all: float
    null_top: float
    p_all: float
    p_top: float
    held_out_top: float

    def to_dict(self) -> dict[str, float]:
        """The figures over latents."""
        told: dict[str, float] = {"n_kept": len(self.kept)}
        names = ("n_alive", "all_alive", "top", "null_all", "null_top", "p_all", "p_top", "held_out_top")
        return told | {name: getattr(self, name) for name in names}


def monosemanticity(
    score_nm: Float[np.ndarray, "N M"],
    unit_ne: Float[np.ndarray, "N E"],
    top_mp: Int[np.ndarray, "M P"],
    bottom_mp: Int[np.ndarray, "M P"],
    *,
    n_keep: int = 5000,
    n_permutations: int = 100,
    key: PRNGKeyArray,
) -> Monosemanticity:
    """Score latents by the embeddings of their clips, and keep the best.

    Args:
        score_nm: representativeness of clips; a latent that is above zero in p of them is alive.
        unit_ne: embeddings of the clips, of norm one.
        top_mp, bottom_mp: the most and the least representative clips of every latent (`top_clips`, `bottom_clips`).
        n_keep: how many latents to keep at most; the paper keeps 5000 of 32,768.
        n_permutations: for the null.
        key: decides permutations, halves, and ties in these.

    Raises:
        UsageError: p is below 3, there are too few clips to be halved, too few embeddings, or no latent is alive.
    """
    n_clips, p = len(score_nm), top_mp.shape[1]
    if p < 3:
        raise UsageError(f"sets of {p} clips have one pair at most, whose cosines do not vary; give p of 3 at least")
    if len(unit_ne) != n_clips or n_clips < 4 * p:
        raise UsageError(
            f"{n_clips} clips with {len(unit_ne)} embeddings cannot be scored by sets of {p} on halves of the clips; "
            f"give at least {4 * p} clips with an embedding each"
        )
    unit_ne, fires_nm = np.asarray(unit_ne, np.float64), np.asarray(score_nm) > 0
    alive_m = fires_nm.sum(axis=0) >= p
    if not alive_m.any():
        raise UsageError(f"no latent fires in {p} clips; give more clips, or a smaller p")
    half_key, permutation_key = jax.random.split(key)
    score_m = np.where(alive_m, set_score(unit_ne, top_mp, bottom_mp), np.nan)
    kept = best(score_m, n_keep)
    draw = np.random.default_rng(np.asarray(jax.random.key_data(permutation_key)))
    null = []
    for _ in range(n_permutations):
        permuted_m = np.where(alive_m, set_score(unit_ne[draw.permutation(n_clips)], top_mp, bottom_mp), np.nan)
        null.append((np.nanmean(permuted_m), permuted_m[best(permuted_m, n_keep)].mean()))
    found = np.array([np.nanmean(score_m), score_m[kept].mean()])
    null_all, null_top = np.mean(null, axis=0)
    p_all, p_top = (1 + np.sum(np.array(null) >= found, axis=0)) / (1 + n_permutations)
    held_out_m, held_out_top = _held_out(score_nm, unit_ne, p, n_keep, half_key)
    return Monosemanticity(
        score_m=score_m,
        pach_m=pach_score(score_nm, unit_ne),
        held_out_m=held_out_m,
        kept=tuple(int(m) for m in kept),
        n_alive=int(alive_m.sum()),
        all_alive=float(found[0]),
        top=float(found[1]),
        null_all=float(null_all),
        null_top=float(null_top),
        p_all=float(p_all),
        p_top=float(p_top),
        held_out_top=held_out_top,
    )


def set_score(
    unit_ne: Float[np.ndarray, "N E"], top_mp: Int[np.ndarray, "M P"], bottom_mp: Int[np.ndarray, "M P"]
) -> Float[np.ndarray, " M"]:
    """AR&D's m of given sets of clips."""
    (high_m, high_spread_m), (low_m, low_spread_m) = (_cohesion(unit_ne, set_mp) for set_mp in (top_mp, bottom_mp))
    spread_m = np.sqrt((high_spread_m + low_spread_m) / 2)
    return (high_m - low_m) / np.maximum(spread_m, _LEAST_SPREAD)


def pach_score(score_nm: Float[np.ndarray, "N M"], unit_ne: Float[np.ndarray, "N E"]) -> Float[np.ndarray, " M"]:
    """Mean cosine of all pairs of clips, weighted by the product of both scores, which are scaled to [0, 1] before.

    Not a number for a latent whose clips are all alike but one at most.
    """
    found = []
    for first in range(0, np.shape(score_nm)[1], _LATENTS_AT_ONCE):
        part_nm = np.asarray(score_nm[:, first : first + _LATENTS_AT_ONCE], np.float64)
        low_m, high_m = part_nm.min(axis=0), part_nm.max(axis=0)
        weight_nm = (part_nm - low_m) / np.where(high_m > low_m, high_m - low_m, 1)
        squares_m = (weight_nm**2).sum(axis=0)
        # Over ordered pairs: the square of a sum, less the sum of the squares; u·u is one.
        cosines_m = ((weight_nm.T @ unit_ne) ** 2).sum(axis=1) - squares_m
        pairs_m = weight_nm.sum(axis=0) ** 2 - squares_m
        known_m = pairs_m > 1e-9
        found.append(np.where(known_m, cosines_m / np.where(known_m, pairs_m, 1), np.nan))
    return np.concatenate(found)


def best(score_m: Float[np.ndarray, " M"], n_keep: int) -> Int[np.ndarray, " C"]:
    """Latents with the highest scores, best first, those without a score never."""
    order = np.argsort(np.where(np.isnan(score_m), np.inf, -score_m), kind="stable")
    return order[: min(n_keep, int((~np.isnan(score_m)).sum()))]


def _cohesion(
    unit_ne: Float[np.ndarray, "N E"], set_mp: Int[np.ndarray, "M P"]
) -> tuple[Float[np.ndarray, " M"], Float[np.ndarray, " M"]]:
    """Mean and variance of the cosines of a set's pairs."""
    upper_pp: Bool[np.ndarray, "P P"] = np.triu(np.ones((set_mp.shape[1],) * 2, bool), 1)
    means, spreads = [], []
    for first in range(0, len(set_mp), _LATENTS_AT_ONCE):
        unit_mpe = unit_ne[set_mp[first : first + _LATENTS_AT_ONCE]]
        cosine_mq = (unit_mpe @ unit_mpe.swapaxes(1, 2))[:, upper_pp]
        means.append(cosine_mq.mean(axis=1))
        spreads.append(cosine_mq.var(axis=1, ddof=1))
    return np.concatenate(means), np.concatenate(spreads)


def _held_out(
    score_nm: Float[np.ndarray, "N M"], unit_ne: Float[np.ndarray, "N E"], p: int, n_keep: int, key: PRNGKeyArray
) -> tuple[Float[np.ndarray, " M"], float]:
    order_key, *tie_keys = jax.random.split(key, 3)
    halves = np.array_split(np.asarray(jax.random.permutation(order_key, len(score_nm))), 2)
    scores = []
    for half, tie_key in zip(halves, tie_keys, strict=True):
        part_nm = np.asarray(score_nm)[half]
        found_m = set_score(unit_ne[half], top_clips(part_nm, p), bottom_clips(part_nm, p, key=tie_key))
        scores.append(np.where((part_nm > 0).sum(axis=0) >= p, found_m, np.nan))
    held_hm = np.full((2, score_nm.shape[1]), np.nan)
    for half, (chosen_on_m, scored_on_m) in enumerate((scores, scores[::-1])):
        chosen = best(chosen_on_m, n_keep)
        held_hm[half, chosen] = scored_on_m[chosen]
    known_hm = ~np.isnan(held_hm)
    count_m = known_hm.sum(axis=0)
    held_m = np.where(count_m > 0, np.where(known_hm, held_hm, 0).sum(axis=0) / np.maximum(count_m, 1), np.nan)
    return held_m, float(held_hm[known_hm].mean()) if known_hm.any() else float("nan")
