"""Reading a Hugging Face `config.json` strictly: each network's own file holds its configuration."""

import dataclasses
import functools
import math
import reprlib
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar, get_args

from sgpa_jax.errors import CheckpointError

MOST_LAYERS = 1024
_LARGEST = 2**22
"""No network is deeper or wider: what a damaged file asks for must not be built, nor its sizes allocated."""

P = ParamSpec("P")
T = TypeVar("T")


def strict(read: Callable[P, T]) -> Callable[P, T]:
    """Make a function that reads a configuration refuse what is of a wrong kind, or of a size that nothing has.

    Raises:
        CheckpointError: in place of whatever such a setting would make the function raise.
    """

    @functools.wraps(read)
    def checked(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            config = read(*args, **kwargs)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"config.json holds a setting of a wrong kind ({type(error).__name__}: {str(error)[:80]}); fetch the "
                "file again"
            ) from error
        _check(config)
        return config

    return checked


def only(config: Mapping[str, Any], label: str, key: str, allowed: tuple[Any, ...], *, default: Any) -> None:
    """Refuse a setting that changes the mathematics in a way that we do not implement; an absent one is the default.

    Raises:
        CheckpointError: the value is none of the allowed ones.
    """
    value = config.get(key, default)
    if value not in allowed and value is not None:
        raise CheckpointError(f"config.json sets {label} to {reprlib.repr(value)}, but only {allowed} is implemented")


def needed(config: Mapping[str, Any], label: str, key: str) -> int:
    """Return a size that has no default.

    Raises:
        CheckpointError: it is missing, or no positive whole number.
    """
    return size(label, config.get(key))


def size(label: str, value: Any, *, most: int = _LARGEST) -> int:
    """Return a size that is one.

    Raises:
        CheckpointError: it is no positive whole number, or larger than `most`.
    """
    if type(value) is not int or not 1 <= value <= most:
        raise CheckpointError(
            f"config.json sets {label} to {reprlib.repr(value)}, but a positive whole number up to {most} was "
            "expected; fetch the file again"
        )
    return value


def _check(config: Any) -> None:
    """Check the sizes, numbers and flags of a configuration, those of its parts included."""
    for field in dataclasses.fields(config):
        value, name = getattr(config, field.name), f"what becomes {type(config).__name__}.{field.name}"
        for item in value if isinstance(value, tuple) else (value,):
            if dataclasses.is_dataclass(item):
                _check(item)
            elif field.name.endswith(("layers", "codebooks")):
                size(name, item, most=MOST_LAYERS)
            elif field.type is int or (get_args(field.type)[:1] == (int,) and item is not None):
                # Ids are counted from zero, sizes from one.
                size(name, item + 1 if field.name in ("blank", "audio_token_id") and type(item) is int else item)
            elif field.type is float and not (isinstance(item, int | float) and math.isfinite(item) and item >= 0):
                raise CheckpointError(
                    f"config.json sets {name} to {reprlib.repr(item)}, but a number from zero on was expected; fetch "
                    "the file again"
                )
