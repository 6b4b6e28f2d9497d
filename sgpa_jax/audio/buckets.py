"""The shape buckets: lengths are padded to a multiple of a step, so that jit compiles per bucket, not per clip."""

SAMPLES_STEP_S = 0.5
"""Recordings are padded to a multiple of this many seconds."""

TOKEN_STEP = 32
"""Token sequences are padded to a multiple of this many positions."""


def round_up(length: int, step: int) -> int:
    """Return the smallest multiple of `step` that is at least `length`, and at least one step."""
    return max(1, -(-length // step)) * step
