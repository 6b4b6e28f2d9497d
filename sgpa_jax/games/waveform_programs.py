"""The two compiled programs of the waveform engine: one hears, the other reads the response.

Recordings, texts and responses are arguments in buckets, so that others of the same buckets compile nothing; and every
row names the script that it is read with, so that coalitions of several utterances run side by side.
Axes: `B` rows, coalitions of one utterance or of several, `N` scripts, `R` tokens of the response, `A` audio positions,
`T` tokens behind the prefix, `U` tokens of the prefix, `K` tokens of text behind the prefix.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Bool, Float, Int
from sgpa_kernels import target_log_probs

from sgpa_jax.games.blocks import Block, block_residuals, run_blocks
from sgpa_jax.games.flat import earlier_of, positions_of
from sgpa_jax.games.hearing import Picked, Rendered, Taken
from sgpa_jax.games.readout import Readout
from sgpa_jax.models import Decoder, StackedEncoder


class Script(NamedTuple):
    """The text around the audio and the response of one utterance (N = 1) or of several, in buckets.

    Attributes:
        prefix_ud: float[U, D], embeddings of what every coalition of all of them begins with, before the audio and all
            players that are text; of them `n_prefix` (int32[]) are real.
        text_nkd: float[N, K, D], embeddings of the other text, without the response's last token; `n_between_n`
            (int32[N]) stand before the audio, `n_text_n` (int32[N]) are real.
        instead_nkd: float[N, K, D], what replaces such text where it is absent.
        targets_nr: int32[N, R], the response's tokens, of which `n_targets_n` (int32[N]) are real.
    """

    prefix_ud: Any
    text_nkd: Any
    instead_nkd: Any
    targets_nr: Any
    n_prefix: Any
    n_between_n: Any
    n_text_n: Any
    n_targets_n: Any


@functools.partial(jax.jit, static_argnames=("is_settled", "mesh"))
def hear(
    encoder: StackedEncoder,
    heard: Picked | Rendered | Taken,
    n_frames_b: Int[Array, " B"],
    *,
    is_settled: bool,
    mesh: Mesh | None,
) -> Float[Array, "B A D"]:
    """Audio embeddings of a microbatch."""

    def run(encoder: StackedEncoder, heard: Picked | Rendered | Taken, n_frames_b: Array) -> Array:
        network = encoder.network()
        front_end: Any = network.config.front_end
        frames = heard.frames(front_end)
        return network.encode(frames if is_settled else front_end.settle(frames, n_frames_b), n_frames_b)

    shared = PartitionSpec("data")
    parts = Picked(PartitionSpec(), shared) if isinstance(heard, Picked) else jax.tree.map(lambda _: shared, heard)
    return _over(mesh, run, (PartitionSpec(), parts, shared))(encoder, heard, n_frames_b)


@functools.partial(jax.jit, static_argnames=("n_tokens", "text_absence", "mesh"))
def read(
    decoder: Decoder,
    script: Script,
    audio_bad: Float[Array, "B A D"],
    n_audio_b: Int[Array, " B"],
    there_bk: Bool[Array, "B K"],
    script_b: Int[Array, " B"],
    readout: Readout | None = None,
    *,
    n_tokens: int,
    text_absence: str,
    mesh: Mesh | None,
) -> Float[Array, "B R"]:
    """Log-probabilities of the response, rubbish behind its last token; or what a readout reads.

    `script_b` tells the script of each row, and `there_bk` which of its text is there.
    """
    run = functools.partial(_read_rows, n_tokens=n_tokens, text_absence=text_absence)
    everywhere, shared = PartitionSpec(), PartitionSpec("data")
    parts = (everywhere, everywhere, shared, shared, shared, shared, everywhere)
    return _over(mesh, run, parts)(decoder, script, audio_bad, n_audio_b, there_bk, script_b, readout)


def _over(mesh: Mesh | None, run: Callable[..., Array], parts: tuple[Any, ...]) -> Callable[..., Array]:
    """Share a function's rows along a mesh's axis `data`, and leave the weights' axis to the compiler."""
    if mesh is None:
        return run
    return jax.shard_map(
        run, mesh=mesh, in_specs=parts, out_specs=PartitionSpec("data"), axis_names={"data"}, check_vma=False
    )


