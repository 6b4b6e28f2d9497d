"""`sgpa concepts`: the latents of an autoencoder ranked by their clips, named, evaluated, and shown in pages."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sgpa_jax.cli.options import Seed
from sgpa_jax.cli.progress import progress_bar
from sgpa_jax.cli.ratings import ratings, sheet
from sgpa_jax.errors import UsageError, unknown_name

if TYPE_CHECKING:
    from sgpa_jax.concepts import AudioEmbedder, Captioner, ClipScores, Namer
    from sgpa_jax.sae import ActivationStore, TrainedSAE

PROTOCOLS = ("A", "B", "C")
_SCORERS = "representativeness|mean|coverage"

concepts = typer.Typer(
    name="concepts", help="What an autoencoder's latents are about.", no_args_is_help=True, rich_markup_mode=None
)

Trained = Annotated[Path, typer.Argument(metavar="SAE", help="Folder of `sgpa sae train`.")]
Activations = Annotated[Path, typer.Argument(metavar="ACTIVATIONS", help="Folder of `sgpa sae harvest`.")]
Bank = Annotated[
    Path | None, typer.Option("--bank", metavar="DIR", help="Folder of the concepts; default: the autoencoder's own.")
]
Embedder = Annotated[
    str | None,
    typer.Option(metavar="DIR|clap|clap:FOLDER", help="What embeds clips: a folder of CaptionEmbedder.save, or CLAP."),
]


@concepts.command()
def rank(
    sae: Trained,
    activations: Activations,
    clips: Annotated[
        Path | None, typer.Option(metavar="MANIFEST", help="Where the harvested clips are, to be heard and shown.")
    ] = None,
    bank: Bank = None,
    embedder: Embedder = None,
    p: Annotated[int, typer.Option("--p", min=1, help="Most and least representative clips of a concept.")] = 4,
    keep: Annotated[int, typer.Option(min=1, help="Concepts to keep: the most monosemantic ones.")] = 5000,
    scorer: Annotated[
        str, typer.Option(metavar=_SCORERS, help="What clips are ranked by; the last two are baselines.")
    ] = "representativeness",
    length_matched: Annotated[
        bool, typer.Option("--length-matched", help="Least representative clips as long as the most representative.")
    ] = False,
    seed: Seed = 0,
) -> None:
    """Rank clips for every latent, and keep the best latents as concepts.

    Without an embedder nothing is known of monosemanticity, and the latents that fire in most clips are kept.
    """
    from sgpa_jax import concepts as room
    from sgpa_jax.sae import read_manifest

    if scorer not in room.SCORERS:
        raise unknown_name("scorer", scorer, room.SCORERS)
    trained, store = _given(sae, activations)
    recordings = () if clips is None else read_manifest(clips)
    unit_ne, name, scores = None, None, room.clip_scores(trained, store)
    if embedder is not None:
        if clips is None:
            raise UsageError("an embedder hears clips: say with --clips where they are, or leave --embedder out")
        ears = _embedder(embedder)
        with progress_bar("clips") as progress:
            unit_ne = room.embed_files(ears, _paths(scores, recordings, clips), progress=progress)
        name = ears.name
    found = room.rank_concepts(
        trained, store, recordings, unit_ne=unit_ne, embedder_name=name, scores=scores, scorer=scorer, p=p, n_keep=keep,
        length_matched=length_matched, seed=seed,
    )  # fmt: skip
    found.save(bank or sae)
    typer.echo(f"{bank or sae}: {len(found)} concepts of {found.facts['n_alive']} latents that fire in {p} clips")


@concepts.command()
def name(
    sae: Trained,
    captions: Annotated[
        Path | None, typer.Option(metavar="FILE", help="JSON lines with `id` (or `audio`) and `caption`.")
    ] = None,
    captioner: Annotated[
        str | None,
        typer.Option(
            metavar="model:NAME|transformers:FOLDER|zero-shot:FILE",
            help="Who captions other clips; zero-shot: the nearest words of a file, by --embedder.",
        ),
    ] = None,
    namer: Annotated[
        str, typer.Option(metavar="consensus|FOLDER", help="Who says what captions share; a language model's folder.")
    ] = "consensus",
    embedder: Embedder = None,
    held_out: Annotated[
        Path | None, typer.Option(metavar="ACTIVATIONS", help="Also let the namer's judge detect firing clips here.")
    ] = None,
    bank: Bank = None,
    seed: Seed = 0,
) -> None:
    """Name concepts from captions of their clips; with --held-out, measure what the names can tell."""
    import jax

    from sgpa_jax import concepts as room

    where = bank or sae
    found = room.ConceptBank.load(where)
    known = {} if captions is None else _captions(captions)
    if captions is None and captioner is None:
        raise UsageError("names are made from captions: give --captions, or --captioner to have the clips captioned")
    if captioner is not None:
        known = room.caption_clips(_captioner(captioner, embedder), found, known=known)
    language_model = None if namer == "consensus" else room.LanguageModel.load(namer)
    says: Namer = room.ConsensusNamer(list(known.values())) if language_model is None else language_model
    found = room.name_concepts(found, says, known)
    if held_out is not None:
        trained, store = _given(sae, held_out)
        found.check(trained)
        scores = room.clip_scores(trained, store, latents=found.latents)
        missing = [clip for clip in scores.ids if clip not in known]
        if missing:
            raise UsageError(f"the clip {missing[0]!r} of {held_out} has no caption to be judged by; give --captions")
        judge = room.caption_judge(known, language_model)
        found = room.detect(found, scores, judge, key=jax.random.key(seed))
    found.save(where)
    detected = "" if held_out is None else f", detection {_figure(found.facts['detection'])}"
    typer.echo(f"{where}: {found.facts['named_frac']:.0%} of {len(found)} concepts have names{detected}")


@concepts.command()
def evaluate(
    sae: Trained,
    dev: Annotated[Path, typer.Option(metavar="ACTIVATIONS", help="Harvest of the half that thresholds come from.")],
    test: Annotated[Path, typer.Option("--eval", metavar="ACTIVATIONS", help="Harvest of the half that is reported.")],
    fsd50k: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Harvest both halves first, of a corpus in this layout.")
    ] = None,
    model: Annotated[str, typer.Option(metavar="NAME|FOLDER|HUB_ID", help="The model, for such a harvest.")] = "pocket",
    protocols: Annotated[str, typer.Option(help="By name (A), by label (B), by caption (C).")] = "A,B,C",
    scorer: Annotated[
        str | None,
        typer.Option(metavar=_SCORERS, help="What scores clips; default: what the concepts were ranked by."),
    ] = None,
    embedder: Embedder = None,
    resamples: Annotated[int, typer.Option(min=0, help="Draws of clips for 95 % intervals; 0: none.")] = 1000,
    bank: Bank = None,
    seed: Seed = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure on labelled clips, in halves, how well concepts stand for classes: P, R, F1 and mAP.

    Classes are the labels of the development half, or the corpus's vocabulary. Protocol B looks at all latents.
    """
    import jax

    from sgpa_jax import concepts as room

    wanted = [protocol.strip() for protocol in protocols.split(",")]
    for protocol in wanted:
        if protocol not in PROTOCOLS:
            raise unknown_name("protocol", protocol, PROTOCOLS)
    if scorer is not None and scorer not in room.SCORERS:
        raise unknown_name("scorer", scorer, room.SCORERS)
    found = room.ConceptBank.load(bank or sae) if {"A", "C"} & {*wanted} else None
    classes = None if fsd50k is None else _harvested(sae, fsd50k, model, dev, test)
    trained, dev_store = _given(sae, dev)
    _, eval_store = _given(sae, test)
    if found is not None:
        found.check(trained)
    by = scorer or ("representativeness" if found is None else found.facts["scorer"])
    latents = None if "B" in wanted or found is None else found.latents
    halves = tuple(room.clip_scores(trained, store, latents=latents) for store in (dev_store, eval_store))
    if classes is None:
        classes = tuple(sorted({label for labels in halves[0].labels for label in labels}))
    if not classes:
        raise UsageError(f"the clips of {dev} have no labels; harvest a manifest with labels, or give --fsd50k")
    key, told = jax.random.key(seed), {}
    for protocol in wanted:
        if protocol == "B":
            evaluation = room.protocol_b(halves[0], halves[1], classes, scorer=by)
        else:
            assert found is not None
            own = [scores.of(found.latents) for scores in halves]
            if protocol == "A":
                ears = None if embedder is None else _embedder(embedder)
                evaluation = room.protocol_a(found.names, own[0], own[1], classes, embedder=ears, scorer=by)
            else:
                texts = [concept.captions or (concept.name or "",) for concept in found.concepts]
                evaluation = room.protocol_c(texts, own[1], classes, p=found.facts["p"], scorer=by, key=key)
        if resamples and evaluation.predictions is not None:
            evaluation = room.with_intervals([evaluation], n_resamples=resamples, key=key)
        told[protocol] = evaluation.to_dict()
    if as_json:
        typer.echo(json.dumps(told))
        return
    for protocol, facts in told.items():
        for figure, value in facts["figures"].items():
            low_high = facts["intervals"].get(figure)
            about = "" if low_high is None else "   {} to {}".format(*map(_figure, low_high))
            typer.echo(f"{protocol} {figure:<18} {_figure(value)}{about}")


