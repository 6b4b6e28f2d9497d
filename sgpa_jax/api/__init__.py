"""The one-liners: `explain` an answer, `plan` what that would cost, `align` words with a recording."""

from sgpa_jax.api.align import HEARD, align
from sgpa_jax.api.explain import explain
from sgpa_jax.api.plan import plan

__all__ = ["HEARD", "align", "explain", "plan"]
