"""What a coalition sounds like: the recording in which only the chosen players are there.

Three absences (the paper's text zeroes absent segments, its code deletes them): `silence` zeroes an absent player's
samples, `noise` puts the clip's ambient noise there, `delete` cuts them out and joins the rest. Cuts are hard, as in
the paper, and silence between the players always stays. All shapes are static: `vmap` over masks and `jit` work.
Axes: `S` samples, `P` players.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from sgpa_jax.audio import Clip
from sgpa_jax.errors import UsageError, unknown_name
from sgpa_jax.players.levels import frame_power
from sgpa_jax.players.player import PADDING

ABSENCES = ("silence", "noise", "delete")
"""The ways in which a player can be absent from a waveform."""

QUIETEST = 0.1
NOISE_FLOOR_DB = -60.0


def render_coalition(
    wave_s: Float[Array, "S"],
    owner_s: Int[Array, "S"],
    mask_p: Bool[Array, "P"],
    *,
    absence: str,
    noise_s: Float[Array, "S"] | None = None,
    minimum: int = 1,
) -> tuple[Float[Array, "S"], Int[Array, ""]]:
    """Return the samples of one coalition and how many of them count.

    Args:
        wave_s: the recording, any floating dtype; it may be padded.
        owner_s: who owns each sample: a player's index, `NOBODY` (-1: always heard) or `PADDING` (-2: never heard).
        mask_p: the players who take part.
        absence: one of `ABSENCES`.
        noise_s: what is heard instead of an absent player (`ambient_noise`); only "noise" wants it.
        minimum: the least length in samples; a shorter rest of "delete" is followed by silence up to it.

    Returns:
        wave_s of the same shape, zero after its end, and its length int32[]: for "silence" and "noise" the recording's
        own, for "delete" the number of samples kept, in both cases at least `minimum`.

    Raises:
        UsageError: an unknown absence, "noise" without a noise, or a `minimum` longer than the samples.
    """
    if absence not in ABSENCES:
        raise unknown_name("absence", absence, ABSENCES)
    if minimum > wave_s.size:
        raise UsageError(f"a minimum of {minimum} samples does not fit into {wave_s.size}: pad the recording first")
    # Two more entries at the end, for the owners -2 (never) and -1 (always).
    keep_s = jnp.concatenate([mask_p, jnp.array([False, True])])[owner_s]
    if absence == "delete":
        target_s = jnp.cumsum(keep_s, dtype=jnp.int32) - 1
        # Absent samples aim beyond the end, each at a place of its own: dropped, and the indices stay unique.
        beyond_s = wave_s.size + jnp.arange(wave_s.size, dtype=jnp.int32)
        joined_s = jnp.zeros_like(wave_s).at[jnp.where(keep_s, target_s, beyond_s)]
        return joined_s.set(wave_s, mode="drop", unique_indices=True), jnp.maximum(target_s[-1] + 1, minimum)
    there_s = owner_s != PADDING
    if absence == "noise":
        if noise_s is None:
            raise UsageError("absence 'noise' came without a noise: pass noise_s, such as ambient_noise(clip)")
        heard_s = jnp.where(keep_s, wave_s, jnp.where(there_s, noise_s, jnp.zeros_like(noise_s)))
    else:
        heard_s = jnp.where(keep_s, wave_s, jnp.zeros_like(wave_s))
    return heard_s, jnp.maximum(jnp.sum(there_s, dtype=jnp.int32), minimum)


def join_kept(
    wave_s: Float[np.ndarray, "S"],
    owner_s: Int[np.ndarray, "S"],
    masks_cp: Bool[np.ndarray, "C P"],
    *,
    size: int,
) -> Float[np.ndarray, "C size"]:
    """Return what `delete` leaves of a recording in each of many coalitions, followed by zeros.

    The same as `render_coalition`, on the host: a coalition is a few runs of samples to copy, while compiled code would
    move every sample by itself.
    """
    edges = np.flatnonzero(np.diff(owner_s)) + 1
    firsts, lasts = np.append(0, edges), np.append(edges, len(owner_s))
    # Two more columns at the end, for the owners -2 (never) and -1 (always).
    always = np.broadcast_to([False, True], (len(masks_cp), 2))
    keep_cq = np.concatenate([masks_cp, always], axis=1)[:, owner_s[firsts]]
    joined = np.zeros((len(masks_cp), size), wave_s.dtype)
    for row_s, keep_q in zip(joined, keep_cq, strict=True):
        start = 0
        for first, last in zip(firsts[keep_q], lasts[keep_q], strict=True):
            row_s[start : start + last - first] = wave_s[first:last]
            start += last - first
    return joined


def as_pcm16(wave_s: Float[np.ndarray, "S"]) -> Float[np.ndarray, "S"]:
    """Return samples as the authors' code quantises what it joined: clipped, and rounded to k / 32767, float32.

    Half a step goes to the even number. Zero and full scale stay; a 16-bit file's own k / 32768 move by up to a step.
    """
    full_scale = np.float32(32767)
    return np.rint(np.clip(wave_s.astype(np.float32), -1, 1) * full_scale) / full_scale


def ambient_noise(clip: Clip) -> Float[np.ndarray, "S"]:
    """Return white noise as loud as the clip's own pauses, float32[S]: one signal per clip, drawn by its sha256.

    Its level is the root mean square of the quietest tenth of the clip's 20 ms frames, and at least -60 dB full scale.
    """
    power_f = np.sort(frame_power(clip))
    quiet = power_f[: max(1, round(QUIETEST * power_f.size))].mean()
    level = max(float(np.sqrt(quiet)), 10.0 ** (NOISE_FLOOR_DB / 20.0))
    draws_s = np.random.default_rng(int(clip.sha256, 16)).standard_normal(clip.wave_s.size)
    return (level * draws_s).astype(np.float32)