@concepts.command()
def report(
    sae: Trained,
    activations: Activations,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the pages.")],
    bank: Bank = None,
    limit: Annotated[int, typer.Option(min=1, help="Concepts that get a page, the first of the bank's.")] = 100,
    explained: Annotated[
        list[Path] | None,
        typer.Option(metavar="X.json", help="Explanations with --concepts, for the words that fire a concept."),
    ] = None,
) -> None:
    """Write a page for every concept, to listen to, and an index of them all."""
    from sgpa_jax import concepts as room
    from sgpa_jax.explain import Explanation
    from sgpa_jax.report import write_concept_pages

    trained, store = _given(sae, activations)
    found = room.ConceptBank.load(bank or sae)
    found.check(trained)
    explanations = [Explanation.load(path) for path in explained or ()]
    lines = room.timelines(trained, store, found.concepts[:limit])
    with progress_bar("pages") as progress:
        paths = write_concept_pages(found, out, lines, explanations=explanations, limit=limit, progress=progress)
    typer.echo(paths[0])
    typer.echo(f"{len(paths) - 1} pages of {len(found)} concepts")


for _command in (sheet, ratings):
    concepts.command()(_command)


def _given(sae: Path, activations: Path) -> "tuple[TrainedSAE, ActivationStore]":
    from sgpa_jax.sae import load_sae, open_store

    return load_sae(sae), open_store(activations)


