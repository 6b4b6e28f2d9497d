"""What a checkpoint is and needs, judged by its configuration and its headers alone, before anything big is fetched."""

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import sgpa_checkpoints
from flax import nnx
from sgpa_checkpoints import AnyRule

from sgpa_jax.errors import CheckpointError
from sgpa_jax.models.families import family_of
from sgpa_jax.models.fill import DTYPES, Slots, shape_rngs, target
from sgpa_jax.models.hub import SHIPPED_MODELS, describe
from sgpa_jax.models.sharding import parameter_spec
from sgpa_jax.models.wav2vec2 import Wav2Vec2, Wav2Vec2Config

# The rest is for activations, caches and whatever else runs there.
_FOR_WEIGHTS = 0.9


@dataclass(frozen=True)
class Architecture:
    """A network of some size, without values, and the rules that fill it; `dtype` is what it loads in by default."""

    name: str
    build: Callable[[], nnx.Module]
    rules: tuple[AnyRule, ...]
    normalise: Callable[[str], str]
    dtype: str


@dataclass(frozen=True)
class Survey:
    """What is known of a checkpoint before its values are read.

    Attributes:
        name: the folder's name, or the hub id with its commit.
        architecture: its `model_type`, or what stands for one.
        problems: everything that keeps it from loading, one clause each.
        n_parameters: how many numbers we would hold.
        stored_bytes: how many bytes its tensors take where they are.
        weight_bytes: how many ours would take, by dtype.
        meshes: the fewest devices of this machine that hold them, by dtype, as text for `parse_mesh`; None: too few.
        memory: this machine's memory for weights, in words.
    """

    name: str
    architecture: str
    problems: tuple[str, ...]
    n_parameters: int
    stored_bytes: int
    weight_bytes: dict[str, int]
    meshes: dict[str, str | None]
    memory: str


def architecture_of(config: Mapping[str, Any], preprocessor: Mapping[str, Any] | None) -> Architecture:
    """Return the network that a `config.json` describes, be it an audio language model or a wav2vec2.

    Raises:
        CheckpointError: an architecture or a setting that is not implemented.
    """
    if config.get("model_type") == "wav2vec2":
        network = Wav2Vec2Config.from_hf(config)
        return Architecture(
            "wav2vec2",
            lambda: Wav2Vec2(network, rngs=shape_rngs()),
            sgpa_checkpoints.WAV2VEC2,
            sgpa_checkpoints.normal_wav2vec2_name,
            "float32",
        )
    family = family_of(config)
    audio_lm = family.read_config(config, preprocessor)
    return Architecture(family.name, lambda: family.build(audio_lm), family.rules, family.normalise, "bfloat16")


def survey_model(name_or_folder: str | Path, *, revision: str | None = None) -> Survey:
    """Judge a checkpoint by its configuration and headers; of one on the hub nothing else is fetched.

    Args:
        name_or_folder: a shipped model, a folder, or a hub id `organisation/name` or `organisation/name@revision`.
        revision: the hub's branch, tag or commit.

    Raises:
        CheckpointError: there is no such repository, or its files cannot be read; what they hold is told by `problems`.
        UsageError: neither a shipped name nor a folder nor a hub id.
    """
    try:
        found = describe(name_or_folder, "model", SHIPPED_MODELS, revision=revision)
    except sgpa_checkpoints.FormatError as error:
        raise CheckpointError(str(error)) from error
    stored_bytes = sum(header.end - header.start for header in found.headers.values())
    try:
        architecture = architecture_of(found.config, found.preprocessor)
    except CheckpointError as error:
        n_stored = sum(math.prod(header.shape) for header in found.headers.values())
        return Survey(found.name, "unknown", (str(error),), n_stored, stored_bytes, {}, {}, _memory()[1])
    targets = {dtype: target(architecture.build, dtype=dtype).slots for dtype in DTYPES}
    shapes = {path: slot.shape for path, slot in targets["float32"].items()}
    problems = sgpa_checkpoints.check(
        found.headers, architecture.rules, shapes, normalise=architecture.normalise, config=found.config
    )
    return Survey(
        found.name,
        architecture.name,
        tuple(problems),
        sum(math.prod(shape) for shape in shapes.values()),
        stored_bytes,
        {dtype: _bytes_per_device(slots, 1) for dtype, slots in targets.items()},
        {dtype: _smallest_mesh(slots) for dtype, slots in targets.items()},
        _memory()[1],
    )


def _smallest_mesh(slots: Slots) -> str | None:
    available, _, shared = _memory()
    for n in range(1, len(jax.devices()) + 1):
        if _bytes_per_device(slots, n) * (n if shared else 1) <= _FOR_WEIGHTS * available:
            return f"data=1,model={n}"
    return None


def _bytes_per_device(slots: Slots, n_devices: int) -> int:
    return sum(
        slot.size * slot.dtype.itemsize // (n_devices if any(parameter_spec(path, slot.shape, n_devices)) else 1)
        for path, slot in slots.items()
    )


def _memory() -> tuple[int, str, bool]:
    """Bytes for weights, in words as well, and whether all devices share them, as those of a CPU do."""
    device, n_devices = jax.devices()[0], len(jax.devices())
    stats = device.memory_stats() or {}
    if device.platform != "cpu" and "bytes_limit" in stats:
        n_bytes = stats["bytes_limit"]
        return n_bytes, f"{n_devices} x {device.device_kind} with {n_bytes / 1e9:.1f} GB each", False
    n_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return n_bytes, f"{n_bytes / 1e9:.1f} GB of this machine", True
