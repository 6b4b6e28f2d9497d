"""The shape buckets: lengths are padded to a multiple of a step, so that jit compiles per bucket, not per clip."""

SAMPLES_STEP_S = 0.5
"""Recordings are padded to a multiple of this many seconds."""

TOKEN_STEP = 32
"""Token sequences are padded to a multiple of this many positions."""


def round_up(length: int, step: int) -> int:
    """Return the smallest multiple of `step` that is at least `length`, and at least one step."""
    return max(1, -(-length // step)) * step


def round_up_in_octaves(length: int, *, step: int, parts: int) -> int:
    """Return the smallest of `parts` sizes an octave that is at least `length`: multiples of `step`, a power of two.

    So the share of padding is bounded for any length, 1 / `parts` at most, and the number of sizes grows with its
    logarithm.
    """
    octave = 1 << (max(length, 1).bit_length() - 1)
    return round_up(length, max(step, octave // parts))
