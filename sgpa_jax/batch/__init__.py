"""Whole data sets: a manifest in, Parquet tables out, stopped and gone on with at any moment."""

from sgpa_jax.batch.job import Job
from sgpa_jax.batch.manifest import Manifest, Row, open_manifest
from sgpa_jax.batch.merge import merge
from sgpa_jax.batch.outcome import Coalitions, Outcome
from sgpa_jax.batch.page import write_page
from sgpa_jax.batch.plan import plan_batch
from sgpa_jax.batch.refold import refold_dataset
from sgpa_jax.batch.run import ENGINES, Progress, Runner, recordings, run_batch, run_bundles
from sgpa_jax.batch.tables import (
    RUN,
    Standing,
    failures,
    finished,
    read_coalitions,
    read_items,
    read_players,
    read_run,
    standing,
    write_part,
)

__all__ = [
    "ENGINES",
    "RUN",
    "Coalitions",
    "Job",
    "Manifest",
    "Outcome",
    "Progress",
    "Row",
    "Runner",
    "Standing",
    "failures",
    "finished",
    "merge",
    "open_manifest",
    "plan_batch",
    "read_coalitions",
    "read_items",
    "read_players",
    "read_run",
    "recordings",
    "refold_dataset",
    "run_batch",
    "run_bundles",
    "standing",
    "write_page",
    "write_part",
]
