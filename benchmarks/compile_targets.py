"""Do the kernels and the trie engine compile for real accelerators, fit, and do no other work than they should?

Needs no accelerator: XLA's own compilers for TPU (v5e:2x4, v5p:2x2x1, v6e:2x4) and for one H200 compile for a described
topology. Nothing is run, so nothing here says that a value is right or how fast it comes. Each compiler wants an
environment of its own (`pip install -e '.[tpu-compile]'` or `'.[gpu-compile]'`); targets without one are left out, and
`--targets` names some. No weights are allocated.

Cases `engine …` are one chunk of the trie engine (`run_chunks`) at the sizes of Qwen2-Audio-7B's and LFM2-1.2B's
decoders in bfloat16, for all 2^n coalitions of n players of 10 tokens behind 30, with 20 tokens of question and 32 of
response: coalitions along the mesh's axis data, weights along model (`mesh`). Columns: `bytes_per_chip` (weights, plan
and temporaries; the encoder and the embedding table come on top) and whether it `fits`; `flops` and `bytes_accessed` of
all chunks on all chips by the compiler's own count, loops taken as often as they run, beside the closed formulas
`flops_formula` (2 · weights · tokens + attention + head, for 2^n − 1 segments and 2^n leaves) and `bytes_formula` (all
weights once a chunk), `flops_ratio` of the two; `collectives`, and over how many chips (`collective_chips`: those of
one model, no more); `sorts`; `custom_calls`; `launches` on the GPU; `roofline_s`: the larger of FLOPs and bytes over
what the maker states for the chip, for all coalitions.

Cases `batch …` are the step of a data set's run (`_batch_step.py`) on the pod slices v5e:16x16 and v5p:4x4x4 at the
sizes of LFM2-Audio-1.5B and Qwen2-Audio-7B, and on one replica beside each. `bytes_per_chip` holds the loaded model,
the engines' stacked copy of its layers and temporaries; `across_data` counts collectives that join chips of different
replicas, of which there should be none, and `gather` is what ends a step; `coalitions_per_chip_s` is the step's over
its `roofline_s`, which nothing reaches.

Cases `kernel …` are the kernels alone at the chunk's sizes on one chip, an `impl` a row: bytes by the compiler's count.
"""

import argparse
import dataclasses
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _batch_step import batch_rows
from _harness import parser, report
from _targets import PODS, TARGETS, Target, compiled
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from sgpa_kernels import gated_short_conv, target_log_probs, tree_attention

from sgpa_jax.audio import TOKEN_STEP, round_up
from sgpa_jax.games.passage import Passage
from sgpa_jax.games.trie import ACCELERATOR_CHUNK_LEAVES, ACCELERATOR_GROUP_TOKENS, Scene, run_chunks
from sgpa_jax.games.trie_plan import plan_trie
from sgpa_jax.models.decoder import Decoder, decoder_of
from sgpa_jax.models.lfm2 import Lfm2, Lfm2Config
from sgpa_jax.models.qwen2 import Qwen2, Qwen2Config
from sgpa_jax.models.sharding import parameter_spec

PREFIX, SEGMENT, QUESTION, RESPONSE = 30, 10, 20, 32
CONFIGS: Mapping[str, Qwen2Config | Lfm2Config] = {
    "qwen2-audio-7b": Qwen2Config(
        vocab_size=156032, width=4096, n_layers=32, n_heads=32, n_kv_heads=32, head_width=128, ffn_width=11008,
        rope_theta=1e4, norm_eps=1e-5, tied_head=False,
    ),
    "lfm2-1.2b": Lfm2Config(
        vocab_size=65536, width=2048, attends=tuple(i in (2, 5, 8, 10, 12, 14) for i in range(16)), n_heads=32,
        n_kv_heads=8, head_width=64, n_taps=3, ffn_width=8192, rope_theta=1e6, norm_eps=1e-5, tied_head=True,
    ),
}  # fmt: skip


