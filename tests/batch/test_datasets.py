"""Manifests that are Arrow tables: Parquet, saved data sets and the hub's, with recordings inside or beside them."""

import io
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sgpa_jax.audio import Clip, wav_bytes, write_wav
from sgpa_jax.batch.manifest import Manifest, open_manifest
from sgpa_jax.errors import UsageError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

RATE_HZ = 8000


def clip(number: int) -> Clip:
    """A tone of 0.25 s and a tenth more for each number before it."""
    return Clip(np.sin(np.arange(2000 + 800 * number) * 0.3).astype(np.float32) / 2, RATE_HZ)


def encoded(number: int) -> bytes:
    return wav_bytes(clip(number))


def voicebench(n: int) -> list[dict[str, Any]]:
    """Rows as VoiceBench's sd-qa has them."""
    return [
        {
            "prompt": f"who wrote  book {number}",
            "audio": {"bytes": encoded(number), "path": "a.wav"},
            "reference": "she",
        }
        for number in range(n)
    ]


def librispeech(n: int) -> list[dict[str, Any]]:
    """Rows as LibriSpeech's on the hub."""
    return [
        {"file": f"/data/train/84-121123-{number:04d}.flac", "audio": {"path": None, "bytes": encoded(number)},
         "text": "GO DO YOU HEAR", "speaker_id": 84, "chapter_id": 121123, "id": f"84-121123-{number:04d}"}
        for number in range(n)
    ]  # fmt: skip


def parquet(folder: Path, rows: list[dict[str, Any]], **options: Any) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), folder / "m.parquet", **options)
    return folder / "m.parquet"


def saved(folder: Path, rows: list[dict[str, Any]]) -> Path:
    datasets = pytest.importorskip("datasets")
    dataset = datasets.Dataset.from_list(rows)
    if isinstance(rows[0]["audio"], dict) and "bytes" in rows[0]["audio"]:
        dataset = dataset.cast_column("audio", datasets.Audio())
    dataset.save_to_disk(folder / "saved")
    return folder / "saved"


@pytest.fixture(params=[parquet, saved])
def written(request: pytest.FixtureRequest) -> Callable[..., Path]:
    return request.param


def test_voicebench_loads_as_it_is(tmp_path: Path, written: Callable[..., Path]):
    manifest = open_manifest(written(tmp_path, voicebench(5)))
    assert list(manifest.ids) == [f"row-00000{number}" for number in range(1, 6)]
    np.testing.assert_allclose(manifest.durations_s, 0.25 + 0.1 * np.arange(5))
    assert manifest.n_words.tolist() == [4] * 5
    row = manifest.row(3)
    assert row.audio == encoded(3) and row.name == "a.wav"
    assert (row.transcript, row.prompt, row.response) == ("who wrote book 3", None, None)


def test_librispeech_loads_as_it_is(tmp_path: Path, written: Callable[..., Path]):
    manifest = open_manifest(written(tmp_path, librispeech(3)), limit=2)
    assert list(manifest.ids) == ["84-121123-0000", "84-121123-0001"]
    row = manifest.row(1)
    assert row.audio == encoded(1) and row.transcript == "GO DO YOU HEAR"
    assert row.name == "/data/train/84-121123-0001.flac"


def test_the_same_rows_have_the_same_key_in_any_format(tmp_path: Path):
    rows = librispeech(4)
    keys = {open_manifest(write(tmp_path, rows)).key for write in (parquet, saved)}
    rows[2]["audio"]["bytes"] += b"\0"
    keys.add(open_manifest(parquet(tmp_path, rows)).key)
    assert len(keys) == 2


def test_rows_of_samples(tmp_path: Path, written: Callable[..., Path]):
    arrays = [clip(number).wave_s.astype(float).tolist() for number in range(3)]
    rows = [{"audio": {"array": array, "path": "a.flac", "sampling_rate": RATE_HZ}, "text": "a"} for array in arrays]
    manifest = open_manifest(written(tmp_path, rows))
    np.testing.assert_allclose(manifest.durations_s, 0.25 + 0.1 * np.arange(3))
    found = manifest.row(2).audio
    assert isinstance(found, Clip) and found.rate_hz == RATE_HZ
    np.testing.assert_array_equal(found.wave_s, clip(2).wave_s)


