"""Manifests of files: what a row becomes, what is held of a million of them, and one sentence for what is refused."""

import json
import os
import pickle
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sgpa_jax.audio import Clip, write_wav
from sgpa_jax.batch.manifest import Manifest, open_manifest
from sgpa_jax.batch.texts import Texts
from sgpa_jax.errors import UsageError

RATE_HZ = 8000


def recorded(path: Path, duration_s: float = 0.5) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_wav(path, Clip(np.zeros(round(duration_s * RATE_HZ), np.float32), RATE_HZ))
    return path


def lines(folder: Path, *rows: Any) -> Path:
    path = folder / "m.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def refusals(manifest: Manifest) -> list[str | None]:
    """What each row says of itself when it is asked for, None where it can be used."""
    told: list[str | None] = []
    for index in range(len(manifest)):
        try:
            manifest.row(index)
            told.append(None)
        except UsageError as error:
            assert "\n" not in str(error)
            assert f"row {index + 1} of " in str(error) or ".txt" in str(error)
            told.append(str(error))
    return told


def test_rows_of_json_lines_and_csv(tmp_path: Path):
    recorded(tmp_path / "a.wav", 0.5)
    recorded(tmp_path / "b" / "b.wav", 1.25)
    path = lines(
        tmp_path,
        {"audio": "a.wav", "id": "one", "transcript": " turn  on\nthe lamp ", "prompt": "what?", "response": "on"},
        {"audio": "b/b.wav", "alignment": "b.TextGrid", "duration": 9.5},
        {"audio": "gone.wav", "transcript": "who"},
    )
    manifest = open_manifest(path)
    assert len(manifest) == 3 and list(manifest.ids) == ["one", "b/b.wav", "gone.wav"]
    assert manifest.n_words.tolist() == [4, 0, 1]
    np.testing.assert_array_equal(manifest.durations_s, [0.5, 9.5, np.nan])
    first, second, third = map(manifest.row, range(3))
    assert (first.audio, first.name, first.transcript) == (tmp_path / "a.wav", "a.wav", "turn on the lamp")
    assert (first.prompt, first.response, first.alignment) == ("what?", "on", None)
    assert (second.transcript, second.alignment) == (None, tmp_path / "b.TextGrid")
    assert third.audio == tmp_path / "gone.wav"
    table = tmp_path / "m.csv"
    table.write_text(
        'id,audio,transcript,prompt,response,duration,alignment\none,a.wav,"turn on\nthe lamp",what?,on,,\n'
        ",b/b.wav,,,,9.5,b.TextGrid\n,gone.wav,who,,,,\n"
    )
    assert open_manifest(table).key == manifest.key
    np.testing.assert_array_equal(open_manifest(table).durations_s, manifest.durations_s)


def test_a_key_is_of_what_is_said_and_heard_and_not_of_where(tmp_path: Path):
    row = {"audio": "a.wav", "id": "one", "transcript": "turn on", "prompt": "what?", "response": "on"}
    keys = {}
    for name in ("here", "there"):
        recorded(tmp_path / name / "a.wav")
        keys[name] = open_manifest(lines(tmp_path / name, row)).key
    assert keys["here"] == keys["there"]
    others = [{**row, name: "else"} for name in row]
    told = {open_manifest(lines(tmp_path / "here", other)).key for other in others}
    recorded(tmp_path / "here" / "a.wav", 0.75)
    told.add(open_manifest(lines(tmp_path / "here", row)).key)
    absolute = {**row, "audio": str(tmp_path / "there" / "a.wav")}
    assert open_manifest(lines(tmp_path / "there", absolute), allow_outside=True).key == keys["there"]
    assert len(told) == 6 and keys["here"] not in told


