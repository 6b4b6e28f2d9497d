"""The header of a safetensors file: names, dtypes, shapes and places of its tensors, read and checked without the data.

The format: eight bytes with the header's length, the header as JSON, then the tensors without gaps
(https://huggingface.co/docs/safetensors). Bytes come from a function, so that a local file and a range of a remote one
are read alike.
"""

import json
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

_DTYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E8M0": ml_dtypes.float8_e8m0fnu,
    "C64": np.complex64,
    **{f"{kind}{bits}": f"{kind.lower()}{bits // 8}" for kind in "IU" for bits in (8, 16, 32, 64)},
    "BOOL": np.bool_,
}
_LONGEST_HEADER = 100_000_000


class FormatError(ValueError):
    """A checkpoint folder that is incomplete, damaged or of another architecture, told in one sentence."""

    def __init__(self, message: str, problems: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.problems = problems or (message,)
        """The same, one clause for each thing that is wrong."""


class TensorHeader(NamedTuple):
    """One tensor of a file; `start` and `end` are bytes from the file's beginning."""

    dtype: np.dtype
    shape: tuple[int, ...]
    start: int
    end: int


def read_header(label: str, n_bytes: int, read: Callable[[int, int], bytes]) -> dict[str, TensorHeader]:
    """Return the tensors of a safetensors file by name, in the order of their bytes.

    Args:
        label: what errors call the file.
        n_bytes: the file's length.
        read: returns the bytes from a position to another one.

    Raises:
        FormatError: the header is damaged, or the file is shorter or longer than it says.
    """
    if n_bytes < 8:
        raise FormatError(f"{label} has only {n_bytes} bytes, which is no safetensors file; fetch it again")
    first = 8 + int.from_bytes(read(0, 8), "little")
    if first > n_bytes or first > _LONGEST_HEADER:
        raise FormatError(f"the header of {label} would end at byte {first} of {n_bytes}; fetch the file again")
    try:
        header = json.loads(read(8, first))
        tensors = {name: _tensor(entry, first) for name, entry in header.items() if name != "__metadata__"}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FormatError(f"the header of {label} is damaged ({str(error)[:200]}); fetch the file again") from error
    ordered = dict(sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end)))
    at = first
    for name, tensor in ordered.items():
        if tensor.start != at or tensor.end - at != math.prod(tensor.shape) * tensor.dtype.itemsize:
            raise FormatError(f"the header of {label} places {name} wrongly; fetch the file again")
        at = tensor.end
    if at != n_bytes:
        kind = "is cut short" if at > n_bytes else "is too long"
        raise FormatError(f"{label} {kind}: it has {n_bytes} bytes and its header tells of {at}; fetch it again")
    return ordered


def _tensor(entry: dict[str, Any], first: int) -> TensorHeader:
    if entry["dtype"] not in _DTYPES:
        raise ValueError(f"dtype {entry['dtype']!r} is unknown")
    start, end = entry["data_offsets"]
    numbers = [*entry["shape"], start, end]
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise ValueError(f"{numbers} are not all sizes")
    return TensorHeader(np.dtype(_DTYPES[entry["dtype"]]), tuple(entry["shape"]), first + start, first + end)