def main() -> None:
    """Compile what the arguments ask for."""
    options = parser(__doc__)
    options.add_argument("--cases", default="kernel,engine,batch", help="of these (default: all), separated by commas")
    known = TARGETS | PODS
    options.add_argument("--targets", default=",".join(known), help="of these, separated by commas")
    options.add_argument("--players", default="10,12", help="numbers of players (default: 10,12)")
    options.add_argument("--models", default=",".join(CONFIGS), help="of these, separated by commas")
    options.add_argument("--group-tokens", type=int, default=ACCELERATOR_GROUP_TOKENS, help="tokens of a group")
    options.add_argument("--chunk-leaves", type=int, default=ACCELERATOR_CHUNK_LEAVES, help="coalitions of a chunk")
    arguments = options.parse_args()
    targets = [known[name] for name in arguments.targets.split(",") if known[name].has_compiler()]
    if not targets:
        options.error("no compiler for any of the targets is installed: expected libtpu or jax's CUDA plugin")
    rows = []
    for target in targets:
        if target.name in PODS:
            rows += _batch(target, arguments) if "batch" in arguments.cases else []
            continue
        mesh = target.mesh()
        rows += _kernels(target, mesh) if "kernel" in arguments.cases else []
        if "engine" not in arguments.cases:
            continue
        for name in ["lfm2-1.2b"] if arguments.quick else arguments.models.split(","):
            for n_players in [10] if arguments.quick else map(int, arguments.players.split(",")):
                rows.append(_engine(target, mesh, name, n_players, arguments))
                print(
                    f"{rows[-1]['case']} for {target.name}: {rows[-1]['compile_s']:.0f} s", file=sys.stderr, flush=True
                )
    report("compile_targets", rows, arguments)


