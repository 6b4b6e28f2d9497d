"""`sgpa sae harvest|train|eval|export`: from recordings to an autoencoder of a decoder's residual stream."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sgpa_jax.cli.progress import progress_bar
from sgpa_jax.errors import UsageError

if TYPE_CHECKING:
    from sgpa_jax.sae import TrainedSAE

sae = typer.Typer(
    add_completion=False, rich_markup_mode=None, help="Sparse autoencoders: harvest, train, eval, export."
)
Activations = Annotated[Path, typer.Argument(metavar="ACTIVATIONS", help="Folder that `sgpa sae harvest` wrote.")]
Trained = Annotated[Path, typer.Argument(metavar="SAE_FOLDER", help="Folder of a run of `sgpa sae train`.")]
Manifest = Annotated[Path, typer.Argument(metavar="MANIFEST", help="JSON lines or CSV with audio, id and labels.")]
ModelName = Annotated[str, typer.Option(metavar="NAME|FOLDER|HUB_ID", help="The audio language model.")]
_SOME_FAILED = 3


@sae.command()
def harvest(
    manifest: Manifest,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the activations.")],
    layers: Annotated[str, typer.Option(help="Decoder layers, counted from 0, like 5,16,26.")],
    model: ModelName = "pocket",
    prompt: Annotated[str | None, typer.Option(help="The question; audio positions do not see it.")] = None,
    system: Annotated[str | None, typer.Option(help="The system turn, if not the format's own.")] = None,
    batch: Annotated[int, typer.Option(help="Clips at once.")] = 8,
    clips_per_shard: Annotated[int, typer.Option(help="Clips of a file.")] = 256,
    dtype: Annotated[str | None, typer.Option(help="bfloat16 or float32; default: the checkpoint's.")] = None,
    seed: Annotated[int, typer.Option(help="Decides the clips' order.")] = 0,
) -> None:
    """Write down the residual stream at audio positions; run again, it goes on where it was interrupted."""
    from sgpa_jax import sae as room
    from sgpa_jax.models import load_model

    config = room.HarvestConfig(
        layers=_numbers("layers", layers), prompt=room.PROMPT if prompt is None else prompt, system=system,
        batch=batch, clips_per_shard=clips_per_shard, seed=seed,
    )  # fmt: skip
    recordings = room.read_manifest(manifest)
    with progress_bar("clips") as progress:
        store = room.harvest(load_model(model, dtype=dtype), recordings, out, config, progress=progress)
    failed = [row for row in store.index if "error" in row]
    typer.echo(f"{out}: {store.n_rows} tokens of {len(store.index) - len(failed)} clips, width {store.width}")
    for row in failed:
        typer.echo(f"sgpa: {row['clip']} was left out: {row['error']}", err=True)
    if failed:
        raise typer.Exit(_SOME_FAILED)


@sae.command()
def train(
    activations: Activations,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the runs, one folder for each.")],
    layers: Annotated[str | None, typer.Option(help="Layers, like 5,16,26; default: all that were harvested.")] = None,
    expansions: Annotated[str, typer.Option(help="Latents over width, like 4,8,16: a run for each and layer.")] = "8",
    preset: Annotated[str, typer.Option(help="recommended or ard_paper.")] = "recommended",
    kind: Annotated[str, typer.Option(help="topk, batch_topk, matryoshka or jumprelu.")] = "topk",
    k: Annotated[int | None, typer.Option(help="Latents of a token, in place of the preset's.")] = None,
    steps: Annotated[int | None, typer.Option(help="Steps, in place of the preset's.")] = None,
    batch: Annotated[int | None, typer.Option(help="Tokens of a step, in place of the preset's.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Adam's, in place of the preset's.")] = None,
    compute: Annotated[str, typer.Option(help="dtype of matrix products: float32 or bfloat16.")] = "float32",
    mesh: Annotated[str | None, typer.Option(help="Devices to spread over, like data=4,model=2.")] = None,
    checkpoint_every: Annotated[int, typer.Option(help="Steps between checkpoints.")] = 1000,
    seed: Annotated[int, typer.Option(help="Decides weights and order.")] = 0,
) -> None:
    """Train an autoencoder for every layer and expansion; run again, it goes on where it was interrupted."""
    from sgpa_jax import sae as room
    from sgpa_jax.models import parse_mesh

    store = room.open_store(activations)
    devices = None if mesh is None else parse_mesh(mesh)
    wanted = store.layers if layers is None else _numbers("layers", layers)
    sizes = {"kind": kind, "k": k, "n_steps": steps, "batch": batch, "learning_rate": learning_rate}
    grid = {
        (layer, expansion): room.recipe_of(
            preset, store.width, expansion=expansion, compute=compute, seed=seed, **sizes
        )
        for layer in wanted
        for expansion in _numbers("expansions", expansions)
    }
    for layer in wanted:
        store.check_layer(layer)
    if checkpoint_every < 1:
        raise UsageError(f"checkpoint-every is {checkpoint_every}: expected at least one step")
    for (layer, expansion), recipe in grid.items():
        folder = out / f"layer-{layer}-x{expansion}"
        with progress_bar("steps") as progress:
            room.train(store, layer, recipe, folder, mesh=devices, checkpoint_every=checkpoint_every, progress=progress)
        last = json.loads((folder / "log.jsonl").read_text(encoding="utf-8").splitlines()[-1])
        typer.echo(f"{folder}: fvu {last['fvu']:.4f}, l0 {last['l0']:.1f}, dead {last['dead_frac']:.3f}")


@sae.command(name="eval")
def evaluate(
    folder: Trained,
    activations: Activations,
    model: Annotated[str | None, typer.Option(metavar="NAME|FOLDER|HUB_ID", help="Also splice it into this.")] = None,
    answers: Annotated[
        Path | None, typer.Option(metavar="MANIFEST", help="Recordings with prompt and response, to splice with.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure an autoencoder on a harvest, which should not be the one that it was trained on."""
    from sgpa_jax import sae as room

    if (model is None) != (answers is None):
        raise UsageError("splicing needs both --model and --answers; give both, or neither")
    trained, store = room.load_sae(folder), room.open_store(activations)
    if store.width != trained.recipe.sae.width:
        raise UsageError(f"{activations} is {store.width} wide, but the autoencoder {trained.recipe.sae.width}")
    batches = (
        rows_nd[first : first + 4096]
        for shard in range(len(store.rows_in_shard))
        for rows_nd in [store.rows(shard, trained.layer)]
        for first in range(0, len(rows_nd), 4096)
    )
    figures: dict[str, Any] = {"layer": trained.layer, "step": trained.step}
    figures |= room.measure(trained.folded, batches).to_dict()
    figures["dead_frac"] = room.dead_frac(trained.silent_m)
    if model is not None and answers is not None:
        figures |= _spliced(trained, store, model, answers)
    if as_json:
        typer.echo(json.dumps(figures))
        return
    for name, value in figures.items():
        typer.echo(f"{name:<20} {value:.4f}" if isinstance(value, float) else f"{name:<20} {value}")


