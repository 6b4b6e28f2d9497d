"""AR&D's pipeline end to end, from audio, on a world of sounds and voices where everything is known.

Clips are synthesised, *pocket-sounds* hears them, its residual stream is harvested after every decoder layer,
autoencoders are trained on it, their latents ranked, named and scored (rows `concepts`), evaluated on a corpus in
FSD50k's layout whose parameters are held out (`evaluation`: the three protocols of `sgpa_jax/concepts/evaluate.py`),
and used to steer what the model says of voices (`steering`), by a latent and by all latents whose names say the target,
turned up, or the source, turned down. Baselines are what the paper compares with, and an
autoencoder that never learnt; the ceiling is a linear probe. Latents, thresholds and strengths are chosen on
development clips, and figures are those of the others. `--work DIR` keeps corpora, activations and autoencoders for the
next run.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from _harness import parser, report
from _sound_concepts import (
    BUDGETS,
    CHOSEN_ON,
    FULL,
    QUICK,
    STEERED,
    P,
    Sizes,
    Stores,
    World,
    key_of,
    latents_called,
    named,
    ranked_by,
    recipe_for,
    steering_tasks,
    strongest_latent,
)

from sgpa_jax import concepts, sae
from sgpa_jax.models import Model, load_model

MODEL = "pocket-sounds"
TRANSITIONS = (
    ("emotion", "neutral", "happy"),
    ("emotion", "sad", "happy"),
    ("emotion", "happy", "angry"),
    ("gender", "woman", "man"),
)
STRENGTHS = (0.5, 1.0, 2.0, 3.0, 4.0, 8.0)
COLUMNS = (
    *("kind", "layer", "method", "kept", "precision", "recall", "f1", "mAP", "interval", "n", "named", "mapped"),
    *("ms_all", "ms_top", "null_all", "null_top", "held_out_top", "detection"),
    *(
        "from",
        "to",
        "by",
        "auc",
        "strength",
        "change",
        "sensitivity",
        "selectivity",
        "off_target",
        "degenerate",
        "collateral",
    ),
)
Rows = list[dict[str, object]]
Tasks = dict[str, concepts.Task]


def main() -> None:
    """Make everything, measure everything."""
    options = parser(__doc__)
    options.add_argument("--work", type=Path, help="keep what is made in this folder")
    options.add_argument("--model", default=MODEL, help=f"name or folder of the model (default: {MODEL})")
    options.add_argument("--layers", type=int, nargs="+", help="of these layers only (default: all; with --quick, 0)")
    arguments = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows, notes = measure(arguments, arguments.work or Path(folder), QUICK if arguments.quick else FULL)
    report("concepts", rows, arguments, notes, COLUMNS)


def measure(arguments: argparse.Namespace, folder: Path, sizes: Sizes) -> tuple[Rows, dict[str, object]]:
    """All rows, and what was made on the way."""
    model, seed = load_model(arguments.model), arguments.seed
    world = World.make(folder, sizes, seed)
    _say("corpora")
    began, cpu = time.perf_counter(), time.process_time()
    stores = Stores.make(model, world, folder)
    n_tokens = stores.corpus.n_rows + stores.dev.n_rows + stores.evaluated.n_rows
    notes: dict[str, object] = {"model": {"name": model.name, "digest": model.digest}, "tokens": stores.corpus.n_rows}
    notes["harvest"] = {"tokens": n_tokens, **_spent(began, cpu)}
    _say("harvest")
    chosen_on, tasks = (steering_tasks(model, sizes.steered, seed + which) for which in (CHOSEN_ON, STEERED))
    rows: Rows = []
    for layer in arguments.layers or stores.corpus.layers[: 1 if arguments.quick else None]:
        began, cpu = time.perf_counter(), time.process_time()
        recipe = recipe_for(stores.corpus.width, sizes, seed)
        trained = sae.train(stores.corpus, layer, recipe, folder / f"sae-{layer}")
        spent = {"tokens": recipe.training.n_steps * recipe.training.batch, **_spent(began, cpu)}
        notes[f"training, layer {layer}"] = spent | _quality(trained, stores)
        _say(f"layer {layer}: training")
        found, bank = _of_layer(trained, stores, world, sizes, seed)
        rows += found
        if layer < model.config.decoder.n_layers - 1:  # nobody looks at audio positions behind the last one
            rows += _steered(model, trained, bank, chosen_on, tasks, sizes, seed)
    return rows, notes


def _of_layer(
    trained: sae.TrainedSAE, stores: Stores, world: World, sizes: Sizes, seed: int
) -> tuple[Rows, concepts.ConceptBank]:
    """The rows of a layer, and all concepts of its autoencoder with their names."""
    layer, corpus = trained.layer, list(world.captions.values())
    untrained = concepts.untrained_sae(stores.corpus, layer, trained.recipe, key=key_of(seed, 1))
    ways: list[tuple[str, sae.TrainedSAE, str | None]] = [
        ("sae", trained, None), ("sae, mean only", trained, "mean"), ("sae, coverage only", trained, "coverage"),
        ("sae, random clips", trained, "random"), ("random-init sae", untrained, None),
        ("raw dimensions", concepts.raw_dimensions(stores.corpus, layer), None),
        ("principal directions", concepts.principal_directions(stores.corpus, layer), None),
    ]  # fmt: skip
    rows, banks, classes = list[dict[str, object]](), {}, world.fsd50k.classes
    for method, some, way in ways:
        scores = concepts.clip_scores(some, stores.corpus)
        dev, evaluated = concepts.clip_scores(some, stores.dev), concepts.clip_scores(some, stores.evaluated)
        scorer = way if way in ("mean", "coverage") else "representativeness"
        for n_keep in (*(budget * len(classes) for budget in BUDGETS), len(scores.latents)):
            bank = concepts.rank_concepts(
                some, stores.corpus, world.recordings, unit_ne=stores.unit_ne, embedder_name=world.embedder.name,
                scores=scores if way is None else ranked_by(scores, way, seed), p=P, n_keep=n_keep,
                n_permutations=sizes.permutations, seed=seed,
            )  # fmt: skip
            bank, captions = named(bank, world.captions, corpus)
            dev_kept, evaluated_kept = dev.of(bank.latents), evaluated.of(bank.latents)
            bank = concepts.detect(bank, dev_kept, world.judge, key=key_of(seed, 2))
            figures = bank.facts["monosemanticity"]
            rows.append(
                {"kind": "concepts", "layer": layer, "method": method, "kept": len(bank), "n": len(scores.latents),
                 "named": bank.facts["named_frac"], "ms_all": figures["all_alive"], "ms_top": figures["top"],
                 "null_all": figures["null_all"], "null_top": figures["null_top"],
                 "held_out_top": figures["held_out_top"], "detection": bank.facts["detection"]}
            )  # fmt: skip
            by_name = concepts.protocol_a(
                bank.names, dev_kept, evaluated_kept, classes, embedder=world.embedder, scorer=scorer
            )
            by_caption = concepts.protocol_c(captions, evaluated_kept, classes, p=P, scorer=scorer, key=key_of(seed, 3))
            rows += [_evaluation(layer, method, each, sizes, seed, len(bank)) for each in (by_name, by_caption)]
        banks[method] = bank
        if way != "random":
            by_label = concepts.protocol_b(dev, evaluated, classes, scorer=scorer)
            rows.append(_evaluation(layer, method, by_label, sizes, seed, len(dev.latents)))
        _say(f"layer {layer}: {method}")
    return [*rows, _probe(layer, stores, classes, sizes, seed)], banks["sae"]


def _evaluation(
    layer: int, method: str, found: concepts.Evaluation, sizes: Sizes, seed: int, kept: int | None = None
) -> dict[str, object]:
    if found.predictions is not None:
        found = concepts.with_intervals([found], n_resamples=sizes.resamples, key=key_of(seed, 4))
    row: dict[str, object] = {"kind": f"evaluation {found.protocol}", "layer": layer, "method": method, "kept": kept}
    row |= {name: value for name, value in found.figures.items() if name in COLUMNS or name in ("f1_macro", "lwlrap")}
    if "mAP" in found.intervals:
        row["interval"] = "{:.3f}–{:.3f}".format(*found.intervals["mAP"])
    return row | {"mapped": found.facts["mapped_frac"]} if "mapped_frac" in found.facts else row


def _probe(layer: int, stores: Stores, classes: tuple[str, ...], sizes: Sizes, seed: int) -> dict[str, object]:
    dev, evaluated = (concepts.pooled_clips(store, layer) for store in (stores.dev, stores.evaluated))
    dev_true_nj = concepts.truth(dev.labels, classes)
    scores = concepts.linear_probe(dev.mean_nd, dev_true_nj, evaluated.mean_nd, key=key_of(seed, 5))
    found = concepts.evaluate_scores(scores[0], dev.labels, scores[1], evaluated.labels, classes, "probe")
    return _evaluation(layer, "linear probe", found, sizes, seed)


def _steered(
    model: Model,
    trained: sae.TrainedSAE,
    bank: concepts.ConceptBank,
    chosen_on: Tasks,
    tasks: Tasks,
    sizes: Sizes,
    seed: int,
) -> Rows:
    rows: Rows = []
    for number, (task, source, target) in enumerate(TRANSITIONS):
        if sizes.steered < FULL.steered and number < len(TRANSITIONS) - 1:
            continue
        latent = strongest_latent(model, trained, chosen_on[task], source, target, STRENGTHS)
        other = tasks["gender" if task == "emotion" else "emotion"]
        for what, latents in (("latent", [latent]), ("concept", latents_called(bank, target, source))):
            if not latents:
                _say(f"layer {trained.layer}: no concept is called {target} or {source}")
                continue
            found = concepts.dose_response(
                model, trained.folded, tasks[task], source=source, target=target, after_layer=trained.layer,
                strengths=STRENGTHS, latents=latents, collateral=other.pick(np.arange(0, len(other.batch), 4)),
                max_new_tokens=4, key=key_of(seed, 10 + number),
            )  # fmt: skip
            for method in found.test:
                dose = found.reported(method)
                rows.append(
                    {"kind": "steering", "layer": trained.layer, "from": source, "to": target, "by": what,
                     "method": method.replace("concept", what), "latents": found.latents, "shares": found.shares,
                     "auc": found.auc, "n": dose.n, "strength": dose.strength, "change": dose.change,
                     "sensitivity": dose.sensitivity, "selectivity": dose.selectivity,
                     "off_target": max(dose.off_target.values()), "degenerate": dose.degenerate_rate,
                     "collateral": dose.collateral}
                )  # fmt: skip
        _say(f"layer {trained.layer}: {source} to {target}")
    return rows


def _quality(trained: sae.TrainedSAE, stores: Stores) -> dict[str, float]:
    """Of an autoencoder on clips that it did not see."""
    rows_nd = [stores.dev.rows(shard, trained.layer) for shard in range(len(stores.dev.rows_in_shard))]
    found = sae.measure(trained.folded, rows_nd)
    return {"fvu": found.fvu, "l0": found.l0, "dead_eval_frac": found.dead_eval_frac}


def _say(done: str) -> None:
    print(f"{time.process_time():7.0f} CPU s  {done}", file=sys.stderr, flush=True)


def _spent(began: float, cpu: float) -> dict[str, float]:
    return {"wall_s": round(time.perf_counter() - began, 1), "cpu_s": round(time.process_time() - cpu, 1)}


if __name__ == "__main__":
    main()
