"""Tables: what was written is what is read, twice the same, whole or not there, and damage is told in a sentence."""

import builtins
import errno
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import pytest

from sgpa_jax.batch import (
    RUN,
    Outcome,
    finished,
    read_coalitions,
    read_items,
    read_players,
    read_run,
    standing,
    write_part,
)
from sgpa_jax.batch.schemas import TABLES, schema_of
from sgpa_jax.batch.tables import bundle_key, failures, part
from sgpa_jax.errors import UsageError
from sgpa_jax.explain import Explanation

Differ = Callable[[Path, Path], list[str]]


def test_a_row_an_item_and_a_row_a_player(run: Path, bundles: list[list[Outcome]]):
    outcomes = [outcome for bundle in bundles for outcome in bundle]
    rows = [row for table in read_items(run) for row in table.to_pylist()]
    assert [row["id"] for row in rows] == [outcome.id for outcome in outcomes]
    for row, outcome in zip(rows, outcomes, strict=True):
        x = outcome.explanation
        assert (row["audio"], row["error"], row["seconds"]) == (outcome.name, outcome.error, outcome.seconds)
        if x is None:
            assert {row[name] for name in row} - {None} == {outcome.id, outcome.name, outcome.error, outcome.seconds}
            continue
        told = x.estimator
        assert [row[name] for name in ("estimator", "budget", "seed")] == [told["name"], told["budget"], told["seed"]]
        assert row["full_value"] == x.full_value[0] and row["unique"] == x.evaluations["unique"]
        assert row["game_key"] == x.game["key"] and row["players"] == len(x.players)
        read = Explanation.from_json(row["explanation"], "it")
        assert read.to_json() == replace(x, timings={}).to_json()
    players = [row for table in read_players(run) for row in table.to_pylist()]
    first = outcomes[0].explanation
    assert first is not None
    assert [(row["label"], row["value"], row["end_s"]) for row in players if row["id"] == "a"] == [
        (player.label, value, player.end_s) for player, value in zip(first.players, first.values[:, 0], strict=True)
    ]
    assert {row["id"] for row in players} == {"a", "b", "d", "e", "f", "g"}


def test_coalitions_come_back_as_they_were(run: Path, bundles: list[list[Outcome]]):
    for bundle, outcomes in enumerate(bundles):
        known = read_coalitions(run, bundle)
        games = [outcome.coalitions for outcome in outcomes if outcome.coalitions is not None]
        assert [*known] == [game.game_key for game in games]
        for game in games:
            read = known[game.game_key]
            for name in ("masks_cp", "sample_s", "values_sk"):
                given, found = getattr(game, name), getattr(read, name)
                np.testing.assert_array_equal(found, given)
                assert found.dtype == given.dtype
            if isinstance(game.outputs, tuple):
                assert read.outputs == game.outputs
            else:
                np.testing.assert_array_equal(read.outputs, game.outputs)
    assert read_coalitions(run, 99) == {}


def test_values_that_are_the_outputs_are_kept_once(run: Path):
    rows = parquet.read_table(part(run, "coalitions", 1)).to_pylist()
    assert [row["values"] is None for row in rows] == [False, True, True]
    assert [row["outputs"] is None for row in rows] == [row["response_ids"] is not None for row in rows]


def test_other_readers_find_the_same_columns(run: Path):
    for name in TABLES:
        for bundle in range(3):
            file = parquet.ParquetFile(part(run, name, bundle))
            assert file.schema_arrow.equals(schema_of(name))
            assert {column["compression"] for column in file.metadata.row_group(0).to_dict()["columns"]} == {"ZSTD"}
            assert file.schema_arrow.metadata[b"key"] == bundle_key("run", bundle).encode()


def test_only_what_it_took_differs(run: Path, bundles: list[list[Outcome]], tmp_path: Path, tables_differ: Differ):
    write_part(tmp_path / "same", 0, bundles[0], key=bundle_key("run", 0))
    for name in TABLES:
        assert part(tmp_path / "same", name, 0).read_bytes() == part(run, name, 0).read_bytes()
    for bundle, outcomes in enumerate(bundles):
        slower = [
            replace(o, seconds=9.0, explanation=o.explanation and replace(o.explanation, timings={"evaluate": 9.0}))
            for o in outcomes
        ]
        write_part(tmp_path / "slower", bundle, slower, key=bundle_key("run", bundle))
    assert tables_differ(run, tmp_path / "slower") == []
    write_part(tmp_path / "slower", 1, bundles[1][:2], key=bundle_key("run", 1))
    part(tmp_path / "slower", "items", 2).unlink()
    assert tables_differ(run, tmp_path / "slower") == [
        "items/part-00002.parquet is in one alone", "coalitions/part-00001.parquet differs",
        "items/part-00001.parquet differs", "players/part-00001.parquet differs",
    ]  # fmt: skip


