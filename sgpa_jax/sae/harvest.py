"""The residual stream after decoder layers, at audio positions, over a corpus, into shards on disk.

The clips' order is drawn once; a shard is a run of it, so that it depends on nothing else: what was interrupted goes
on with the first shard that is missing, and leaves the same bytes. Inside of a shard, clips of one shape run together
in batches; layers behind the deepest that is wanted are not run. With the audio before the question, as in every family
here, what is read never saw the question. Axes: `B` clips, `A` audio positions, `L` layers, `D` width, `N` rows.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from sgpa_jax.audio import TOKEN_STEP, read_clip, round_up, round_up_in_octaves
from sgpa_jax.errors import AudioError, UsageError
from sgpa_jax.files import atomic_write, sweep
from sgpa_jax.models import NO_CLIP, AudioLM, Layout, Model, ModelInputs, layout_row
from sgpa_jax.sae import store
from sgpa_jax.sae.corpus import Recording, digest_of

PROMPT = "What do you hear?"
"""The question by default: none of it is seen at audio positions."""


@dataclass(frozen=True, kw_only=True)
class HarvestConfig:
    """What is harvested.

    Attributes:
        layers: after which decoder layers, counted from 0.
        prompt, system: the question, and the system turn if not the format's own.
        batch: clips run at once.
        clips_per_shard: clips of a shard.
        seed: decides the clips' order.
    """

    layers: tuple[int, ...]
    prompt: str = PROMPT
    system: str | None = None
    batch: int = 8
    clips_per_shard: int = 256
    seed: int = 0


def harvest(
    model: Model,
    recordings: Sequence[Recording],
    folder: str | Path,
    config: HarvestConfig,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> store.ActivationStore:
    """Harvest a corpus into `folder`, or go on with a harvest that was interrupted; return it complete.

    A clip that cannot be heard (missing, damaged, too long for the model) gets no rows, and an `error` in the index.

    Args:
        model: whose residual stream it is.
        recordings: the corpus.
        folder: where the shards go.
        config: what is harvested.
        progress: called with the number of clips done, and of all.

    Raises:
        UsageError: there is no such layer, or the folder holds another harvest or cannot be written to.
    """
    folder, recordings = Path(folder), tuple(recordings)
    n_layers = model.config.decoder.n_layers
    if not config.layers or not all(0 <= layer < n_layers for layer in config.layers):
        raise UsageError(f"layers {list(config.layers)} are not all from 0 to {n_layers - 1}, those of {model.name}")
    if min(config.batch, config.clips_per_shard) < 1:
        raise UsageError("a batch and a shard need at least one clip each; give positive numbers")
    n_shards = -(-len(recordings) // config.clips_per_shard)
    header = _header(model, recordings, config, n_shards)
    sweep(folder)
    found = store.read_header(folder)
    if found not in (None, header):
        differs = ", ".join(sorted(name for name in header if found.get(name) != header[name]))
        raise UsageError(f"{folder} holds another harvest (other {differs}); give another folder")
    if found is None:
        atomic_write(folder / store.HEADER, store.json_lines([header]))
    order = np.random.default_rng(config.seed).permutation(len(recordings))
    for shard in range(n_shards):
        chosen = order[shard * config.clips_per_shard : (shard + 1) * config.clips_per_shard]
        if not store.has_shard(folder, shard):
            layers, rows = _shard(model, [recordings[i] for i in chosen], config)
            store.write_shard(folder, shard, layers, rows)
        if progress is not None:
            progress(min((shard + 1) * config.clips_per_shard, len(recordings)), len(recordings))
    store.finish(folder, n_shards)
    return store.open_store(folder)


def audio_residuals(
    model: Model, batch: Sequence[ModelInputs], layers: Sequence[int], *, n_rows: int | None = None
) -> list[Float[np.ndarray, "L A D"]]:
    """The residual stream of conversations with one clip each, at its positions, in the model's dtype.

    They run together, padded to the largest of them; `n_rows` pads their number, so that fewer make no new program.
    """
    n_rows = len(batch) if n_rows is None else n_rows
    n_tokens = max(_token_bucket(inputs) for inputs in batch)
    n_samples = max(model.padded_samples(len(inputs.clips[0].wave_s)) for inputs in batch)
    padded = [*batch, *[batch[0]] * (n_rows - len(batch))]
    rows = [layout_row(inputs, n_tokens) for inputs in padded]
    layout = Layout(*(np.concatenate(parts) for parts in zip(*(row[:4] for row in rows), strict=True)))
    waves_bns, lengths_bn = np.zeros((n_rows, 1, n_samples), np.float32), np.zeros((n_rows, 1), np.int32)
    for n, inputs in enumerate(padded):
        wave_s = inputs.clips[0].wave_s
        waves_bns[n, 0, : len(wave_s)], lengths_bn[n] = wave_s, len(wave_s)
    positions = [np.flatnonzero(inputs.clip_t != NO_CLIP).astype(np.int32) for inputs in padded]
    n_room = min(n_tokens, round_up(max(map(len, positions)), TOKEN_STEP))
    positions_ba = np.stack([np.pad(places, (0, n_room - len(places))) for places in positions])
    found = _residuals(model.graphdef, model.state, layout, waves_bns, lengths_bn, positions_ba, tuple(layers))
    found_lbad = np.asarray(found)
    return [found_lbad[:, n, : len(positions[n])] for n in range(len(batch))]


def _header(model: Model, recordings: tuple[Recording, ...], config: HarvestConfig, n_shards: int) -> dict[str, Any]:
    return {
        "schema": store.SCHEMA,
        "model": {"name": model.name, "digest": model.digest, "dtype": model.dtype},
        "layers": list(config.layers),
        "width": model.config.decoder.width,
        "positions": "audio",
        "prompt": config.prompt,
        "system": config.system,
        "corpus": {"clips": len(recordings), "sha256": digest_of(recordings)},
        "batch": config.batch,
        "clips_per_shard": config.clips_per_shard,
        "seed": config.seed,
        "n_shards": n_shards,
    }


def _shard(
    model: Model, recordings: list[Recording], config: HarvestConfig
) -> tuple[dict[int, np.ndarray], list[dict[str, Any]]]:
    """Rows of all layers, and a line for every clip, both in the clips' order."""
    prepared, errors = {}, {}
    for n, recording in enumerate(recordings):
        try:
            prepared[n] = model.prepare(read_clip(recording.path), config.prompt, system=config.system)
        except AudioError as error:
            errors[n] = str(error)
    found: dict[int, np.ndarray] = {}
    for numbers in _batches(model, prepared, config.batch):
        batch = [prepared[n] for n in numbers]
        found |= zip(numbers, audio_residuals(model, batch, config.layers, n_rows=config.batch), strict=True)
    rows, offset = [], 0
    for n, recording in enumerate(recordings):
        n_tokens = found[n].shape[1] if n in found else 0
        row = {"clip": recording.id, "offset": offset, "tokens": n_tokens}
        row |= {"error": errors[n]} if n in errors else {"seconds": round(prepared[n].clips[0].duration_s, 4)}
        rows.append({**row, "labels": list(recording.labels)})
        offset += n_tokens
    none = np.zeros((0, model.config.decoder.width), model.dtype)
    parts = [found[n] for n in sorted(found)]
    return {
        layer: np.concatenate([none, *(part[place] for part in parts)]) for place, layer in enumerate(config.layers)
    }, rows


