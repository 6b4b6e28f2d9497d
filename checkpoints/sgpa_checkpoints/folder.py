"""Reading a Hugging Face folder: JSON files, and safetensors as views of the mapped files. Pickle files are refused."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sgpa_checkpoints.headers import FormatError, TensorHeader, read_header

INDEX = "model.safetensors.index.json"


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        FormatError: the file is missing, or is not a JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FormatError(f"{path} cannot be read ({error.strerror}); give a complete checkpoint folder") from error
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path} is not valid JSON ({error}); fetch the file again") from error
    if not isinstance(value, dict):
        raise FormatError(f"{path} holds {type(value).__name__}, but a JSON object was expected; fetch the file again")
    return value


def read_optional_json(path: Path) -> dict[str, Any] | None:
    """Read a JSON object, None where there is no such file.

    Raises:
        FormatError: the file is not a JSON object.
    """
    return read_json(path) if path.is_file() else None


def read_tensors(folder: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Yield every (name, array) of `model.safetensors`, or of the shards that its index lists.

    Arrays are read-only views of the mapped files, which must stay as they are while arrays are in use: pages are read
    when values are, and are the file's, not this process's own. All headers are read before the first array.

    Raises:
        FormatError: no safetensors file, a missing or damaged shard, or a tensor that stands in two shards.
    """
    for path, header in read_headers(folder).items():
        data = np.memmap(path, np.uint8, "r")
        for name, tensor in header.items():
            yield name, data[tensor.start : tensor.end].view(tensor.dtype).reshape(tensor.shape)


def read_headers(folder: Path) -> dict[Path, dict[str, TensorHeader]]:
    """Return the headers of `model.safetensors`, or of the shards that its index lists, by file.

    Raises:
        FormatError: as `read_tensors` does.
    """
    headers = {path: _header(path) for path in _shards(folder)}
    check_shards({path.name: header for path, header in headers.items()})
    return headers


def check_shards(headers: Mapping[str, Mapping[str, object]]) -> None:
    """Check that no tensor stands in two of the files.

    Raises:
        FormatError: one does.
    """
    seen: dict[str, str] = {}
    for file, header in headers.items():
        for name in header:
            if name in seen:
                raise FormatError(f"tensor {name} stands in both {seen[name]} and {file}; remove one of them")
            seen[name] = file


def shard_names(index: Mapping[str, Any], label: str) -> list[str]:
    """Return the files that a `model.safetensors.index.json` lists, in order.

    Raises:
        FormatError: it lists none, or one outside its folder.
    """
    files = index.get("weight_map")
    names = sorted(set(map(str, files.values()))) if isinstance(files, dict) else []
    # A name is a file beside the index, never a path that leads out of the folder.
    strange = [name for name in names if Path(name).name != name or not name.endswith(".safetensors")]
    if strange or not names:
        raise FormatError(f"{label} lists {', '.join(strange) or 'no files'} as shards; fetch the file again")
    return names


def _shards(folder: Path) -> list[Path]:
    single, index = folder / "model.safetensors", folder / INDEX
    if single.is_file():
        return [single]
    if index.is_file():
        names = shard_names(read_json(index), str(index))
        if missing := [name for name in names if not (folder / name).is_file()]:
            raise FormatError(f"{index} lists shards that are not there: {', '.join(missing)}; fetch them")
        return [folder / name for name in names]
    pickles = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in folder.glob(pattern))
    hint = f" ({', '.join(pickles)} is a pickle, which can run code and is refused)" if pickles else ""
    raise FormatError(f"{folder} holds no model.safetensors{hint}; give a folder with safetensors weights")


def _header(path: Path) -> dict[str, TensorHeader]:
    try:
        with path.open("rb") as file:

            def read(start: int, end: int) -> bytes:
                file.seek(start)
                return file.read(end - start)

            return read_header(str(path), os.fstat(file.fileno()).st_size, read)
    except OSError as error:
        raise FormatError(f"{path} cannot be read ({error.strerror}); give a folder of your own") from error
