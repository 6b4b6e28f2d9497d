"""Reading a Hugging Face `config.json` strictly: each network's own file holds its configuration."""

from collections.abc import Mapping
from typing import Any

from sgpa_jax.errors import CheckpointError


def only(config: Mapping[str, Any], label: str, key: str, allowed: tuple[Any, ...], *, default: Any) -> None:
    """Refuse a setting that changes the mathematics in a way that we do not implement; an absent one is the default.

    Raises:
        CheckpointError: the value is none of the allowed ones.
    """
    value = config.get(key, default)
    if value not in allowed and value is not None:
        raise CheckpointError(f"config.json sets {label} to {value!r}, but only {allowed} is implemented")


def needed(config: Mapping[str, Any], label: str, key: str) -> int:
    """Return a size that has no default.

    Raises:
        CheckpointError: it is missing, or no positive whole number.
    """
    value = config.get(key)
    if type(value) is not int or value < 1:
        raise CheckpointError(
            f"config.json sets {label} to {value!r}, but a positive whole number was expected; fetch the file again"
        )
    return value
