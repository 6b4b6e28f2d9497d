"""Train a *pocket* audio language model from nothing, on spoken commands.

    python -m train.pocket --work DIR [--model pocket | pocket-lfm2] [--seed 0] [--steps 18000] [--no-absence]

Reads the data that `commands.py` rendered into DIR, checkpoints every few minutes and resumes by itself; `--export
FOLDER` writes the Hugging Face folder. Two things make it learn on a CPU: a word label for every encoder frame from the
exact times (an auxiliary head that is thrown away), and several questions packed behind one audio prefix, each seeing
the prefix and itself alone.
"""

import argparse
import functools
import itertools
import json
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from sgpa_jax.files import atomic_write
from sgpa_jax.models.audio_lm import AudioLM, Placed
from sgpa_jax.models.layers import Linear
from sgpa_jax.models.nemo_mel import NemoMelConfig, normalise
from sgpa_jax.models.order import Order, causal_order
from train.pocket_data import Batch, Batches, Example, bucket_frames, load_examples, make_batch
from train.pocket_export import export_folder
from train.recipe import RECIPES, Recipe

AUXILIARY_WEIGHT = 0.5


class Trainer(nnx.Module):
    """The model together with the auxiliary word-per-frame head."""

    def __init__(self, recipe: Recipe, *, rngs: nnx.Rngs):
        config = recipe.config
        self.model = AudioLM(config, rngs=rngs)
        self.frame_head = Linear(config.encoder.width, config.decoder.vocab_size, rngs=rngs)


class TrainState(NamedTuple):
    """Everything that a resumed run needs besides the step; `params` is an `nnx.State`."""

    params: Any
    optimiser: optax.OptState


def forward(trainer: Trainer, batch: Batch) -> tuple[jax.Array, jax.Array]:
    """Next-token logits of every packed question `[B, Q, N, V]` and frame logits `[B, G, V]`."""
    model, mel = trainer.model, batch.mel_bfm
    if isinstance(model.config.front_end, NemoMelConfig):
        mel = normalise(mel, batch.n_frames_b - 1)
    frames = model.encoder.frames(mel, batch.n_frames_b)
    audio = model.projector(model.encoder.pool(frames))
    n_audio = model.config.encoder.n_tokens(batch.n_frames_b)
    real = (jnp.arange(audio.shape[1])[None, :] < n_audio[:, None])[:, :, None]
    mean = jax.lax.stop_gradient(jnp.sum(jnp.where(real, audio, 0.0), (0, 1)) / jnp.sum(real))
    baseline = batch.baseline_b[:, None, None] * mean[None, None, :]
    audio = jnp.where(batch.gone_ba[:, : audio.shape[1], None], baseline, audio)
    prefix = model.place(batch.prefix, audio[:, None], n_audio[:, None])
    size, n_questions, length = batch.questions_bqn.shape
    questions = model.decoder.embedding(jnp.asarray(batch.questions_bqn).reshape(size, n_questions * length))
    order = packed_order(prefix, n_questions, length)
    hidden = model.decoder(jnp.concatenate([prefix.x, questions], axis=1), order)[:, prefix.x.shape[1] :]
    logits = model.decoder.logits(hidden).reshape(size, n_questions, length, -1)
    return logits, trainer.frame_head(frames)


