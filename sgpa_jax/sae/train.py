"""One step of training, and what it carries: a pure function from state and tokens to state.

Dead latents are counted in tokens since they last fired. With `unit_norm`, decoder rows stay at norm one, and what of
their gradient points along them is taken off, so that Adam's moments hold no growth that the norm undoes anyway. Axes:
`B` tokens, `D` width, `M` latents.
"""

import functools
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike, Float, Int, PRNGKeyArray

from sgpa_jax.sae.config import Recipe, TrainConfig
from sgpa_jax.sae.losses import Paths, Told, training_loss
from sgpa_jax.sae.state import SAEState, init_sae, with_unit_decoder

_MOST_TOKENS = 2**31 - 1
_THRESHOLD_MEMORY = 0.99


class TrainState(NamedTuple):
    """All that a step changes.

    Attributes:
        sae: the autoencoder.
        optimiser: Adam's moments and the count of steps, as optax has them.
        silent_m: tokens since a latent fired, int32.
        step: steps taken, int32.
        key: what the order of the data is drawn from.
    """

    sae: SAEState
    optimiser: Any
    silent_m: Int[Array, " M"]
    step: Int[Array, ""]
    key: PRNGKeyArray


class Stats(NamedTuple):
    """Of one step's batch: loss, fraction of variance unexplained, latents a token, share of dead latents."""

    loss: Float[Array, ""]
    fvu: Float[Array, ""]
    l0: Float[Array, ""]
    dead_frac: Float[Array, ""]


def start_training(recipe: Recipe, x_bd: Float[Array, "B D"], *, key: PRNGKeyArray) -> TrainState:
    """The state before the first step; `x_bd` are normalised inputs, to place the decoder's bias."""
    init_key, data_key = jax.random.split(key)
    sae = init_sae(recipe.sae, x_bd, key=init_key)
    silent_m = jnp.zeros(recipe.sae.n_latents, jnp.int32)
    return TrainState(sae, optimiser_of(recipe.training).init(sae), silent_m, jnp.zeros((), jnp.int32), data_key)


def train_step(
    state: TrainState, x_bd: Float[Array, "B D"], *, training: TrainConfig, paths: Paths
) -> tuple[TrainState, Stats]:
    """Take one step on normalised inputs."""
    dead_m = state.silent_m > training.dead_after
    loss_of = functools.partial(training_loss, training=training, paths=paths)
    (loss, told), slopes = jax.value_and_grad(loss_of, has_aux=True)(state.sae, x_bd, dead_m)
    if training.unit_norm:
        slopes = _across(slopes, state.sae)
    # Optax raises a float to the count of steps, an integer, which strict promotion refuses.
    with jax.numpy_dtype_promotion("standard"):
        updates, optimiser = optimiser_of(training).update(slopes, state.optimiser, state.sae)
    sae = jax.tree.map(jnp.add, state.sae, updates)
    if training.unit_norm:
        sae = with_unit_decoder(sae)
    sae = _with_threshold(sae, state, told)
    silent_m = jnp.where(told.fired_m, 0, jnp.minimum(state.silent_m, _MOST_TOKENS - len(x_bd)) + len(x_bd))
    stats = Stats(loss, told.error / told.variance, told.l0, dead_m.mean(dtype=jnp.float32))
    return TrainState(sae, optimiser, silent_m, state.step + 1, state.key), stats


def optimiser_of(training: TrainConfig) -> Any:
    """Adam with the schedule; clipping where it is asked for."""
    adam = optax.adam(learning_rates(training), b1=training.betas[0], b2=training.betas[1])
    if training.clip_norm is None:
        return adam
    return optax.chain(optax.clip_by_global_norm(training.clip_norm), adam)


def learning_rates(training: TrainConfig) -> optax.Schedule:
    """Linear rise, plateau, linear fall to zero."""
    rate, fall_at = training.learning_rate, training.n_steps - training.decay_steps

    def schedule(step: ArrayLike) -> Array:
        step = jnp.asarray(step)
        rise = (step + 1) / max(training.warmup_steps, 1)
        fall = (training.n_steps - step) / max(training.decay_steps, 1)
        share = jnp.where(step < fall_at, jnp.minimum(rise, 1.0), jnp.clip(fall, 0.0, 1.0))
        return rate * share.astype(jnp.float32)

    return schedule


def _across(slopes: SAEState, sae: SAEState) -> SAEState:
    along_m1 = (slopes.w_dec_md * sae.w_dec_md).sum(axis=1, keepdims=True)
    return replace(slopes, w_dec_md=slopes.w_dec_md - along_m1 * sae.w_dec_md)


def _with_threshold(sae: SAEState, state: TrainState, told: Told) -> SAEState:
    """BatchTopK's threshold is a running mean of the least latents that fired; JumpReLU's are never negative."""
    if sae.config.kind == "topk":
        return sae
    if sae.config.kind == "jumprelu":
        return replace(sae, threshold_m=jnp.maximum(sae.threshold_m, 0.0))
    before_m = state.sae.threshold_m
    least_m = jnp.full_like(before_m, jnp.where(jnp.isfinite(told.least), told.least, before_m[0]))
    mean_m = _THRESHOLD_MEMORY * before_m + (1 - _THRESHOLD_MEMORY) * least_m
    return replace(sae, threshold_m=jnp.where(state.step == 0, least_m, mean_m))
