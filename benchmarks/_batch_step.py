"""The step of a data set's run at full size, compiled for a pod slice and for one replica of it: see `compile_targets`.

A step hears and reads as many coalitions as fit on each chip's share, those of up to 64 utterances side by side, and
gathers what they say. Sizes are those of utterances of 32 words of 0.4 s, a prompt of 30 + 20 tokens, a response of 32.
"""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from _full_size import config_of
from _targets import Target, compiled
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sgpa_jax.audio import round_up, round_up_in_octaves
from sgpa_jax.games.hearing import Picked
from sgpa_jax.games.queues import MOST_GAMES, TABLE_BYTES
from sgpa_jax.games.waveform import MEMORY_BYTES
from sgpa_jax.games.waveform_programs import Script, hear, read
from sgpa_jax.models import Decoder, StackedEncoder
from sgpa_jax.models.families import family_of
from sgpa_jax.models.fill import target as slots_of
from sgpa_jax.models.sharding import parameter_spec

WORDS, WORD_S, PREFIX, TEXT, RESPONSE = 32, 0.4, 32, 64, 32
_SMALL = {4: "2x2"}
"""Topologies of one replica."""

_PATTERNS = 4
"""Sets of neighbours that a mel frame may hear: two words meet in one."""


def batch_rows(pod: Target, name: str, n_model: int, decoder_on: Any) -> Iterator[dict[str, Any]]:
    """Compile the step for a pod slice with `n_model` chips a replica, and for one replica alone.

    `decoder_on` makes the decoder of a configuration, of shapes, on a mesh.
    """
    chips = math.prod(pod.mesh_shape)
    whole = dataclasses.replace(pod, mesh_shape=(chips // n_model, n_model))
    mesh = whole.mesh()
    yield _row(whole, mesh, name, decoder_on)
    alone = dataclasses.replace(whole, mesh_shape=(1, n_model))
    if n_model == 1:
        yield _row(alone, Mesh(mesh.devices[:1], mesh.axis_names), name, decoder_on)
    else:
        # The compiler takes a single chip of a slice, or all of its chips.
        alone = dataclasses.replace(alone, name=f"{pod.name.partition(':')[0]}:{_SMALL[n_model]}")
        yield _row(alone, alone.mesh(), name, decoder_on)


def _row(target: Target, mesh: Mesh, name: str, decoder_on: Any) -> dict[str, Any]:
    raw = config_of(name, tiny=False)
    family = family_of(raw)
    config = family.read_config(raw, None)
    n_data, n_model = target.mesh_shape
    decoder: Decoder = decoder_on(config.decoder, mesh)
    encoder = _encoder(lambda: family.build(config), mesh)
    slots = slots_of(lambda: family.build(config), dtype="bfloat16", mesh=mesh).slots
    front_end, layers = config.front_end, config.decoder
    n_frames = round_up_in_octaves(
        int(front_end.n_frames(round(WORDS * WORD_S * front_end.rate_hz))) + front_end.room_frames, step=8, parts=8
    )
    n_tokens = round_up(int(config.encoder.n_tokens(n_frames - front_end.room_frames)) + TEXT, 8)
    in_layer = n_tokens * (2 * layers.ffn_width + 6 * layers.width + layers.n_heads * (n_tokens + PREFIX))
    bytes_each = 4 * max(config.n_activations(n_frames), in_layer, RESPONSE * layers.vocab_size)
    rows = n_data << (max(MEMORY_BYTES // bytes_each, 1).bit_length() - 1)
    of_one = _PATTERNS * n_frames
    games = min(MOST_GAMES, 1 << ((TABLE_BYTES // (4 * of_one * 128)).bit_length() - 1))

    def array(shape: tuple[int, ...], dtype: Any, *axes: str) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, PartitionSpec(*axes)))

    whole, row = array((), jnp.int32), array((rows,), jnp.int32, "data")
    text, per_game = array((games, TEXT, layers.width), jnp.bfloat16), array((games,), jnp.int32)
    script = Script(
        array((PREFIX, layers.width), jnp.bfloat16), text, text, array((games, RESPONSE), jnp.int32), whole,
        per_game, per_game, per_game,
    )  # fmt: skip
    heard = Picked(array((games * of_one, 128), jnp.float32), array((rows, n_frames), jnp.int32, "data"))
    audio = jax.eval_shape(lambda *given: hear(*given, is_settled=False, mesh=mesh), encoder, heard, row)
    audio = array(audio.shape, audio.dtype, "data")
    there = array((rows, TEXT), jnp.bool_, "data")
    said = array((rows, RESPONSE), jnp.float32, "data")
    programs = {
        "hear": lambda: hear.lower(encoder, heard, row, is_settled=False, mesh=mesh),
        "read": lambda: read.lower(
            decoder, script, audio, row, there, row, n_tokens=n_tokens, text_absence="attention", mesh=mesh
        ),
        "gather": lambda: jax.jit(lambda x: x, out_shardings=NamedSharding(mesh, PartitionSpec())).lower(said),
    }
    found = {kind: compiled(target, lower) for kind, lower in programs.items()}
    step = [found["hear"], found["read"]]
    loaded = sum(math.prod(slot.sharding.shard_shape(slot.shape)) * slot.dtype.itemsize for slot in slots.values())
    stacked = sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves((encoder, decoder))
    )
    held = loaded + stacked + max(part["temporary_bytes"] for part in found.values())
    held += math.prod(heard.table_nm.shape) * 4
    roofline_s = sum(part["roofline_s"] for part in step)
    return {
        "case": f"batch {name}, {WORDS} words",
        "target": target.name,
        "mesh": f"data={n_data},model={n_model}",
        "coalitions": rows,
        "utterances": games,
        "bytes_per_chip": held,
        "weights_per_chip": loaded,
        "fits": held <= target.memory_bytes,
        "flops": sum(part["flops"] for part in step),
        "bytes_accessed": sum(part["bytes_accessed"] for part in step),
        "collectives": ", ".join(part["collectives"] for part in step if part["collectives"]),
        "across_data": sum(part["across_data"] for part in step),
        "gather": found["gather"]["collectives"],
        "sorts": sum(part["sorts"] for part in step),
        "roofline_s": roofline_s,
        "coalitions_per_chip_s": rows / roofline_s / math.prod(target.mesh_shape),
        "compile_s": sum(part["compile_s"] for part in found.values()),
    }


def _encoder(build: Any, mesh: Mesh) -> StackedEncoder:
    """All but the decoder, of shapes: matrices in bfloat16, vectors in float32, cut over the mesh as when loaded."""
    found = jax.eval_shape(lambda: StackedEncoder.of(build()))

    def placed(n_stacked: int, path: Any, leaf: Any) -> jax.ShapeDtypeStruct:
        name = ".".join(str(part.key) for part in path if hasattr(part, "key"))
        spec = parameter_spec(name, leaf.shape[n_stacked:], mesh.shape["model"])
        dtype = jnp.bfloat16 if leaf.ndim - n_stacked >= 2 else jnp.float32
        sharding = NamedSharding(mesh, PartitionSpec(*(None,) * n_stacked, *spec))
        return jax.ShapeDtypeStruct(leaf.shape, dtype, sharding=sharding)

    return dataclasses.replace(
        found,
        state=jax.tree_util.tree_map_with_path(lambda *leaf: placed(0, *leaf), found.state),
        layers=jax.tree_util.tree_map_with_path(lambda *leaf: placed(1, *leaf), found.layers),
    )