def packed_order(prefix: Placed, n_questions: int, length: int) -> Order:
    """Order of a prefix and `n_questions` questions of `length` tokens in one row, each as if it alone followed."""
    size, n_prefix = prefix.exists_bt.shape
    n_packed = n_questions * length
    owner, place = jnp.repeat(jnp.arange(n_questions), length), jnp.tile(jnp.arange(length), n_questions)
    own = (owner[:, None] == owner[None, :]) & jnp.tril(jnp.ones((n_packed, n_packed), bool))
    first = causal_order(prefix.exists_bt)
    top = jnp.concatenate([first.mask_btu, jnp.zeros((size, n_prefix, n_packed), bool)], axis=2)
    bottom = jnp.concatenate(
        [
            jnp.broadcast_to(prefix.exists_bt[:, None, :], (size, n_packed, n_prefix)),
            jnp.broadcast_to(own[None], (size, n_packed, n_packed)),
        ],
        axis=2,
    )
    positions = jnp.concatenate([first.positions_bt, prefix.n_b[:, None] + place[None, :]], axis=1)
    # A convolution of three taps hears the two tokens before: those of a question's first ones end the prefix.
    back = jnp.arange(1, 3)
    in_prefix = jnp.broadcast_to((jnp.arange(n_prefix)[:, None] - back[None, :])[None], (size, n_prefix, 2))
    in_row = (n_prefix + jnp.arange(n_packed))[:, None] - back[None, :]
    at_end = prefix.n_b[:, None, None] + (place[:, None] - back[None, :])[None]
    behind = jnp.where((place[:, None] >= back[None, :])[None], in_row[None], at_end)
    return Order(positions, jnp.concatenate([top, bottom], axis=1), jnp.concatenate([in_prefix, behind], axis=1))


def loss(params: nnx.State, graphdef: nnx.GraphDef, batch: Batch) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Mean negative log-likelihood of answer tokens, plus that of the frames' words."""
    logits, frame_logits = forward(nnx.merge(graphdef, params), batch)
    targets = batch.questions_bqn[:, :, 1:]
    mask = batch.answer_mask_bqn[:, :, 1:].astype(jnp.float32)
    answer = optax.softmax_cross_entropy_with_integer_labels(logits[:, :, :-1], targets)
    answer_loss = jnp.sum(answer * mask) / jnp.sum(mask)
    seen = batch.frame_labels_bgj >= 0
    log_p = jax.nn.log_softmax(frame_logits)
    frame = -jnp.take_along_axis(log_p, jnp.maximum(batch.frame_labels_bgj, 0), axis=-1)
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
        "--work", type=Path, required=True, help="folder with rendered data; checkpoints go to a folder in it"
    )
    parser.add_argument("--model", choices=RECIPES, default="pocket")
    parser.add_argument("--run", help="name of the run's folder, if not the model's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=18000)
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--peak-rate", type=float, default=2e-3)
    parser.add_argument("--no-absence", action="store_true", help="hear only examples with every word there")
    parser.add_argument("--export", type=Path, help="write the checkpoint reached so far as a Hugging Face folder")
    arguments = parser.parse_args()
    run, recipe = arguments.work / (arguments.run or arguments.model), RECIPES[arguments.model]
    if arguments.export:
        export_folder(arguments.export, recipe, trained(run, recipe))
        return
    train = load_examples(sorted(arguments.work.glob("train-*.npz")), recipe)
    if arguments.no_absence:
        train = [example for example in train if example.absence == 0]
    test = load_examples(sorted(arguments.work.glob("test.npz")), recipe)
    batches = Batches(
        train,
        recipe,
        size=arguments.batch,
        seed=arguments.seed,
        embedding_absence=0.0 if arguments.no_absence else 0.15,
    )
    fit(run, recipe, batches, lambda: in_batches(test, recipe), steps=arguments.steps,
        peak_rate=arguments.peak_rate, seed=arguments.seed)  # fmt: skip


def fit(
    run: Path,
    recipe: Recipe,
    batches: Callable[[int], Batch],
    tests: Callable[[], Iterable[tuple[Batch, list[list[str]]]]],
    *,
    steps: int,
    peak_rate: float,
    seed: int,
) -> None:
    """Train in the folder `run`, or go on with what was trained there.

    Args:
        run: where checkpoints and the log go.
        recipe: the model.
        batches: gives the batch of a step.
        tests: gives batches to test on, each with the categories of its questions, row by row; rows behind these
            fill the batch up.
        steps: optimiser steps in all.
        peak_rate: the learning rate after the warm-up.
        seed: of the weights.
    """
    graphdef, params = nnx.split(Trainer(recipe, rngs=nnx.Rngs(seed)))
    schedule = optax.warmup_cosine_decay_schedule(0.0, peak_rate, 200, steps, 1e-5)
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, b2=0.98, weight_decay=0.02))
    state, step = _restore(run, TrainState(params, optimiser.init(params)))
    began, reports, saved = time.time(), [], time.time()
    while step < steps:
        state, report = train_step(graphdef, state, batches(step), optimiser)
        reports.append(report)
        step += 1
        if step % 100 == 0:
            means = {key: round(float(np.mean([r[key] for r in reports])), 4) for key in reports[0]}
            _log(run, {"step": step, "seconds": round(time.time() - began, 1), **means})
            reports = []
        if step % 500 == 0 or step == steps:
            _log(run, {"step": step, "test": evaluate(graphdef, state.params, tests())})
        if time.time() - saved > 120 or step == steps:
            _save(run, state, step)
            saved = time.time()


