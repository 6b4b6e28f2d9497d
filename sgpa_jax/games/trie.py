"""The trie engine: coalitions that agree on the earlier players share everything up to where they differ.

For absences that leave the encoder alone (`TOKEN_ABSENCES`). The host plans chunks of one shape (`trie_plan.py`), each
of which goes through all layers at once (`blocks.py`): memory does not grow with the number of coalitions, and one
program serves all chunks, other recordings of the same bucket, and every device of a mesh.
Axes: `C` coalitions, `P` players, `T` tokens, `R` tokens of the response, `Q` chunks, `G` groups.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Bool, Float
from sgpa_kernels import target_log_probs

from sgpa_jax.audio import TOKEN_STEP, round_up
from sgpa_jax.errors import UsageError, unknown_name
from sgpa_jax.games.blocks import KERNELS, Block, Kernels, block_residuals, run_blocks
from sgpa_jax.games.passage import Passage
from sgpa_jax.games.readout import Readout
from sgpa_jax.games.trie_plan import Chunk, TriePlan, plan_trie
from sgpa_jax.models import Decoder, gathered

GROUP_TOKENS, CHUNK_LEAVES = 128, 64
"""Tokens of a group, and coalitions computed at once: the quickest on CPUs, whose caches are small."""

ACCELERATOR_GROUP_TOKENS, ACCELERATOR_CHUNK_LEAVES = 512, 256
"""The same for GPUs and TPUs, which want large matrices; not measured on one."""


class Scene(NamedTuple):
    """What all chunks share.

    Attributes:
        rows_sd: embeddings of the passage's tokens and then its baseline's, and so on of several, in a bucket.
        is_audio_s: which of them belong to players that are heard.
    """

    rows_sd: Float[Array, "S D"]
    is_audio_s: Bool[Array, " S"]


def scene_of(*passages: Passage) -> Scene:
    """Join what the chunks of these passages share; several in few sizes, whatever they are."""
    rows: list[Any] = []
    is_audio: list[np.ndarray] = []
    for passage in passages:
        own = [passage.x_td] if passage.baseline_td is None else [passage.x_td, passage.baseline_td]
        rows += own
        is_audio += [passage.is_audio_t] * len(own)
    n_rows = sum(map(len, rows))
    spare = (round_up(n_rows, TOKEN_STEP) if len(passages) == 1 else 1 << (n_rows - 1).bit_length()) - n_rows
    # What the host holds is joined there: on the device, every length would be a program.
    numpy: Any = np if all(isinstance(own, np.ndarray) for own in rows) else jnp
    return Scene(
        jnp.asarray(numpy.pad(numpy.concatenate(rows), ((0, spare), (0, 0)))),
        jnp.asarray(np.pad(np.concatenate(is_audio), (0, spare))),
    )


def evaluate_coalitions(
    decoder: Decoder,
    passage: Passage,
    masks_cp: Bool[np.ndarray, "C P"],
    *,
    readout: Readout | None = None,
    mesh: Mesh | None = None,
    kernels: Kernels = "xla",
    group_tokens: int | None = None,
    chunk_leaves: int | None = None,
) -> Float[np.ndarray, "C K"]:
    """Return the log-probability of every token of the response under every coalition, or what a readout reads.

    Args:
        decoder: the layers and the head.
        passage: the tokens and their players.
        masks_cp: coalitions in any order.
        readout: K numbers of each coalition; None: the R log-probabilities, float32.
        mesh: devices whose axis `data` shares the chunks; each computes its own root.
        kernels: `xla`, or `pallas` on TPUs, where its kernels have been compiled but not run; no readout takes those.
        group_tokens: tokens of a group; None: what suits the devices.
        chunk_leaves: coalitions that are computed at once on a device; None: what suits the devices.

    Raises:
        UsageError: unknown kernels, kernels for TPUs with a readout, or a readout of a layer that is not there.
    """
    if kernels not in KERNELS:
        raise unknown_name("kernels", kernels, KERNELS)
    if readout is not None:
        readout.check(decoder)
        if kernels != "xla":
            raise UsageError(f"kernels {kernels!r} came with a readout: expected 'xla', which alone serves readouts")
    plan = plan_for(decoder, passage, masks_cp, mesh=mesh, group_tokens=group_tokens, chunk_leaves=chunk_leaves)
    return run_plan(decoder, scene_of(passage), plan, readout=readout, mesh=mesh, kernels=kernels)[plan.leaf_of_c]


def plan_for(
    decoder: Decoder,
    passage: Passage,
    masks_cp: Bool[np.ndarray, "C P"],
    *,
    mesh: Mesh | None = None,
    group_tokens: int | None = None,
    chunk_leaves: int | None = None,
) -> TriePlan:
    """Plan the run of a set of coalitions on the devices that hold the decoder."""
    usual_tokens, usual_leaves = sizes_on(next(iter(decoder.table_vd.devices())).platform)
    return plan_trie(
        passage,
        masks_cp,
        n_before=decoder.n_before,
        group_tokens=group_tokens or usual_tokens,
        chunk_leaves=chunk_leaves or usual_leaves,
        n_devices=1 if mesh is None else mesh.shape["data"],
    )


def sizes_on(platform: str) -> tuple[int, int]:
    """Return the tokens of a group and the coalitions of a chunk that suit a platform as jax names it."""
    if platform == "cpu":
        return GROUP_TOKENS, CHUNK_LEAVES
    return ACCELERATOR_GROUP_TOKENS, ACCELERATOR_CHUNK_LEAVES


def run_plan(
    decoder: Decoder,
    scene: Scene,
    plan: TriePlan,
    *,
    readout: Readout | None = None,
    mesh: Mesh | None = None,
    kernels: Kernels = "xla",
) -> Float[np.ndarray, "leaves K"]:
    """Run a plan's chunks one after another, as many at once as there are devices along `data`."""
    n_devices = 1 if mesh is None else mesh.shape["data"]
    n_read = _n_read(scene, plan, readout)
    found: np.ndarray | None = None
    waiting: list[tuple[np.ndarray, Array]] = []
    for q in range(0, len(plan.chunks.path) + n_devices, n_devices):
        if q < len(plan.chunks.path):
            chunk = jax.tree.map(lambda array, q=q: array[q : q + n_devices], plan.chunks)
            values = run_chunks(decoder, scene, chunk, readout, mesh, kernels, n_read)
            waiting.append((chunk.coalition.reshape(-1), gathered(values)))
        # A chunk is on its way while the one before is fetched: two are alive at most.
        if len(waiting) == 2 or q >= len(plan.chunks.path):
            leaf, values = waiting.pop(0)
            values = np.asarray(values).reshape(len(leaf), -1)
            found = np.zeros((plan.n_leaves, values.shape[1]), np.float32) if found is None else found
            found[leaf[leaf >= 0]] = values[leaf >= 0]
    assert found is not None
    return found