@sae.command()
def export(
    folder: Trained,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write.")],
    layout: Annotated[str, typer.Option(help="saelens or sparsify.")] = "saelens",
) -> None:
    """Write an autoencoder for other tools; it takes the residual stream as it is."""
    from sgpa_jax import sae as room

    trained = room.load_sae(folder)
    hook = f"layers.{trained.layer}"
    typer.echo(room.export_sae(trained.folded, out, layout, model_name=trained.model["name"], hook_name=hook))


def _spliced(trained: "TrainedSAE", store: Any, name: str, answers: Path) -> dict[str, Any]:
    import numpy as np

    from sgpa_jax import sae as room
    from sgpa_jax.audio import read_clip
    from sgpa_jax.models import load_model

    model = load_model(name)
    if model.digest != trained.model["digest"]:
        raise UsageError(f"the autoencoder was trained on {trained.model['name']}, whose weights are not {name}'s")
    recordings = room.read_manifest(answers)
    unanswered = [recording.id for recording in recordings if not (recording.prompt and recording.response)]
    if unanswered:
        raise UsageError(f"{unanswered[0]!r} in {answers} has no prompt or no response; give every row both")
    sums = [
        store.rows(shard, trained.layer).astype(np.float64).sum(axis=0) for shard in range(len(store.rows_in_shard))
    ]
    system = store.header.get("system")
    answered = (
        model.prepare(read_clip(r.path), r.prompt or "", system=system, response=r.response) for r in recordings
    )
    mean_d = np.sum(sums, axis=0) / store.n_rows
    return room.splice(model, trained.folded, trained.layer, answered, mean_d=mean_d).to_dict()


def _numbers(name: str, text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() for part in parts) or len(set(parts)) < len(parts):
        raise UsageError(f"{name} is {text!r}: expected different whole numbers with commas between them, like 5,16,26")
    return tuple(int(part) for part in parts)
