"""What an autoencoder's concepts must beat, in the very shape of one, so that everything that is done to it can be done
to them: the residual stream's own dimensions, its principal directions, and an autoencoder that never learnt.

Axes: `D` width, `M` latents.
"""

from collections.abc import Iterator

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from sgpa_jax.sae import (
    ActivationStore,
    Normalisation,
    Recipe,
    SAEConfig,
    SAEState,
    ShuffledRows,
    TrainedSAE,
    fit_normalisation,
    init_sae,
    recommended,
)
from sgpa_jax.typing import PRNGKeyArray


def raw_dimensions(store: ActivationStore, layer: int) -> TrainedSAE:
    """Every dimension of the residual stream, above its mean and below it: 2 D latents, those above first.

    Raises:
        UsageError: the layer was not harvested.
    """
    mean_d, _ = _moments(store, layer)
    return _rectified(store, layer, np.eye(store.width), mean_d)


def principal_directions(store: ActivationStore, layer: int) -> TrainedSAE:
    """Every principal component, above the mean and below it, the strongest first: 2 D latents.

    Raises:
        UsageError: the layer was not harvested.
    """
    mean_d, second_dd = _moments(store, layer)
    directions_dd = np.linalg.eigh(second_dd - np.outer(mean_d, mean_d))[1].T[::-1]
    return _rectified(store, layer, directions_dd, mean_d)


def untrained_sae(store: ActivationStore, layer: int, recipe: Recipe, *, key: PRNGKeyArray) -> TrainedSAE:
    """The autoencoder that training by a recipe starts from, with another draw of its weights.

    Raises:
        UsageError: the layer was not harvested, or has no rows.
    """
    rows = ShuffledRows(store, layer, batch=min(recipe.training.fit_on, store.n_rows), seed=recipe.training.seed)
    x_bd = rows.next().astype(np.float32)
    normalisation = fit_normalisation(x_bd, recipe.training.normalisation)
    sae = init_sae(recipe.sae, normalisation(jnp.asarray(x_bd)), key=key)
    return _as_trained(store, layer, sae, normalisation, recipe)


def _rectified(
    store: ActivationStore, layer: int, directions_dd: Float[np.ndarray, "D D"], mean_d: Float[np.ndarray, " D"]
) -> TrainedSAE:
    """Projections on unit directions: positive and negative parts, as latents that fire above a threshold of zero."""
    width, n_latents = store.width, 2 * store.width
    config = SAEConfig(width=width, n_latents=n_latents, k=n_latents, kind="jumprelu")
    both_md = jnp.asarray(np.concatenate([directions_dd, -directions_dd]), jnp.float32)
    none_m = jnp.zeros(n_latents)
    sae = SAEState(both_md, none_m, both_md, jnp.asarray(mean_d, jnp.float32), none_m, config)
    as_is = Normalisation(jnp.zeros(width), jnp.ones(()))
    return _as_trained(store, layer, sae, as_is, Recipe(config, recommended(width, k=1).training))


def _as_trained(
    store: ActivationStore, layer: int, sae: SAEState, normalisation: Normalisation, recipe: Recipe
) -> TrainedSAE:
    silent_m = np.zeros(sae.config.n_latents, np.int64)
    return TrainedSAE(sae, normalisation, recipe, layer, store.header["model"], 0, silent_m)


def _moments(store: ActivationStore, layer: int) -> tuple[Float[np.ndarray, " D"], Float[np.ndarray, "D D"]]:
    """Means of the rows and of their outer products, in float64."""
    store.check_layer(layer)
    sum_d, sum_dd = np.zeros(store.width), np.zeros((store.width, store.width))
    for x_nd in _shards(store, layer):
        sum_d += x_nd.sum(axis=0)
        sum_dd += x_nd.T @ x_nd
    return sum_d / max(store.n_rows, 1), sum_dd / max(store.n_rows, 1)


def _shards(store: ActivationStore, layer: int) -> Iterator[Float[np.ndarray, "N D"]]:
    for shard in range(len(store.rows_in_shard)):
        yield store.rows(shard, layer).astype(np.float64)
