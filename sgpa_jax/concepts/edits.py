"""Edits of the residual stream: a latent of a sparse autoencoder added to, set, scaled, clamped or ablated, or a push.

Two modes (AR&D, arXiv 2602.22253, draws the first): `replace` puts the reconstruction of the changed latents in the
stream's place, and with it the autoencoder's error out of it, so that even an edit of nothing changes something; `keep`
adds what the change makes of the reconstruction, x + decode(z') − decode(z), and keeps that error where it is. Axes:
`B` rows, `T` tokens, `D` width, `M` latents.
"""

from dataclasses import dataclass, field
from typing import Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from sgpa_jax.errors import unknown_name
from sgpa_jax.sae import SAEState, decode, encode

OPERATIONS = ("add", "set", "scale", "clamp", "ablate")
"""What becomes of a latent z at strength a: z + a, a, a · z, the smaller one of z and a, or 0."""

MODES = ("keep", "replace")


class Edit(Protocol):
    """What a residual stream becomes at some strength; a pytree, so that another latent compiles nothing."""

    def __call__(self, x_btd: Float[Array, "B T D"], strength_b: Float[Array, " B"]) -> Float[Array, "B T D"]:
        """Return the stream of every row at the row's strength, in float32."""
        ...


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LatentEdit:
    """One latent changed, as an `Edit`.

    Attributes:
        sae: takes the residual stream's own numbers (`TrainedSAE.folded`).
        latent: which one.
        operation: one of `OPERATIONS`; what is added may be negative, and is not cut off at zero.
        mode: one of `MODES`.

    Raises:
        UsageError: an unknown operation or mode.
    """

    sae: SAEState
    latent: Int[Array, ""] | int
    operation: str = field(default="add", metadata={"static": True})
    mode: str = field(default="keep", metadata={"static": True})

    def __post_init__(self) -> None:
        """Refuse what is not offered."""
        for kind, name, known in (("operation", self.operation, OPERATIONS), ("mode", self.mode, MODES)):
            if name not in known:
                raise unknown_name(kind, name, known)

    def __call__(self, x_btd: Float[Array, "B T D"], strength_b: Float[Array, " B"]) -> Float[Array, "B T D"]:
        """Return the stream of every row at the row's strength."""
        x_btd, strength_b1 = x_btd.astype(jnp.float32), strength_b.astype(jnp.float32)[:, None]
        row_d = self.sae.w_dec_md[self.latent]
        if (self.operation, self.mode) == ("add", "keep"):
            # What the latent was does not matter: nothing has to be encoded.
            return x_btd + strength_b1[:, :, None] * row_d[None, None]
        z_btm = encode(self.sae, x_btd)
        z_bt = z_btm[:, :, self.latent]
        more_bt = _changed(self.operation, z_bt, strength_b1) - z_bt
        base_btd = x_btd if self.mode == "keep" else decode(self.sae, z_btm)
        return base_btd + more_bt[:, :, None] * row_d[None, None]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Push:
    """A direction added at every position, as an `Edit`: of a raw dimension, or of a difference of means."""

    direction_d: Float[Array, " D"]

    def __call__(self, x_btd: Float[Array, "B T D"], strength_b: Float[Array, " B"]) -> Float[Array, "B T D"]:
        """Return the stream of every row at the row's strength."""
        push_b11 = strength_b.astype(jnp.float32)[:, None, None]
        return x_btd.astype(jnp.float32) + push_b11 * self.direction_d.astype(jnp.float32)[None, None]


def _changed(operation: str, z_bt: Array, strength_b1: Array) -> Array:
    if operation == "add":
        return z_bt + strength_b1
    if operation == "set":
        return jnp.broadcast_to(strength_b1, z_bt.shape)
    if operation == "scale":
        return strength_b1 * z_bt
    return jnp.minimum(z_bt, strength_b1) if operation == "clamp" else jnp.zeros_like(z_bt)
