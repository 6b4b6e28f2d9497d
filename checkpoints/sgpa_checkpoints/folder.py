"""Reading a Hugging Face folder: JSON files, and safetensors streamed tensor by tensor. Pickle files are refused."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  registers bfloat16 with numpy, which safetensors returns
import numpy as np
from safetensors import SafetensorError, safe_open


class FormatError(ValueError):
    """A checkpoint folder that is incomplete, damaged or of another architecture, told in one sentence."""


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        FormatError: the file is missing, or is not a JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FormatError(f"{path} cannot be read ({error.strerror}); give a complete checkpoint folder") from error
    except ValueError as error:
        raise FormatError(f"{path} is not valid JSON ({error}); fetch the file again") from error
    if not isinstance(value, dict):
        raise FormatError(f"{path} holds {type(value).__name__}, but a JSON object was expected; fetch the file again")
    return value


def read_tensors(folder: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Yield every (name, array) of `model.safetensors`, or of the shards that its index lists, one at a time.

    Raises:
        FormatError: no safetensors file, a missing or damaged shard, or a tensor that stands in two shards.
    """
    seen: dict[str, Path] = {}
    for path in _shards(folder):
        try:
            with safe_open(path, framework="numpy") as file:
                for name in file.keys():  # noqa: SIM118  safe_open is no mapping
                    if name in seen:
                        raise FormatError(f"tensor {name} stands in both {seen[name].name} and {path.name}")
                    seen[name] = path
                    yield name, file.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise FormatError(f"{path} is not a readable safetensors file ({error}); fetch it again") from error


def _shards(folder: Path) -> list[Path]:
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        return [single]
    if index.is_file():
        names = sorted(set(read_json(index).get("weight_map", {}).values()))
        # A name is a file beside the index, never a path that leads out of the folder.
        missing = [name for name in names if Path(name).name != name or not (folder / name).is_file()]
        if missing or not names:
            raise FormatError(f"{index} lists shards that are not there: {', '.join(missing) or 'none at all'}")
        return [folder / name for name in names]
    pickles = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in folder.glob(pattern))
    hint = f" ({', '.join(pickles)} is a pickle, which can run code and is refused)" if pickles else ""
    raise FormatError(f"{folder} holds no model.safetensors{hint}; give a folder with safetensors weights")
