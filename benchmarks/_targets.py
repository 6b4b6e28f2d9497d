"""Accelerators that are not there: compile for them by name, and read in the compiled program what it would cost.

XLA's compilers for TPU (in libtpu) and for NVIDIA (in the CUDA plugin) run on a host without either and compile for a
described topology. What they give cannot be run: it proves that a program lowers, how much memory it takes, how much
work it is and which collectives, sorts and custom calls are in it; neither its values nor its speed.
"""

import importlib.util
import math
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh
from jaxlib import _hlo, _jax  # pyright: ignore[reportAttributeAccessIssue]

_HOPPER = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128
  shared_memory_per_block: 49152 shared_memory_per_block_optin: 232448 shared_memory_per_core: 233472
  registers_per_block_limit: 65536 registers_per_core_limit: 65536
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 4800000000000 device_memory_size: 141000000000 l2_cache_size: 52428800 clock_rate_ghz: 1.98
  cuda_compute_capability { major: 9 minor: 0 }
}
platform_name: "CUDA" dnn_version_info { major: 9 minor: 12 patch: 0 } device_description_str: "NVIDIA H200"
"""
"""XLA's description of a card, with the figures that NVIDIA publishes for the H200."""


@dataclass(frozen=True)
class Target:
    """A topology, how coalitions and weights are spread over it, and a chip's published figures."""

    name: str
    platform: str
    mesh_shape: tuple[int, int]
    memory_bytes: float
    flops_per_s: float
    bytes_per_s: float

    def mesh(self) -> Mesh:
        """Return its described devices along the axes data and model; call it before jax looks for devices."""
        _set_up()
        if self.platform == "cuda":
            options: dict[str, Any] = {"target_config": _HOPPER, "topology": "1x1x1"}
        else:
            options = {}
        found = topologies.get_topology_desc(platform=self.platform, topology_name=self.name, **options)
        return Mesh(np.array(found.devices).reshape(self.mesh_shape), ("data", "model"))

    def has_compiler(self) -> bool:
        """Whether what compiles for it is installed."""
        compilers = {"tpu": ("libtpu",), "cuda": ("jax_cuda13_plugin", "jax_cuda12_plugin")}[self.platform]
        return any(importlib.util.find_spec(name) is not None for name in compilers)


TARGETS = {
    target.name: target
    for target in (
        Target("v5e:2x4", "tpu", (2, 4), 16e9, 197e12, 819e9),
        Target("v5p:2x2x1", "tpu", (2, 2), 95e9, 459e12, 2765e9),
        Target("v6e:2x4", "tpu", (4, 2), 32e9, 918e12, 1640e9),
        Target("h200", "cuda", (1, 1), 141e9, 989e12, 4800e9),
    )
}

PODS = {
    target.name: target
    for target in (
        Target("v5e:16x16", "tpu", (256, 1), 16e9, 197e12, 819e9),
        Target("v5p:4x4x4", "tpu", (64, 1), 95e9, 459e12, 2765e9),
    )
}
"""Slices of several hosts, for a data set's run."""


def _set_up() -> None:
    """Let jax itself run on the CPU, and let the compilers do without what they look for beside a device."""
    jax.config.update("jax_platforms", "cpu")
    os.environ.update(TPU_SKIP_MDS_QUERY="1", TPU_WORKER_HOSTNAMES="localhost", TPU_WORKER_ID="0")
    # There is no card to try tiles on.
    flag = "--xla_gpu_autotune_level=0"
    if flag not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()


