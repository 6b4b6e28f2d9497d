"""What `concepts.py` measures on: corpora of the synthetic world, activations, autoencoders, and scores of clips."""

import dataclasses
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from sgpa_checkpoints.sound_world import EMOTIONS, FEEL, GENDERS, NOBODY, WHO, sound_clip, write_corpus, write_fsd50k

from sgpa_jax import concepts, sae
from sgpa_jax.audio import Clip
from sgpa_jax.concepts import ClipScores
from sgpa_jax.models import Model

P = 4
BUDGETS = (1, 2)
"""Concepts that are kept, the most monosemantic ones, as multiples of the number of classes; and once all of them."""
# Clips of each purpose come from a seed of their own.
_EMBEDDER, _CORPUS, _FSD50K, CHOSEN_ON, STEERED = 100, 200, 300, 400, 500
CANDIDATES = 12
"""Latents that are tried before one is chosen."""

_encode = jax.jit(sae.encode)


@dataclass(frozen=True)
class Sizes:
    """How much is made and trained."""

    corpus: int
    dev: int
    evaluated: int
    captioned: int
    steered: int
    expansion: int
    k: int
    n_steps: int
    permutations: int
    resamples: int


# Latents and k are those of 768/16 to 96/1 with the best protocol A on halves of the development clips (docs/concepts).
FULL = Sizes(1200, 400, 400, 600, 12, 1, 2, 1500, 50, 1000)
QUICK = Sizes(160, 100, 100, 200, 3, 1, 2, 200, 10, 50)


@dataclass(frozen=True, eq=False)
class World:
    """A corpus to find concepts in, another in FSD50k's layout to evaluate them on, and who judges clips and names."""

    recordings: tuple[sae.Recording, ...]
    captions: dict[str, str]
    fsd50k: concepts.FSD50K
    embedder: concepts.CaptionEmbedder
    judge: concepts.Judge

    @classmethod
    def make(cls, folder: Path, sizes: Sizes, seed: int) -> "World":
        """Write the corpora, or take those that are there, and fit the embedder to clips of its own."""
        if not (folder / "corpus" / "clips.jsonl").is_file():
            write_corpus(folder / "corpus", sizes.corpus, seed=seed + _CORPUS)
        if not (folder / "fsd50k" / "FSD50K.ground_truth" / "vocabulary.csv").is_file():
            write_fsd50k(folder / "fsd50k", sizes.dev, sizes.evaluated, seed=seed + _FSD50K)
        captioned = [sound_clip(seed + _EMBEDDER, index) for index in range(sizes.captioned)]
        embedder = concepts.CaptionEmbedder.fit(
            (Clip(clip.wave_s, clip.rate_hz) for clip in captioned), [clip.caption for clip in captioned]
        )
        lines = (folder / "corpus" / "clips.jsonl").read_text().splitlines()
        captions = {row["id"]: row["caption"] for row in map(json.loads, lines)}
        recordings, fsd50k = (
            sae.read_manifest(folder / "corpus" / "clips.jsonl"),
            concepts.read_fsd50k(folder / "fsd50k"),
        )
        unit_ne = concepts.embed_files(embedder, [clip.path for clip in fsd50k.dev])
        judge = concepts.embedding_judge(embedder, [clip.id for clip in fsd50k.dev], unit_ne)
        return cls(recordings, captions, fsd50k, embedder, judge)


@dataclass(frozen=True, eq=False)
class Stores:
    """Activations of the three sets of clips, and embeddings of the first."""

    corpus: sae.ActivationStore
    dev: sae.ActivationStore
    evaluated: sae.ActivationStore
    unit_ne: np.ndarray

    @classmethod
    def make(cls, model: Model, world: World, folder: Path) -> "Stores":
        """Harvest all layers at once."""
        config = sae.HarvestConfig(layers=tuple(range(model.config.decoder.n_layers)), batch=16)
        named = {"corpus": world.recordings, "dev": world.fsd50k.dev, "eval": world.fsd50k.eval}
        stores = [sae.harvest(model, clips, folder / f"activations-{name}", config) for name, clips in named.items()]
        paths = {recording.id: recording.path for recording in world.recordings}
        heard = [paths[row["clip"]] for row in stores[0].index if row["tokens"] > 0]
        corpus, dev, evaluated = stores
        return cls(corpus, dev, evaluated, concepts.embed_files(world.embedder, heard))


def recipe_for(width: int, sizes: Sizes, seed: int) -> sae.Recipe:
    """The recommended recipe, sized for a corpus of a hundred thousand tokens."""
    return sae.recipe_of(
        "recommended", width, expansion=sizes.expansion, k=sizes.k, n_steps=sizes.n_steps, batch=1024, seed=seed
    )


