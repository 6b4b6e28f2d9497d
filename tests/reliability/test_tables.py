"""Damaged manifests and tables of data sets: read, or refused in one sentence, row by row where rows are damaged."""

import io
import itertools
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sgpa_jax.audio import Clip, write_wav
from sgpa_jax.batch.manifest import open_manifest
from sgpa_jax.batch.outcome import Coalitions, Outcome
from sgpa_jax.batch.tables import part, read_coalitions, read_run, read_table, write_part
from sgpa_jax.errors import SgpaError

ROWS: list[dict[str, Any]] = [
    {"audio": "a.wav", "id": "a", "transcript": "turn on", "prompt": "what?", "response": "lamp", "duration": 0.5},
    {"audio": "b/b.wav", "id": "b", "transcript": "red", "prompt": None, "response": None, "duration": None},
]  # fmt: skip
SAMPLES = {
    "audio": {"path": None, "array": [0.0, 0.25, -0.25] * 20, "sampling_rate": 8000},
    "id": "c",
    "transcript": "on",
}
ENCODED = {"audio": {"path": "c.wav", "bytes": "UklGRg=="}, "id": "d", "text": "on"}
TABLE = "audio,id,transcript,prompt,response,duration\r\na.wav,a,turn on,what?,lamp,0.5\r\nb/b.wav,b,red,,,\r\n"


@pytest.fixture
def read_manifest(campaign: Any) -> Any:
    """Opens a manifest and asks for all of it; what a row raises of its own must be an SgpaError as well."""
    write_wav(campaign.folder / "a.wav", Clip(np.zeros(800, np.float32), 8000))
    count = itertools.count()

    def read(path: Path) -> None:
        manifest, refusals = open_manifest(path), []
        assert len(manifest.n_words) == len(manifest)
        if next(count) % 10 == 0:  # it starts threads, which take most of the time
            assert len(manifest.key) == 64 and len(manifest.durations_s) == len(manifest)
        for index in range(min(len(manifest), 50)):
            try:
                row = manifest.row(index)
                assert not isinstance(row.audio, Path) or row.audio.resolve().is_relative_to(path.parent.resolve())
            except SgpaError as error:
                refusals.append(error)
        if refusals:
            raise refusals[0]

    return read


def test_manifests_of_json_lines(campaign: Any, read_manifest: Any):
    lines = "\n".join(map(json.dumps, [*ROWS, SAMPLES, ENCODED])).encode()
    campaign("manifest.jsonl", lines, read_manifest, structured=True, file="manifest.jsonl")


def test_manifests_of_csv(campaign: Any, read_manifest: Any):
    campaign("manifest.csv", TABLE.encode(), read_manifest, file="manifest.csv")


def test_manifests_of_parquet(campaign: Any, read_manifest: Any):
    campaign(
        "manifest.parquet", _parquet(ROWS), read_manifest, damage=_other_columns(campaign), file="manifest.parquet"
    )


@pytest.mark.parametrize("name", ["items", "players", "coalitions"])
def test_tables(campaign: Any, explain: Any, name: str):
    masks_cp, numbers = np.eye(4, 3, dtype=bool), np.ones((4, 2), np.float32)
    games = (
        Coalitions("00", masks_cp, numbers, np.arange(4, dtype=np.int32), numbers.astype(np.float64)),
        Coalitions("01", masks_cp, ((1, 2), (), (3,), (4,)), np.arange(3, dtype=np.int32), np.ones((3, 2))),
    )
    outcomes = [Outcome(f"item {n}", "a.wav", explain(), game, None, 0.5) for n, game in enumerate(games)]
    write_part(campaign.folder, 0, [*outcomes, Outcome("failed", "b.wav", None, None, "it is gone", 0.1)], key="00")
    path = part(campaign.folder, name, 0)

    def read(_: Path) -> None:
        read_table(campaign.folder, name, 0)
        read_coalitions(campaign.folder, 0)

    file = path.relative_to(campaign.folder).as_posix()
    campaign(name, path.read_bytes(), read, damage=_other_columns(campaign), file=file)


def test_what_a_run_is(campaign: Any):
    told = {"schema": "sgpa-jax/batch/1", "key": "00", "bundles": 3, "settings": {"budget": 64}}
    campaign(
        "batch run.json",
        json.dumps(told).encode(),
        lambda path: read_run(path.parent),
        structured=True,
        file="run.json",
    )


def _other_columns(campaign: Any) -> Any:
    """Damage to a Parquet file: a third of the time, columns that are whole and not what they should be."""
    columns: list[list[Any]] = [
        [None, 1], ["x", None], [b"\xff", b""], [[1], []], [2**60, -1], [float("nan"), 1e308],
        ["/etc/passwd", "../../x"], [{"path": "../x", "bytes": None}, {"path": None, "bytes": b"RIFF"}], [True, None],
        [None, None],
    ]  # fmt: skip
    strange = [pa.array(column) for column in columns]

    def damage(data: bytes, rng: random.Random) -> bytes:
        if rng.random() < 0.7:
            return campaign.bytes(data, rng)
        table = pq.read_table(io.BytesIO(data)).slice(0, 2)
        column = rng.randrange(table.num_columns)
        if rng.random() < 0.2:
            table = table.remove_column(column)
        elif len(table) == 2:
            table = table.set_column(column, table.column_names[column], rng.choice(strange))
        if rng.random() < 0.1 and table.num_columns:
            table = table.append_column(table.column_names[0], table.column(0))
        buffer = io.BytesIO()
        pq.write_table(table, buffer)
        return buffer.getvalue()

    return damage


def _parquet(rows: list[dict[str, Any]]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    return buffer.getvalue()
