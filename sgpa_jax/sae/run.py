"""A training run in a folder: it can be interrupted at any time, and goes on from its last checkpoint.

The folder holds `run.json` (the recipe, the paths that were measured, and which layer of which harvest), `log.jsonl` (a
line at every checkpoint) and `checkpoints/` by Orbax: weights, optimiser, counters of silent latents, key, the data's
cursor and the normalisation, with length and CRC of every file: nothing damaged gets as far as Orbax. A run that
went on has, on a CPU, the very weights of one that was never interrupted.
"""

import functools
import json
import re
import reprlib
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from sgpa_jax.errors import UsageError
from sgpa_jax.files import atomic_write, checksums, sweep
from sgpa_jax.models import write_arrays
from sgpa_jax.sae.config import Recipe
from sgpa_jax.sae.losses import Paths
from sgpa_jax.sae.normalise import Normalisation, fit_normalisation, fold
from sgpa_jax.sae.paths import choose_paths
from sgpa_jax.sae.sharding import batch_sharding, state_sharding
from sgpa_jax.sae.shuffle import ShuffledRows
from sgpa_jax.sae.state import SAEState
from sgpa_jax.sae.store import ActivationStore, json_lines
from sgpa_jax.sae.train import TrainState, start_training, train_step

RUN, LOG, CHECKPOINTS = "run.json", "log.jsonl", "checkpoints"
_CHECKSUMS = "checksums.json"
_MODEL = ("name", "digest", "dtype")
SCHEMA = "sgpa-jax/sae/1"

_step = jax.jit(train_step, static_argnames=("training", "paths"), donate_argnums=0)
_started = jax.jit(start_training, static_argnums=0)


@dataclass(frozen=True, eq=False)
class TrainedSAE:
    """A trained autoencoder, as its folder holds it.

    Attributes:
        sae: the weights, which take normalised inputs.
        normalisation: what makes these of a residual stream.
        recipe: how it was trained.
        layer: the decoder layer, counted from 0.
        model: name, digest and dtype of the model.
        step: after how many steps; fewer than the recipe's where training is not finished.
        silent_m: tokens since each latent fired in training.
    """

    sae: SAEState
    normalisation: Normalisation
    recipe: Recipe
    layer: int
    model: dict[str, Any]
    step: int
    silent_m: np.ndarray

    @property
    def folded(self) -> SAEState:
        """The autoencoder that takes the residual stream as it is."""
        return fold(self.sae, self.normalisation)


def train(
    store: ActivationStore,
    layer: int,
    recipe: Recipe,
    folder: str | Path,
    *,
    mesh: Mesh | None = None,
    paths: Paths | None = None,
    checkpoint_every: int = 1000,
    buffer_shards: int = 16,
    progress: Callable[[int, int], None] | None = None,
) -> TrainedSAE:
    """Train an autoencoder on a layer of a harvest, or go on with a run that was interrupted.

    Args:
        store: the harvest.
        layer: its layer.
        recipe: autoencoder and training.
        folder: of the run.
        mesh: devices with axes `data` and `model` to spread it over.
        paths: ways to compute; None: those that are fastest here.
        checkpoint_every: steps between checkpoints; the last one is always kept.
        buffer_shards: shards that are shuffled together.
        progress: called with steps done, and in all.

    Raises:
        UsageError: the layer was not harvested or has another width, or the folder holds another run.
    """
    folder, training = Path(folder), recipe.training
    store.check_layer(layer)
    if recipe.sae.width != store.width:
        raise UsageError(f"the autoencoder is {recipe.sae.width} wide, but the residual stream {store.width}")
    told = _begin(folder, store, layer, recipe, paths, mesh)
    paths = Paths(**told["paths"])
    rows = ShuffledRows(store, layer, batch=training.batch, seed=training.seed, buffer_shards=buffer_shards)
    state, normalisation = _start(store, layer, recipe)
    last = latest_checkpoint(folder)
    if last is not None:
        _check(last)
        _keep_alone(last)
        state, normalisation, rows.cursor = _restored(last, state, normalisation)
    step = functools.partial(_step, training=training, paths=paths)
    if mesh is not None:
        cut = state_sharding(state, mesh)
        state = jax.device_put(state, cut)
        step = functools.partial(train_step, training=training, paths=paths)
        step = jax.jit(step, donate_argnums=0, in_shardings=(cut, batch_sharding(mesh)), out_shardings=(cut, None))
    seen: list[Any] = []
    log, since = _log_until(folder, int(state.step)), time.perf_counter()
    for n in range(int(state.step), training.n_steps):
        x_bd = normalisation(jnp.asarray(rows.next()))
        state, stats = step(state, x_bd if mesh is None else jax.device_put(x_bd, batch_sharding(mesh)))
        seen.append(stats)
        if (n + 1) % checkpoint_every == 0 or n + 1 == training.n_steps:
            means = jax.tree.map(lambda *values: float(np.mean(jax.device_get(values))), *seen)
            seconds, since = time.perf_counter() - since, time.perf_counter()
            log.append({"step": n + 1, **means._asdict(), "tokens_per_s": round(len(seen) * training.batch / seconds)})
            seen = []
            atomic_write(folder / LOG, json_lines(log))
            _save(folder, n + 1, state, normalisation, rows.cursor)
        if progress is not None:
            progress(n + 1, training.n_steps)
    return load_sae(folder)