def test_a_bundle_is_finished_when_all_of_its_parts_are_of_its_result(run: Path, bundles: list[list[Outcome]]):
    assert (
        finished(run, 0, bundle_key("run", 0))
        and not finished(run, 0, bundle_key("run", 1))
        and not finished(run, 7, bundle_key("run", 7))
    )
    assert standing(run) == (3, (), 8, 2)
    # Stopped between two parts of another result.
    kept = part(run, "items", 0).read_bytes()
    write_part(run, 0, bundles[0], key="other")
    part(run, "items", 0).write_bytes(kept)
    assert not finished(run, 0, bundle_key("run", 0)) and not finished(run, 0, "other")
    part(run, "coalitions", 1).unlink()
    assert not finished(run, 1, bundle_key("run", 1))
    part(run, "items", 2).unlink()
    assert standing(run).missing == (0, 1, 2)


def test_failures_are_listed_with_their_reasons(run: Path):
    assert failures(run, limit=9) == [
        ("c", "the recording is silent: give one with speech"),
        ("h", "no such file: 'h.wav'"),
    ]
    assert [id for id, _ in failures(run, limit=1)] == ["c"]


def test_parts_are_read_one_after_another(run: Path):
    part(run, "items", 1).write_bytes(b"PAR1")
    tables = read_items(run, ["id"])
    assert next(tables).to_pydict() == {"id": ["a", "b", "c"]}
    with pytest.raises(UsageError, match=r"items/part-00001\.parquet cannot be read.*delete it and run"):
        next(tables)


@pytest.mark.parametrize("name", TABLES)
def test_damage_is_told_and_never_read(run: Path, name: str):
    path = part(run, name, 1)
    whole, table = path.read_bytes(), parquet.read_table(path)
    known = read_coalitions(run, 1)
    rng, refused = np.random.default_rng(0), 0
    for _ in range(150):
        data = bytearray(whole)
        if rng.random() < 0.2:
            del data[rng.integers(len(data)) :]
        for _ in range(rng.integers(1, 8) if data else 0):
            data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        path.write_bytes(data)
        try:
            read = {"items": read_items, "players": read_players, "coalitions": read_items}[name](run)
            tables = [*read]
            if name == "coalitions":
                assert [*read_coalitions(run, 1)] == [*known]
                tables[1] = parquet.read_table(path)
            finished(run, 1, bundle_key("run", 1))
        except UsageError as error:
            assert str(path) in str(error) and len(str(error).splitlines()) == 1
            refused += 1
        else:
            assert tables[1].equals(table)
    assert refused > 100


def test_columns_of_another_kind_are_refused(run: Path):
    for name, other in (("items", "players"), ("coalitions", "items")):
        part(run, name, 0).write_bytes(part(run, other, 0).read_bytes())
    with pytest.raises(UsageError, match="its columns are others"):
        next(read_items(run))
    with pytest.raises(UsageError, match="its columns are others"):
        read_coalitions(run, 0)


def test_coalitions_that_contradict_themselves_are_refused(run: Path):
    path = part(run, "coalitions", 1)
    table = parquet.read_table(path)
    rows = table.to_pylist()
    for changes in (
        {"n_players": 0}, {"n_players": 99}, {"sample": [10**6]}, {"sample": None}, {"sample": [None]}, {"masks": b"a"},
        {"masks": None}, {"outputs": None}, {"outputs": [1.0]}, {"values": [1.0]}, {"values": [float("nan")] * 3},
        {"game_key": None}, {"n_outputs": -1}, {"outputs": [float("nan")] * len(rows[1]["outputs"])},
    ):  # fmt: skip
        changed = [rows[0], rows[1] | changes, rows[2]]
        parquet.write_table(table.from_pylist(changed, schema=table.schema), path)
        with pytest.raises(UsageError, match="cannot be read"):
            read_coalitions(run, 1)


def test_what_cannot_be_written_leaves_nothing(
    run: Path, bundles: list[list[Outcome]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write"):
        write_part(tmp_path / "file", 0, bundles[0], key="k")
    before = sorted(tmp_path.rglob("*"))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UsageError, match="No space left on device"):
        write_part(run, 3, bundles[0], key="k")
    assert sorted(tmp_path.rglob("*")) == before


def test_texts_that_no_encoding_knows_are_written(tmp_path: Path, bundles: list[list[Outcome]]):
    write_part(tmp_path, 0, [replace(bundles[0][2], id="\ud800", name="a\udc80.wav")], key="k")
    assert next(read_items(tmp_path, ["id", "audio"])).to_pylist() == [{"id": "?", "audio": "a?.wav"}]


def test_runs_that_are_none(tmp_path: Path):
    with pytest.raises(UsageError, match="there is no"):
        read_run(tmp_path)
    for text in (b"{", b"[]", b"{}", b'{"key": 3, "bundles": 1}', b'{"key": "a", "bundles": -1}', b"\xff", b"[" * 10**5,
                 json.dumps({"key": "a", "bundles": 2**60}).encode()):  # fmt: skip
        (tmp_path / RUN).write_bytes(text)
        with pytest.raises(UsageError, match=r"run\.json cannot be read"):
            read_run(tmp_path)


def test_without_pyarrow_it_is_told_what_to_install(run: Path, monkeypatch: pytest.MonkeyPatch):
    real = builtins.__import__

    def without(name: str, *rest: object):
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *rest)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UsageError, match=r"pip install 'sgpa-jax\[data\]'"):
        next(read_items(run))
