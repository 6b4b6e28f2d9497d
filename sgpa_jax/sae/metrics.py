"""How well an autoencoder does, in the definitions that reports use, summed over a whole set in float64.

`fvu` is Σ|x − x̂|² / Σ|x − x̄|² with x̄ the mean of the set, not the mean of batches' values. `l0` counts latents above
zero, so that a TopK's may lie below its k. A latent is dead in training (`dead_frac`) if it was silent for the last ten
million tokens, and dead here (`dead_eval_frac`) if it never fired on the tokens of this set. Axes: `B` tokens, `D`
width, `M` latents.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from sgpa_kernels.topk import Impl

from sgpa_jax.errors import UsageError
from sgpa_jax.sae.decode import decode
from sgpa_jax.sae.encode import encode
from sgpa_jax.sae.state import SAEState

DEAD_TOKENS = 10_000_000
_DENSE = 0.1


@dataclass(frozen=True, eq=False)
class Metrics:
    """Of an autoencoder on a set of tokens.

    Attributes:
        n_tokens: tokens of the set.
        mse: mean of |x − x̂|².
        fvu: fraction of variance unexplained; `explained_variance` is 1 minus it.
        nmse: mean of |x − x̂|² / |x|².
        cossim: mean cosine of x and x̂.
        l2_ratio: mean of |x̂| / |x|.
        rel_recon_bias: E|x̂|² / E[x·x̂].
        l0: latents above zero, a token.
        dead_eval_frac: share of latents that never fired.
        dense_frac: share of latents that fire for more than a tenth of the tokens.
        density_m: share of tokens for which each latent fires.
    """

    n_tokens: int
    mse: float
    fvu: float
    nmse: float
    cossim: float
    l2_ratio: float
    rel_recon_bias: float
    l0: float
    dead_eval_frac: float
    dense_frac: float
    density_m: Float[np.ndarray, " M"] = field(repr=False)

    @property
    def explained_variance(self) -> float:
        """1 − fvu."""
        return 1 - self.fvu

    def to_dict(self) -> dict[str, float]:
        """All but the densities."""
        names = [name for name in self.__dataclass_fields__ if name != "density_m"]
        return {name: getattr(self, name) for name in names} | {"explained_variance": self.explained_variance}


def measure(sae: SAEState, batches: Iterable[Float[np.ndarray, "B D"]], *, impl: Impl = "lax") -> Metrics:
    """Measure an autoencoder on inputs as it takes them (for a residual stream's own numbers, a folded one).

    Raises:
        UsageError: there are no tokens, or they do not vary.
    """
    total, middle_d = np.zeros(7), None
    shift_d, fired_m, n_tokens = np.zeros(sae.config.width), np.zeros(sae.config.n_latents, np.int64), 0
    for x_bd in batches:
        rebuilt_bd, found_m = _passed(sae, jnp.asarray(x_bd), impl)
        x, rebuilt = np.asarray(x_bd, np.float64), np.asarray(rebuilt_bd, np.float64)
        # Sums of squares are taken about a point near the mean: a large mean would swallow the variance.
        middle_d = x.mean(axis=0) if middle_d is None else middle_d
        error_b, power_b, rebuilt_b = (np.sum(a**2, axis=1) for a in (x - rebuilt, x, rebuilt))
        dot_b, floor = np.sum(x * rebuilt, axis=1), np.finfo(np.float64).tiny
        norms_b = np.sqrt(power_b * rebuilt_b)
        total += [
            error_b.sum(), np.sum((x - middle_d) ** 2), np.sum(error_b / np.maximum(power_b, floor)),
            np.sum(dot_b / np.maximum(norms_b, floor)), np.sum(np.sqrt(rebuilt_b / np.maximum(power_b, floor))),
            rebuilt_b.sum(), dot_b.sum(),
        ]  # fmt: skip
        shift_d += (x - middle_d).sum(axis=0)
        fired_m += np.asarray(found_m, np.int64)
        n_tokens += len(x)
    if n_tokens == 0:
        raise UsageError("there are no tokens to measure the autoencoder on; give at least two")
    variance = total[1] - np.sum(shift_d**2) / n_tokens
    if variance <= 0:
        raise UsageError("the tokens to measure the autoencoder on are all the same; give others")
    density_m = fired_m / n_tokens
    error, _, relative, cosine, ratio, power, dot = total.tolist()
    return Metrics(
        n_tokens=n_tokens,
        mse=error / n_tokens,
        fvu=error / float(variance),
        nmse=relative / n_tokens,
        cossim=cosine / n_tokens,
        l2_ratio=ratio / n_tokens,
        rel_recon_bias=power / dot if dot else float("nan"),
        l0=float(density_m.sum()),
        dead_eval_frac=float((fired_m == 0).mean()),
        dense_frac=float((density_m > _DENSE).mean()),
        density_m=density_m,
    )


def dead_frac(silent_m: Int[np.ndarray, " M"]) -> float:
    """Share of latents that have been silent for the last ten million tokens of training."""
    return float((np.asarray(silent_m) >= DEAD_TOKENS).mean())


@partial(jax.jit, static_argnums=2)
def _passed(sae: SAEState, x_bd: Array, impl: Impl) -> tuple[Array, Array]:
    z_bm = encode(sae, x_bd, impl=impl)
    return decode(sae, z_bm), (z_bm > 0).sum(axis=0)
