"""The table engine that maps a checkpoint's tensor names to parameter paths and back, strict in both directions.

A table is a tuple of rules. Names in it are templates that must match whole, `{i}` stands for a number, and every
tensor must match exactly one rule. `check` needs names, shapes and dtypes alone, so a checkpoint can be judged by its
headers; `convert` yields nothing before everything fits, and holds one parameter at a time when the tensors that it is
given are views of files.
"""

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import ml_dtypes
import numpy as np

from sgpa_checkpoints.headers import FormatError
from sgpa_checkpoints.transforms import Same, Transform

_FLOATS = tuple(map(np.dtype, (np.float64, np.float32, np.float16, ml_dtypes.bfloat16)))


class Header(Protocol):
    """What `check` needs to know of a tensor; arrays know it as well."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The lengths of its axes."""
        ...

    @property
    def dtype(self) -> np.dtype:
        """The type of its numbers."""
        ...


@dataclass(frozen=True)
class Rule:
    """One tensor becomes one parameter."""

    source: str
    target: str
    transform: Transform = Same

    @property
    def sources(self) -> tuple[str, ...]:
        """Templates of the tensors that it takes."""
        return (self.source,)

    @property
    def targets(self) -> tuple[str, ...]:
        """Templates of the parameters that it fills."""
        return (self.target,)

    def forward(self, arrays: Sequence[np.ndarray], shapes: Sequence[tuple[int, ...]]) -> tuple[np.ndarray, ...]:
        """Return the parameters, whose shapes are to be `shapes`."""
        return (self.transform.forward(*arrays),)

    def inverse(self, arrays: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        """Return the tensors."""
        return (self.transform.inverse(*arrays),)


@dataclass(frozen=True)
class Fold:
    """Several tensors become one parameter, as a weight and its norm do."""

    sources: tuple[str, ...]
    target: str
    transform: Transform

    @property
    def targets(self) -> tuple[str, ...]:
        """Templates of the parameters that it fills."""
        return (self.target,)

    def forward(self, arrays: Sequence[np.ndarray], shapes: Sequence[tuple[int, ...]]) -> tuple[np.ndarray, ...]:
        """Return the parameters, whose shapes are to be `shapes`."""
        return (self.transform.forward(*arrays),)

    def inverse(self, arrays: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        """Return the tensors."""
        return tuple(self.transform.inverse(*arrays))


@dataclass(frozen=True)
class Split:
    """One tensor becomes several parameters, cut along its first axis to the sizes that they ask for."""

    source: str
    targets: tuple[str, ...]
    transform: Transform = Same

    @property
    def sources(self) -> tuple[str, ...]:
        """Templates of the tensors that it takes."""
        return (self.source,)

    def forward(self, arrays: Sequence[np.ndarray], shapes: Sequence[tuple[int, ...]]) -> tuple[np.ndarray, ...]:
        """Return the parameters, whose shapes are to be `shapes`."""
        sizes = [self.transform.inverse(_stand_in(shape)).shape[0] for shape in shapes]
        if sum(sizes) != len(arrays[0]):
            raise ValueError(f"its first axis should be {' + '.join(map(str, sizes))}")
        pieces = np.split(arrays[0], np.cumsum(sizes)[:-1])
        return tuple(self.transform.forward(piece) for piece in pieces)

    def inverse(self, arrays: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        """Return the tensors."""
        return (np.concatenate([self.transform.inverse(array) for array in arrays]),)


@dataclass(frozen=True)
class Tied:
    """A second copy of the tensor `to` that a checkpoint may hold: it must be equal bit by bit, and is not used."""

    source: str
    to: str

    @property
    def sources(self) -> tuple[str, ...]:
        """Templates of the tensors that it takes."""
        return (self.source,)

    @property
    def targets(self) -> tuple[str, ...]:
        """Nothing: the parameter is filled by the other copy."""
        return ()


@dataclass(frozen=True)
class Ignore:
    """A tensor that a checkpoint may hold and that we do not need, and why."""

    source: str
    reason: str

    @property
    def sources(self) -> tuple[str, ...]:
        """Templates of the tensors that it takes."""
        return (self.source,)

    @property
    def targets(self) -> tuple[str, ...]:
        """Nothing."""
        return ()


AnyRule = Rule | Fold | Split | Tied | Ignore


def check(
    headers: Mapping[str, Header],
    rules: Iterable[AnyRule],
    shapes: Mapping[str, tuple[int, ...]],
    *,
    normalise: Callable[[str], str] = str,
    config: Mapping[str, Any] | None = None,
) -> list[str]:
    """Return everything that keeps these tensors from filling parameters of these shapes, one clause each.

    Args:
        headers: shape and dtype of every tensor by its name.
        rules: the table.
        shapes: path and shape of every parameter.
        normalise: brings the names of other layouts to the table's.
        config: the `config.json` behind `shapes`; for a tensor of another shape its keys of the expected size are told.
    """
    return _plan(headers, rules, shapes, normalise, config)[1]


def convert(
    tensors: Iterable[tuple[str, np.ndarray]],
    rules: Iterable[AnyRule],
    shapes: Mapping[str, tuple[int, ...]],
    *,
    normalise: Callable[[str], str] = str,
    config: Mapping[str, Any] | None = None,
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (parameter path, array) for every parameter in `shapes`, in the order of the tensors and in their dtypes.

    Arguments are those of `check`, with arrays for headers.

    Raises:
        FormatError: before anything is yielded, with every problem that `check` finds and every tied tensor that
            differs.
    """
    arrays: dict[str, np.ndarray] = {}
    for name, array in tensors:
        if name in arrays:
            raise FormatError(f"tensor {name} came twice")
        arrays[name] = array
    steps, problems = _plan(arrays, rules, shapes, normalise, config)
    problems += [
        f"{step.names[0]}: it is tied to {step.names[1]}, but their values differ"
        for step in steps
        if isinstance(step.rule, Tied) and not _same_bits(*(arrays[name] for name in step.names))
    ]
    if problems:
        raise misfit(problems)
    for step in steps:
        if not isinstance(step.rule, Tied | Ignore):
            wanted = [shapes[path] for path in step.paths]
            yield from zip(step.paths, step.rule.forward([arrays[name] for name in step.names], wanted), strict=True)


def misfit(problems: Sequence[str]) -> FormatError:
    """Return the one error that tells all problems."""
    places = "1 place" if len(problems) == 1 else f"{len(problems)} places"
    told = f"the checkpoint does not fit its config.json in {places}: {'; '.join(problems)}"
    return FormatError(told, tuple(problems))


def export(parameters: Mapping[str, np.ndarray], rules: Iterable[AnyRule]) -> dict[str, np.ndarray]:
    """Return the checkpoint's tensors by name for a full set of parameters: the inverse of `convert`.

    Tied tensors are written as well; those that a table ignores are not.

    Raises:
        FormatError: a parameter that not exactly one rule names, or a part of a split that is missing.
    """
    rules = tuple(rules)
    table = [(_pattern(target), rule, k) for rule in rules for k, target in enumerate(rule.targets)]
    groups: dict[tuple[AnyRule, str], dict[int, np.ndarray]] = {}
    for path, array in parameters.items():
        matches = [(m, rule, k) for pattern, rule, k in table if (m := pattern.fullmatch(path))]
        if len(matches) != 1:
            raise FormatError(f"{len(matches)} rules name the parameter {path}, but exactly one was expected")
        match, rule, k = matches[0]
        groups.setdefault((rule, _number(match)), {})[k] = array
    tensors: dict[str, np.ndarray] = {}
    for (rule, i), parts in groups.items():
        if missing := [_name(target, i) for k, target in enumerate(rule.targets) if k not in parts]:
            raise FormatError(f"{_name(rule.sources[0], i)} cannot be written without {', '.join(missing)}")
        assert not isinstance(rule, Tied | Ignore)
        for source, array in zip(rule.sources, rule.inverse([parts[k] for k in sorted(parts)]), strict=True):
            tensors[_name(source, i)] = np.ascontiguousarray(array)
    for rule in rules:
        if isinstance(rule, Tied):
            copies = {name: m for name in tensors if (m := _pattern(rule.to).fullmatch(name))}
            tensors |= {_name(rule.source, _number(m)): tensors[name] for name, m in copies.items()}
    return tensors


class _Step(NamedTuple):
    """A rule at one number: the tensors that it takes (a tied one and its twin) and the parameters that it fills."""

    rule: AnyRule
    names: tuple[str, ...]
    paths: tuple[str, ...]


def _plan(
    headers: Mapping[str, Header],
    rules: Iterable[AnyRule],
    shapes: Mapping[str, tuple[int, ...]],
    normalise: Callable[[str], str],
    config: Mapping[str, Any] | None,
) -> tuple[list[_Step], list[str]]:
    """Return what to do in which order, and all that hinders it."""
    rules = tuple(rules)
    names, groups, problems = _assign(headers, rules, normalise)
    steps: list[_Step] = []
    claimed: dict[str, str] = {}
    for (rule, i), found in groups.items():
        first = next(iter(found.values()))
        if isinstance(rule, Ignore):
            continue
        wanted = (rule.source, rule.to) if isinstance(rule, Tied) else rule.sources
        partners = tuple(names.get(_name(source, i)) for source in wanted)
        paths = tuple(_name(target, i) for target in rule.targets)
        step = _Step(rule, tuple(filter(None, partners)), paths)
        reasons = [
            f"{_name(source, i)} belongs with it and is missing"
            for source, partner in zip(wanted, partners, strict=True)
            if partner is None
        ]
        reasons += [f"{path} was filled before, by {claimed[path]}" for path in paths if path in claimed]
        reasons += [f"the configuration leaves no place for it ({path})" for path in paths if path not in shapes]
        claimed |= dict.fromkeys(paths, first)
        if not reasons:
            reasons = _misshapen(step, headers, shapes, config)
        problems += [f"{first}: {reason}" for reason in reasons]
        if not reasons:
            steps.append(step)
    sources = {path: source for path in set(shapes) - set(claimed) if (source := _source_of(path, rules))}
    problems += [
        f"{path}: no tensor fills it" + (f" ({sources[path]} was expected)" if path in sources else "")
        for path in sorted(set(shapes) - set(claimed))
    ]
    return steps, problems


def _assign(
    headers: Mapping[str, Header], rules: tuple[AnyRule, ...], normalise: Callable[[str], str]
) -> tuple[dict[str, str], dict[tuple[AnyRule, str], dict[str, str]], list[str]]:
    """Return table name → name in the file, (rule, number) → its tensors, and what no rule or several would take."""
    table = [(_pattern(source), rule, source) for rule in rules for source in rule.sources]
    nearest: dict[str, str] = {}
    names: dict[str, str] = {}
    groups: dict[tuple[AnyRule, str], dict[str, str]] = {}
    problems: list[str] = []
    for name, header in headers.items():
        normal = normalise(name)
        matches = [(m, rule, source) for pattern, rule, source in table if (m := pattern.fullmatch(normal))]
        if not matches:
            template = re.sub(r"(?<=\.)\d+(?=\.)", "{i}", normal)
            if template not in nearest:
                near = difflib.get_close_matches(template, [source for _, _, source in table], n=1)
                nearest[template] = f" (the nearest one maps {near[0]})" if near else ""
            problems.append(f"{name}: no rule maps it{nearest[template]}")
        elif len(matches) > 1:
            problems.append(f"{name}: several rules map it ({', '.join(source for _, _, source in matches)})")
        elif normal in names:
            problems.append(f"{name}: it is the same tensor as {names[normal]}, named for another layout")
        else:
            match, rule, source = matches[0]
            names[normal] = name
            groups.setdefault((rule, _number(match)), {})[source] = name
            if header.dtype not in _FLOATS and not isinstance(rule, Ignore):
                problems.append(f"{name}: it holds {header.dtype}, but float32, bfloat16 or float16 was expected")
    return names, groups, problems


def _misshapen(
    step: _Step,
    headers: Mapping[str, Header],
    shapes: Mapping[str, tuple[int, ...]],
    config: Mapping[str, Any] | None,
) -> list[str]:
    """Why the shapes of a step's tensors do not give its parameters; nothing when they do."""
    given = [headers[name].shape for name in step.names]
    if isinstance(step.rule, Tied):
        same = given[0] == given[1] and headers[step.names[0]].dtype == headers[step.names[1]].dtype
        return [] if same else [f"it is tied to {step.names[1]}, but their shapes or dtypes differ"]
    assert not isinstance(step.rule, Ignore)
    expected = [shapes[path] for path in step.paths]
    try:
        found = [array.shape for array in step.rule.forward([_stand_in(shape) for shape in given], expected)]
    except (ValueError, IndexError) as error:
        return [
            f"its shape {' with '.join(map(str, given))} cannot become {' and '.join(map(str, expected))} ({error})"
        ]
    return [
        f"its shape becomes {a}, but the configuration asks for {b}{_deciders(a, b, config)}"
        for a, b in zip(found, expected, strict=True)
        if a != b
    ]


def _deciders(found: tuple[int, ...], expected: tuple[int, ...], config: Mapping[str, Any] | None) -> str:
    """Name the configuration's keys whose value is a size that was expected and not found."""
    if config is None or len(found) != len(expected):
        return ""
    told = []
    for size in dict.fromkeys(b for a, b in zip(found, expected, strict=True) if a != b):
        keys = [key for key, value in _flat(config) if value == size]
        told.append(f"{size} is {' or '.join(keys) or 'a default or a product of values'} in config.json")
    return f" ({', '.join(told)})"


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif not isinstance(value, bool):
            yield f"{prefix}{key}", value


def _source_of(path: str, rules: tuple[AnyRule, ...]) -> str:
    """Names of the tensors that a parameter is made of, by the first rule that fills it."""
    for rule in rules:
        for target in rule.targets:
            if match := _pattern(target).fullmatch(path):
                return " and ".join(_name(source, _number(match)) for source in rule.sources)
    return ""


def _stand_in(shape: tuple[int, ...]) -> np.ndarray:
    """Ones of any shape in the memory of a single one."""
    return np.broadcast_to(np.ones((), np.float32), shape)


def _same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return all(np.array_equal(x.view(np.uint8), y.view(np.uint8)) for x, y in zip(_rows(a), _rows(b), strict=True))


def _rows(array: np.ndarray) -> Iterator[np.ndarray]:
    """Cut an array into pieces of some megabytes, so that comparing needs little memory."""
    flat = array.reshape(-1)
    return (flat[k : k + 2**22] for k in range(0, len(flat), 2**22))


def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(re.escape(template).replace(r"\{i\}", r"(?P<i>\d+)"))


def _number(match: re.Match[str]) -> str:
    return match.groupdict().get("i", "")


def _name(template: str, i: str) -> str:
    return template.replace("{i}", i)