def test_rows_of_paths(tmp_path: Path, written: Callable[..., Path]):
    folder = tmp_path / "saved"
    folder.mkdir()
    names = ["a.wav", "../outside.wav", "gone.wav"]
    path = written(tmp_path, [{"audio": name, "sentence": "a b"} for name in names])
    write_wav((path if path.is_dir() else tmp_path) / "a.wav", clip(0))
    write_wav(path.parent / "outside.wav" if path.is_dir() else tmp_path.parent / "outside.wav", clip(0))
    manifest = open_manifest(path)
    assert list(manifest.ids) == names and manifest.row(0).transcript == "a b"
    np.testing.assert_array_equal(manifest.durations_s, [0.25, np.nan, np.nan])
    with pytest.raises(UsageError, match=r"row 2 of .* lies outside of"):
        manifest.row(1)


def test_rows_are_found_in_any_group_and_by_many_threads(tmp_path: Path):
    manifest = open_manifest(parquet(tmp_path, librispeech(83), row_group_size=40))
    order = np.random.default_rng(0).permutation(83)
    with ThreadPoolExecutor(8) as pool:
        rows = list(pool.map(manifest.row, order.tolist()))
    for number, row in zip(order, rows, strict=True):
        assert row.id == f"84-121123-{number:04d}" and isinstance(row.audio, bytes)
        assert len(row.audio) == len(encoded(0)) + 2 * 800 * number
    assert manifest.durations_s[-1] == pytest.approx(0.25 + 8.2)


def test_a_damaged_recording_has_no_duration(tmp_path: Path, written: Callable[..., Path]):
    rows = librispeech(3)
    rows[0]["audio"]["bytes"] = b"RIFF and nothing else"
    rows[1]["audio"]["bytes"] = b""
    manifest = open_manifest(written(tmp_path, rows))
    np.testing.assert_array_equal(manifest.durations_s, [np.nan, np.nan, 0.45])
    assert manifest.row(0).audio == b"RIFF and nothing else"


def test_a_row_that_is_no_text_fails_alone(tmp_path: Path):
    texts = pa.Array.from_buffers(
        pa.string(), 3, [None, pa.array([0, 1, 2, 3], pa.int32()).buffers()[1], pa.py_buffer(b"a\xffc")]
    )
    path = tmp_path / "m.parquet"
    pq.write_table(pa.table({"audio": ["a.wav", "b.wav", "c.wav"], "text": texts}), path)
    manifest = open_manifest(path)
    assert list(manifest.ids) == ["a.wav", "row-000002", "c.wav"] and manifest.row(2).transcript == "c"
    with pytest.raises(UsageError, match=r"row 2 of .* no text in UTF-8"):
        manifest.row(1)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + b"\xff" * 100 + b"PAR1", b"audio,text\n"])
def test_what_is_no_parquet_is_refused(tmp_path: Path, content: bytes):
    (tmp_path / "m.parquet").write_bytes(content)
    with pytest.raises(UsageError, match="cannot be read as Parquet"):
        open_manifest(tmp_path / "m.parquet")


def test_parquet_without_recordings_or_rows_is_refused(tmp_path: Path):
    with pytest.raises(UsageError, match="has no column 'audio'; it has 'text'"):
        open_manifest(parquet(tmp_path, [{"text": "a"}]))
    pq.write_table(pa.table({"audio": pa.array([], pa.string())}), tmp_path / "m.parquet")
    with pytest.raises(UsageError, match="no rows"):
        open_manifest(tmp_path / "m.parquet")
    with pytest.raises(UsageError, match="cannot be read as Parquet"):
        open_manifest(tmp_path / "gone.parquet")