def _read_rows(
    decoder: Decoder,
    scripts: Script,
    audio_bad: Float[Array, "B A D"],
    n_audio_b: Int[Array, " B"],
    there_bk: Bool[Array, "B K"],
    script_b: Int[Array, " B"],
    readout: Readout | None,
    *,
    n_tokens: int,
    text_absence: str,
) -> Float[Array, "B R"]:
    script = _script_of_rows(scripts, script_b)
    size, n_path, n_before = len(audio_bad), len(script.prefix_ud), decoder.n_before
    n_prefix, end_b1 = script.n_prefix, (n_audio_b + script.n_text_n)[:, None]
    path_1u, token_bt = jnp.arange(n_path)[None], jnp.broadcast_to(jnp.arange(n_tokens), (size, n_tokens))
    x_btd, there_bt = _behind(script, audio_bad, n_audio_b, there_bk, token_bt)
    gone_bt = ~there_bt & (text_absence != "replace")
    runs_bt = (token_bt < end_b1) & ~gone_bt
    positions = n_prefix + positions_of(gone_bt & (text_absence == "drop"))
    before_root = before = None
    if n_before:
        before_root = jnp.maximum(path_1u[:, :, None] - 1 - jnp.arange(n_before)[None, None], -1)
        before = _before(runs_bt, gone_bt & (text_absence in ("drop", "drop_keep")), n_prefix, n_path, n_before)
    # There is one leaf, as every group is a coalition by itself.
    root = Block(
        script.prefix_ud[None].astype(audio_bad.dtype), path_1u, path_1u, jnp.zeros_like(path_1u),
        (path_1u < n_prefix).astype(jnp.int32), before_root,
    )  # fmt: skip
    groups = Block(
        x_btd, positions, n_prefix + token_bt, jnp.zeros_like(token_bt), runs_bt.astype(jnp.int32), before
    )  # fmt: skip
    paths = jnp.broadcast_to(jnp.where(path_1u < n_prefix, path_1u, -1), (size, n_path))
    if readout is not None and readout.positions == "audio":
        x_btd = block_residuals(decoder, root, groups, paths, after_layer=readout.after_layer)[1]
        return readout(x_btd, _is_audio(script, n_audio_b, token_bt)[:, None])[:, 0]
    # Token r is predicted one position before it stands.
    n_targets_b1, place_1r = script.n_targets_n[:, None], jnp.arange(script.targets_nr.shape[1])[None]
    wanted = jnp.minimum(end_b1 - n_targets_b1 + place_1r, n_tokens - 1)
    hidden = run_blocks(decoder, root, groups, paths, wanted, after_layer=readout and readout.after_layer)
    if readout is not None:
        return readout(hidden, (place_1r < n_targets_b1)[:, None])[:, 0]
    targets = script.targets_nr.reshape(-1)
    return target_log_probs(hidden.reshape(-1, hidden.shape[2]), decoder.table_vd, targets).reshape(size, -1)


def _script_of_rows(scripts: Script, script_b: Int[Array, " B"]) -> Script:
    """Return the scripts of rows, one for each (N = B)."""
    of_rows = {
        name: getattr(scripts, name)[script_b] for name in Script._fields if name not in ("prefix_ud", "n_prefix")
    }
    return scripts._replace(**of_rows)


def _behind(
    script: Script,
    audio_bad: Float[Array, "B A D"],
    n_audio_b: Int[Array, " B"],
    there_bk: Bool[Array, "B K"],
    token_bt: Int[Array, "B T"],
) -> tuple[Float[Array, "B T D"], Bool[Array, "B T"]]:
    """Embeddings behind the prefix, where text closes up behind the audio's end, and which of them are there."""
    n_room, n_text, dtype = audio_bad.shape[1], script.text_nkd.shape[1], audio_bad.dtype
    text_bkd = jnp.where(there_bk[:, :, None], script.text_nkd, script.instead_nkd).astype(dtype)
    place_bt, is_audio_bt = token_bt - script.n_between_n[:, None], _is_audio(script, n_audio_b, token_bt)
    text_bt = jnp.clip(jnp.where(place_bt < 0, token_bt, token_bt - n_audio_b[:, None]), 0, n_text - 1)
    index_bt = jnp.where(is_audio_bt, jnp.clip(place_bt, 0, n_room - 1), n_room + text_bt)
    x_btd = jnp.take_along_axis(jnp.concatenate([audio_bad, text_bkd], axis=1), index_bt[:, :, None], axis=1)
    return x_btd, is_audio_bt | jnp.take_along_axis(there_bk, text_bt, axis=1)


def _is_audio(script: Script, n_audio_b: Int[Array, " B"], token_bt: Int[Array, "B T"]) -> Bool[Array, "B T"]:
    n_between_b1 = script.n_between_n[:, None]
    return (token_bt >= n_between_b1) & (token_bt < n_between_b1 + n_audio_b[:, None])


def _before(
    runs_bt: Bool[Array, "B T"], skipped_bt: Bool[Array, "B T"], n_prefix: Int[Array, ""], n_path: int, n_before: int
) -> Int[Array, "B T K"]:
    """Pointers of convolutions, which may reach into the prefix: its last tokens stand before each row for that."""
    reach = ((0, 0), (n_before, 0))
    last_1n = n_prefix - n_before + jnp.arange(n_before)[None]
    runs = jnp.pad(runs_bt, reach).at[:, :n_before].set(last_1n >= 0)
    pointers = earlier_of(runs, jnp.pad(skipped_bt, reach), n_before)[:, n_before:]
    in_prefix = (pointers >= 0) & (pointers < n_before)
    return jnp.where(
        in_prefix, n_prefix - n_before + pointers, jnp.where(pointers < 0, -1, n_path + pointers - n_before)
    )
