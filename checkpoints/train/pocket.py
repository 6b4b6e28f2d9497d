"""Train the *pocket* audio language model from nothing: Qwen2-Audio's architecture in miniature, on spoken commands.

    python -m train.pocket --work DIR [--seed 0] [--steps 9600] [--no-absence]

Reads the data that `commands.py` rendered into DIR, checkpoints every few minutes and resumes by itself; `--export
FOLDER` writes the Hugging Face folder. Two things make it learn on a CPU: a word label for every encoder frame from the
exact times (an auxiliary head that is thrown away), and several questions packed behind one audio prefix, each seeing
the prefix and itself alone.
"""

import argparse
import functools
import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from sgpa_jax.files import atomic_write
from sgpa_jax.models.audio_lm import AudioLM, causal_mask
from sgpa_jax.models.config import AudioLMConfig, Qwen2Config, WhisperEncoderConfig
from sgpa_jax.models.layers import Linear
from sgpa_jax.models.whisper_encoder import n_audio_tokens
from train import world
from train.pocket_data import AUDIO_ID, FRAME_BUCKETS, MEL, Batch, Batches, load_examples, make_batch
from train.pocket_export import export_folder

CONFIG = AudioLMConfig(
    encoder=WhisperEncoderConfig(
        n_mels=MEL.n_mels, width=128, n_layers=3, n_heads=4, ffn_width=512,
        max_positions=MEL.window_samples // MEL.hop_samples // 2,
    ),
    decoder=Qwen2Config(
        vocab_size=len(world.TOKENS), width=128, n_layers=3, n_heads=4, n_kv_heads=2, head_width=32, ffn_width=384,
        rope_theta=10000.0, norm_eps=1e-6, tied_head=False,
    ),
    audio_token_id=AUDIO_ID,
)  # fmt: skip
AUXILIARY_WEIGHT = 0.5


