"""How many programs JAX has compiled in this process, as its own monitoring tells."""

import functools
from typing import Any

import jax.monitoring

_EVENT = "/jax/core/compile/backend_compile_duration"


def programs_compiled() -> int:
    """Return how many programs were compiled since this was asked first."""
    return len(_durations_s())


@functools.cache
def _durations_s() -> list[float]:
    durations_s: list[float] = []

    def note(event: str, duration_secs: float, **_: Any) -> None:
        if event == _EVENT:
            durations_s.append(duration_secs)

    jax.monitoring.register_event_duration_secs_listener(note)
    return durations_s