def test_rows_that_hold_samples(tmp_path: Path):
    array = np.linspace(-0.5, 0.5, 4000).tolist()
    path = lines(
        tmp_path,
        {"audio": {"array": array, "sampling_rate": RATE_HZ, "path": None}, "text": "one"},
        {"audio": {"array": array}, "text": "two"},
        {"audio": {"array": ["a"], "sampling_rate": RATE_HZ}, "text": "three"},
        {"audio": {"array": 3, "sampling_rate": "a"}, "text": "four"},
        {"audio": {"path": "a.wav"}, "text": "five"},
        {"audio": {}, "text": "six"},
    )
    manifest = open_manifest(path)
    clip = manifest.row(0).audio
    assert isinstance(clip, Clip) and clip.rate_hz == RATE_HZ
    np.testing.assert_allclose(clip.wave_s, array, atol=1e-7)
    assert list(manifest.ids) == [f"row-00000{number}" for number in range(1, 7)]
    np.testing.assert_array_equal(manifest.durations_s, [0.5, np.nan, 1 / RATE_HZ, np.nan, np.nan, np.nan])
    told = refusals(manifest)
    assert told[0] is None and told[4] is None and manifest.row(4).audio == tmp_path / "a.wav"
    assert all("rate" in str(told[1]) for _ in told) and told[2] and told[3] and "'path'" in str(told[5])


def test_librispeech_and_common_voice_name_their_columns_otherwise(tmp_path: Path):
    for row in (
        {"file": "a.flac", "text": "HE HOPED", "speaker_id": 1089, "chapter_id": 134686, "id": "1089-134686-0000"},
        {"path": "a.flac", "sentence": "HE HOPED", "client_id": "x", "id": "1089-134686-0000"},
        {"file_name": "a.flac", "transcription": "HE HOPED", "id": "1089-134686-0000"},
    ):
        found = open_manifest(lines(tmp_path, row)).row(0)
        assert (found.id, found.audio, found.transcript) == ("1089-134686-0000", tmp_path / "a.flac", "HE HOPED")


def test_what_voicebench_calls_the_prompt_is_what_is_said(tmp_path: Path):
    path = lines(
        tmp_path,
        {"audio": "a.wav", "prompt": "who wrote it", "output": "she did"},
        {"audio": "b.wav", "prompt": "who wrote it", "reference": "she", "transcript": "WHO"},
        {"audio": "c.wav", "prompt": "who wrote it"},
    )
    rows = [open_manifest(path).row(index) for index in range(3)]
    assert [(row.transcript, row.prompt) for row in rows] == [
        ("who wrote it", None), ("WHO", "who wrote it"), (None, "who wrote it"),
    ]  # fmt: skip
    assert [row.response for row in rows] == [None] * 3


def test_a_folder_with_transcripts_beside_recordings(tmp_path: Path):
    for name in ("84/121123/84-121123-0000", "84/121123/84-121123-0001", "84/121124/84-121124-0000", "b", "c", "d"):
        recorded(tmp_path / f"{name}.wav")
    recorded(tmp_path / ".hidden" / "e.wav")
    (tmp_path / "84/121123/84-121123.trans.txt").write_text("84-121123-0000 GO DO\n84-121123-0001 YOU\n")
    (tmp_path / "84/121124/84-121124.trans.txt").write_text("84-121124-0000 HEAR\n")
    (tmp_path / "b.txt").write_text("what is\nsaid\n")
    (tmp_path / "c.TextGrid").write_text("anything")
    (tmp_path / "notes.md").write_text("anything")
    manifest = open_manifest(tmp_path)
    rows = [manifest.row(index) for index in range(len(manifest))]
    assert [row.id for row in rows] == [
        "84/121123/84-121123-0000", "84/121123/84-121123-0001", "84/121124/84-121124-0000", "b", "c", "d",
    ]  # fmt: skip
    assert [row.transcript for row in rows] == ["GO DO", "YOU", "HEAR", "what is said", None, None]
    assert [row.name for row in rows][2:4] == ["84/121124/84-121124-0000.wav", "b.wav"]
    assert rows[4].alignment == tmp_path / "c.TextGrid" and rows[3].alignment is None
    assert manifest.durations_s.tolist() == [0.5] * 6 and manifest.n_words.tolist() == [2, 1, 1, 3, 0, 0]
    assert list(open_manifest(tmp_path, limit=2).ids) == list(manifest.ids)[:2]


