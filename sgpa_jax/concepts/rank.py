"""From an autoencoder and a harvest to a bank of concepts: clips ranked, latents scored, the best of them kept.

Axes: `N` clips, `M` latents, `E` width of the embedding, `P` clips of a latent.
"""

from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Float

from sgpa_jax.concepts.bank import Concept, ConceptBank, Representative, describe_sae
from sgpa_jax.concepts.clips import ClipScores, clip_scores, half_scores
from sgpa_jax.concepts.monosemanticity import monosemanticity
from sgpa_jax.concepts.retrieve import bottom_clips, matched_bottom_clips, split_half_overlap, top_clips
from sgpa_jax.errors import UsageError
from sgpa_jax.sae import ActivationStore, Recording, TrainedSAE


def rank_concepts(
    trained: TrainedSAE,
    store: ActivationStore,
    recordings: Sequence[Recording] = (),
    *,
    unit_ne: Float[np.ndarray, "N E"] | None = None,
    embedder_name: str | None = None,
    scores: ClipScores | None = None,
    scorer: str = "representativeness",
    p: int = 4,
    n_keep: int = 5000,
    length_matched: bool = False,
    n_permutations: int = 100,
    seed: int = 0,
) -> ConceptBank:
    """Make a bank of the latents that fire in p clips at least: the most monosemantic ones, best first.

    Without embeddings there is no monosemanticity, and the latents that fire in most clips are kept.

    Args:
        trained: the autoencoder.
        store: a harvest of its layer.
        recordings: where the clips are; without them the bank has no paths.
        unit_ne: embeddings of the clips, in the order of `scores.ids` (that of the harvest, without unheard ones).
        embedder_name: whose they are, for the record.
        scores: of all latents, if they are known already.
        scorer: one of `SCORERS`; all but r itself are baselines.
        p: clips of a concept on either side.
        n_keep: concepts to keep at most.
        length_matched: draw the least representative clips with the durations of the most representative ones.
        n_permutations: of monosemanticity's null.
        seed: decides ties, halves and permutations.

    Raises:
        UsageError: the harvest is of another model or layer, or has too few clips.
    """
    scores = clip_scores(trained, store) if scores is None else scores
    top_key, tie_key, half_key, score_key = jax.random.split(jax.random.key(seed), 4)
    score_nm, alive_m = scores.by(scorer), scores.n_firing_m >= p
    if not alive_m.any():
        raise UsageError(f"no latent fires in {p} clips; give more clips, or a smaller p")
    # Coverages of one are common: without a draw, ties would go to the first clips of the harvest.
    top_mp = top_clips(score_nm, p, key=top_key)
    if length_matched:
        bottom_mp = matched_bottom_clips(score_nm, top_mp, scores.seconds_n, key=tie_key)
    else:
        bottom_mp = bottom_clips(score_nm, p, key=tie_key)
    told, columns = {}, {}
    if unit_ne is None:
        kept = np.argsort(np.where(alive_m, -scores.n_firing_m, 1), kind="stable")[: min(n_keep, int(alive_m.sum()))]
    else:
        found = monosemanticity(
            score_nm, unit_ne, top_mp, bottom_mp, n_keep=n_keep, n_permutations=n_permutations, key=score_key
        )
        kept, told = np.array(found.kept), found.to_dict()
        columns = {"monosemanticity": found.score_m, "held_out": found.held_out_m, "pach": found.pach_m}
    latents = [scores.latents[m] for m in kept]
    columns["density"], columns["n_firing"] = scores.density_m, scores.n_firing_m
    columns["overlap"] = np.full(len(alive_m), np.nan)
    columns["overlap"][kept] = split_half_overlap(
        *half_scores(trained, store, latents=latents, key=half_key), p, scorer=scorer
    )
    paths = {recording.id: recording.path for recording in recordings}

    def clips(m: int, chosen_p: np.ndarray) -> tuple[Representative, ...]:
        return tuple(
            Representative(scores.ids[n], paths.get(scores.ids[n]), float(scores.seconds_n[n]), float(score_nm[n, m]))
            for n in chosen_p
        )

    concepts = []
    for m in kept:
        high_p = top_mp[m]
        concepts.append(
            Concept(
                scores.latents[m],
                mean=float(scores.mean_nm[high_p, m].mean()),
                coverage=float(scores.coverage_nm[high_p, m].mean()),
                top=clips(m, high_p),
                bottom=clips(m, bottom_mp[m]),
            )
        )
    facts = {
        "corpus": store.header.get("corpus"), "clips": len(scores.ids), "scorer": scorer, "p": p,
        "length_matched": length_matched, "seed": seed, "embedder": embedder_name,
        "n_alive": int(alive_m.sum()), "n_latents": len(alive_m), "monosemanticity": told or None,
        "seconds": {
            side: float(np.median(scores.seconds_n[chosen_mp[kept]]))
            for side, chosen_mp in (("top", top_mp), ("bottom", bottom_mp))
        },
    }  # fmt: skip
    bank = ConceptBank(dict(trained.model), describe_sae(trained), tuple(concepts), facts)
    return bank.with_columns(**{name: values[kept] for name, values in columns.items()})
