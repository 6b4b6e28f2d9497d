"""`sgpa batch`: a data set and a model in; Parquet tables of items, players and coalitions out, and a page."""

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from sgpa_jax.cli.options import (
    Absence,
    Aligner,
    Baseline,
    Budget,
    Channel,
    Dtype,
    Estimand,
    EstimatorName,
    Groups,
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
from sgpa_jax.cli.outputs import show_plan
from sgpa_jax.cli.progress import batch_progress
from sgpa_jax.errors import UsageError

_SHOWN = 20


def batch(
    context: typer.Context,
    manifest: Annotated[
        str,
        typer.Argument(
            metavar="MANIFEST",
            help="Folder of recordings with transcripts, .csv, .jsonl, .parquet, a saved data set, or hf:owner/name.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the tables; a stopped run goes on from there.")],
    model: ModelName = "pocket",
    aligner: Aligner = "pocket",
    revision: Revision = None,
    dtype: Dtype = None,
    mesh: MeshText = None,
    prompt: Annotated[str, typer.Option(metavar="TEXT", help="Question of rows that have none.")] = "",
    system: System = None,
    transcript: Annotated[
        str | None,
        typer.Option(metavar="auto|auto:model", help="Who writes what is said, for rows that do not tell."),
    ] = None,
    given_responses: Annotated[
        bool, typer.Option("--given-responses", help="Explain the answers in the manifest, not the model's own.")
    ] = False,
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
    max_new_tokens: MaxNewTokens = 64,
    seed: Seed = 0,
    rules: Rules = "sgpa",
    unspellable: Unspellable = "error",
    long: Long = "refuse",
    channel: Channel = "mix",
    split: Annotated[str | None, typer.Option(help="Split of a saved data set, or of one of the hub.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the manifest's first so many rows.")] = None,
    allow_outside: Annotated[
        bool, typer.Option("--allow-outside", help="Recordings may lie outside of the manifest's folder.")
    ] = False,
    engine: Annotated[str, typer.Option(help="Where bundles run: local, or ray, on a pool of actors.")] = "local",
    actors: Annotated[
        int | None, typer.Option(min=1, help="Ray's actors; else as many as the cluster has room for.")
    ] = None,
    shard: Annotated[
        str, typer.Option(metavar="i/N", help="Only the i-th of N shares of the bundles; sgpa merge joins the folders.")
    ] = "0/1",
    fail_fast: Annotated[
        bool, typer.Option("--fail-fast", help="Stop at the first item that fails, instead of recording why.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it would cost.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print nothing but JSON.")] = False,
) -> None:
    """Explain every recording of a data set.

    Writes DIR/items, DIR/players and DIR/coalitions, a Parquet file each for every bundle, and DIR/index.html. What is
    finished is not run again, and another estimator or seed finds every coalition that was evaluated already. Items
    that fail are recorded with their reason, and the exit code is then 3.
    """
    from sgpa_jax.api import Asked, with_preset
    from sgpa_jax.batch import Job, failures, plan_batch, recordings, run_batch, standing, write_page
    from sgpa_jax.batch.distributed import is_first, join

    options = {
        "players": players, "text": text, "absence": absence, "value": value, "estimand": estimand, "groups": groups,
        "estimator": estimator, "budget": budget, "tolerance": tolerance, "max_new_tokens": max_new_tokens,
        "rules": rules, "long": long,
    }  # fmt: skip
    asked = Asked(
        preset=preset, system=system, text_absence=text_absence, baseline=baseline, seed=seed, unspellable=unspellable,
        language=language, **with_preset(preset, given(context, preset, options)),
    )  # fmt: skip
    job = Job(
        manifest=manifest, out=out, model=model, aligner=aligner, revision=revision, dtype=dtype, mesh=mesh,
        prompt=prompt, transcript=transcript, given_responses=given_responses, channel=channel, split=split,
        limit=limit, allow_outside=allow_outside, asked=asked,
    )  # fmt: skip
    share = _shard(shard)
    # Shards are runs of their own, wherever they were started.
    if share == (0, 1):
        join()
    if dry_run:
        show_plan(plan_batch(job), as_json=as_json)
        return
    with batch_progress() as progress:
        run = run_batch(job, shard=share, engine=engine, actors=actors, fail_fast=fail_fast, progress=progress)
    if not is_first():
        return
    page = write_page(out, clip_of=recordings(job)) if share[1] == 1 else None
    now = standing(out)
    if as_json:
        typer.echo(json.dumps({**asdict(run), "missing": list(now.missing), "failed": now.failed}))
    else:
        per_s = run.coalitions / run.seconds
        typer.echo(
            f"{run.done} of {run.items} items, {now.failed} of them failed; {run.coalitions:,} coalitions in "
            f"{run.seconds:.1f} s ({per_s:,.0f} a second), {run.compiles} programs compiled"
        )
        typer.echo(page or f"{out}: join the shards with sgpa merge")
    for id, error in failures(out, limit=_SHOWN):
        typer.echo(f"failed: {id}: {error}", err=True)
    if now.failed > _SHOWN:
        typer.echo(f"failed: {now.failed - _SHOWN} more; the column error of {out / 'items'} tells why", err=True)
    if now.failed:
        raise typer.Exit(3)


def _shard(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text, re.ASCII)
    index, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if index >= count:
        raise UsageError(f"the shard is {text!r}: expected i/N with i from 0 to N - 1, such as 0/4")
    return index, count
