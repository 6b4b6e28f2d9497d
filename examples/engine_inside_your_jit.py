"""The trie engine inside of your own jit, vmap and shard_map: the plan is made once, the rest is pure.

Several prompts of one layout are explained at once, on as many devices as there are, and differentiated.
"""

import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from foreign_decoder import decoder, owner, passage
from jax.sharding import PartitionSpec

import sgpa_jax as sgpa
from sgpa_jax.games import coalition_values, plan_for, scene_of

plan = plan_for(decoder, passage, sgpa.all_coalitions(4))
prompts_btd = jax.random.normal(jax.random.key(2), (8, len(owner), 32))


def shapley(prompt_td: jax.Array) -> jax.Array:
    """Return what every player adds to the response's log-probability, float[P]."""
    values_cr = coalition_values(decoder, scene_of(replace(passage, x_td=prompt_td)), plan)
    return sgpa.exact_shapley(values_cr.sum(axis=1))


mesh = jax.make_mesh((len(jax.devices()),), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
share = functools.partial(jax.shard_map, mesh=mesh, check_vma=False)
shapley_bp = jax.jit(share(jax.vmap(shapley), in_specs=PartitionSpec("data"), out_specs=PartitionSpec("data")))(
    prompts_btd
)
slope_td = jax.jit(jax.grad(lambda prompt_td: shapley(prompt_td)[0]))(prompts_btd[0])
print(np.round(shapley_bp, 3), jnp.abs(slope_td).sum(axis=1).round(3))
