"""Harvests made by hand, of directions that are known, and an autoencoder that knows them."""

from collections.abc import Callable, Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from sgpa_jax.sae import (
    ActivationStore,
    Normalisation,
    Recipe,
    SAEConfig,
    SAEState,
    TrainedSAE,
    open_store,
    recommended,
)
from sgpa_jax.sae.store import HEADER, SCHEMA, finish, json_lines, write_shard

TOY = {"name": "toy", "digest": "00", "dtype": "float32"}


def write_harvest(
    folder: Path, clips: dict[str, tuple[np.ndarray, Sequence[str]]], *, clips_per_shard: int = 100
) -> ActivationStore:
    """A harvest of layer 1 from rows [T, D] and labels of every clip; a clip without rows could not be heard."""
    folder.mkdir(parents=True)
    names = list(clips)
    width = next(iter(clips.values()))[0].shape[1]
    shards = [names[first : first + clips_per_shard] for first in range(0, len(names), clips_per_shard)]
    header = {
        "schema": SCHEMA, "model": TOY, "layers": [1], "width": width, "corpus": {"clips": len(clips), "sha256": "00"},
        "n_shards": len(shards),
    }  # fmt: skip
    (folder / HEADER).write_text(json_lines([header]))
    for number, shard in enumerate(shards):
        lines, offset = [], 0
        for name in shard:
            rows_td, labels = clips[name]
            line = {"clip": name, "offset": offset, "tokens": len(rows_td), "labels": list(labels)}
            lines.append(line | ({"seconds": len(rows_td) / 25} if len(rows_td) else {"error": "not there"}))
            offset += len(rows_td)
        write_shard(folder, number, {1: np.concatenate([clips[name][0] for name in shard])}, lines)
    finish(folder, len(shards))
    return open_store(folder)


def knowing(directions_gd: np.ndarray, k: int) -> TrainedSAE:
    """A TopK autoencoder whose latents are given unit directions."""
    config = SAEConfig(width=directions_gd.shape[1], n_latents=len(directions_gd), k=k, pre_bias=False)
    rows_md, none_m = jnp.asarray(directions_gd, jnp.float32), jnp.zeros(len(directions_gd))
    # A little must come in before a latent fires: rounding errors would count for its coverage.
    sae = SAEState(rows_md, none_m - 1e-3, rows_md, jnp.zeros(config.width), none_m, config)
    as_is = Normalisation(jnp.zeros(config.width), jnp.ones(()))
    recipe = Recipe(config, recommended(config.width, k=1).training)
    return TrainedSAE(sae, as_is, recipe, 1, dict(TOY), 10, np.zeros(config.n_latents, np.int64))


@pytest.fixture
def harvest_of() -> Callable[..., ActivationStore]:
    return write_harvest


@pytest.fixture
def sae_of() -> Callable[..., TrainedSAE]:
    return knowing


@pytest.fixture(scope="package")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainedSAE, ActivationStore]:
    """Events on intervals, with gains; and, without the label, loud but brief and long but faint impostors of each."""
    rng, n_classes, n_tokens = np.random.default_rng(7), 8, 40
    directions_gd = np.linalg.qr(rng.standard_normal((16, 16)))[0][:n_classes]
    clips = {}
    for number in range(320):
        z_tg = np.zeros((n_tokens, n_classes))
        true = rng.permutation(n_classes)[: rng.integers(1, 4)]
        for label in true:
            length = rng.integers(12, n_tokens + 1)
            start = rng.integers(0, n_tokens - length + 1)
            z_tg[start : start + length, label] = rng.uniform(0.6, 2)
        loud, faint = rng.permutation([g for g in range(n_classes) if g not in true])[:2]
        z_tg[rng.integers(n_tokens), loud] = rng.uniform(20, 60)
        z_tg[: rng.integers(n_tokens - 3, n_tokens + 1), faint] = rng.uniform(0.02, 0.06)
        rows_td = (z_tg @ directions_gd).astype(np.float32)
        clips[f"clip {number:03d}"] = rows_td, [f"class {g}" for g in sorted(true)]
    return knowing(directions_gd, 4), write_harvest(tmp_path_factory.mktemp("planted") / "activations", clips)