def ranked_by(scores: ClipScores, way: str, seed: int) -> ClipScores:
    """Scores whose r is one of AR&D's baselines: the mean alone, the coverage alone, or a draw."""
    fires_nm = (scores.coverage_nm > 0).astype(np.float32)
    if way == "mean":
        return dataclasses.replace(scores, coverage_nm=fires_nm)
    if way == "coverage":
        return dataclasses.replace(scores, mean_nm=fires_nm)
    drawn_nm = np.random.default_rng(seed).uniform(0.01, 1.0, fires_nm.shape).astype(np.float32)
    return dataclasses.replace(scores, mean_nm=drawn_nm, coverage_nm=np.ones_like(fires_nm))


def steering_tasks(model: Model, n_each: int, seed: int) -> dict[str, concepts.Task]:
    """Held-out voices, asked how they feel and who speaks: `n_each` of every gender and emotion."""
    clips, wanted = [], {(gender, emotion): n_each for gender in GENDERS for emotion in EMOTIONS}
    for index in itertools.count():
        clip = sound_clip(seed, index, held_out=True, leaf=list(GENDERS.values())[index % 2])
        if clip.voice is not None and wanted[clip.voice] > 0:
            wanted[clip.voice] -= 1
            clips.append(clip)
        if not any(wanted.values()):
            break
    tasks = {}
    for name, prompt, which, classes in (("emotion", FEEL, 1, EMOTIONS), ("gender", WHO, 0, tuple(GENDERS))):
        batch = tuple(model.prepare(Clip(clip.wave_s, clip.rate_hz), prompt) for clip in clips)
        labels = tuple(clip.voice[which] for clip in clips if clip.voice is not None)
        tasks[name] = concepts.Task(batch, labels, (*classes, NOBODY))
    return tasks


def strongest_latent(
    model: Model,
    trained: sae.TrainedSAE,
    task: concepts.Task,
    source: str,
    target: str,
    strengths: Sequence[float],
) -> int:
    """The latent that steers most selectively at its best strength, of those whose means differ most between classes.

    The clips are of development; other clips are steered afterwards.
    """
    folded, layer = trained.folded, trained.layer
    means, most = [], []
    for inputs in task.batch:
        x_td = sae.audio_residuals(model, [inputs], (layer,))[0][0]
        z_tm = np.asarray(_encode(folded, jnp.asarray(np.pad(x_td, ((0, -len(x_td) % 64), (0, 0))))))[: len(x_td)]
        means.append(z_tm.mean(axis=0))
        most.append(z_tm.max(axis=0))
    mean_nm, label_n = np.stack(means), np.array(task.labels)
    rows_md = np.asarray(folded.w_dec_md)
    apart_m = mean_nm[label_n == target].mean(axis=0) - mean_nm[label_n == source].mean(axis=0)
    candidates = np.argsort(-apart_m * np.linalg.norm(rows_md, axis=1))[:CANDIDATES]
    steered = [task.batch[n] for n in task.of(source)]
    found = {}
    for latent in candidates:
        push, top = concepts.Push(jnp.asarray(rows_md[latent])), float(np.max([high_m[latent] for high_m in most]))
        done = concepts.steer(
            model, steered, push, [strength * top for strength in strengths], after_layer=layer, max_new_tokens=4
        )
        said = [[concepts.class_of(r.text, task.classes) for r in row] for row in done.responses_an]
        others = [name for name in (*task.classes, None) if name not in (source, target)]
        found[int(latent)] = max(row.count(target) - max(row.count(name) for name in others) for row in said)
    return max(found, key=lambda latent: found[latent])


def latents_called(bank: concepts.ConceptBank, *classes: str) -> list[int]:
    """The latents whose names say one of some genders or emotions."""
    found = [concept for name in classes for concept in bank.named(GENDERS.get(name, name))]
    return list(dict.fromkeys(concept.latent for concept in found))


def named(
    bank: concepts.ConceptBank, captions: dict[str, str], corpus: Sequence[str]
) -> tuple[concepts.ConceptBank, list[Sequence[str]]]:
    """The bank with names that its captions agree on, and these captions."""
    bank = concepts.name_concepts(bank, concepts.ConsensusNamer(corpus), captions)
    return bank, [concept.captions for concept in bank.concepts]


def key_of(seed: int, what: int) -> jax.Array:
    """A key of its own for every use."""
    return jax.random.fold_in(jax.random.key(seed), what)
