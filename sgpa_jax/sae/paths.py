"""Which of the ways that give the same is the fastest here: measured, once, and written down with the run.

Sparse gathers pay where few of many latents fire, dense products where the machine multiplies far faster than it
fetches; where they cross depends on the device (measured on two CPU cores: sparse; a roofline of an H200 says dense for
AR&D's 250 of 32,768). The sums' order differs, so a run that goes on must go on by the same path.
"""

import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from sgpa_kernels.topk import IMPLS, top_k_mask

from sgpa_jax.sae.config import Recipe
from sgpa_jax.sae.losses import Paths, training_loss
from sgpa_jax.sae.state import init_sae

_MOST_TOKENS = 256
_REPEATS = 5


def choose_paths(recipe: Recipe, *, mesh: Mesh | None = None) -> Paths:
    """Measure on random inputs, on the first device. Over a mesh it is the dense path, which XLA can cut."""
    if mesh is not None and mesh.size > 1:
        return Paths("dense", "bisect")
    config, n_tokens = recipe.sae, min(recipe.training.batch, _MOST_TOKENS)
    x_bd = jax.random.normal(jax.random.key(0), (n_tokens, config.width))
    pre_bm = jax.random.normal(jax.random.key(1), (n_tokens, config.n_latents))
    if config.kind == "jumprelu":
        return Paths()
    k = config.k
    if config.kind != "topk":
        pre_bm, k = pre_bm.reshape(1, -1), config.k * n_tokens
    impl = _fastest({impl: functools.partial(top_k_mask, pre_bm, k, impl=impl) for impl in IMPLS})
    if config.kind != "topk":
        return Paths("dense", impl)
    sae, dead_m = init_sae(config, x_bd, key=jax.random.key(2)), jnp.zeros(config.n_latents, bool)
    slopes = jax.jit(jax.grad(training_loss, has_aux=True), static_argnames=("training", "paths"))
    paths = [Paths("sparse", impl), Paths("dense", impl)]
    return _fastest({p: functools.partial(slopes, sae, x_bd, dead_m, training=recipe.training, paths=p) for p in paths})


def _fastest(calls: dict[Any, Callable[[], Any]]) -> Any:
    """The name of the call whose best time is the least."""
    best = {}
    for name, call in calls.items():
        jax.block_until_ready(call())
        best[name] = min(_seconds(call) for _ in range(_REPEATS))
    return min(best, key=best.__getitem__)


def _seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start
