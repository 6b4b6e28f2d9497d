"""How a tensor's values change on the way from torch's layout to ours, and back: views wherever possible."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np


class Transform(Protocol):
    """`forward` takes the arrays of the checkpoint (several for a `Fold`), `inverse` gives them back (as a tuple then).

    Both raise `ValueError` for arrays of another rank, and must not depend on the values for the shapes they give.
    """

    def forward(self, *arrays: np.ndarray) -> np.ndarray:
        """Return the parameter."""
        ...

    def inverse(self, array: np.ndarray) -> Any:
        """Return the checkpoint's array or arrays."""
        ...


class _Same:
    def forward(self, *arrays: np.ndarray) -> np.ndarray:
        (array,) = arrays
        return array

    def inverse(self, array: np.ndarray) -> np.ndarray:
        return array

    def __repr__(self) -> str:
        return "Same"


@dataclass(frozen=True)
class Axes:
    """Axes reordered, written as letters; a 1 in `source` is an axis of length one that we do not keep."""

    source: str
    target: str

    def forward(self, *arrays: np.ndarray) -> np.ndarray:
        """Return a view in our order."""
        (array,) = arrays
        if array.ndim != len(self.source):
            raise ValueError(f"{len(self.source)} axes were expected")
        if any(n != 1 for n, letter in zip(array.shape, self.source, strict=True) if letter == "1"):
            raise ValueError(f"axis {self.source.index('1')} must have length 1")
        kept = array.reshape([n for n, letter in zip(array.shape, self.source, strict=True) if letter != "1"])
        letters = self.source.replace("1", "")
        return kept.transpose([letters.index(letter) for letter in self.target])

    def inverse(self, array: np.ndarray) -> np.ndarray:
        """Return a view in torch's order."""
        if array.ndim != len(self.target):
            raise ValueError(f"{len(self.target)} axes were expected")
        ordered = array.transpose([self.target.index(letter) for letter in self.source.replace("1", "")])
        dropped = [i for i, letter in enumerate(self.source) if letter == "1"]
        return np.expand_dims(ordered, dropped)


Same = _Same()
"""The tensor as it is."""
Transpose = Axes("oi", "io")
"""A linear weight (out, in) as (in, out)."""
Conv = Axes("oik", "kio")
"""A convolution over time (out, in, taps) as (taps, in, out)."""
Conv2d = Axes("oihw", "hwio")
"""A convolution over a picture (out, in, height, width) as (height, width, in, out)."""
Depthwise = Axes("c1k", "kc")
"""A convolution of each channel over time (channels, 1, taps) as (taps, channels)."""
Depthwise2d = Axes("c1hw", "hwc")
"""A convolution of each channel over a picture (channels, 1, height, width) as (height, width, channels)."""
