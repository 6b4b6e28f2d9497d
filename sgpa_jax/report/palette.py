"""The one colour scale of all reports: diverging, centred at zero, from blue (less likely) to orange (more likely).

Blue and orange differ in hue under every common colour blindness, where red and green don't, and both poles are equally
light, so that neither sign looks the stronger. Colours are mixed in OKLab (Björn Ottosson, 2020), in which equal steps
look equal. Colour otherwise means nothing in our reports: recordings are drawn in ink.
"""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Float

N_COLOURS = 65
"""Steps of a scale; odd, so that zero has its own."""


@dataclass(frozen=True)
class Paper:
    """What is printed on: the colours of the two poles and of zero, as "#rrggbb"."""

    negative: str
    zero: str
    positive: str


LIGHT = Paper(negative="#4f94de", zero="#f0eeea", positive="#d97519")
"""Its poles are also readable as bars on a terminal, be it black or white: nobody can ask it which."""

DARK = Paper(negative="#5ea2ec", zero="#2b2927", positive="#e97e2b")


def scale_limit(values: Float[np.ndarray, "..."]) -> float:
    """Return the value at either end of the scale: the largest magnitude in `values`, or one when all are zero."""
    return float(np.abs(values).max()) or 1.0


@cache
def colours(paper: Paper) -> tuple[str, ...]:
    """Return the scale on `paper` as `N_COLOURS` "#rrggbb", from −limit to +limit."""
    half = N_COLOURS // 2
    low = [_mix(paper.zero, paper.negative, i / half) for i in range(half, 0, -1)]
    high = [_mix(paper.zero, paper.positive, i / half) for i in range(1, half + 1)]
    return (*low, paper.zero, *high)


def colour(value: float, limit: float, paper: Paper) -> str:
    """Return the colour of `value` on a scale from −limit to +limit."""
    position = (value / limit + 1) / 2
    return colours(paper)[round(min(max(position, 0.0), 1.0) * (N_COLOURS - 1))]


def ink(background: str) -> str:
    """Return black or white, whichever is the more readable on `background` (at least 4.5 : 1, by WCAG's measure)."""
    # On this luminance both contrasts are equal.
    return "#ffffff" if luminance(background) < math.sqrt(1.05 * 0.05) - 0.05 else "#000000"


def luminance(colour: str) -> float:
    """Return the relative luminance of "#rrggbb", from 0 to 1 (WCAG 2.2)."""
    return float(_linear(colour) @ np.array([0.2126, 0.7152, 0.0722]))


_TO_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


def oklab(colour: str) -> Float[np.ndarray, "3"]:
    """Return lightness and the two opponent axes of "#rrggbb" in OKLab."""
    return _TO_LAB @ np.cbrt(_TO_CONES @ _linear(colour))


def _mix(first: str, second: str, share: float) -> str:
    lab = (1 - share) * oklab(first) + share * oklab(second)
    linear = np.linalg.solve(_TO_CONES, np.linalg.solve(_TO_LAB, lab) ** 3).clip(0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return "#" + "".join(f"{round(channel * 255):02x}" for channel in encoded)


def _linear(colour: str) -> Float[np.ndarray, "3"]:
    encoded = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
