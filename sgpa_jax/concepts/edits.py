"""Edits of the residual stream: latents of a sparse autoencoder added to, set, scaled, clamped or ablated, or a push.

Two modes (AR&D, arXiv 2602.22253, draws the first): `replace` puts the reconstruction of the changed latents in the
stream's place, and with it the autoencoder's error out of it, so that even an edit of nothing changes something; `keep`
adds what the change makes of the reconstruction, x + decode(z') − decode(z), and keeps that error where it is. Axes:
`B` rows, `T` tokens, `D` width, `M` latents, `K` latents that are changed.
"""

from dataclasses import dataclass, field
from typing import Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from sgpa_jax.errors import unknown_name
from sgpa_jax.sae import SAEState, decode, encode

OPERATIONS = ("add", "set", "scale", "clamp", "ablate")
"""What becomes of a latent z with a share s at strength a: z + s a, s a, a z, the smaller one of z and s a, or 0."""

MODES = ("keep", "replace")


class Edit(Protocol):
    """What a residual stream becomes at some strength; a pytree, so that another latent compiles nothing."""

    def __call__(self, x_btd: Float[Array, "B T D"], strength_b: Float[Array, " B"]) -> Float[Array, "B T D"]:
        """Return the stream of every row at the row's strength, in float32."""
        ...


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LatentEdit:
    """Latents changed together, one of them or those of a concept, as an `Edit`.

    Attributes:
        sae: takes the residual stream's own numbers (`TrainedSAE.folded`).
        latents: which ones.
        shares: of the strength, one for each latent, or one for all.
        operation: one of `OPERATIONS`; what is added may be negative, and is not cut off at zero.
        mode: one of `MODES`.

    Raises:
        UsageError: an unknown operation or mode.
    """

    sae: SAEState
    latents: Int[Array, " K"] | int
    shares: Float[Array, " K"] | float = 1.0
    operation: str = field(default="add", metadata={"static": True})
    mode: str = field(default="keep", metadata={"static": True})

    def __post_init__(self) -> None:
        """Refuse what is not offered."""
        for kind, name, known in (("operation", self.operation, OPERATIONS), ("mode", self.mode, MODES)):
            if name not in known:
                raise unknown_name(kind, name, known)

    def __call__(self, x_btd: Float[Array, "B T D"], strength_b: Float[Array, " B"]) -> Float[Array, "B T D"]:
        """Return the stream of every row at the row's strength."""
        x_btd, latents_k = x_btd.astype(jnp.float32), jnp.atleast_1d(jnp.asarray(self.latents))
        rows_kd, share_k = self.sae.w_dec_md[latents_k], jnp.broadcast_to(self.shares, latents_k.shape)
        strength_b11 = strength_b.astype(jnp.float32)[:, None, None]
        if (self.operation, self.mode) == ("add", "keep"):
            # What the latents were does not matter: nothing has to be encoded.
            return x_btd + strength_b11 * (share_k @ rows_kd)[None, None]
        z_btm = encode(self.sae, x_btd)
        z_btk = z_btm[:, :, latents_k]
        more_btk = _changed(self.operation, z_btk, strength_b11, share_k[None, None]) - z_btk
        base_btd = x_btd if self.mode == "keep" else decode(self.sae, z_btm)
        return base_btd + more_btk @ rows_kd


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Push:
    """A direction added at every position, as an `Edit`: of a raw dimension, or of a difference of means."""

    direction_d: Float[Array, " D"]

    def __call__(self, x_btd: Float[Array, "B T D"], strength_b: Float[Array, " B"]) -> Float[Array, "B T D"]:
        """Return the stream of every row at the row's strength."""
        push_b11 = strength_b.astype(jnp.float32)[:, None, None]
        return x_btd.astype(jnp.float32) + push_b11 * self.direction_d.astype(jnp.float32)[None, None]


def _changed(operation: str, z_btk: Array, strength_b11: Array, share_11k: Array) -> Array:
    amount_btk = jnp.broadcast_to(strength_b11 * share_11k, z_btk.shape)
    if operation == "add":
        return z_btk + amount_btk
    if operation == "set":
        return amount_btk
    if operation == "scale":
        return strength_b11 * z_btk
    return jnp.minimum(z_btk, amount_btk) if operation == "clamp" else jnp.zeros_like(z_btk)