class Trainer(nnx.Module):
    """The model together with the auxiliary word-per-frame head."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.model = AudioLM(CONFIG, rngs=rngs)
        self.frame_head = Linear(CONFIG.encoder.width, CONFIG.decoder.vocab_size, rngs=rngs)


class TrainState(NamedTuple):
    """Everything that a resumed run needs besides the step; `params` is an `nnx.State`."""

    params: Any
    optimiser: optax.OptState


def forward(trainer: Trainer, batch: Batch) -> tuple[jax.Array, jax.Array]:
    """Next-token logits of every packed question `[B, Q, N, V]` and frame logits `[B, G, V]`."""
    model = trainer.model
    frames = model.encoder.frames(batch.mel_bfm, batch.n_frames_b)
    pooled = frames[:, : frames.shape[1] // 2 * 2].reshape(frames.shape[0], -1, 2, frames.shape[2]).mean(axis=2)
    audio = model.projector(model.encoder.norm(pooled))
    n_audio = n_audio_tokens(batch.n_frames_b)
    real = (jnp.arange(audio.shape[1])[None, :] < n_audio[:, None])[:, :, None]
    mean = jax.lax.stop_gradient(jnp.sum(jnp.where(real, audio, 0.0), (0, 1)) / jnp.sum(real))
    baseline = batch.baseline_b[:, None, None] * mean[None, None, :]
    audio = jnp.where(batch.gone_ba[:, :, None], baseline, audio)
    prefix = model.place(batch.prefix_bt, jnp.ones(batch.prefix_bt.shape, bool), audio, n_audio)
    size, n_questions, length = batch.questions_bqn.shape
    n_prefix, n_packed = batch.prefix_bt.shape[1], n_questions * length
    questions = model.decoder.embedding(jnp.asarray(batch.questions_bqn).reshape(size, n_packed))
    first = prefix.exists_bt.sum(axis=1)
    positions = first[:, None] + jnp.tile(jnp.arange(length), n_questions)[None, :]
    owner = jnp.repeat(jnp.arange(n_questions), length)
    own = (owner[:, None] == owner[None, :]) & jnp.tril(jnp.ones((n_packed, n_packed), bool))
    top = jnp.concatenate([causal_mask(prefix.exists_bt), jnp.zeros((size, n_prefix, n_packed), bool)], axis=2)
    bottom = jnp.concatenate(
        [
            jnp.broadcast_to(prefix.exists_bt[:, None, :], (size, n_packed, n_prefix)),
            jnp.broadcast_to(own[None], (size, n_packed, n_packed)),
        ],
        axis=2,
    )
    hidden = model.decoder(
        jnp.concatenate([prefix.x, questions], axis=1),
        jnp.concatenate([prefix.positions_bt, positions], axis=1),
        jnp.concatenate([top, bottom], axis=1),
    )[:, n_prefix:]
    logits = model.decoder.logits(hidden).reshape(size, n_questions, length, -1)
    return logits, trainer.frame_head(frames)


def loss(params: nnx.State, graphdef: nnx.GraphDef, batch: Batch) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Mean negative log-likelihood of answer tokens, plus that of the frames' words."""
    logits, frame_logits = forward(nnx.merge(graphdef, params), batch)
    targets = batch.questions_bqn[:, :, 1:]
    mask = batch.answer_mask_bqn[:, :, 1:].astype(jnp.float32)
    answer = optax.softmax_cross_entropy_with_integer_labels(logits[:, :, :-1], targets)
    answer_loss = jnp.sum(answer * mask) / jnp.sum(mask)
    seen = jnp.arange(frame_logits.shape[1])[None, :] < (batch.n_frames_b // 2)[:, None]
    frame = optax.softmax_cross_entropy_with_integer_labels(frame_logits, batch.frame_labels_bg)
    frame_loss = jnp.sum(frame * seen) / jnp.sum(seen)
    right = jnp.all((jnp.argmax(logits[:, :, :-1], -1) == targets) | (mask == 0.0), axis=-1)
    return answer_loss + AUXILIARY_WEIGHT * frame_loss, {
        "answer": answer_loss,
        "frame": frame_loss,
        "accuracy": right.mean(),
    }


@functools.partial(jax.jit, static_argnums=(0, 3), donate_argnums=1)
def train_step(
    graphdef: nnx.GraphDef, state: TrainState, batch: Batch, optimiser: optax.GradientTransformation
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One AdamW step."""
    gradients, report = jax.grad(loss, has_aux=True)(state.params, graphdef, batch)
    updates, moments = optimiser.update(gradients, state.optimiser, state.params)
    return TrainState(optax.apply_updates(state.params, updates), moments), report


@functools.partial(jax.jit, static_argnums=0)
def right_answers(graphdef: nnx.GraphDef, params: nnx.State, batch: Batch) -> jax.Array:
    """Which questions of a batch are answered right, every token of the answer: bool[B, Q]."""
    logits, _ = forward(nnx.merge(graphdef, params), batch)
    targets, mask = batch.questions_bqn[:, :, 1:], batch.answer_mask_bqn[:, :, 1:]
    return jnp.all((jnp.argmax(logits[:, :, :-1], -1) == targets) | ~mask, axis=-1)


def main() -> None:
    """Train, or export what was trained."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--work", type=Path, required=True, help="folder with rendered data; checkpoints go to its run/"
    )
    parser.add_argument("--run", default="run", help="name of the run's folder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=9600)
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--peak-rate", type=float, default=2e-3)
    parser.add_argument("--no-absence", action="store_true", help="hear only examples with every word there")
    parser.add_argument("--export", type=Path, help="write the checkpoint reached so far as a Hugging Face folder")
    arguments = parser.parse_args()
    run = arguments.work / arguments.run
    graphdef, params = nnx.split(Trainer(rngs=nnx.Rngs(arguments.seed)))
    schedule = optax.warmup_cosine_decay_schedule(0.0, arguments.peak_rate, 200, arguments.steps, 1e-5)
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, b2=0.98, weight_decay=0.02))
    state, step = _restore(run, TrainState(params, optimiser.init(params)))
    if arguments.export:
        model = nnx.merge(graphdef, state.params).model
        export_folder(arguments.export, CONFIG, MEL, nnx.split(model)[1], world.TOKENS)
        return
    train = load_examples(sorted(arguments.work.glob("train-*.npz")))
    if arguments.no_absence:
        train = [example for example in train if example.absence == 0]
    test = load_examples(sorted(arguments.work.glob("test.npz")))
    batches = Batches(
        train, size=arguments.batch, seed=arguments.seed, embedding_absence=0.0 if arguments.no_absence else 0.15
    )
    _log(run, {"step": step, "train": len(train), "test": len(test)})
    began, reports, saved = time.time(), [], time.time()
    while step < arguments.steps:
        state, report = train_step(graphdef, state, batches(step), optimiser)
        reports.append(report)
        step += 1
        if step % 100 == 0:
            means = {key: round(float(np.mean([r[key] for r in reports])), 4) for key in reports[0]}
            _log(run, {"step": step, "seconds": round(time.time() - began, 1), **means})
            reports = []
        if step % 500 == 0 or step == arguments.steps:
            _log(run, {"step": step, "test": evaluate(graphdef, state.params, test)})
        if time.time() - saved > 120 or step == arguments.steps:
            _save(run, state, step)
            saved = time.time()