def trained(run: Path, recipe: Recipe) -> nnx.State:
    """Return the model's weights at the checkpoint that was reached.

    Raises:
        FileNotFoundError: there is none.
    """
    graphdef, params = nnx.split(Trainer(recipe, rngs=nnx.Rngs(0)))
    nnx.replace_by_pure_dict(params, _integers(_read(run / "checkpoint.msgpack")["params"]))
    return nnx.split(nnx.merge(graphdef, params).model)[1]


def in_batches(examples: list[Example], recipe: Recipe) -> Iterator[tuple[Batch, list[list[str]]]]:
    """Yield examples of any length in batches, with the categories of the questions drawn for each."""
    rng = np.random.default_rng(0)
    for shortest, longest in itertools.pairwise((0, *bucket_frames(recipe))):
        members = [example for example in examples if shortest < len(example.mel_fm) <= longest]
        for start in range(0, len(members), 24):
            some = members[start : start + 24]
            batch, drawn = make_batch(some + [some[0]] * (24 - len(some)), longest, rng, recipe, embedding_absence=0.0)
            yield batch, [[question["category"] for question in row] for row in drawn[: len(some)]]


def evaluate(
    graphdef: nnx.GraphDef, params: nnx.State, tests: Iterable[tuple[Batch, list[list[str]]]]
) -> dict[str, float]:
    """Share of right answers a question category."""
    totals: dict[str, list[bool]] = {}
    for batch, categories in tests:
        right = np.asarray(right_answers(graphdef, params, batch))
        for b, row in enumerate(categories):
            for q, category in enumerate(row):
                totals.setdefault(category, []).append(bool(right[b, q]))
                totals.setdefault("all", []).append(bool(right[b, q]))
    return {key: round(float(np.mean(values)), 4) for key, values in sorted(totals.items())}


def _save(run: Path, state: TrainState, step: int) -> None:
    tree = {"params": nnx.to_pure_dict(state.params), "optimiser": jax.tree.leaves(state.optimiser), "step": step}
    atomic_write(run / "checkpoint.msgpack", flax.serialization.msgpack_serialize(_numpy(tree)))


def _restore(run: Path, fresh: TrainState) -> tuple[TrainState, int]:
    path = run / "checkpoint.msgpack"
    if not path.is_file():
        return fresh, 0
    tree = _read(path)
    params = jax.tree.map(jnp.asarray, fresh.params)
    nnx.replace_by_pure_dict(params, _integers(tree["params"]))
    leaves = tree["optimiser"]
    leaves = [leaves[str(i)] for i in range(len(leaves))] if isinstance(leaves, dict) else leaves
    optimiser = jax.tree.unflatten(jax.tree.structure(fresh.optimiser), [jnp.asarray(leaf) for leaf in leaves])
    return TrainState(params, optimiser), int(tree["step"])


def _read(path: Path) -> Any:
    return flax.serialization.msgpack_restore(path.read_bytes())


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
