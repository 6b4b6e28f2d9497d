"""Records: whole or not there, and found again by what they are about."""

from dataclasses import replace
from pathlib import Path

import pytest

from sgpa_jax.errors import UsageError
from sgpa_jax.study.records import Measure, Record, RecordFolder, numbers, settings


def test_a_record_comes_back_as_it_was(tmp_path: Path, records: list[Record]):
    folder = RecordFolder(tmp_path)
    for record in records:
        folder.save(record)
    assert [folder.load(record.subject, record.item, "k") for record in records] == records


def test_only_a_whole_record_of_this_key_counts(tmp_path: Path, records: list[Record]):
    folder, record = RecordFolder(tmp_path), replace(records[0], item="../a b/ü")
    folder.save(record)
    path = folder.path(record.subject, record.item)
    assert path.parent.parent == tmp_path
    assert folder.load(record.subject, record.item, "k") == record
    assert folder.load(record.subject, record.item, "another") is None
    path.write_text(path.read_text("utf-8")[:-20], "utf-8")
    assert folder.load(record.subject, record.item, "k") is None
    assert folder.load("nobody", "nothing", "k") is None


def test_a_folder_that_cannot_be_written_to_is_told(tmp_path: Path, records: list[Record]):
    (tmp_path / "taken").write_text("")
    with pytest.raises(UsageError, match="cannot write"):
        RecordFolder(tmp_path / "taken").save(records[0])


def test_numbers_are_found_by_all_that_names_them():
    measures = (Measure("t", "a", 1.0, setting="x"), Measure("t", "a", 2.0), Measure("t", "b", None))
    two = [Record("one", "m", "k", measures=measures), Record("two", "m", "k", measures=measures[:1])]
    assert numbers(two, "t", "a", setting="x") == {"one": 1.0, "two": 1.0}
    assert numbers(two, "t", "a") == {"one": 2.0}
    assert numbers(two, "t", "b") == {}
    assert [(kind.name, kind.setting) for kind in settings(two, "t")] == [("a", "x"), ("a", ""), ("b", "")]
