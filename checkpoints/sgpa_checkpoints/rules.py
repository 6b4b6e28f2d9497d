"""The table engine that maps a checkpoint's tensor names to parameter paths and back, strict in both directions.

A rule pairs two name templates (`{i}` stands for a layer number) with a transform that has an inverse. Converting
reports every unmapped, missing, doubled and misshapen tensor in one error.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from sgpa_checkpoints.folder import FormatError


class Same:
    """The tensor as it is."""

    @staticmethod
    def forward(array: np.ndarray) -> np.ndarray:
        """Return the array unchanged."""
        return array

    inverse = forward


class Transpose(Same):
    """A torch linear weight (out, in) as (in, out), and back."""

    @staticmethod
    def forward(array: np.ndarray) -> np.ndarray:
        """Swap the two axes."""
        return np.swapaxes(array, 0, -1) if array.ndim == 2 else array

    inverse = forward


class Conv(Same):
    """A torch convolution over time (out, in, taps) as (taps, in, out), and back."""

    @staticmethod
    def forward(array: np.ndarray) -> np.ndarray:
        """Reverse the three axes."""
        return np.swapaxes(array, 0, -1)

    inverse = forward


@dataclass(frozen=True)
class Rule:
    """One line of a table: the checkpoint's name, our parameter path, and how the values change."""

    source: str
    target: str
    transform: type[Same] = Same


def convert(
    tensors: Iterable[tuple[str, np.ndarray]],
    rules: Iterable[Rule],
    shapes: Mapping[str, tuple[int, ...]],
    *,
    normalise: Callable[[str], str] = str,
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (parameter path, array) for every tensor; `shapes` holds the path and shape of every parameter to fill.

    Raises:
        FormatError: at the end, listing every tensor that no rule maps, that no parameter wants, that came twice or
            whose shape differs, and every parameter that nothing filled.
    """
    table = [(_pattern(rule.source), rule) for rule in rules]
    problems: list[str] = []
    filled: set[str] = set()
    for name, array in tensors:
        matches = [(m, rule) for pattern, rule in table if (m := pattern.fullmatch(normalise(name)))]
        if len(matches) != 1:
            problems.append(f"{name}: {'no rule maps it' if not matches else 'several rules map it'}")
            continue
        match, rule = matches[0]
        path = rule.target.replace("{i}", match.groupdict().get("i", ""))
        array = rule.transform.forward(array)
        if path not in shapes:
            problems.append(f"{name}: the configuration leaves no place for it ({path})")
        elif path in filled:
            problems.append(f"{name}: {path} was filled before by another tensor")
        elif array.shape != shapes[path]:
            problems.append(f"{name}: its shape becomes {array.shape}, but the configuration asks for {shapes[path]}")
        else:
            filled.add(path)
            yield path, array
    problems += [f"{path}: no tensor fills it" for path in sorted(set(shapes) - filled)]
    if problems:
        raise FormatError(
            f"the checkpoint does not fit its config.json in {len(problems)} places: {'; '.join(problems)}"
        )


def export(parameters: Mapping[str, np.ndarray], rules: Iterable[Rule]) -> dict[str, np.ndarray]:
    """Return the checkpoint's tensors by name for a full set of parameters: the inverse of `convert`.

    Raises:
        FormatError: a parameter that not exactly one rule names.
    """
    table = [(_pattern(rule.target), rule) for rule in rules]
    tensors: dict[str, np.ndarray] = {}
    for path, array in parameters.items():
        matches = [(m, rule) for pattern, rule in table if (m := pattern.fullmatch(path))]
        if len(matches) != 1:
            raise FormatError(f"{len(matches)} rules name the parameter {path}, but exactly one was expected")
        match, rule = matches[0]
        name = rule.source.replace("{i}", match.groupdict().get("i", ""))
        tensors[name] = np.ascontiguousarray(rule.transform.inverse(array))
    return tensors


def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(re.escape(template).replace(r"\{i\}", r"(?P<i>\d+)"))
