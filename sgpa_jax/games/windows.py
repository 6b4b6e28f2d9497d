"""Recordings longer than a model hears at once: several clips of one message, cut between the players.

Players keep the clock of the whole recording. Each belongs to the clip that holds its middle, and is heard in that one
alone.
"""

from bisect import bisect_right
from dataclasses import replace

from sgpa_jax.audio import Clip
from sgpa_jax.models import Model, ModelInputs, starts_of
from sgpa_jax.players import Player, Players, cut_clip


def prepare_windows(
    model: Model,
    clip: Clip,
    prompt: str,
    players: Players,
    *,
    system: str | None = None,
    response: str | None = None,
    window_s: float | None = None,
) -> ModelInputs:
    """Lay out a question about a recording of any length, as `Model.prepare` does where the model hears it whole.

    Args:
        model: the audio language model.
        clip: the recording.
        prompt: the question.
        players: stretches of the recording, at its own rate; it is cut between them.
        system: the system turn, if not the chat format's own.
        response: what the assistant is to say.
        window_s: the longest clip; None: the model's own window.

    Raises:
        SgpaError: as `cut_clip` and `Model.prepare`.
    """
    parts = cut_clip(clip, players, model.window_s if window_s is None else window_s)
    if len(parts) == 1:
        return model.prepare(clip, prompt, system=system, response=response)
    content = [*({"type": "audio", "audio": part} for _, part in parts), {"type": "text", "text": prompt}]
    first = [] if system is None else [{"role": "system", "content": system}]
    inputs = model.prepare([*first, {"role": "user", "content": content}], response=response)
    return replace(inputs, starts_s=tuple(start_s for start_s, _ in parts))


def heard_in_clips(inputs: ModelInputs, players: Players) -> list[dict[int, tuple[float, float]]]:
    """Return for each clip its players: index and interval in seconds of the clip's own clock.

    Raises:
        UsageError: the clips are none, or several recordings.
    """
    starts_s = starts_of(inputs)
    found: list[dict[int, tuple[float, float]]] = [{} for _ in starts_s]
    for index in players.heard:
        start_s, end_s = players[index].span_s
        of = max(0, bisect_right(starts_s, (start_s + end_s) / 2) - 1)
        found[of][index] = (start_s - starts_s[of], end_s - starts_s[of])
    return found


def players_of_clip(clip: Clip, spans_s: dict[int, tuple[float, float]], players: Players) -> Players:
    """Return a clip's players in its own clock; where it has none, one to whom it belongs as a whole."""
    named = [
        replace(players[index], start_s=max(start_s, 0.0), end_s=min(end_s, clip.duration_s))
        for index, (start_s, end_s) in spans_s.items()
    ]
    return Players(
        tuple(named) or (Player("nobody's", "window", 0.0, clip.duration_s),), len(clip.wave_s), clip.rate_hz
    )