def coalition_values(
    decoder: Decoder, scene: Scene, plan: TriePlan, *, readout: Readout | None = None
) -> Float[Array, "C K"]:
    """Run a plan inside of your own `jit`, `vmap`, `grad` or `shard_map`: pure, chunk after chunk.

    The plan's arrays may be constants or arguments; `scene_of` makes the scene of a passage.
    """

    def run(chunk: Chunk) -> Array:
        return _run_own(
            "xla", None, decoder, scene, jax.tree.map(lambda array: jnp.asarray(array)[None], chunk), readout
        )[0]

    values = jax.lax.map(run, jax.tree.map(jnp.asarray, plan.chunks))
    # Padding goes to one row more, which nobody reads.
    leaf = jnp.where(plan.chunks.coalition >= 0, plan.chunks.coalition, plan.n_leaves).reshape(-1)
    table = jnp.zeros((plan.n_leaves + 1, values.shape[-1]), jnp.float32)
    return table.at[leaf].set(values.reshape(len(leaf), -1))[plan.leaf_of_c]


@functools.partial(jax.jit, static_argnames=("mesh", "kernels", "n_read"))
def run_chunks(
    decoder: Decoder,
    scene: Scene,
    chunks: Chunk,
    readout: Readout | None,
    mesh: Mesh | None,
    kernels: Kernels = "xla",
    n_read: int | None = None,
) -> Float[Array, "Q G leaves K"]:
    """Run Q chunks, one a device along the mesh's axis `data`; `n_read` bounds their audio tokens that run."""
    if mesh is None:
        return _run_own(kernels, n_read, decoder, scene, chunks, readout)
    everywhere, shared = PartitionSpec(), PartitionSpec("data")
    run = jax.shard_map(
        functools.partial(_run_own, kernels, n_read),
        mesh=mesh,
        in_specs=(everywhere, everywhere, shared, everywhere),
        out_specs=shared,
        # The weights' axis is left to the compiler.
        axis_names={"data"},
        check_vma=False,
    )
    return run(decoder, scene, chunks, readout)


