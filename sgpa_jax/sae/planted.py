"""Inputs with a known dictionary, and how much of it an autoencoder has found.

x = Σ z_i g_i + noise, with G random unit directions g_i. What an autoencoder should find is known, so that the measures
here can say what reconstruction alone cannot: with k above the true number, error falls while the directions mix
("Sparse but Wrong", arXiv 2508.16560). Axes: `B` tokens, `D` width, `G` true directions, `M` latents.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

_RECOVERED = 0.9


@dataclass(frozen=True)
class Planted:
    """A dictionary and how its directions fire.

    Attributes:
        directions_gd: unit rows.
        weight_g: how often a direction fires, in proportion.
        l0: directions a token: so many exactly, or on average.
        exact: which of the two.
        spread, noise: of the magnitudes 1 + spread |N(0, 1)|, and of what is added to every input.
    """

    directions_gd: Float[Array, "G D"]
    weight_g: Float[Array, " G"]
    l0: int
    exact: bool
    spread: float = 0.25
    noise: float = 0.01

    def sample(self, n_tokens: int, *, key: PRNGKeyArray) -> tuple[Float[Array, "B D"], Float[Array, "B G"]]:
        """Draw inputs and their true latents."""
        fire_key, size_key, noise_key = jax.random.split(key, 3)
        shape = (n_tokens, len(self.weight_g))
        if self.exact:
            # The l0 largest of log-weights with Gumbel noise are a draw without replacement.
            race_bg = jnp.log(self.weight_g)[None] + jax.random.gumbel(fire_key, shape)
            fires_bg = race_bg >= jax.lax.top_k(race_bg, self.l0)[0][:, -1:]
        else:
            rate_g = self.l0 * self.weight_g / self.weight_g.sum()
            fires_bg = jax.random.uniform(fire_key, shape) < rate_g[None]
        size_bg = 1 + self.spread * jnp.abs(jax.random.normal(size_key, shape))
        z_bg = jnp.where(fires_bg, size_bg, 0.0)
        noise_bd = self.noise * jax.random.normal(noise_key, (n_tokens, self.directions_gd.shape[1]))
        return z_bg @ self.directions_gd + noise_bd, z_bg


def planted(width: int, n_directions: int, l0: int, *, exact: bool, zipf: float = 0.3, key: PRNGKeyArray) -> Planted:
    """A random dictionary whose i-th direction fires in proportion to 1 / i^zipf."""
    rows_gd = jax.random.normal(key, (n_directions, width))
    rows_gd = rows_gd / jnp.linalg.norm(rows_gd, axis=1, keepdims=True)
    return Planted(rows_gd, jnp.arange(1, n_directions + 1, dtype=jnp.float32) ** -zipf, l0, exact)


@dataclass(frozen=True)
class Recovery:
    """How well a dictionary was found.

    Attributes:
        mmcs: mean over the true directions of the largest |cosine| with any latent's.
        mcc: mean |cosine| of the best one-to-one matching.
        recovered: share of true directions with a cosine above 0.9.
        uniqueness: distinct true directions that are a latent's nearest, over the latents.
        f1: mean over matched pairs of the F1 of firing against true firing; None if no firing was given.
    """

    mmcs: float
    mcc: float
    recovered: float
    uniqueness: float
    f1: float | None = None


def recovery(
    directions_gd: Float[np.ndarray, "G D"] | Array,
    rows_md: Float[np.ndarray, "M D"] | Array,
    fires: tuple[Bool[np.ndarray, "B G"], Bool[np.ndarray, "B M"]] | None = None,
) -> Recovery:
    """Measure a decoder's rows against the true directions; `fires` are true and found firings of the same tokens."""
    from scipy.optimize import linear_sum_assignment

    cosine_gm = np.abs(_unit(directions_gd) @ _unit(rows_md).T)
    true_g, found_g = linear_sum_assignment(-cosine_gm)
    best_g = cosine_gm.max(axis=1)
    f1 = None
    if fires is not None:
        true_bg, found_bg = np.asarray(fires[0])[:, true_g], np.asarray(fires[1])[:, found_g]
        both_g = 2 * (true_bg & found_bg).sum(axis=0)
        f1 = float(np.mean(both_g / np.maximum(true_bg.sum(axis=0) + found_bg.sum(axis=0), 1)))
    return Recovery(
        mmcs=float(best_g.mean()),
        mcc=float(cosine_gm[true_g, found_g].mean()),
        recovered=float((best_g > _RECOVERED).mean()),
        uniqueness=len(np.unique(cosine_gm.argmax(axis=0))) / cosine_gm.shape[1],
        f1=f1,
    )


def _unit(rows: Float[np.ndarray, "N D"] | Array) -> Float[np.ndarray, "N D"]:
    rows = np.asarray(rows, np.float64)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
