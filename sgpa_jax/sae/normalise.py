"""The scale and shift under which an autoencoder sees a residual stream, and how to do without them afterwards.

Axes: `B` tokens, `D` width.
"""

from dataclasses import replace
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sgpa_jax.errors import unknown_name
from sgpa_jax.sae.config import NORMALISATIONS
from sgpa_jax.sae.state import SAEState


class Normalisation(NamedTuple):
    """`scale * (x - mean)`, float32."""

    mean_d: Float[Array, " D"]
    scale: Float[Array, ""]

    def __call__(self, x_bd: Float[Array, "B D"]) -> Float[Array, "B D"]:
        """Inputs as the autoencoder sees them."""
        return self.scale * (x_bd.astype(jnp.float32) - self.mean_d[None])

    def undo(self, x_bd: Float[Array, "B D"]) -> Float[Array, "B D"]:
        """Back to the residual stream's own numbers."""
        return x_bd / self.scale + self.mean_d[None]


def fit_normalisation(x_bd: Float[np.ndarray, "B D"], kind: str) -> Normalisation:
    """Fit one of `NORMALISATIONS` to inputs: summed in float64 on the host.

    Raises:
        UsageError: there is no such kind.
    """
    if kind not in NORMALISATIONS:
        raise unknown_name("normalisation", kind, NORMALISATIONS)
    x = np.asarray(x_bd, np.float64)
    mean_d = x.mean(axis=0) if kind == "centre" else np.zeros(x.shape[1])
    power = np.mean(np.sum((x - mean_d) ** 2, axis=1))
    scale = 1.0 if kind == "none" or power == 0 else (x.shape[1] / power) ** 0.5
    return Normalisation(jnp.asarray(mean_d, jnp.float32), jnp.asarray(scale, jnp.float32))


def fold(sae: SAEState, normalisation: Normalisation) -> SAEState:
    """Return the autoencoder that takes the residual stream's own numbers: the same latents, the same directions."""
    mean_d, scale = normalisation
    folded = replace(
        sae, w_enc_md=scale * sae.w_enc_md, w_dec_md=sae.w_dec_md / scale, b_dec_d=sae.b_dec_d / scale + mean_d
    )
    if sae.config.pre_bias:
        return folded
    return replace(folded, b_enc_m=sae.b_enc_m - folded.w_enc_md @ mean_d)
