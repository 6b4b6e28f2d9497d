"""How strongly, and how much of the time, every latent fires in every clip, streamed from a harvest.

AR&D (arXiv 2602.22253) calls a clip representative of a latent by r = μ · c: μ is the mean activation over the clip's
audio positions, c its coverage, the share of them at which the latent fires at all. (A mean over the firing positions
alone, times c, would be μ again: both factors are needed as they are.) Axes: `N` clips, `T` tokens, `R` rows of
a harvest, `B` of a batch, `D` width, `M` latents.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from sgpa_jax.audio import round_up_in_octaves
from sgpa_jax.errors import UsageError, unknown_name
from sgpa_jax.sae import ActivationStore, SAEState, TrainedSAE, encode
from sgpa_jax.typing import PRNGKeyArray

SCORERS = ("representativeness", "mean", "coverage")
"""What clips can be ranked by: r, and its two factors alone as baselines."""


@dataclass(frozen=True, eq=False)
class ClipScores:
    """Activations of latents in clips, over each clip's audio positions; clips without any are left out.

    Attributes:
        ids: names of the clips, in the harvest's order.
        labels: what is known to sound in each.
        seconds_n, n_tokens_n: how long they are.
        mean_nm: mean activation μ, float32.
        coverage_nm: share c of positions at which the latent fires, float32.
        latents: which latents the columns are.
    """

    ids: tuple[str, ...]
    labels: tuple[tuple[str, ...], ...]
    seconds_n: Float[np.ndarray, " N"]
    n_tokens_n: Int[np.ndarray, " N"]
    mean_nm: Float[np.ndarray, "N M"] = field(repr=False)
    coverage_nm: Float[np.ndarray, "N M"] = field(repr=False)
    latents: tuple[int, ...] = field(repr=False)

    @property
    def score_nm(self) -> Float[np.ndarray, "N M"]:
        """Representativeness r = μ · c."""
        return self.mean_nm * self.coverage_nm

    @property
    def density_m(self) -> Float[np.ndarray, " M"]:
        """Share of all tokens for which a latent fires."""
        weight_n = self.n_tokens_n / self.n_tokens_n.sum()
        return weight_n @ self.coverage_nm.astype(np.float64)

    @property
    def n_firing_m(self) -> Int[np.ndarray, " M"]:
        """Clips in which a latent fires."""
        return (self.coverage_nm > 0).sum(axis=0)

    def by(self, scorer: str) -> Float[np.ndarray, "N M"]:
        """Scores by one of `SCORERS`.

        Raises:
            UsageError: there is no such scorer.
        """
        if scorer not in SCORERS:
            raise unknown_name("scorer", scorer, SCORERS)
        return {"mean": self.mean_nm, "coverage": self.coverage_nm}.get(scorer, self.score_nm)

    def of(self, latents: Sequence[int]) -> "ClipScores":
        """The same of some of the latents, in the order given.

        Raises:
            UsageError: these scores lack one of them.
        """
        place = {latent: m for m, latent in enumerate(self.latents)}
        if missing := [latent for latent in latents if latent not in place]:
            raise UsageError(f"the latent {missing[0]} was not scored; score it too")
        columns = [place[latent] for latent in latents]
        return replace(
            self,
            mean_nm=self.mean_nm[:, columns],
            coverage_nm=self.coverage_nm[:, columns],
            latents=tuple(self.latents[m] for m in columns),
        )

    def take(self, clips: Sequence[int] | Int[np.ndarray, " N"]) -> "ClipScores":
        """The same of some of the clips, by their numbers."""
        chosen_n = np.asarray(clips)
        return ClipScores(
            tuple(self.ids[n] for n in chosen_n),
            tuple(self.labels[n] for n in chosen_n),
            self.seconds_n[chosen_n], self.n_tokens_n[chosen_n], self.mean_nm[chosen_n], self.coverage_nm[chosen_n],
            self.latents,
        )  # fmt: skip


def clip_scores(
    trained: TrainedSAE, store: ActivationStore, *, latents: Sequence[int] | None = None, batch: int = 1024
) -> ClipScores:
    """Encode a harvest and average over every clip.

    Args:
        trained: the autoencoder; its layer must have been harvested, from its own model.
        store: the harvest.
        latents: which of them to keep, all by default; N × M float32 numbers are held twice.
        batch: rows encoded at once, B × M numbers on the device.

    Raises:
        UsageError: the harvest is of another model or lacks the layer, there is no such latent, or nothing was heard.
    """
    return _averaged(trained, store, latents, batch, np.zeros(store.n_rows, np.int32), 1)[0]


def half_scores(
    trained: TrainedSAE,
    store: ActivationStore,
    *,
    latents: Sequence[int] | None = None,
    batch: int = 1024,
    key: PRNGKeyArray,
) -> tuple[ClipScores, ClipScores]:
    """The same of two random halves of every clip's positions; of a clip with one position the second is empty.

    Raises:
        UsageError: as `clip_scores`.
    """
    draw = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    # An odd position goes to the first half.
    halves = [draw.permutation(np.arange(row["tokens"]) % 2) for row in store.index]
    first, second = _averaged(trained, store, latents, batch, np.concatenate(halves).astype(np.int32), 2)
    return first, second


def clip_activations(
    trained: TrainedSAE, store: ActivationStore, clip: str, latents: Sequence[int]
) -> Float[np.ndarray, "T M"]:
    """Activations of some latents at every audio position of a clip.

    Raises:
        UsageError: as `clip_scores`, or the harvest has no such clip.
    """
    _check(trained, store, latents)
    row = next((row for row in store.index if row["clip"] == clip), None)
    if row is None:
        raise UsageError(f"{store.folder} holds no clip {clip!r}; give the id of one that was harvested")
    rows_td = store.rows(row["shard"], trained.layer)[row["offset"] : row["offset"] + row["tokens"]]
    return np.asarray(_encoded(trained.folded, jnp.asarray(rows_td), jnp.asarray(latents, jnp.int32)))


def _averaged(
    trained: TrainedSAE,
    store: ActivationStore,
    latents: Sequence[int] | None,
    batch: int,
    part_r: Int[np.ndarray, " R"],
    n_parts: int,
) -> list[ClipScores]:
    """Averages over each part of every clip; `part_r` says which part a row of the harvest belongs to."""
    n_latents = trained.sae.config.n_latents
    latents = tuple(range(n_latents)) if latents is None else tuple(int(latent) for latent in latents)
    _check(trained, store, latents)
    heard = [row for row in store.index if row["tokens"] > 0]
    if not heard:
        raise UsageError(f"{store.folder} holds no rows; harvest clips that can be heard")
    sae, kept_m = trained.folded, jnp.asarray(latents, jnp.int32)
    clip_r = np.repeat(np.arange(len(heard)), [row["tokens"] for row in heard])
    sum_npm, count_npm = (np.zeros((len(heard), n_parts, len(latents)), np.float32) for _ in range(2))
    start = 0
    for shard, n_rows in enumerate(store.rows_in_shard):
        rows_nd = store.rows(shard, trained.layer)
        for first in range(0, n_rows, batch):
            x_bd = rows_nd[first : first + batch]
            here = slice(start + first, start + first + len(x_bd))
            low, high = int(clip_r[here][0]), int(clip_r[here][-1]) + 1
            # Batches of one size, with clips in a few numbers, so that a few programs serve every harvest.
            n_segments = round_up_in_octaves((high - low) * n_parts, step=8, parts=1)
            segment_b = (clip_r[here] - low) * n_parts + part_r[here]
            room = (0, batch - len(x_bd))
            segment_b = np.pad(segment_b, room, constant_values=n_segments).astype(np.int32)
            found = _sums(sae, jnp.asarray(np.pad(x_bd, (room, (0, 0)))), segment_b, kept_m, n_segments)
            for total_npm, part_sm in zip((sum_npm, count_npm), found, strict=True):
                added_sm = np.asarray(part_sm)[: (high - low) * n_parts]
                total_npm[low:high] += added_sm.reshape(high - low, n_parts, -1)
        start += n_rows
    ids, labels = tuple(row["clip"] for row in heard), tuple(tuple(row["labels"]) for row in heard)
    seconds_n, scores = np.array([row["seconds"] for row in heard]), []
    for part in range(n_parts):
        n_tokens_n = np.bincount(clip_r[part_r == part], minlength=len(heard))
        share_n1 = (1 / np.maximum(n_tokens_n, 1)).astype(np.float32)[:, None]
        means = sum_npm[:, part] * share_n1, count_npm[:, part] * share_n1
        scores.append(ClipScores(ids, labels, seconds_n, n_tokens_n, *means, latents))
    return scores


def _check(trained: TrainedSAE, store: ActivationStore, latents: Sequence[int]) -> None:
    store.check_layer(trained.layer)
    if store.header["model"]["digest"] != trained.model["digest"]:
        raise UsageError(
            f"{store.folder} was harvested from {store.header['model']['name']}, but the autoencoder was trained on "
            f"another model, {trained.model['name']}; harvest from that one"
        )
    n_latents = trained.sae.config.n_latents
    if not latents or not all(0 <= latent < n_latents for latent in latents):
        raise UsageError(f"the latents asked for are none, or not all from 0 to {n_latents - 1}; give others")


@functools.partial(jax.jit, static_argnums=4)
def _sums(
    sae: SAEState, x_bd: Array, segment_b: Int[Array, " B"], kept_m: Int[Array, " M"], n_segments: int
) -> tuple[Float[Array, "S M"], Float[Array, "S M"]]:
    """Activations and firings added over the rows of each clip; a row of no clip has a number past the last."""
    z_bm = encode(sae, x_bd)[:, kept_m]
    fires_bm = (z_bm > 0).astype(jnp.float32)
    sum_sm, count_sm = (jax.ops.segment_sum(a_bm, segment_b, num_segments=n_segments) for a_bm in (z_bm, fires_bm))
    return sum_sm, count_sm


@jax.jit
def _encoded(sae: SAEState, x_td: Array, kept_m: Int[Array, " M"]) -> Float[Array, "T M"]:
    return encode(sae, x_td)[:, kept_m]
