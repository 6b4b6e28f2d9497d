"""Our side of the coalition benchmarks: the public engine on a toy's decoder, and what it says that it ran."""

import jax
import numpy as np
from _toys import Toy
from jax.sharding import Mesh

from sgpa_jax.games import evaluate_coalitions, evaluate_flat, plan_for
from sgpa_jax.games.trie_plan import TriePlan
from sgpa_jax.models import decoder_of

FLAT_BATCH = 64


class Ours:
    """A toy's passage under one absence and one engine, ready to be called with coalitions."""

    def __init__(self, toy: Toy, absence: str, engine: str = "trie"):
        self.toy, self.absence, self.engine = toy, absence, engine
        self.passage = toy.passage(absence)
        self.decoder = decoder_of(toy.ours)
        self.flat = jax.jit(lambda decoder, masks_cp: evaluate_flat(decoder, self.passage, masks_cp))

    def __call__(self, masks_cp: np.ndarray, mesh: Mesh | None = None) -> np.ndarray:
        """Return log-probabilities of the response's tokens, float32[C, R]."""
        if self.engine == "trie":
            return evaluate_coalitions(self.decoder, self.passage, masks_cp, mesh=mesh)
        batches = [masks_cp[i : i + FLAT_BATCH] for i in range(0, len(masks_cp), FLAT_BATCH)]
        return np.concatenate([self.flat(self.decoder, batch) for batch in batches])

    def plan(self, masks_cp: np.ndarray, mesh: Mesh | None = None) -> TriePlan:
        """Return what the trie engine is going to run."""
        return plan_for(self.decoder, self.passage, masks_cp, mesh=mesh)

    def tokens_run(self, masks_cp: np.ndarray) -> int:
        """Tokens that the engine runs for these coalitions, padding left out."""
        return self.plan(masks_cp).tokens_run if self.engine == "trie" else masks_cp.shape[0] * len(self.toy.x_td)

    def closed_form(self, masks_cp: np.ndarray) -> int:
        """Tokens if nothing were run twice: the prefix, a segment for each distinct start of a coalition, the leaves.

        Of the starts only those that end in a player who is present count, except where an absent one is replaced. All
        2^n coalitions have 2^n - 1 such starts, or 2^(n + 1) - 2.
        """
        owner_t, n_segments = self.toy.owner_t, 0
        segment = int((owner_t == 0).sum())
        for level in range(masks_cp.shape[1]):
            starts = np.unique(masks_cp[:, : level + 1], axis=0)
            n_segments += len(starts) if self.absence == "embedding" else int(starts[:, -1].sum())
        n_leaf = len(owner_t) - self.toy.n_prefix - masks_cp.shape[1] * segment
        return self.toy.n_prefix + n_segments * segment + len(np.unique(masks_cp, axis=0)) * n_leaf