def load_sae(folder: str | Path) -> TrainedSAE:
    """Load a run's last checkpoint.

    Raises:
        UsageError: the folder holds no run, or a damaged one, or one without a checkpoint.
    """
    folder = Path(folder)
    told, last = _read_run(folder), latest_checkpoint(folder)
    if told is None:
        raise UsageError(f"{folder} holds no autoencoder; give a folder that `sgpa sae train` wrote")
    if last is None:
        raise UsageError(f"the run in {folder} has no checkpoint yet; run the same `sgpa sae train` again")
    _check(last)
    try:
        recipe = Recipe.from_dict(told["recipe"])
        x_bd = jax.ShapeDtypeStruct((2, recipe.sae.width), jnp.float32)
        blank = jax.eval_shape(lambda x_bd: start_training(recipe, x_bd, key=jax.random.key(0)), x_bd)
        no_normalisation = jax.eval_shape(lambda x_bd: Normalisation(x_bd[0], x_bd[0, 0]), x_bd)
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{folder / RUN} is damaged; train into another folder") from error
    state, normalisation, _ = _restored(last, blank, no_normalisation)
    return TrainedSAE(
        state.sae, normalisation, recipe, told["layer"], told["model"], int(state.step), np.asarray(state.silent_m)
    )


def latest_checkpoint(folder: Path) -> Path | None:
    """Return the folder of the last complete checkpoint."""
    # What is not finished has another name.
    found = [path for path in (folder / CHECKPOINTS).glob("*") if re.fullmatch(r"\d{9}", path.name)]
    return max(found, default=None)


def _begin(
    folder: Path, store: ActivationStore, layer: int, recipe: Recipe, paths: Paths | None, mesh: Mesh | None
) -> dict[str, Any]:
    """Write what the run is, or check that it is the one that the folder holds, and return it."""
    told = {
        "schema": SCHEMA,
        "recipe": json.loads(json.dumps(recipe.to_dict())),
        "layer": layer,
        "model": store.header["model"],
        "activations": {name: store.header[name] for name in ("prompt", "system", "corpus", "seed")},
    }
    sweep(folder)
    found = _read_run(folder)
    if found is None:
        chosen = choose_paths(recipe, mesh=mesh) if paths is None else paths
        found = told | {"paths": asdict(chosen)}
        atomic_write(folder / RUN, json.dumps(found, indent=1) + "\n")
    differs = ", ".join(name for name in told if found.get(name) != told[name])
    if differs:
        raise UsageError(f"{folder} holds another run (other {differs}); give another folder")
    return found


