"""Activations over time of latents in clips, streamed from a harvest: what a page draws."""

from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from sgpa_jax.audio import TOKEN_STEP, round_up_in_octaves
from sgpa_jax.concepts.bank import Concept
from sgpa_jax.sae import ActivationStore, TrainedSAE, encode

_encode = jax.jit(encode)


def timelines(
    trained: TrainedSAE, store: ActivationStore, concepts: Iterable[Concept]
) -> dict[tuple[str, int], Float[np.ndarray, " T"]]:
    """Return the activations of concepts in each of their own clips, by the clip's id and the latent.

    Shards are read one after another, clips are padded to few lengths; clips that the harvest lacks are left out.

    Raises:
        UsageError: the layer was not harvested, or a shard is damaged.
    """
    store.check_layer(trained.layer)
    wanted: dict[str, set[int]] = {}
    for concept in concepts:
        for clip in (*concept.top, *concept.bottom):
            wanted.setdefault(clip.id, set()).add(concept.latent)
    sae, found = trained.folded, {}
    for shard in range(len(store.rows_in_shard)):
        rows = [row for row in store.index if row["shard"] == shard and row["clip"] in wanted and row["tokens"]]
        if not rows:
            continue
        rows_nd = store.rows(shard, trained.layer)
        for row in rows:
            x_td = rows_nd[row["offset"] : row["offset"] + row["tokens"]]
            room = round_up_in_octaves(len(x_td), step=TOKEN_STEP, parts=2) - len(x_td)
            z_tm = np.asarray(_encode(sae, jnp.asarray(np.pad(x_td, ((0, room), (0, 0))))))
            for latent in wanted[row["clip"]]:
                found[row["clip"], latent] = z_tm[: len(x_td), latent].copy()
    return found
