"""`sgpa explain`: a recording and a question in; a table, a picture, a page to listen to and a file of numbers out."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer

import sgpa_jax
from sgpa_jax.cli.inputs import read_transcript, shipped_demo
from sgpa_jax.cli.options import (
    TRANSCRIPT_HELP,
    Absence,
    Aligner,
    Baseline,
    Budget,
    Channel,
    Dtype,
    Estimand,
    EstimatorName,
    Groups,
    Interactions,
    Language,
    Long,
    MaxNewTokens,
    MeshText,
    ModelName,
    PlayersKind,
    Preset,
    Revision,
    Rules,
    Seed,
    System,
    TextAbsence,
    TextPlayers,
    ToleranceText,
    Unspellable,
    Value,
    given,
)
from sgpa_jax.cli.outputs import check_folder, show, show_plan, write_files
from sgpa_jax.cli.progress import progress_bar
from sgpa_jax.errors import UsageError


def explain(
    context: typer.Context,
    audio: Annotated[Path | None, typer.Argument(metavar="AUDIO", help="Recording: WAV, FLAC, MP3 or Ogg.")] = None,
    demo: Annotated[bool, typer.Option("--demo", help="Explain the clip that ships, with its own question.")] = False,
    transcript: Annotated[
        str | None,
        typer.Option(metavar="TEXT|@FILE|auto", help=f"{TRANSCRIPT_HELP} (auto:model: what the model does)"),
    ] = None,
    alignment: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Words with times: TextGrid, whisperX or MFA JSON, CSV.")
    ] = None,
    prompt: Annotated[str, typer.Option(metavar="TEXT", help="Question to the model.")] = "",
    system: System = None,
    response: Annotated[str | None, typer.Option(metavar="TEXT", help="Answer, if not the model's own.")] = None,
    model: ModelName = "pocket",
    aligner: Aligner = "pocket",
    revision: Revision = None,
    dtype: Dtype = None,
    mesh: MeshText = None,
    language: Language = None,
    preset: Preset = None,
    players: PlayersKind = "words",
    text: TextPlayers = "none",
    absence: Absence = "silence",
    text_absence: TextAbsence = "attention",
    baseline: Baseline = "mean",
    value: Value = "logprob",
    estimand: Estimand = "shapley",
    groups: Groups = None,
    estimator: EstimatorName = "auto",
    budget: Budget = "4096",
    tolerance: ToleranceText = None,
    control: Annotated[
        str | None,
        typer.Option(
            metavar="tokens:N|layers:N|model:NAME",
            help="Cheap game that is explained exactly, so that sampling only finds what is different.",
        ),
    ] = None,
    interactions: Interactions = None,
    concepts: Annotated[
        Path | None,
        typer.Option(metavar="SAE", help="Also which word fires which concept: folder of sgpa sae train."),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Concepts to tell of.")] = 10,
    max_new_tokens: MaxNewTokens = 64,
    seed: Seed = 0,
    rules: Rules = "sgpa",
    unspellable: Unspellable = "error",
    long: Long = "refuse",
    channel: Channel = "mix",
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder for the files.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it would cost.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print nothing but JSON.")] = False,
) -> None:
    """Share the model's answer out among the words of a recording.

    Prints a table; --out also writes explanation.json, explanation.html, explanation.png and alignment.TextGrid, and
    keeps every coalition in coalitions.safetensors: a stopped run goes on from there, and sgpa refold needs no model.
    """
    began_s = time.perf_counter()
    if demo:
        if audio or transcript or alignment or prompt:
            raise UsageError(
                "--demo brings its own recording, words and question: leave yours out, or leave --demo out"
            )
        audio, transcript, prompt = shipped_demo()
    if audio is None:
        raise UsageError(
            "no AUDIO was given: give a recording with --transcript, or --demo to explain the one that ships"
        )
    if transcript is not None and alignment is not None:
        raise UsageError("expected either --transcript, what is said, or --alignment, a file that also says when")
    if transcript is None and alignment is None and players in ("words", "speech", "phrases"):
        raise UsageError(
            f"players that are {players} need --transcript, what is said, or --alignment, a file that also says when"
        )
    words = None if transcript is None else read_transcript(transcript)
    if out is not None:
        check_folder(out)
    clip = sgpa_jax.read_clip(audio, channel=channel)
    asked: dict[str, Any] = {
        "prompt": prompt,
        "transcript": words,
        "alignment": alignment and sgpa_jax.read_alignment(alignment, duration_s=clip.duration_s),
        "model": model,
        "aligner": aligner,
        "revision": revision,
        "dtype": dtype,
        "mesh": mesh,
        "language": language,
        "system": system,
        "response": response,
        "preset": preset,
        "players": players,
        "text": text,
        "absence": absence,
        "text_absence": text_absence,
        "value": value,
        "baseline": baseline,
        "estimand": estimand,
        "groups": groups,
        "estimator": estimator,
        "budget": budget,
        "max_new_tokens": max_new_tokens,
        "rules": rules,
        "unspellable": unspellable,
        "long": long,
    }
    if dry_run:
        show_plan(sgpa_jax.plan(clip, **given(context, preset, asked)), as_json=as_json)
        return
    from sgpa_jax.archive import COALITIONS

    with progress_bar() as progress:
        asked |= {
            "tolerance": tolerance,
            "control": control,
            "interactions": interactions,
            "concepts": concepts,
            "top": top,
            "seed": seed,
        }
        explanation = sgpa_jax.explain(
            clip,
            **given(context, preset, asked),
            archive=None if out is None else out / COALITIONS,
            progress=progress,
        )
    paths = [] if out is None else write_files(explanation, out)
    show(explanation, as_json=as_json)
    if not as_json:
        for path in paths:
            typer.echo(path)
        typer.echo(f"took {time.perf_counter() - began_s:.1f} s")