def test_a_transcript_that_cannot_be_read_fails_its_recording_alone(tmp_path: Path):
    for name in ("a", "b", "c", "d"):
        recorded(tmp_path / f"{name}.wav")
    (tmp_path / "a.txt").write_bytes(b"\xff")
    (tmp_path / "b.txt").write_bytes(b"x" * (2**20 + 1))
    (tmp_path / "c.txt").write_bytes(b"x " * 2**18)
    told = refusals(open_manifest(tmp_path))
    assert told[3] is None
    for sentence, part in zip(told, ("not in UTF-8", "more than 1 MiB", "524,288 characters"), strict=False):
        assert part in str(sentence)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"audio": ""}, "'audio' is missing"),
        ({"audio": 3}, "'audio' is '3'; expected a path"),
        ({"transcript": ["a"]}, "the transcript is"),
        ({"transcript": "x" * 200_000}, "200,000 characters"),
        ({"prompt": {"a": 1}}, "'prompt' is"),
        ({"response": 4.5}, "'response' is '4.5'"),
        ({"alignment": True}, "'alignment' is 'True'"),
        ({"id": 4.5}, "'id' is '4.5'"),
        ({"id": "a\nb"}, "characters that can be seen"),
        ({"id": "x" * 300}, "too long for a file's name"),
        ({"id": "ä" * 40}, "too long for a file's name"),
        ({"audio": "../a.wav"}, "lies outside of"),
        ({"audio": "b/../../a.wav"}, "lies outside of"),
        ({"audio": "/etc/passwd"}, "lies outside of"),
        ({"audio": "link.wav"}, "lies outside of"),
        ({"audio": "link/a.wav"}, "lies outside of"),
        ({"alignment": "../a.TextGrid"}, "lies outside of"),
    ],
)
def test_a_wrong_row_fails_alone(tmp_path: Path, change: dict[str, Any], complaint: str):
    outside, folder = tmp_path / "outside", tmp_path / "data"
    recorded(outside / "a.wav")
    recorded(folder / "good.wav")
    (folder / "link.wav").symlink_to(outside / "a.wav")
    (folder / "link").symlink_to(outside)
    wrong = {"audio": "good.wav", "id": "wrong", "transcript": "b"} | change
    path = lines(folder, {"audio": "good.wav", "transcript": "a"}, wrong)
    manifest = open_manifest(path)
    assert manifest.ids[0] == "good.wav"
    assert manifest.ids[1] == ("row-000002" if "id" in change else "wrong")
    first, second = refusals(manifest)
    assert first is None and complaint in str(second)
    # What lies outside is not even looked at.
    assert manifest.durations_s[0] == 0.5 and ("audio" not in change or np.isnan(manifest.durations_s[1]))
    assert len(manifest.key) == 64


@pytest.mark.parametrize("name", ["../outside/a.wav", "link.wav", "link/a.wav", "ABSOLUTE"])
def test_files_outside_can_be_allowed(tmp_path: Path, name: str):
    outside, folder = tmp_path / "outside", tmp_path / "data"
    recorded(outside / "a.wav")
    folder.mkdir()
    (folder / "link.wav").symlink_to(outside / "a.wav")
    (folder / "link").symlink_to(outside)
    path = lines(folder, {"audio": name.replace("ABSOLUTE", str(outside / "a.wav")), "text": "a"})
    manifest = open_manifest(path, allow_outside=True)
    audio = manifest.row(0).audio
    assert isinstance(audio, Path) and audio.samefile(outside / "a.wav") and manifest.durations_s.tolist() == [0.5]


def test_transcripts_behind_links_are_not_read(tmp_path: Path):
    recorded(tmp_path / "data" / "a.wav")
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "data" / "a.txt").symlink_to(tmp_path / "secret")
    (told,) = refusals(open_manifest(tmp_path / "data"))
    assert "lies outside of" in str(told)
    assert open_manifest(tmp_path / "data", allow_outside=True).row(0).transcript == "secret"


