"""Bundles: a data set's items cut into what is run, and lost, at once, before anything runs.

They follow from the manifest alone, so that every process, every shard and every later run, whatever it estimates, cuts
the same ones. Items of a bundle last about as long as each other, so that their coalitions share batches.
"""

import numpy as np

from sgpa_jax.audio import round_up_in_octaves
from sgpa_jax.batch.manifest import Manifest

MOST_ITEMS, MOST_COALITIONS, MOST_OF_AN_ITEM = 64, 2**14, 2**12
"""What a bundle holds at most, as far as the transcripts tell: a run that is killed loses the one in flight."""

_STEP_MS, _SIZES = 80, 8


def compose(manifest: Manifest) -> list[tuple[int, ...]]:
    """Return the items of every bundle, as indices of the manifest's rows.

    Items follow each other by length, those alike by number of words, and those equal in both as in the manifest;
    recordings whose length is not known come last.
    """
    durations_ms = np.nan_to_num(1000 * manifest.durations_s, nan=np.inf)
    is_known = np.isfinite(durations_ms)
    bucket_n = np.full(len(manifest), np.iinfo(np.int64).max)
    bucket_n[is_known] = [
        round_up_in_octaves(int(length_ms), step=_STEP_MS, parts=_SIZES) for length_ms in durations_ms[is_known]
    ]
    order = np.lexsort((np.arange(len(manifest)), manifest.n_words, bucket_n)).tolist()
    coalitions_n = _expected_coalitions(manifest)
    bundles: list[tuple[int, ...]] = []
    bundle: list[int] = []
    n_coalitions = 0
    for index in order:
        if bundle and (len(bundle) == MOST_ITEMS or n_coalitions + coalitions_n[index] > MOST_COALITIONS):
            bundles.append(tuple(bundle))
            bundle, n_coalitions = [], 0
        bundle.append(index)
        n_coalitions += coalitions_n[index]
    return [*bundles, tuple(bundle)]


def _expected_coalitions(manifest: Manifest) -> list[int]:
    """Return how many coalitions each item may take, as far as its words tell: all, or what is usually sampled."""
    return [min(2 ** min(n_words, 62), MOST_OF_AN_ITEM) for n_words in np.maximum(manifest.n_words, 1).tolist()]