def _read_run(folder: Path) -> dict[str, Any] | None:
    path = folder / RUN
    if not path.is_file():
        return None
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        if told["schema"] == SCHEMA:
            Paths(**told["paths"])
            if type(told["layer"]) is not int or not all(type(told["model"][name]) is str for name in _MODEL):
                raise ValueError("no layer or no model")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError(f"{path} is damaged; train into another folder") from error
    if told["schema"] != SCHEMA:
        told = reprlib.repr(told["schema"])
        raise UsageError(f"{path} is of schema {told}, but this version reads {SCHEMA}; train again")
    return told


def _log_until(folder: Path, step: int) -> list[dict[str, Any]]:
    """The log's lines up to a step: later ones are of steps that are to be taken again."""
    path = folder / LOG
    try:
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        return [row for row in map(json.loads, lines) if row["step"] <= step]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError(f"{path} is damaged; delete it and go on") from error


def _start(store: ActivationStore, layer: int, recipe: Recipe) -> tuple[TrainState, Normalisation]:
    training = recipe.training
    first = ShuffledRows(store, layer, batch=min(training.fit_on, store.n_rows), seed=training.seed, buffer_shards=4)
    x_bd = first.next().astype(np.float32)
    normalisation = fit_normalisation(x_bd, training.normalisation)
    return _started(recipe, normalisation(jnp.asarray(x_bd)), key=jax.random.key(training.seed)), normalisation


def _save(folder: Path, step: int, state: TrainState, normalisation: Normalisation, cursor: int) -> None:
    target = folder / CHECKPOINTS / f"{step:09d}"
    fresh = write_arrays(target, _plain(state, normalisation, np.asarray(cursor, np.int64)))
    try:
        atomic_write(fresh / _CHECKSUMS, json.dumps(checksums(fresh)))
        fresh.rename(target)
        _keep_alone(target)
    except OSError as error:
        raise UsageError(f"cannot write {target}: {error.strerror}; choose a folder that can be written to") from error


def _keep_alone(checkpoint: Path) -> None:
    """Remove the checkpoints before the last one, and what is not finished."""
    for path in checkpoint.parent.iterdir():
        if path.name != checkpoint.name:
            shutil.rmtree(path)


def _check(path: Path) -> None:
    """Check that a checkpoint is as it was written; those of before there were checksums have none."""
    told = path / _CHECKSUMS
    if told.is_file():
        found = {name: sums for name, sums in checksums(path).items() if name != _CHECKSUMS}
        try:
            whole = json.loads(told.read_text(encoding="utf-8")) == found
        except (ValueError, RecursionError):
            whole = False
        if not whole:
            raise UsageError(f"the checkpoint {path} is damaged; delete it and train again")


def _restored(path: Path, state: TrainState, normalisation: Normalisation) -> tuple[TrainState, Normalisation, int]:
    import orbax.checkpoint as ocp

    blank = jax.eval_shape(_plain, state, normalisation, np.zeros((), np.int32))
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    wanted = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), blank)
    wanted["cursor"] = np.zeros((), np.int64)
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            kept = checkpointer.restore(path.resolve(), wanted)
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f"the checkpoint {path} is damaged; delete it and train again") from error
    structure = jax.tree.structure((state, normalisation))
    state, normalisation = jax.tree.unflatten(structure, [kept["leaves"][name] for name in sorted(kept["leaves"])])
    return state._replace(key=jax.random.wrap_key_data(state.key)), normalisation, int(kept["cursor"])


def _plain(state: TrainState, normalisation: Normalisation, cursor: Any) -> dict[str, Any]:
    """What Orbax keeps: arrays by number, whatever the containers are called; a key as the numbers it is."""
    key = jax.random.key_data(state.key)
    leaves = jax.tree.leaves((state._replace(key=key), normalisation))
    return {"leaves": {f"{n:03d}": leaf for n, leaf in enumerate(leaves)}, "cursor": cursor}