def test_what_is_no_plain_file_is_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "folder.wav").mkdir()
    manifest = open_manifest(lines(tmp_path, {"audio": "pipe.wav"}, {"audio": "folder.wav"}, {"audio": "x" * 5000}))
    assert np.isnan(manifest.durations_s).all()


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("m.jsonl", "", "no rows"),
        ("m.csv", "audio\n", "no rows"),
        ("m.csv", "sound,text\na.wav,a\n", "no column 'audio'; it has 'sound', 'text'"),
        ("m.csv", 'audio\n"a.wav', "no CSV from row 1 on"),
        ("m.jsonl", '{"audio": "a"}\n{"audio": "a"}\n', "the id 'a' more than once"),
        ("m.jsonl", '{"audio": "a", "id": 7}\n{"audio": "b", "id": "7"}\n', "the id '7' more than once"),
        ("m.tsv", "audio\na.wav\n", "is no manifest"),
    ],
)
def test_a_manifest_that_is_none_is_refused(tmp_path: Path, name: str, content: str, complaint: str):
    (tmp_path / name).write_text(content)
    with pytest.raises(UsageError, match=complaint):
        open_manifest(tmp_path / name)


def test_what_is_not_there_is_refused(tmp_path: Path):
    for where, complaint in (
        (tmp_path, "holds no recordings"),
        (tmp_path / "gone.csv", "cannot read the manifest"),
        (tmp_path / "gone", "is no manifest"),
        ("hf:owner", "is no data set of the hub"),
    ):
        with pytest.raises(UsageError, match=complaint):
            open_manifest(where, limit=1)
    path = lines(tmp_path, {"audio": "a.wav"})
    with pytest.raises(UsageError, match="has no splits"):
        open_manifest(path, split="test")
    with pytest.raises(UsageError, match="at least one row"):
        open_manifest(path, limit=0)
    with pytest.raises(UsageError, match="has 1 rows"):
        open_manifest(path).row(1)


def test_a_row_that_was_changed_meanwhile_fails(tmp_path: Path):
    path = lines(tmp_path, {"audio": "a.wav"}, {"audio": "b.wav"})
    manifest = open_manifest(path)
    path.write_text(path.read_text().replace("b.wav", "c.wav"))
    told = refusals(manifest)
    assert told[0] is None and "the manifest was changed" in str(told[1])


def test_rows_are_read_by_many_threads_and_by_other_processes(tmp_path: Path):
    path = lines(tmp_path, *({"audio": f"{n}.wav", "transcript": "a " * (n % 5 + 1)} for n in range(300)))
    manifest = open_manifest(path)
    with ThreadPoolExecutor(8) as pool:
        rows = list(pool.map(manifest.row, [*range(300)] * 4))
    assert [row.id for row in rows] == [f"{n}.wav" for n in range(300)] * 4
    again = pickle.loads(pickle.dumps(manifest))
    assert again.key == manifest.key and again.row(17).id == "17.wav"


def test_a_limit_takes_the_first(tmp_path: Path):
    path = lines(tmp_path, *({"audio": f"{n}.wav"} for n in range(9)), {"audio": "0.wav"})
    manifest = open_manifest(path, limit=4)
    assert list(manifest.ids) == ["0.wav", "1.wav", "2.wav", "3.wav"] and manifest.durations_s.shape == (4,)
    with pytest.raises(UsageError, match="more than once"):
        open_manifest(path, limit=10)


def test_little_is_held_of_many_rows(tmp_path: Path):
    path = lines(tmp_path, *({"audio": f"{n:06d}.wav", "text": "x " * 200, "duration": 1} for n in range(2000)))
    manifest = open_manifest(path)
    assert manifest.durations_s.sum() == 2000
    assert len(pickle.dumps(manifest)) < 200 * 2000 < path.stat().st_size


@pytest.mark.parametrize(
    ("texts", "twice"), [([], None), (["a", "", "ä", "ab"], None), (["a", "b", "ä", "b"], "b"), (["", "a", ""], "")]
)
def test_texts_in_one_piece(texts: list[str], twice: str | None):
    held = Texts()
    for text in texts:
        held.append(text)
    assert isinstance(held, Sequence) and list(held) == texts and held.repeated() == twice
    assert held[1:3] == texts[1:3]
    with pytest.raises(IndexError):
        held[len(texts)]
