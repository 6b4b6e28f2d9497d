"""Conversations as users write them: turns of text, recordings and earlier spoken answers, checked and numbered."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sgpa_jax.errors import UsageError
from sgpa_jax.models.speech import Speech

Messages = Sequence[Mapping[str, Any]]
ROLES = ("system", "user", "assistant")
_KINDS: dict[Any, type] = {"text": str, "audio": object, "speech": Speech}


class Turn(NamedTuple):
    """A role and its parts: texts, clips as their index in the conversation, and what the model itself spoke."""

    role: str
    parts: tuple[str | int | Speech, ...]
    given: bool = True  # by the user, not by the format


def clips_of(messages: Messages) -> tuple[Any, ...]:
    """Return what the audio parts of the messages hold, in order.

    Raises:
        UsageError: the messages are malformed.
    """
    return tuple(part["audio"] for message in messages for part in _parts(message) if part["type"] == "audio")


def spoken_in(messages: Messages) -> tuple[Speech, ...]:
    """Return what the assistant spoke before, in order.

    Raises:
        UsageError: the messages are malformed.
    """
    return tuple(part["speech"] for message in messages for part in _parts(message) if part["type"] == "speech")


def turns_of(messages: Messages) -> tuple[Turn, ...]:
    """Return the turns with their clips numbered through.

    Raises:
        UsageError: there are none, or they are malformed.
    """
    if not messages:
        raise UsageError("the conversation has no turns; give at least one turn of the user")
    turns, n_clips = [], 0
    for message in messages:
        parts: list[str | int | Speech] = []
        for part in _parts(message):
            if part["type"] == "audio":
                parts.append(n_clips)
                n_clips += 1
            else:
                parts.append(part[part["type"]])
        turns.append(Turn(message["role"], tuple(parts)))
    return tuple(turns)


def _parts(message: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Check a turn and return its parts."""
    if not isinstance(message, Mapping):
        raise UsageError(f"a turn is {message!r}, but {{'role': ..., 'content': ...}} was expected")
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        raise UsageError(f"a turn has the role {role!r}, but one of {', '.join(ROLES)} was expected")
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if not isinstance(content, Sequence):
        raise UsageError(f"the content of a {role} turn is {content!r}, but text or a list of parts was expected")
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind not in _KINDS or kind not in part or not isinstance(part[kind], _KINDS[kind]):
            raise UsageError(
                f"a part of the turn of a {role} is {part!r}, but {{'type': 'text', 'text': ...}}, {{'type': 'audio', "
                "'audio': ...} or {'type': 'speech', 'speech': what Model.speak returned} was expected"
            )
        if kind == "speech" and role != "assistant":
            raise UsageError(f"a {role} turn holds what the model spoke; put it into a turn of the assistant")
    return content
