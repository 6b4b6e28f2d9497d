"""A million short texts in one piece of memory."""

from array import array
from collections.abc import Sequence
from typing import overload

import numpy as np


class Texts(Sequence[str]):
    """Texts that can be appended and looked up, held as UTF-8 without an object for each."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._ends = array("q")

    def append(self, text: str) -> None:
        """Add a text to the end."""
        self._data += text.encode()
        self._ends.append(len(self._data))

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        at = range(len(self))[index]
        return self._data[self._ends[at - 1] if at else 0 : self._ends[at]].decode()

    def repeated(self) -> str | None:
        """Return a text that is there more than once."""
        hashes = np.fromiter(map(hash, self), np.int64, len(self))
        hashes.sort()
        suspects = set(hashes[1:][hashes[1:] == hashes[:-1]].tolist())
        seen: set[str] = set()
        for text in self if suspects else ():
            if text in seen:
                return text
            if hash(text) in suspects:
                seen.add(text)
        return None