def evaluate(graphdef: nnx.GraphDef, params: nnx.State, examples: list[Any]) -> dict[str, float]:
    """Share of right answers a question category, over examples of any length."""
    totals: dict[str, list[bool]] = {}
    rng = np.random.default_rng(0)
    for bucket, longest in enumerate(FRAME_BUCKETS):
        shortest = FRAME_BUCKETS[bucket - 1] if bucket else 0
        members = [example for example in examples if shortest < len(example.mel_fm) <= longest]
        for start in range(0, len(members), 24):
            some = members[start : start + 24]
            batch, drawn = make_batch(some + [some[0]] * (24 - len(some)), longest, rng, 0.0)
            right = np.asarray(right_answers(graphdef, params, batch))
            for b in range(len(some)):
                for q, question in enumerate(drawn[b]):
                    totals.setdefault(question["category"], []).append(bool(right[b, q]))
                    totals.setdefault("all", []).append(bool(right[b, q]))
    return {key: round(float(np.mean(values)), 4) for key, values in sorted(totals.items())}


def _save(run: Path, state: TrainState, step: int) -> None:
    tree = {"params": nnx.to_pure_dict(state.params), "optimiser": jax.tree.leaves(state.optimiser), "step": step}
    atomic_write(run / "checkpoint.msgpack", flax.serialization.msgpack_serialize(_numpy(tree)))


def _restore(run: Path, fresh: TrainState) -> tuple[TrainState, int]:
    path = run / "checkpoint.msgpack"
    if not path.is_file():
        return fresh, 0
    tree = flax.serialization.msgpack_restore(path.read_bytes())
    params = jax.tree.map(jnp.asarray, fresh.params)
    nnx.replace_by_pure_dict(params, _integers(tree["params"]))
    leaves = tree["optimiser"]
    leaves = [leaves[str(i)] for i in range(len(leaves))] if isinstance(leaves, dict) else leaves
    optimiser = jax.tree.unflatten(jax.tree.structure(fresh.optimiser), [jnp.asarray(leaf) for leaf in leaves])
    return TrainState(params, optimiser), int(tree["step"])


def _numpy(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {str(key): _numpy(value) for key, value in tree.items()}
    return {str(i): np.asarray(leaf) for i, leaf in enumerate(tree)} if isinstance(tree, list) else np.asarray(tree)


def _integers(tree: Any) -> Any:
    """Layer numbers are integers in nnx's paths, but strings in msgpack."""
    if not isinstance(tree, dict):
        return jnp.asarray(tree)
    return {int(key) if key.isdigit() else key: _integers(value) for key, value in tree.items()}


def _log(run: Path, record: dict[str, Any]) -> None:
    run.mkdir(parents=True, exist_ok=True)
    line = json.dumps(record)
    print(line, flush=True)
    with (run / "log.jsonl").open("a") as file:
        file.write(line + "\n")


if __name__ == "__main__":
    main()
