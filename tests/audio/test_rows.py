"""Rows of CSV and JSON lines: what is read, found again by its place, and refused, by itself or with the whole file."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgpa_jax.audio import RowFile, read_rows
from sgpa_jax.errors import UsageError

TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=12)


def written(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def found(path: Path) -> list[object]:
    """Every row as `scan` gives it, after `at` has given the same."""
    file, rows = RowFile(path), []
    for place, row in list(file.scan()):
        if isinstance(row, UsageError):
            with pytest.raises(UsageError) as error:
                file.at(place)
            assert str(error.value) == str(row)
            rows.append(str(row))
        else:
            assert file.at(place) == row
            rows.append(row)
    return rows


def test_csv_and_json_lines_say_the_same(tmp_path: Path):
    table = written(tmp_path, "m.csv", 'audio, transcript\r\na.wav,"one, ""two""\nthree"\r\n\r\nb.wav,\r\n')
    lines = written(
        tmp_path, "m.jsonl", '{"audio": "a.wav", "transcript": "one, \\"two\\"\\nthree"}\n\n{"audio": "b.wav"}'
    )
    assert found(table) == [{"audio": "a.wav", "transcript": 'one, "two"\nthree'}, {"audio": "b.wav", "transcript": ""}]
    assert found(lines) == [{"audio": "a.wav", "transcript": 'one, "two"\nthree'}, {"audio": "b.wav"}]
    assert RowFile(table).columns == ("audio", "transcript") and RowFile(lines).columns is None


@pytest.mark.parametrize(("name", "content"), [("m.csv", "audio\nä.wav\n"), ("m.jsonl", '{"audio": "ä.wav"}\n')])
def test_a_mark_of_utf8_is_no_part_of_it(tmp_path: Path, name: str, content: str):
    path = written(tmp_path, name, content.encode("utf-8-sig"))
    assert found(path) == [{"audio": "ä.wav"}]


@given(st.lists(st.dictionaries(TEXTS, TEXTS, max_size=3), max_size=6), st.booleans())
def test_any_json_comes_back(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, str]], ascii: bool):
    lines = "\n".join(json.dumps(row, ensure_ascii=ascii) for row in rows)
    assert found(written(tmp_path_factory.mktemp("rows"), "m.jsonl", lines)) == rows


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"{", "is no JSON lines"),
        (b"[" * 100_000, "is no JSON lines"),
        (b'{"audio": "\xff.wav"}', "is no JSON lines"),
        (b'{"audio": "a\\u0000.wav"}', "NUL"),
        (b'{"labels": ["dog", {"a": "\\ud800"}]}', "UTF-8"),
        (b'{"n": ' + b"9" * 5000 + b"}", "is no JSON lines"),
        (b"3", "expected an object"),
    ],
)
def test_a_damaged_line_is_told_by_itself(tmp_path: Path, line: bytes, told: str):
    first, second, third = found(written(tmp_path, "m.jsonl", b'{"audio": "a"}\n' + line + b'\n{"audio": "c"}'))
    assert (first, third) == ({"audio": "a"}, {"audio": "c"})
    assert isinstance(second, str) and second.startswith(f"row 2 of the manifest {tmp_path / 'm.jsonl'} ")
    assert told in second and "\n" not in second
    with pytest.raises(UsageError, match="row 2 of the manifest"):
        read_rows(tmp_path / "m.jsonl")


@pytest.mark.parametrize(
    ("line", "told"), [(b"b.wav,one, two", "need quotes"), (b"\xff.wav,one", "UTF-8"), (b"b\0.wav,one", "NUL")]
)
def test_a_damaged_record_is_told_by_itself(tmp_path: Path, line: bytes, told: str):
    first, second, third = found(written(tmp_path, "m.csv", b"audio,transcript\na,x\n" + line + b"\nc,\n"))
    assert (first, third) == ({"audio": "a", "transcript": "x"}, {"audio": "c", "transcript": ""})
    assert isinstance(second, str) and second.startswith("row 2 of the manifest ") and told in second


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("m.jsonl", b"", "no rows"),
        ("m.jsonl", b"\n \n", "no rows"),
        ("m.csv", b"", "no rows"),
        ("m.csv", b"audio,transcript\n", "no rows"),
        ("m.csv", b"audio,id,audio\na,b,c\n", "column 'audio' more than once"),
        ("m.csv", b'audio\na\n"b\n', "no CSV from row 2 on .*every quote closed"),
        ("m.csv", b"audio\n" + b"x" * 200_000, "no CSV from row 1 on .*at most 131,072"),
        ("m.csv", b'"audio', "no CSV from row 0 on"),
        ("m.csv", "audio\na.wav\n".encode("utf-16"), "is in UTF-16"),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, name: str, content: bytes, told: str):
    with pytest.raises(UsageError, match=told):
        read_rows(written(tmp_path, name, content))


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path):
    for path in (tmp_path, tmp_path / "gone.csv", tmp_path / "a\0.csv"):
        with pytest.raises(UsageError, match="cannot read the manifest"):
            read_rows(path)


def test_a_line_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sgpa_jax.audio.rows._LONGEST_LINE", 64)
    with pytest.raises(UsageError, match="has a line of more than"):
        read_rows(written(tmp_path, "m.jsonl", '{"audio": "a.wav"}\n{"audio": "' + "b" * 100))


def test_a_file_that_was_changed_is_no_crash(tmp_path: Path):
    path = written(tmp_path, "m.csv", 'audio\n"a.wav"\n')
    file = RowFile(path)
    ((place, _),) = file.scan()
    path.write_text('audio\n"a.w')
    with pytest.raises(UsageError, match="no CSV from row 1 on"):
        file.at(place)
    path.unlink()
    with pytest.raises(UsageError, match="cannot read the manifest"):
        file.at(place)
