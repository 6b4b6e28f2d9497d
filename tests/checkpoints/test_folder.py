"""Reading folders: every dtype and shard as safetensors itself reads them, and a sentence for every kind of damage."""

import json
import struct
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from sgpa_checkpoints import FormatError, read_headers, read_json, read_tensors

INDEX = "model.safetensors.index.json"


def _tensors(dtype=np.float32):
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=(3, k)).astype(dtype) for k, name in enumerate("abc", start=1)}


def _save(folder: Path, header: dict | bytes, data: bytes, *, length: int | None = None) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    blob = struct.pack("<Q", len(text) if length is None else length) + text + data
    (folder / "model.safetensors").write_bytes(blob)


def _message(folder: Path) -> str:
    with pytest.raises(FormatError) as caught:
        next(read_tensors(folder))
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Two shards and their index."""
    for k, part in enumerate(({"a", "b"}, {"c"}), start=1):
        save_file({name: _tensors()[name] for name in part}, tmp_path / f"model-{k}.safetensors")
    weight_map = {"a": "model-1.safetensors", "b": "model-1.safetensors", "c": "model-2.safetensors"}
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    return tmp_path


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16, np.int64, np.uint8, bool])
def test_every_dtype_is_read_as_a_view(tmp_path: Path, dtype):
    save_file(_tensors(dtype) | {"scalar": np.array(3, dtype)}, tmp_path / "model.safetensors")
    expected = load_file(tmp_path / "model.safetensors")
    found = dict(read_tensors(tmp_path))
    assert found.keys() == expected.keys()
    for name, array in found.items():
        assert (array.dtype, array.shape) == (expected[name].dtype, expected[name].shape)
        assert array.tobytes() == expected[name].tobytes()
        assert not array.flags.writeable
        assert not array.flags.owndata


def test_shards_are_read_together(shards: Path):
    found = dict(read_tensors(shards))
    assert found.keys() == _tensors().keys()
    assert all(np.array_equal(found[name], array) for name, array in _tensors().items())
    assert [path.name for path in read_headers(shards)] == ["model-1.safetensors", "model-2.safetensors"]


def test_a_missing_shard_is_told(shards: Path):
    (shards / "model-2.safetensors").unlink()
    assert _message(shards).endswith("lists shards that are not there: model-2.safetensors; fetch them")


def test_a_tensor_in_two_shards_is_told(shards: Path):
    save_file({"a": _tensors()["a"], "c": _tensors()["c"]}, shards / "model-2.safetensors")
    assert "tensor a stands in both model-1.safetensors and model-2.safetensors" in _message(shards)


@pytest.mark.parametrize("weight_map", [{}, None, {"a": "../model-1.safetensors"}, {"a": "weights.bin"}])
def test_an_index_lists_safetensors_files_beside_it(shards: Path, weight_map):
    (shards / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    assert "as shards" in _message(shards)


def test_a_truncated_shard_is_told(shards: Path):
    path = shards / "model-2.safetensors"
    path.write_bytes(path.read_bytes()[:-5])
    assert "model-2.safetensors is cut short" in _message(shards)


@pytest.mark.parametrize(
    ("header", "data", "length", "told"),
    [
        ({}, b"", 10**6, "would end at byte 1000008 of 10"),
        ({}, b"", 2**63, "would end at byte"),
        (b'{"a"', b"", None, "is damaged"),
        (b"\xff\xfe", b"", None, "is damaged"),
        (b"[1, 2]", b"", None, "is damaged"),
        ({"a": {"dtype": "F4", "shape": [2], "data_offsets": [0, 1]}}, b"0", None, "dtype 'F4' is unknown"),
        ({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, b"0000", None, "are not all sizes"),
        ({"a": {"shape": [1], "data_offsets": [0, 4]}}, b"0000", None, "is damaged"),
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, b"0000", None, "places a wrongly"),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, b"0" * 8, None, "places a wrongly"),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"0" * 8, None, "is too long"),
    ],
)
def test_a_damaged_header_is_told(tmp_path: Path, header, data, length, told):
    _save(tmp_path, header, data, length=length)
    assert told in _message(tmp_path)


def test_a_file_of_a_few_bytes_is_told(tmp_path: Path):
    (tmp_path / "model.safetensors").write_bytes(b"abc")
    assert "has only 3 bytes" in _message(tmp_path)


def test_pickles_are_refused(tmp_path: Path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    assert "pytorch_model.bin is a pickle, which can run code and is refused" in _message(tmp_path)


def test_an_empty_folder_is_told(tmp_path: Path):
    assert _message(tmp_path).endswith("give a folder with safetensors weights")


@pytest.mark.parametrize(("text", "told"), [("{", "not valid JSON"), ("[1]", "holds list"), (None, "cannot be read")])
def test_json_must_be_an_object(tmp_path: Path, text, told):
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(FormatError, match=told):
        read_json(tmp_path / "config.json")