def _run_own(
    kernels: Kernels, n_read: int | None, decoder: Decoder, scene: Scene, chunks: Chunk, readout: Readout | None
) -> Float[Array, "1 G leaves K"]:
    """Run a device's one chunk."""
    chunk: Any = jax.tree.map(lambda array: array[0], chunks)
    root, groups = (_block(scene.rows_sd, block, decoder.n_before > 0) for block in (chunk.root, chunk.groups))
    if readout is not None and readout.positions == "audio":
        return _read_audio(decoder, scene, chunk, root, groups, readout, n_read)[None]
    after_layer, wanted = None if readout is None else readout.after_layer, jnp.maximum(chunk.wanted, 0)
    hidden = run_blocks(decoder, root, groups, chunk.path, wanted, after_layer=after_layer, kernels=kernels)
    n_leaves = chunk.coalition.shape[1]
    n_scored = wanted.shape[1] // n_leaves
    if readout is not None:
        own = jnp.repeat(jnp.eye(n_leaves, dtype=bool), n_scored, axis=1)
        return readout(hidden, own[None] & (chunk.wanted >= 0)[:, None])[None]
    log_probs = target_log_probs(
        hidden.reshape(-1, hidden.shape[2]),
        decoder.table_vd,
        chunk.targets.reshape(-1),
        impl="xla" if kernels == "xla" else "pallas",
        interpret=kernels == "interpret",
    )
    return log_probs.reshape(1, len(hidden), n_leaves, n_scored)


def _read_audio(
    decoder: Decoder, scene: Scene, chunk: Any, root: Block, groups: Block, readout: Readout, n_read: int | None
) -> Float[Array, "G leaves K"]:
    """Read every audio token that runs once, the root's and the groups', and reduce those of each leaf."""
    root_x, x = block_residuals(decoder, root, groups, chunk.path, after_layer=readout.after_layer)
    rows, first, last, token = (
        jnp.concatenate([shared[0], own.reshape(-1, *own.shape[2:])])
        for shared, own in ((root_x, x), *((getattr(chunk.root, name), getattr(chunk.groups, name)) for name in _READ))
    )
    is_read = scene.is_audio_s[token] & (first < last)
    if n_read is not None:
        front = jnp.argsort(~is_read, stable=True)[:n_read]
        rows, first, last, is_read = (array[front] for array in (rows, first, last, is_read))
    leaf = chunk.coalition.reshape(-1, 1)
    there = (first[None] <= leaf) & (leaf < last[None]) & is_read[None]
    return readout(rows[None], there[None])[0].reshape(*chunk.coalition.shape, -1)


_READ = ("first", "last", "token")


def _n_read(scene: Scene, plan: TriePlan, readout: Readout | None) -> int | None:
    """The most audio tokens that run in a chunk, in a bucket: few where the prompt is long behind the audio."""
    if readout is None or readout.positions != "audio":
        return None
    is_audio_s = np.asarray(scene.is_audio_s)
    counts_q = sum(
        (is_audio_s[block.token] & (block.first < block.last)).reshape(len(block.place), -1).sum(axis=1)
        for block in (plan.chunks.root, plan.chunks.groups)
    )
    return round_up(max(int(np.max(counts_q)), 1), 4 * TOKEN_STEP)


def _block(rows_sd: Float[Array, "S D"], plan: Any, convolves: bool) -> Block:
    return Block(
        rows_sd[plan.token], plan.positions, plan.place, plan.first, plan.last, plan.before if convolves else None
    )