def _batches(model: Model, prepared: dict[int, ModelInputs], batch: int) -> Iterator[list[int]]:
    """Numbers of clips that run together: of one shape, as far as there are any."""
    shapes: dict[tuple[int, int], list[int]] = {}
    for n, inputs in prepared.items():
        n_samples = round_up_in_octaves(len(inputs.clips[0].wave_s), step=model.rate_hz, parts=8)
        shapes.setdefault((n_samples, _token_bucket(inputs)), []).append(n)
    for numbers in shapes.values():
        yield from (numbers[first : first + batch] for first in range(0, len(numbers), batch))


def _token_bucket(inputs: ModelInputs) -> int:
    return round_up_in_octaves(len(inputs.ids_t), step=TOKEN_STEP, parts=8)


@functools.partial(jax.jit, static_argnums=(0, 6))
def _residuals(
    graphdef: nnx.GraphDef,
    state: nnx.State,
    layout: Layout,
    wave_bns: Float[Array, "B 1 S"],
    n_samples_bn: Int[Array, "B 1"],
    positions_ba: Int[Array, "B A"],
    layers: tuple[int, ...],
) -> Float[Array, "L B A D"]:
    seen: dict[int, Array] = {}

    def read(layer: int, residual_btd: Array) -> Array:
        # Nothing reads the final hidden states, so that XLA drops all layers behind the deepest of these.
        if layer in layers:
            seen[layer] = jnp.take_along_axis(residual_btd, positions_ba[:, :, None], axis=1)
        return residual_btd

    model: AudioLM = nnx.merge(graphdef, state)
    model.hidden(model.place(layout, *model.hear(wave_bns, n_samples_bn)), edit=read)
    return jnp.stack([seen[layer] for layer in layers])
