"""Types that every room shares, and the axis letters that their shapes are written in.

Axes: `B` batch, `S` samples, `F` frames, `T` tokens, `P` players, `C` coalitions, `L` layers, `D` width,
`V` vocabulary, `K` outputs explained at once, `M` latents of a sparse autoencoder. Names carry them: `mask_cp`.
"""

import numpy as np
from jax import Array
from jaxtyping import Bool, Float, PRNGKeyArray

MaskCP = Bool[np.ndarray, "C P"] | Bool[Array, "C P"]
"""Coalitions: a row for each, true where the player takes part."""

ValueCK = Float[np.ndarray, "C K"] | Float[Array, "C K"]
"""What each coalition is worth, for each output."""

__all__ = ["MaskCP", "PRNGKeyArray", "ValueCK"]
