"""Train the pocket aligner from nothing: `python -m train.aligner --work DIR --seed 0`.

Stage 1 writes shards of synthesised speech (`aligner_data.py`), stage 2 trains on those, stage 3 exports weights and
measures them on held-out voices. Every stage continues where it was stopped. Labels of the phone head are the exact
phones at the centre of each 10 ms, its loss is cross-entropy; the character head has the CTC loss of the same words.
"""

import argparse
import dataclasses
import io
import json
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, Int
from safetensors.numpy import save

from sgpa_jax.files import atomic_write
from sgpa_jax.models.aligner import (
    N_MELS,
    AlignerConfig,
    AlignerNetwork,
    normalise,
    parameters,
    parse_lexicon,
)
from train import aligner_data as data
from train.aligner_score import measure
from train.phones import PHONES
from train.sentences import Sentences

SHARDS = 75
STEPS = 3600
FRAMES_PER_BATCH = 11520
BUCKETS = (256, 384, 512, data.MAX_FRAMES)
PEAK_RATE, WARMUP_STEPS = 2e-3, 150
CHARACTER_WEIGHT = 0.5
SAVE_EVERY_S = 120.0
PRIOR_WEIGHT = 0.7
SHIPPED = Path(__file__).parents[1] / "sgpa_checkpoints" / "pocket_aligner"
SIZES = {"width": 144, "taps": 5, "dilations": (1, 1, 2, 2, 4, 4, 1, 1)}


def make_shards(work: Path, sentences: Sentences, seed: int, n_shards: int) -> None:
    """Write the shards that are not there yet."""
    for index in range(n_shards):
        path = _shard_path(work, seed, index)
        if not path.exists():
            started = time.time()
            data.write_shard(path, sentences, seed, index)
            print(f"shard {index}: {time.time() - started:.0f} s", flush=True)


