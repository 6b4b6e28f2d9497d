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
    latent: Annotated[int | None, typer.Option(min=0, help="Latent to turn.")] = None,
    concept: Annotated[
        str | None, typer.Option(metavar="NAME", help="Or the name of a concept in the folder's bank.")
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
    """
    from sgpa_jax.concepts import autoencoder_of
    from sgpa_jax.models import load_model

    amounts = _numbers(strengths)
    if latent is not None and concept is not None:
        raise UsageError("expected either --latent, a number, or --concept, a name")
    is_task = audio.suffix in _MANIFESTS
    if is_task != (source is not None and target is not None) or (not is_task and (source or target or collateral)):
        raise UsageError("a manifest goes with --source and --target, and a recording with none of them")
    if not is_task and latent is None and concept is None:
        raise UsageError("no latent was given to turn: give --latent, or --concept with the name of one")
    if is_task and (operation, mode) != ("add", "keep"):
        raise UsageError("doses are of what is added, in both modes: leave --operation and --mode out")
    network = load_model(model)
    trained = autoencoder_of(network, sae)
    if concept is not None:
        latent = _latent_of(sae, trained, concept)
    if latent is not None and latent >= trained.sae.config.n_latents:
        raise UsageError(f"latent {latent} was asked for, but there are {trained.sae.config.n_latents}; give another")
    if source is not None and target is not None:
        found = _doses(
            network, trained, audio, collateral, source, target, latent, amounts, positions, max_new_tokens, seed
        )
        typer.echo(json.dumps(found.to_dict()) if as_json else _dose_table(found))
        return
    assert latent is not None
    rows = _answers(
        network, trained, audio, channel, prompt, latent, operation, mode, amounts, positions, max_new_tokens
    )
    if as_json:
        typer.echo(json.dumps({"latent": latent, "after_layer": trained.layer, "answers": rows}, ensure_ascii=False))
        return
    typer.echo(f"{'strength':>9} {'change':>7}  answer")
    for row in rows:
        typer.echo(f"{row['strength']:>9g} {row['change']:>7.1%}  {row['answer']}")


def _answers(
    model: "Model", trained: "TrainedSAE", audio: Path, channel: str, prompt: str, latent: int, operation: str,
    mode: str, amounts: list[float], positions: str, max_new_tokens: int,
) -> list[dict[str, Any]]:  # fmt: skip
    import jax.numpy as jnp

    from sgpa_jax.audio import read_clip
    from sgpa_jax.concepts import LatentEdit, steer

    edit = LatentEdit(trained.folded, jnp.asarray(latent), operation, mode)
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
    latent: int | None, amounts: list[float], positions: str, max_new_tokens: int, seed: int,
) -> "DoseResponse":  # fmt: skip
    import jax

    from sgpa_jax.concepts import dose_response

    positive = [amount for amount in amounts if amount > 0]
    if not positive:
        raise UsageError("no strength is above zero, so that nothing would be added; give some")
    return dose_response(
        model, trained.folded, _task(model, manifest, (source, target)), source=source, target=target,
        after_layer=trained.layer, strengths=positive, latent=latent, positions=positions,
        collateral=None if collateral is None else _task(model, collateral, ()), max_new_tokens=max_new_tokens,
        key=jax.random.key(seed),
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
    lines = [
        f"{found.source} → {found.target}, latent {found.latent}: contrast AUC {found.auc:.3f}, "
        f"99th percentile {found.p99:.3g}",
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
    n = found.reported("latent").n
    return "\n".join([*lines, f"{n} clips of the test half, at the strength that is best on the dev half"])


def _latent_of(sae: Path, trained: "TrainedSAE", name: str) -> int:
    from sgpa_jax.concepts import ConceptBank

    bank = ConceptBank.load(sae)
    bank.check(trained)
    found = bank.named(name)
    if not found:
        raise UsageError(f"no concept in {sae} is called {name!r}; give --latent, or the name of one")
    return found[0].latent


def _numbers(text: str) -> list[float]:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or not all(abs(number) < 1e30 for number in numbers):
        raise UsageError(f"strengths are {text!r}: expected numbers with commas between them, like 0,1,2,4")
    return numbers
