"""The result of an explanation: one object with values, their certainty, and everything needed to make it again."""

from sgpa_jax.explain.explanation import Explanation
from sgpa_jax.explain.schema import SCHEMA
from sgpa_jax.explain.source import ClipInfo, Transcript

__all__ = ["SCHEMA", "ClipInfo", "Explanation", "Transcript"]
