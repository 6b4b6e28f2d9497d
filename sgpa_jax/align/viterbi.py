"""Stage 2 (SGPA, section 3.2): the best path through a topology, for a batch of clips at once.

A `lax.scan` over frames keeps the best score of every state and from where it was entered, a second one walks back.
Ties prefer staying, then the nearer predecessor, and at the end the later state (in CTC: the final blank). Axes: `B`
clips, `T` frames, `S` states, `K` predecessors, `V` labels.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from sgpa_jax.align.topology import Topology
from sgpa_jax.audio import round_up

_FRAME_STEP = 512
_STATE_STEP = 256
_PREDECESSOR_STEP = 8
_BATCH = 8


@jax.jit
def best_paths(
    log_probs_btv: Float[Array, "B T V"],
    n_frames_b: Int[Array, "B"],
    label_bs: Int[Array, "B S"],
    before_bsk: Int[Array, "B S K"],
    enter_bs: Bool[Array, "B S"],
    leave_bs: Bool[Array, "B S"],
) -> tuple[Int[Array, "B T"], Float[Array, "B"]]:
    """Return the best state of every frame (int32) and the score of the path (float32, -inf: there is none).

    Frames from `n_frames_b` on and states that nothing leads to change nothing; the states of such frames mean nothing.
    """
    return jax.vmap(_best_path)(log_probs_btv, n_frames_b, label_bs, before_bsk, enter_bs, leave_bs)


def search(
    log_probs: Sequence[Float[np.ndarray, "T V"]], topologies: Sequence[Topology]
) -> list[tuple[Int[np.ndarray, "T"], float]]:
    """Return path and score per clip; shapes are padded to few buckets, so that most clips share a compilation."""
    found: list[tuple[np.ndarray, float]] = []
    for first in range(0, len(topologies), _BATCH):
        chunk = slice(first, first + _BATCH)
        state_bt, score_b = best_paths(
            *_batch(log_probs[chunk], topologies[chunk], 1 if len(topologies) == 1 else _BATCH)
        )
        paths, scores = np.asarray(state_bt), np.asarray(score_b)
        found += [
            (path_t[: len(own)], float(score))
            for path_t, score, own in zip(paths, scores, log_probs[chunk], strict=False)
        ]
    return found


def _batch(
    log_probs: Sequence[Float[np.ndarray, "T V"]], topologies: Sequence[Topology], size: int
) -> tuple[np.ndarray, ...]:
    """Stack clips, padded to the buckets and to `size` rows."""
    n_frames = round_up(max(len(own) for own in log_probs), _FRAME_STEP)
    n_states = round_up(max(len(own.label_s) for own in topologies), _STATE_STEP)
    n_before = round_up(max(own.before_sk.shape[1] for own in topologies), _PREDECESSOR_STEP)
    log_probs_btv = np.zeros((size, n_frames, log_probs[0].shape[1]), np.float32)
    n_frames_b = np.zeros(size, np.int32)
    label_bs = np.zeros((size, n_states), np.int32)
    before_bsk = np.full((size, n_states, n_before), -1, np.int32)
    enter_bs, leave_bs = np.zeros((2, size, n_states), bool)
    for row, (own_tv, topology) in enumerate(zip(log_probs, topologies, strict=True)):
        states, width = topology.before_sk.shape
        log_probs_btv[row, : len(own_tv)] = own_tv
        n_frames_b[row] = len(own_tv)
        label_bs[row, :states] = topology.label_s
        before_bsk[row, :states, :width] = topology.before_sk
        enter_bs[row, :states] = topology.enter_s
        leave_bs[row, :states] = topology.leave_s
    return log_probs_btv, n_frames_b, label_bs, before_bsk, enter_bs, leave_bs


def _best_path(
    log_probs_tv: Float[Array, "T V"],
    n_frames: Int[Array, ""],
    label_s: Int[Array, "S"],
    before_sk: Int[Array, "S K"],
    enter_s: Bool[Array, "S"],
    leave_s: Bool[Array, "S"],
) -> tuple[Int[Array, "T"], Float[Array, ""]]:
    n_states = label_s.shape[0]
    frames_t = jnp.arange(log_probs_tv.shape[0])

    def forward(total_s: Array, frame: tuple[Array, Array]) -> tuple[Array, Array]:
        t, log_probs_v = frame
        options_sk = jnp.where(before_sk >= 0, total_s[before_sk], -jnp.inf)
        choice_s = jnp.argmax(options_sk, axis=1)
        entered_s = jnp.where(t == 0, jnp.where(enter_s, 0.0, -jnp.inf), jnp.max(options_sk, axis=1))
        inside = t < n_frames
        total_s = jnp.where(inside, entered_s + log_probs_v[label_s], total_s)
        return total_s, jnp.where(inside, choice_s, 0).astype(jnp.uint8)

    start_s = jnp.full(n_states, -jnp.inf, jnp.float32)
    total_s, choice_ts = jax.lax.scan(forward, start_s, (frames_t, log_probs_tv))
    final_s = jnp.where(leave_s, total_s, -jnp.inf)
    last = n_states - 1 - jnp.argmax(final_s[::-1])

    def backward(state: Array, choice_s: Array) -> tuple[Array, Array]:
        return before_sk[state, choice_s[state]], state

    _, state_t = jax.lax.scan(backward, last.astype(jnp.int32), choice_ts, reverse=True)
    return state_t, final_s[last]