def test_splits_are_chosen(tmp_path: Path):
    datasets = pytest.importorskip("datasets")
    one = datasets.Dataset.from_list(voicebench(2), split="test")
    datasets.DatasetDict({"aus": one, "gbr": one.select([1])}).save_to_disk(tmp_path / "both")
    datasets.DatasetDict({"aus": one}).save_to_disk(tmp_path / "one")
    one.save_to_disk(tmp_path / "split")
    assert len(open_manifest(tmp_path / "both", split="gbr")) == 1 and len(open_manifest(tmp_path / "one")) == 2
    assert len(open_manifest(tmp_path / "split", split="test")) == 2
    for name, split, told in (
        ("both", None, "has the splits aus, gbr; choose one"),
        ("both", "gbt", "unknown split of .*'gbt': expected one of gbr"),
        ("split", "train", "is one split, 'test'"),
    ):
        with pytest.raises(UsageError, match=told):
            open_manifest(tmp_path / name, split=split)


@pytest.mark.parametrize("name", ["state.json", "dataset_info.json"])
def test_a_damaged_saved_data_set_is_refused(tmp_path: Path, name: str):
    folder = saved(tmp_path, voicebench(1))
    for content in ("", "{}", "[]", '{"_data_files": 3}', "\0"):
        (folder / name).write_text(content)
        try:
            opened = open_manifest(folder)
        except UsageError as error:
            assert "\n" not in str(error)
        else:
            assert len(opened) == 1


def hub(monkeypatch: pytest.MonkeyPatch, found: Any) -> list[Any]:
    """Let the hub answer what is given; the calls to it."""
    calls = []

    def answer(*args: Any, **options: Any) -> Any:
        calls.append((args, options))
        return found

    monkeypatch.setattr("datasets.load_dataset", answer)
    return calls


def test_the_hub_is_asked_for_configuration_and_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr("datasets.config.HF_CACHE_HOME", str(tmp_path))
    write_wav(tmp_path / "hub" / "a.wav", clip(0))
    rows = [{"audio": {"bytes": None, "path": str(tmp_path / "hub" / "a.wav")}, "text": "a b"}]
    rows.append({"audio": {"bytes": None, "path": "/etc/passwd"}, "text": "a b"})
    found = datasets.Dataset.from_list(rows).cast_column("audio", datasets.Audio())
    calls = hub(monkeypatch, datasets.DatasetDict({"usa": found, "aus": found}))
    manifest = open_manifest("hf:hlt-lab/voicebench/sd-qa@main", split="usa")
    assert calls == [(("hlt-lab/voicebench", "sd-qa"), {"revision": "main"})]
    # What was fetched is called after its place in the cache, wherever that lies.
    row = manifest.row(0)
    assert (row.audio, row.name) == (tmp_path / "hub" / "a.wav", "hub/a.wav")
    np.testing.assert_array_equal(manifest.durations_s, [0.25, np.nan])
    with pytest.raises(UsageError, match="'/etc/passwd' lies outside of"):
        manifest.row(1)


def test_a_hub_out_of_reach_is_one_sentence():
    pytest.importorskip("datasets")
    for name in ("hf:nobody/nothing", "hf:hlt-lab/voicebench/sd-qa@main"):
        with pytest.raises(UsageError, match="cannot be had from the hub") as error:
            open_manifest(name)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(("library", "name"), [("pyarrow", "m.parquet"), ("datasets", "saved"), ("datasets", "hf:a/b")])
def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str, name: str):
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "state.json").touch()
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(UsageError, match=rf"needs .*{library}: pip install 'sgpa-jax\[data\]'"):
        open_manifest(name if name.startswith("hf:") else tmp_path / name)


def test_recordings_are_not_decoded_nor_copied_at_opening(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = saved(tmp_path, voicebench(3))
    monkeypatch.setattr("sgpa_jax.batch.datasets._held", None)
    monkeypatch.setattr("soundfile.SoundFile.read", None)
    assert isinstance(open_manifest(path), Manifest) and open_manifest(path).durations_s.size == 3
    assert "torchcodec" not in sys.modules
    assert io.BytesIO(encoded(0)).read(4) == b"RIFF"