class Batches:
    """Examples by length bucket; the batch of a step is a function of the seed, the step and the shards read."""

    def __init__(self, work: Path, seed: int) -> None:
        """Hold no example yet."""
        self.work, self.seed, self.n_shards = work, seed, 0
        self.buckets: dict[int, list[data.Example]] = {frames: [] for frames in BUCKETS}

    def read(self) -> None:
        """Take in the shards written since the last call, in order."""
        while (path := _shard_path(self.work, self.seed, self.n_shards)).exists():
            for example in data.read_shard(path):
                self.buckets[_bucket(len(example.mel_fm))].append(example)
            self.n_shards += 1

    def draw(self, step: int) -> tuple[np.ndarray, ...]:
        """Return (mel, n_frames, phone, character, n_characters) with light masking of bands and of time."""
        rng = np.random.default_rng([self.seed, 7, step])
        weights = np.array([frames * len(examples) for frames, examples in self.buckets.items()], float)
        frames = int(rng.choice(BUCKETS, p=weights / weights.sum()))
        examples = self.buckets[frames]
        chosen = rng.choice(len(examples), min(FRAMES_PER_BATCH // frames, len(examples)), replace=False)
        return collate([examples[i] for i in chosen], frames, FRAMES_PER_BATCH // frames, rng)

    def log_prior(self) -> np.ndarray:
        """Return the log of how often each phone occurs."""
        phone_f = np.concatenate([e.phone_f for examples in self.buckets.values() for e in examples])
        counts = np.bincount(phone_f, minlength=len(PHONES))
        return np.log(counts / counts.sum())


def collate(
    examples: list[data.Example], frames: int, size: int, rng: np.random.Generator | None
) -> tuple[np.ndarray, ...]:
    """Pad examples to `size` rows of `frames`, missing labels are -1; `rng` draws masks, None masks nothing."""
    n_letters = frames // 4
    mel = np.full((size, frames, N_MELS), -20.0, np.float32)
    phone = np.full((size, frames), -1, np.int32)
    character = np.zeros((size, n_letters), np.int32)
    n_frames, n_characters = np.ones(size, np.int32), np.zeros(size, np.int32)
    keep = np.ones((size, frames, N_MELS), np.float32)
    for row, example in enumerate(examples):
        n_frames[row], n_characters[row] = len(example.mel_fm), min(len(example.character_n), n_letters)
        mel[row, : n_frames[row]] = example.mel_fm
        phone[row, : n_frames[row]] = example.phone_f
        character[row, : n_characters[row]] = example.character_n[:n_letters]
        if rng is not None and rng.random() < 0.5:
            band, start = rng.integers(N_MELS), rng.integers(n_frames[row])
            keep[row, :, band : band + rng.integers(1, 12)] = 0.0
            keep[row, start : start + rng.integers(1, 8)] = 0.0
    return mel, n_frames, phone, character, n_characters, keep


def losses(
    network: AlignerNetwork,
    mel_bfm: Float[Array, "B F M"],
    n_frames_b: Int[Array, "B"],
    phone_bf: Int[Array, "B F"],
    character_bn: Int[Array, "B N"],
    n_characters_b: Int[Array, "B"],
    keep_bfm: Float[Array, "B F M"],
) -> tuple[Array, Array, Array]:
    """Return cross-entropy per 10 ms frame, CTC loss per character, and the share of frames whose phone is right."""
    phones_bfv, characters_btv = network(normalise(mel_bfm, n_frames_b) * keep_bfm, n_frames_b)
    valid_bf = phone_bf >= 0
    nll_bf = optax.softmax_cross_entropy_with_integer_labels(phones_bfv, jnp.maximum(phone_bf, 0))
    n_valid = jnp.sum(valid_bf).astype(jnp.float32)
    phone_loss = jnp.sum(jnp.where(valid_bf, nll_bf, 0.0)) / n_valid
    accuracy = jnp.sum((jnp.argmax(phones_bfv, -1) == phone_bf) & valid_bf).astype(jnp.float32) / n_valid
    n_pairs = characters_btv.shape[1]
    no_frame_bt = (jnp.arange(n_pairs)[None, :] * 2 >= n_frames_b[:, None]).astype(jnp.float32)
    no_letter_bn = (jnp.arange(character_bn.shape[1])[None, :] >= n_characters_b[:, None]).astype(jnp.float32)
    ctc_b = optax.ctc_loss(characters_btv, no_frame_bt, character_bn, no_letter_bn)
    # A text with more letters than its frames can hold has no path: optax gives it about 1e5, and it teaches nothing.
    fits_b = (n_characters_b > 0) & (ctc_b < 1e4)
    letters = jnp.sum(jnp.where(fits_b, n_characters_b, 0)).astype(jnp.float32)
    character_loss = jnp.sum(jnp.where(fits_b, ctc_b, 0.0)) / jnp.maximum(letters, 1.0)
    return phone_loss, character_loss, accuracy


def train(work: Path, sentences: Sentences, seed: int, steps: int) -> None:
    """Train for `steps`, or go on from the checkpoint in `work`, where the last state is left."""
    batches = Batches(work, seed)
    batches.read()
    held_out = [data.example(u) for u in data.test_utterances(sentences, seed, "train", 64)]
    held_out = collate([e for e in held_out if len(e.mel_fm) <= 512], 512, 64, None)
    config = _config(np.zeros(len(PHONES)))
    graph, params = nnx.split(AlignerNetwork(config, rngs=nnx.Rngs(seed)))
    schedule = optax.warmup_cosine_decay_schedule(0.0, PEAK_RATE, WARMUP_STEPS, steps)
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, b2=0.98, weight_decay=0.01))

    def loss(params, batch):
        phone, character, accuracy = losses(nnx.merge(graph, params), *batch)
        return phone + CHARACTER_WEIGHT * character, (phone, character, accuracy)

    @jax.jit
    def update(params, moments, batch):
        (_, parts), gradient = jax.value_and_grad(loss, has_aux=True)(params, batch)
        change, moments = optimiser.update(gradient, moments, params)
        return optax.apply_updates(params, change), moments, parts

    evaluate = jax.jit(lambda params, batch: loss(params, batch)[1])
    state = (params, optimiser.init(params))
    step, state = _restore(work / "state.npz", state)
    saved_s, started_s, first = time.time(), time.time(), step
    recent: list[tuple] = []
    while step < steps:
        *state, parts = update(*state, batches.draw(step))
        recent.append(parts)
        step += 1
        if step % 50 == 0:
            train_parts = np.mean(np.array(recent), axis=0)
            held = np.array(evaluate(state[0], held_out))
            pace_s = (time.time() - started_s) / (step - first)
            print(
                f"step {step} shards {batches.n_shards} {pace_s:.2f} s/step | train ce {train_parts[0]:.3f} "
                f"ctc {train_parts[1]:.3f} acc {train_parts[2]:.3f} | held-out ce {held[0]:.3f} ctc {held[1]:.3f} "
                f"acc {held[2]:.3f}",
                flush=True,
            )
            recent.clear()
            batches.read()
        if time.time() - saved_s > SAVE_EVERY_S or step == steps:
            _save(work / "params.npz", step, state[0])
            _save(work / "state.npz", step, tuple(state))
            saved_s = time.time()


def export(work: Path, folder: Path, seed: int) -> None:
    """Write the last checkpoint's `model.safetensors` (float16) and `config.json` into `folder`, beside its lexicon."""
    batches = Batches(work, seed)
    batches.read()
    config = _config(batches.log_prior())
    network = AlignerNetwork(config, rngs=nnx.Rngs(seed))
    graph, params = nnx.split(network)
    _, params = _restore(work / "params.npz", params)
    tensors = parameters(nnx.merge(graph, params))
    half = {name: np.asarray(value[...]).astype(np.float16) for name, value in sorted(tensors.items())}
    atomic_write(folder / "model.safetensors", save(half, {"format": "pt"}))
    described = {"architecture": "pocket_aligner", "network": dataclasses.asdict(config)}
    atomic_write(folder / "config.json", json.dumps(described, indent=1) + "\n")


def main() -> None:
    """Run the stages asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder for shards and checkpoints")
    parser.add_argument("--out", type=Path, default=SHIPPED, help="where the trained folder goes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shards", type=int, default=SHARDS)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--stage", choices=("all", "shards", "train", "export", "measure"), default="all")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    lexicon = parse_lexicon((SHIPPED / "lexicon.txt.gz").read_bytes())
    sentences = Sentences(lexicon)
    if options.stage in ("all", "shards"):
        make_shards(options.work, sentences, options.seed, options.shards)
    if options.stage in ("all", "train"):
        train(options.work, sentences, options.seed, options.steps)
    if options.stage in ("all", "export"):
        export(options.work, options.out, options.seed)
    if options.stage in ("all", "measure"):
        print(json.dumps(measure(options.out, sentences, options.seed), indent=1))


def _config(log_prior: np.ndarray) -> AlignerConfig:
    priors = tuple(round(float(value), 4) for value in log_prior)
    return AlignerConfig(
        **SIZES, phones=PHONES, characters=data.CHARACTERS, log_prior=priors, prior_weight=PRIOR_WEIGHT
    )


def _bucket(n_frames: int) -> int:
    return next(frames for frames in BUCKETS if n_frames <= frames)


def _shard_path(work: Path, seed: int, index: int) -> Path:
    return work / f"shard-{seed}-{index:03d}.npz"


def _save(path: Path, step: int, tree: Any) -> None:
    buffer = io.BytesIO()
    leaves: dict[str, Any] = {f"leaf{i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(tree))}
    np.savez(buffer, step=step, **leaves)
    atomic_write(path, buffer.getvalue())


def _restore(path: Path, tree: Any) -> tuple[int, Any]:
    """Return the step and the tree saved at `path`; step 0 and `tree` itself when training has not begun."""
    if not path.exists():
        return 0, tree
    structure = jax.tree.structure(tree)
    with np.load(path) as file:
        leaves = [jnp.asarray(file[f"leaf{i}"]) for i in range(structure.num_leaves)]
        return int(file["step"]), jax.tree.unflatten(structure, leaves)


if __name__ == "__main__":
    main()