def compiled(target: Target, lower: Callable[[], jax.stages.Lowered]) -> dict[str, Any]:
    """Compile what `lower` gives; return what the program holds and costs on each chip, loops taken as often as run.

    `flops` and `bytes_accessed` are the compiler's own count, which takes the body of a loop once: its bodies are
    counted for themselves and added as often as they are run again.
    """
    began = time.perf_counter()
    program = lower().compile()
    compile_s = time.perf_counter() - began
    memory, text = program.memory_analysis(), program.as_text() or ""
    assert memory is not None
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    held += memory.generated_code_size_in_bytes - memory.alias_size_in_bytes
    parsed = _Program(text)
    cost = parsed.cost(parsed.entry, once=program.cost_analysis())
    custom_calls = [n for n in re.findall(r'custom_call_target="([^"]+)"', text) if n not in _HINTS]
    # Nobody has told XLA what a library for NVIDIA does in a call.
    if target.platform == "cuda" and custom_calls:
        cost = {kind: math.nan for kind in cost}
    groups = _groups(text, math.prod(target.mesh_shape))
    of_replica = target.mesh_shape[1]
    return {
        "bytes_per_chip": held,
        "temporary_bytes": memory.temp_size_in_bytes,
        "fits": held <= target.memory_bytes,
        "flops": cost["flops"],
        "bytes_accessed": cost["bytes accessed"],
        "roofline_s": max(cost["flops"] / target.flops_per_s, cost["bytes accessed"] / target.bytes_per_s),
        "collectives": _counted(re.findall(_OPERATION.format(_COLLECTIVES), text)),
        "collective_chips": max((len(chips) for group in groups for chips in group), default=1),
        "across_data": sum(any(len({chip // of_replica for chip in chips}) > 1 for chips in group) for group in groups),
        "sorts": len(re.findall(_OPERATION.format("sort"), text)),
        "custom_calls": _counted(custom_calls),
        "launches": parsed.launches(parsed.entry) if target.platform == "cuda" else None,
        "compile_s": compile_s,
    }


def _groups(text: str, n_chips: int) -> list[list[list[int]]]:
    """Which chips, by their place on the mesh, each collective of a program joins."""
    found = []
    for match in re.finditer(rf"^.*{_OPERATION.format(_COLLECTIVES)}.*$", text, re.MULTILINE):
        counted = re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", match[0])
        listed = re.search(r"(?:replica_groups|source_target_pairs)=\{(\{[\d,{}]+\})\}", match[0])
        if counted:
            shape, sizes, order = ([int(n) for n in part.split(",")] if part else [] for part in counted.groups())
            chips = np.arange(math.prod(sizes)).reshape(sizes)
            found.append((chips.transpose(order) if order else chips).reshape(shape).tolist())
        elif listed:
            found.append([[int(n) for n in chips.split(",")] for chips in re.findall(r"\{([\d,]+)\}", listed[1])])
        else:
            found.append([list(range(n_chips))])
    return found


_OPERATION = r"= \S.*? ({})(?:-start)?\("
_COLLECTIVES = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute|ragged-all-to-all"
_HINTS = ("AssumeGatherIndicesInBound", "GatherScatterIndicesBitpacked", "AllocateBuffer", "ConcatBitcast")
"""Custom calls that tell the compiler where things lie, and are no work."""


class _Program:
    """The text of a compiled program, cut into its computations."""

    def __init__(self, text: str):
        self.text = text
        found = re.findall(r"^(ENTRY )?%?([\w.\-]+) \(.*?^}", text, re.MULTILINE | re.DOTALL)
        blocks = re.findall(r"^(?:ENTRY )?%?[\w.\-]+ \(.*?^}", text, re.MULTILINE | re.DOTALL)
        self.blocks = {name: block for (_, name), block in zip(found, blocks, strict=True)}
        self.entry = next(name for entry, name in found if entry)

    def cost(self, name: str, once: dict[str, float] | None = None) -> dict[str, float]:
        """FLOPs and bytes of a computation; `once` are those with every loop's body taken once, where known."""
        total = self._cost_once(name) if once is None else once
        total = {kind: total.get(kind, 0.0) for kind in ("flops", "bytes accessed")}
        for body, trips in self._loops(name):
            again, single = self.cost(body), self._cost_once(body)
            total = {kind: total[kind] + trips * again[kind] - single[kind] for kind in total}
        return total

    def launches(self, name: str) -> int:
        """What a computation starts on a GPU, one kernel, library call or copy after another."""
        started = len(
            re.findall(r" (?:fusion|custom-call|copy|sort|dot|convolution|gather|scatter)\(", self.blocks[name])
        )
        called = re.findall(r" call\(.*?to_apply=%?([\w.\-]+)", self.blocks[name])
        return (
            started
            + sum(self.launches(computation) for computation in called)
            + sum(trips * self.launches(body) for body, trips in self._loops(name))
        )

    def _cost_once(self, name: str) -> dict[str, float]:
        _, _, computations = self.text.partition("\n")
        computations = re.sub(r"^ENTRY ", "", computations, flags=re.MULTILINE)
        alone = re.sub(rf"^%?{re.escape(name)} \(", r"ENTRY \g<0>", computations, flags=re.MULTILINE)
        module = _hlo.hlo_module_from_text(f"HloModule alone\n{alone}")
        return _jax.hlo_module_cost_analysis(jax.devices()[0].client, module)

    def _loops(self, name: str) -> list[tuple[str, int]]:
        """Bodies of a computation's own loops, and how often each is run."""
        loops = []
        for line in re.findall(r"^.* while\(.*$", self.blocks[name], re.MULTILINE):
            condition, body = (re.search(rf"{part}=%?([\w.\-]+)", line) for part in ("condition", "body"))
            assert condition is not None and body is not None
            known = re.search(r'known_trip_count":\{"n":"(\d+)"', line)
            # Loops count up from zero to the one constant of their condition.
            bound = known or re.search(r"constant\((\d+)\)", self.blocks[condition[1]])
            assert bound is not None
            loops.append((body[1], int(bound[1])))
        return loops


def _counted(names: list[str]) -> str:
    """`3 all-reduce, 1 all-gather`, or nothing."""
    return ", ".join(f"{names.count(name)} {name}" for name in dict.fromkeys(names))
