"""Merging: shards become the very run that one process makes, and what is missing or foreign is told."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from sgpa_jax.batch import RUN, Outcome, merge, write_part
from sgpa_jax.batch.tables import part
from sgpa_jax.cli.app import SentenceGroup
from sgpa_jax.cli.merge import merge as command
from sgpa_jax.errors import UsageError

Bundles = list[list[Outcome]]
Differ = Callable[[Path, Path], list[str]]


@pytest.fixture
def shards(bundles: Bundles, tmp_path: Path, make_run: Callable[..., Path]) -> list[Path]:
    return [
        make_run(tmp_path / "first", [bundles[0], None, bundles[2]]),
        make_run(tmp_path / "second", [None, bundles[1], None]),
    ]


def sgpa_merge(*arguments: object) -> Result:
    app = typer.Typer(cls=SentenceGroup)
    app.command()(command)
    app.callback()(lambda: None)
    return CliRunner().invoke(app, ["merge", *map(str, arguments)])


def test_shards_become_the_whole_run(run: Path, shards: list[Path], tmp_path: Path, tables_differ: Differ):
    out = tmp_path / "out"
    assert merge(shards, out) == (3, (), 8, 2)
    assert tables_differ(run, out) == [] and (out / RUN).read_bytes() != b""
    assert part(out, "coalitions", 1).samefile(part(shards[1], "coalitions", 1))
    assert [path.name for path in out.rglob(".*")] == []
    # Again, and into one of the shards themselves.
    assert merge([out, *shards], out) == (3, (), 8, 2)
    assert merge(shards, shards[0]) == (3, (), 8, 2)
    assert tables_differ(run, shards[0]) == []


def test_shards_may_come_one_after_the_other(run: Path, shards: list[Path], tmp_path: Path, tables_differ: Differ):
    out = tmp_path / "out"
    assert merge(shards[:1], out) == (3, (1,), 5, 2)
    assert merge(shards[1:], out) == (3, (), 8, 2)
    assert tables_differ(run, out) == []


def test_a_bundle_that_was_being_written_is_missing(shards: list[Path], bundles: Bundles, tmp_path: Path):
    kept = part(shards[1], "items", 1).read_bytes()
    write_part(shards[1], 1, bundles[1], key="other")
    part(shards[1], "items", 1).write_bytes(kept)
    assert merge(shards, tmp_path / "out").missing == (1,)


def test_another_disk_gets_copies(
    run: Path, shards: list[Path], tmp_path: Path, tables_differ: Differ, monkeypatch: pytest.MonkeyPatch
):
    def cannot(*_: object) -> None:
        raise OSError("another device")

    monkeypatch.setattr("os.link", cannot)
    merge(shards, tmp_path / "out")
    assert not part(tmp_path / "out", "items", 0).samefile(part(shards[0], "items", 0))
    assert tables_differ(run, tmp_path / "out") == []


def test_what_cannot_be_merged_is_refused_and_nothing_written(
    shards: list[Path], bundles: Bundles, tmp_path: Path, make_run: Callable[..., Path]
):
    foreign = make_run(tmp_path / "foreign", [*bundles, None], key="foreign")
    out = tmp_path / "out"
    with pytest.raises(UsageError, match=r"foreign is of another run than .*first"):
        merge([shards[0], foreign], out)
    with pytest.raises(UsageError, match="nothing to merge"):
        merge([], out)
    with pytest.raises(UsageError, match="there is no"):
        merge([shards[0], tmp_path], out)
    part(shards[1], "players", 1).write_bytes(b"PAR1")
    with pytest.raises(UsageError, match=r"players/part-00001\.parquet cannot be read"):
        merge(shards, out)
    assert not out.exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write"):
        merge(shards[:1], tmp_path / "file")


def test_the_command_tells_what_is_missing(shards: list[Path], tmp_path: Path):
    out = tmp_path / "out"
    partial = sgpa_merge(shards[1], "--out", out)
    assert partial.exit_code == 3 and "1 of 3 bundles, 3 items" in partial.stdout
    assert (
        "missing: bundles 0, 2" in partial.stderr and "2 of 3 bundles are missing" in (out / "index.html").read_text()
    )
    whole = sgpa_merge(shards[0], "--out", out, "--json")
    assert whole.exit_code == 0
    assert json.loads(whole.stdout) == {
        "bundles": 3, "missing": [], "items": 8, "failed": 2, "page": str(out / "index.html")
    }  # fmt: skip
    (out / RUN).write_text("{}")
    refused = sgpa_merge(*shards, "--out", out)
    assert refused.exit_code == 2 and len(refused.stderr.splitlines()) == 1, refused.stderr


def test_missing_bundles_are_told_in_spans(bundles: Bundles, tmp_path: Path, make_run: Callable[..., Path]):
    none: list[None] = [None]
    shard = make_run(tmp_path / "shard", [None, bundles[0], *none * 8, bundles[2], None])
    assert "bundles 0, 2–9, 11;" in sgpa_merge(shard, "--out", tmp_path / "out").stderr
