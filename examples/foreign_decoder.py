"""Explain somebody else's decoder, in plain JAX, with the engine that shares what coalitions have in common."""

import jax
import numpy as np

import sgpa_jax as sgpa

shapes = {"key": (32, 32), "value": (32, 32), "query": (32, 32), "up": (32, 64), "down": (64, 32)}
keys = dict(zip(shapes, jax.random.split(jax.random.key(0), len(shapes)), strict=True))
params = {name: jax.random.normal(keys[name], (4, *shape)) / 8 for name, shape in shapes.items()}
table_vd = jax.random.normal(jax.random.key(1), (100, 32))


def layer(params, x_btd, order):
    """One head of attention and an MLP: `order` says which rows go on, and what they may look at."""
    key, value = ((x_btd @ params[name])[:, :, None] for name in ("key", "value"))
    x_btd = order.wanted(x_btd)
    x_btd = x_btd + order.attend((x_btd @ params["query"])[:, :, None], key, value)
    return x_btd + jax.nn.gelu(x_btd @ params["up"]) @ params["down"], (key, value)


decoder = sgpa.Decoder((layer,), (params,), norm=lambda _, x: x, norm_params=(), table_vd=table_vd)
owner = np.array([-1, -1, 0, 0, 1, 1, 2, 2, 3, 3, -1, -1, -1, -1])  # four players of two tokens, nobody's around them
prompt = table_vd[np.arange(14) * 7 % 100]  # embeddings, the response's last token left out
passage = sgpa.Passage(prompt, targets_r=np.array([5, 77, 13]), owner_t=owner, absence_p=("drop",) * 4)
game = sgpa.Game(lambda masks_cp: sgpa.evaluate_coalitions(decoder, passage, masks_cp), 4, jit=False)
print(sgpa.estimate(game, "exact", budget=16, key=jax.random.key(0)).values_pk)
