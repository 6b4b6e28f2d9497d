"""`sgpa steer`: what a model answers while one of its concepts is turned up, and the dose at which an answer flips."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sgpa_jax.cli.options import Channel, Seed
from sgpa_jax.errors import UsageError

if TYPE_CHECKING:
    from sgpa_jax.concepts import DoseResponse, Task
    from sgpa_jax.models import Model
    from sgpa_jax.sae import TrainedSAE

_MANIFESTS = (".jsonl", ".csv")


def steer(
    audio: Annotated[
        Path, typer.Argument(metavar="AUDIO|MANIFEST", help="A recording; or clips with prompt and response.")
    ],
    sae: Annotated[Path, typer.Option(metavar="SAE", help="Folder of `sgpa sae train`, on this model.")],
    latent: Annotated[
        str | None, typer.Option(metavar="M,N,…", help="Latent to turn, or several that share the strength out.")
    ] = None,
    concept: Annotated[
        str | None, typer.Option(metavar="NAME", help="Or those of the folder's bank with these words in their names.")
    ] = None,
    against: Annotated[
        str | None, typer.Option(metavar="NAME", help="With --concept: those of another name are turned down.")
    ] = None,
    model: Annotated[str, typer.Option(metavar="NAME|FOLDER|HUB_ID", help="Audio language model.")] = "pocket",
    prompt: Annotated[str, typer.Option(metavar="TEXT", help="Question about a recording.")] = "",
    strengths: Annotated[
        str, typer.Option(metavar="A,B,…", help="In units of the latent; of a manifest, in 99th percentiles of it.")
    ] = "0,1,2,4,8",
    operation: Annotated[str, typer.Option(help="add, set, scale, clamp (from above) or ablate.")] = "add",
    mode: Annotated[
        str, typer.Option(help="keep the autoencoder's error, or replace the stream by the reconstruction.")
    ] = "keep",
    positions: Annotated[str, typer.Option(help="Where: audio or response.")] = "audio",
    source: Annotated[str | None, typer.Option(metavar="CLASS", help="Of a manifest: the answer to leave.")] = None,
    target: Annotated[str | None, typer.Option(metavar="CLASS", help="Of a manifest: the answer to reach.")] = None,
    collateral: Annotated[
        Path | None, typer.Option(metavar="MANIFEST", help="Another task, whose accuracy is watched.")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Tokens of the longest answer.")] = 16,
    seed: Seed = 0,
    channel: Channel = "mix",
    as_json: Annotated[bool, typer.Option("--json", help="Print nothing but JSON.")] = False,
) -> None:
    """Steer one recording, or measure the dose and the response on a manifest of labelled ones.

    Of a recording: the answer at every strength. Of a manifest, whose rows have prompt and response: clips answered
    with --source are steered to --target, the strength is chosen on one half of them and reported on the other, beside
    what random latents, raw dimensions and differences of means do. Without --latent it is the one that tells the two
    classes apart best.

    Several latents are turned together: equally if they are given by their numbers, as strongly as they fire in their
    own clips if by a name, and on a manifest by how much more, or less, they fire in clips of --target.
    """
    from sgpa_jax.concepts import autoencoder_of
    from sgpa_jax.models import load_model

    amounts = _numbers("strengths", strengths, like="0,1,2,4")
    given = None if latent is None else _numbers("latents", latent, like="3,17")
    if latent is not None and concept is not None:
        raise UsageError("expected either --latent, a number, or --concept, a name")
    if against is not None and concept is None:
        raise UsageError("--against turns a concept's opposite down: say with --concept which one is to be turned up")
    is_task = audio.suffix in _MANIFESTS
    if is_task != (source is not None and target is not None) or (not is_task and (source or target or collateral)):
        raise UsageError("a manifest goes with --source and --target, and a recording with none of them")
    if not is_task and latent is None and concept is None:
        raise UsageError("no latent was given to turn: give --latent, or --concept with the name of one")
    if is_task and (operation, mode) != ("add", "keep"):
        raise UsageError("doses are of what is added, in both modes: leave --operation and --mode out")
    network = load_model(model)
    trained = autoencoder_of(network, sae)
    turned = _named(sae, trained, concept, against) if concept is not None else _numbered(trained, given)
    if source is not None and target is not None:
        found = _doses(
            network, trained, audio, collateral, source, target, turned, amounts, positions, max_new_tokens, seed
        )
        typer.echo(json.dumps(found.to_dict()) if as_json else _dose_table(found))
        return
    assert turned is not None
    rows = _answers(
        network, trained, audio, channel, prompt, turned, operation, mode, amounts, positions, max_new_tokens
    )
    if as_json:
        told = {"latents": list(turned), "shares": list(turned.values()), "after_layer": trained.layer, "answers": rows}
        typer.echo(json.dumps(told, ensure_ascii=False))
        return
    typer.echo(_latents_told(turned))
    typer.echo(f"{'strength':>9} {'change':>7}  answer")
    for row in rows:
        typer.echo(f"{row['strength']:>9g} {row['change']:>7.1%}  {row['answer']}")


def _answers(
    model: "Model", trained: "TrainedSAE", audio: Path, channel: str, prompt: str, turned: dict[int, float],
    operation: str, mode: str, amounts: list[float], positions: str, max_new_tokens: int,
) -> list[dict[str, Any]]:  # fmt: skip
    import jax.numpy as jnp

    from sgpa_jax.audio import read_clip
    from sgpa_jax.concepts import LatentEdit, steer

    latents, shares = jnp.asarray(list(turned)), jnp.asarray(list(turned.values()), jnp.float32)
    edit = LatentEdit(trained.folded, latents, shares, operation, mode)
    question = prompt or (model.world.prompt if model.world is not None else "")
    done = steer(
        model, [model.prepare(read_clip(audio, channel=channel), question)], edit, amounts, after_layer=trained.layer,
        positions=positions, max_new_tokens=max_new_tokens,
    )  # fmt: skip
    return [
        {"strength": amount, "change": float(done.change_an[a, 0]), "answer": done.responses_an[a][0].text}
        for a, amount in enumerate(amounts)
    ]


def _doses(
    model: "Model", trained: "TrainedSAE", manifest: Path, collateral: Path | None, source: str, target: str,
    turned: dict[int, float] | None, amounts: list[float], positions: str, max_new_tokens: int, seed: int,
) -> "DoseResponse":  # fmt: skip
    import jax

    from sgpa_jax.concepts import dose_response

    positive = [amount for amount in amounts if amount > 0]
    if not positive:
        raise UsageError("no strength is above zero, so that nothing would be added; give some")
    return dose_response(
        model, trained.folded, _task(model, manifest, (source, target)), source=source, target=target,
        after_layer=trained.layer, strengths=positive, latents=None if turned is None else list(turned),
        positions=positions, collateral=None if collateral is None else _task(model, collateral, ()),
        max_new_tokens=max_new_tokens, key=jax.random.key(seed),
    )  # fmt: skip


def _task(model: "Model", manifest: Path, wanted: tuple[str, ...]) -> "Task":
    from sgpa_jax.audio import read_clip
    from sgpa_jax.concepts import Task
    from sgpa_jax.sae import read_manifest

    recordings = [recording for recording in read_manifest(manifest) if recording.prompt and recording.response]
    labels = tuple(recording.response or "" for recording in recordings)
    missing = sorted({*wanted} - {*labels})
    if missing or not recordings:
        raise UsageError(
            f"no row of {manifest} has the response {(missing or ['to its prompt'])[0]!r}; give rows with prompt and "
            "response"
        )
    batch = tuple(model.prepare(read_clip(recording.path), recording.prompt or "") for recording in recordings)
    return Task(batch, labels, tuple(sorted({*labels})))


def _dose_table(found: "DoseResponse") -> str:
    turned = _latents_told(dict(zip(found.latents, found.shares, strict=True)))
    lines = [
        f"{found.source} → {found.target}, {turned}: contrast AUC {found.auc:.3f}, 99th percentile {found.p99:.3g}",
        f"{'':<24} {'at':>6} {'change':>7} {'sensitivity':>11} {'selectivity':>11} {'flip_any':>8} {'degenerate':>10} "
        f"{'collateral':>10} {'area':>6}",
    ]
    for name in found.test:
        dose = found.reported(name)
        aside = "–" if dose.collateral is None else f"{dose.collateral:+.2f}"
        lines.append(
            f"{name:<24} {dose.strength:>6g} {dose.change:>7.1%} {dose.sensitivity:>11.2f} {dose.selectivity:>11.2f} "
            f"{dose.flip_any:>8.2f} {dose.degenerate_rate:>10.2f} {aside:>10} {found.area(name):>6.2f}"
        )
    n = found.reported("concept").n
    return "\n".join(
        [*lines, f"{n} clips of the test half, at the weakest strength that is best on the dev half, within a clip"]
    )


def _latents_told(turned: dict[int, float]) -> str:
    if len(turned) == 1:
        return f"latent {next(iter(turned))}"
    return f"latents {', '.join(f'{latent} ({share:.0%})' for latent, share in turned.items())}"


def _named(sae: Path, trained: "TrainedSAE", name: str, against: str | None) -> dict[int, float]:
    """Latents of the bank by their names, and how far each is turned: as it fires in its own clips."""
    from sgpa_jax.concepts import ConceptBank

    bank = ConceptBank.load(sae)
    bank.check(trained)
    sides = [(name, 1.0)] if against is None else [(name, 0.5), (against, -0.5)]
    turned: dict[int, float] = {}
    for words, side in sides:
        called = bank.named(words)
        if not called:
            raise UsageError(f"no concept in {sae} is called {words!r}; give --latent, or the name of one")
        fires = [1.0] if len(called) == 1 else [concept.mean or 0.0 for concept in called]
        if not sum(fires):
            raise UsageError(f"{sae} does not tell how the concepts called {words!r} fire; give --latent M,N,…")
        for concept, mean in zip(called, fires, strict=True):
            turned[concept.latent] = turned.get(concept.latent, 0.0) + side * mean / sum(fires)
    if not any(turned.values()):
        raise UsageError(f"{name!r} and {against!r} are the same concepts; give --against another name, or none")
    return turned


def _numbered(trained: "TrainedSAE", given: list[float] | None) -> dict[int, float] | None:
    """Latents by their numbers, all alike."""
    if given is None:
        return None
    n_latents = trained.sae.config.n_latents
    for number in given:
        if number not in range(n_latents):
            raise UsageError(f"latent {number:g} was asked for, but there are {n_latents}; give another")
    return {int(number): 1 / len({*given}) for number in given}


def _numbers(kind: str, text: str, *, like: str) -> list[float]:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or not all(abs(number) < 1e30 for number in numbers):
        raise UsageError(f"{kind} are {text!r}: expected numbers with commas between them, like {like}")
    return numbers