def _batch(pod: Target, arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Compile the step of a data set's run on a pod slice, with the smallest replicas that fit."""
    for name, n_model in (("lfm2-audio-1.5b", 1), ("qwen2-audio-7b", 1 if pod.memory_bytes > 64e9 else 4)):
        if not arguments.quick or n_model == 1:
            for row in batch_rows(pod, name, n_model, abstract_decoder):
                print(f"{row['case']} for {row['mesh']}: {row['compile_s']:.0f} s", file=sys.stderr, flush=True)
                yield row


def _engine(target: Target, mesh: Mesh, name: str, n_players: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Compile the chunk function of the trie engine; the row is of all coalitions."""
    decoder = abstract_decoder(CONFIGS[name], mesh)
    passage, masks_cp = _passage(n_players), np.arange(2**n_players)[:, None] >> np.arange(n_players) & 1 == 1
    n_data = mesh.shape["data"]
    plan = plan_trie(
        passage, masks_cp, n_before=decoder.n_before, group_tokens=arguments.group_tokens,
        chunk_leaves=arguments.chunk_leaves, n_devices=n_data,
    )  # fmt: skip
    everywhere, shared = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), ("data",)))
    n_tokens, width = len(passage.x_td), decoder.table_vd.shape[1]
    n_rows = round_up(n_tokens, TOKEN_STEP)
    shared_by_all: list[Any] = [
        jax.ShapeDtypeStruct(shape, dtype, sharding=everywhere)
        for shape, dtype in (((n_rows, width), jnp.bfloat16), ((n_rows,), jnp.bool_))
    ]
    chunks = jax.tree.map(
        lambda array: jax.ShapeDtypeStruct((n_data, *array.shape[1:]), array.dtype, sharding=shared), plan.chunks
    )
    found = compiled(target, lambda: run_chunks.lower(decoder, Scene(*shared_by_all), chunks, None, mesh))
    n_chunks = len(plan.chunks.path)
    calls, formula = n_chunks // n_data, flops_formula(CONFIGS[name], decoder, n_players)
    flops, moved = (found.pop(kind) * calls * mesh.size for kind in ("flops", "bytes_accessed"))
    return {
        "case": f"engine {name} n={n_players}",
        "target": target.name,
        "mesh": f"data={n_data},model={mesh.shape['model']}",
        "chunks": n_chunks,
        "tokens_run": plan.tokens_run,
        "tokens_padded": plan.tokens_padded,
        "flops": flops,
        "flops_formula": formula,
        "flops_ratio": flops / formula,
        "bytes_accessed": moved,
        "bytes_formula": n_chunks * sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(decoder)),
        **found,
        "roofline_s": calls * found["roofline_s"],
    }


def abstract_decoder(config: Qwen2Config | Lfm2Config, mesh: Mesh) -> Decoder:
    """Return a decoder of shapes: matrices in bfloat16, vectors in float32, cut over the mesh as a loaded one is."""
    network = Qwen2 if isinstance(config, Qwen2Config) else Lfm2
    decoder = jax.eval_shape(lambda: decoder_of(network(config, rngs=nnx.Rngs(0))))  # pyright: ignore[reportArgumentType]

    def placed(path: str, leaf: Any, n_stacked: int) -> jax.ShapeDtypeStruct:
        spec = parameter_spec(path, leaf.shape[n_stacked:], mesh.shape["model"])
        dtype = jnp.bfloat16 if leaf.ndim - n_stacked >= 2 else jnp.float32
        sharding = NamedSharding(mesh, PartitionSpec(*(None,) * n_stacked, *spec))
        return jax.ShapeDtypeStruct(leaf.shape, dtype, sharding=sharding)

    def placed_run(params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(lambda path, leaf: placed(_dotted(path), leaf, 1), params)

    return dataclasses.replace(
        decoder,
        params=tuple(placed_run(params) for params in decoder.params),
        norm_params=jax.tree.map(lambda leaf: placed("norm.scale", leaf, 0), decoder.norm_params),
        table_vd=placed("decoder.head.table", decoder.table_vd, 0),
    )


def flops_formula(config: Qwen2Config | Lfm2Config, decoder: Decoder, n_players: int) -> float:
    """Return what all 2^n coalitions cost when whatever they share is computed once and absent tokens never."""
    n_coalitions, leaf = 2**n_players, QUESTION + RESPONSE - 1
    weights = sum(a.size for a in jax.tree.leaves(decoder.params) if a.ndim == 3)
    tokens = PREFIX + (n_coalitions - 1) * SEGMENT + n_coalitions * leaf
    # A token sees what is before it and itself; of the earlier players, half are there on average.
    seen = PREFIX * (PREFIX + 1) / 2 + n_coalitions * leaf * (PREFIX + n_players * SEGMENT / 2 + (leaf + 1) / 2)
    for i in range(n_players):
        seen += 2**i * SEGMENT * (PREFIX + i * SEGMENT / 2 + (SEGMENT + 1) / 2)
    n_attending = config.n_layers if isinstance(config, Qwen2Config) else sum(config.attends)
    attention = 4 * n_attending * config.n_heads * config.head_width * seen
    return 2 * weights * tokens + attention + 2 * decoder.table_vd.size * n_coalitions * RESPONSE


def _passage(n_players: int) -> Passage:
    n_tokens = PREFIX + n_players * SEGMENT + QUESTION + RESPONSE - 1
    owner_t = np.full(n_tokens, -1)
    owner_t[PREFIX : PREFIX + n_players * SEGMENT] = np.repeat(np.arange(n_players), SEGMENT)
    targets_r = np.zeros(RESPONSE, np.int32)
    return Passage(jnp.zeros((n_tokens, 1), jnp.bfloat16), targets_r, owner_t, ("drop",) * n_players)


def _kernels(target: Target, mesh: Mesh) -> Iterator[dict[str, Any]]:
    """Compile every kernel on one of the chips, at the sizes of an engine's chunk."""
    place = NamedSharding(Mesh(mesh.devices[:1, :1], mesh.axis_names), PartitionSpec())
    groups, tokens, path = 32, 488, 96
    keys = tokens + path

    def arrays(*shapes: tuple[int, ...], dtype: Any = jnp.bfloat16) -> list[jax.ShapeDtypeStruct]:
        return [jax.ShapeDtypeStruct(shape, dtype, sharding=place) for shape in shapes]

    for name, config in CONFIGS.items():
        n_rows = ACCELERATOR_CHUNK_LEAVES * RESPONSE
        heads, key_heads = (config.n_heads, config.head_width), (config.n_kv_heads, config.head_width)
        integers = arrays(*((groups, n) for n in (tokens, tokens, keys, keys, keys)), dtype=jnp.int32)
        cases: dict[str, tuple[Any, list[jax.ShapeDtypeStruct]]] = {
            "target_log_probs": (
                target_log_probs,
                [
                    *arrays((n_rows, config.width), (config.vocab_size, config.width)),
                    *arrays((n_rows,), dtype=jnp.int32),
                ],
            ),
            "tree_attention": (
                tree_attention,
                [*arrays((groups, tokens, *heads), (groups, keys, *key_heads), (groups, keys, *key_heads)), *integers],
            ),
        }
        if isinstance(config, Lfm2Config):
            taps = arrays((groups, tokens, config.n_taps), dtype=jnp.int32)
            width = config.width
            cases["gated_short_conv"] = (
                gated_short_conv,
                [*arrays((groups, keys, width), (groups, tokens, width), (config.n_taps, width)), *taps],
            )
        for kernel, (function, given) in cases.items():
            for impl in _impls(target, kernel):
                jitted = jax.jit(partial(function, impl=impl), out_shardings=place)
                yield {
                    "case": f"kernel {kernel} {name}",
                    "target": target.name,
                    "impl": impl,
                    **compiled(target, lambda jitted=jitted, given=given: jitted.lower(*given)),
                }


def _impls(target: Target, kernel: str) -> tuple[str, ...]:
    if target.platform == "tpu":
        return ("xla", "pallas")
    return ("xla", "cudnn") if kernel == "tree_attention" else ("xla",)


def _dotted(path: tuple[Any, ...]) -> str:
    """`query.kernel` of a path into a network's state."""
    return ".".join(str(part.key) for part in path if hasattr(part, "key"))


if __name__ == "__main__":
    main()