def _paths(scores: "ClipScores", recordings: Any, manifest: Path) -> list[Path]:
    paths = {recording.id: recording.path for recording in recordings}
    missing = [clip for clip in scores.ids if clip not in paths]
    if missing:
        raise UsageError(f"the clip {missing[0]!r} was harvested but is not in {manifest}; give the harvest's manifest")
    return [paths[clip] for clip in scores.ids]


def _embedder(told: str) -> "AudioEmbedder":
    from sgpa_jax.concepts import CaptionEmbedder, ClapEmbedder

    kind, _, folder = told.partition(":")
    if kind == "clap":
        return ClapEmbedder.load(folder) if folder else ClapEmbedder.load()
    return CaptionEmbedder.load(told)


def _captioner(told: str, embedder: str | None) -> "Captioner":
    from sgpa_jax.concepts import ModelCaptioner, TransformersCaptioner, ZeroShotCaptioner
    from sgpa_jax.models import load_model

    kind, _, rest = told.partition(":")
    if kind == "model" and rest:
        return ModelCaptioner(load_model(rest))
    if kind == "transformers" and rest:
        return TransformersCaptioner.load(rest)
    if kind == "zero-shot" and rest and embedder is not None:
        return ZeroShotCaptioner(_embedder(embedder), _lines(Path(rest)))
    raise UsageError(
        f"the captioner is {told!r}: expected model:NAME, transformers:FOLDER, or zero-shot:FILE with an --embedder"
    )


def _lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {path} ({error}); give a file of UTF-8 text") from error


def _captions(path: Path) -> dict[str, str]:
    """Captions of clips by their ids."""
    found = {}
    for number, line in enumerate(_lines(path), start=1):
        try:
            row = json.loads(line)
            clip, caption = row.get("id") or row["audio"], row["caption"]
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
            raise UsageError(f"line {number} of {path} has no id and caption; give JSON lines with both") from error
        found[str(clip)] = str(caption)
    return found


def _harvested(sae: Path, corpus: Path, name: str, *folders: Path) -> tuple[str, ...]:
    """Harvest both halves of a corpus, or go on with that; its classes."""
    from sgpa_jax.concepts import read_fsd50k
    from sgpa_jax.models import load_model
    from sgpa_jax.sae import HarvestConfig, harvest, load_sae

    found, trained, model = read_fsd50k(corpus), load_sae(sae), load_model(name)
    if trained.model["digest"] != model.digest:
        raise UsageError(f"the autoencoder was trained on {trained.model['name']}, whose weights are not {name}'s")
    for recordings, folder in zip((found.dev, found.eval), folders, strict=True):
        with progress_bar("clips") as progress:
            harvest(model, recordings, folder, HarvestConfig(layers=(trained.layer,)), progress=progress)
    return found.classes


def _figure(value: float | None) -> str:
    return "–" if value is None or value != value else f"{value:.4f}"
