"""Who plays: the recording and the prompt cut into players."""

from pathlib import Path

from sgpa_jax.align import AcousticModel, Alignment
from sgpa_jax.api.align import aligned
from sgpa_jax.audio import Clip
from sgpa_jax.errors import UsageError, unknown_name
from sgpa_jax.games import native_players, prepare_windows
from sgpa_jax.models import Model, ModelInputs
from sgpa_jax.players import (
    UNITS,
    Players,
    cut_clip,
    energy_players,
    join_players,
    phrase_players,
    spoken_players,
    text_players,
    window_players,
    word_players,
)

PLAYERS = ("words", "speech", "phrases", "energy", "native", "windows", "none")
"""What a recording is cut into; `speech` is words without the sounds around them, `windows:0.25` tells their seconds,
`none` leaves it to the text alone."""

OF_WORDS = ("words", "speech", "phrases")
"""Players that are made of words."""


def words_of(
    players: str,
    clip: Clip,
    transcript: str | None,
    alignment: Alignment | None,
    aligner: AcousticModel | str | Path,
    rules: str,
    unspellable: str,
    language: str | None,
) -> Alignment | None:
    """Return when the recording's words are said; None where none were given and the players need none.

    Raises:
        SgpaError: an unknown kind of players, or what `aligned` refuses.
    """
    unit = players.partition(":")[0]
    if unit not in PLAYERS:
        raise unknown_name("kind of players", unit, PLAYERS)
    if unit not in OF_WORDS and transcript is None and alignment is None:
        return None
    return aligned(clip, transcript, alignment, aligner, rules, unspellable, language)


def in_windows(
    model: Model,
    clip: Clip,
    prompt: str,
    alignment: Alignment | None,
    *,
    players: str,
    system: str | None,
    response: str | None,
) -> ModelInputs:
    """Put a question about a recording of any length, cut between those who play if the model does not hear it whole.

    Players that only the cut recording has, and none at all, leave it to the segments of energy.

    Raises:
        SgpaError: a player is longer than the window, or what the model does not hear or say.
    """
    if clip.duration_s <= model.window_s:
        return model.prepare(clip, prompt, system=system, response=response)
    heard = None if players == "native" else _heard(model, None, clip, alignment, players)
    return prepare_windows(model, clip, prompt, heard or energy_players(clip), system=system, response=response)


def transcribed(model: Model, clip: Clip, *, long: str, max_new_tokens: int) -> str:
    """Return what the model writes when it is asked to transcribe, window by window where `long` says so.

    Raises:
        SgpaError: as `Model.transcribe`.
    """
    if long == "refuse" or clip.duration_s <= model.window_s:
        return model.transcribe(clip, max_new_tokens=max_new_tokens)
    parts = cut_clip(clip, energy_players(clip), model.window_s)
    return " ".join(model.transcribe(part, max_new_tokens=max_new_tokens) for _, part in parts)


def players_of(
    model: Model, inputs: ModelInputs, clip: Clip, alignment: Alignment | None, *, players: str, text: str
) -> Players:
    """Cut the recording and the prompt's text into players.

    Raises:
        SgpaError: an unknown name, or no player at all.
    """
    if text not in (*UNITS, "none"):
        raise unknown_name("unit of the text", text, (*UNITS, "none"))
    heard = _heard(model, inputs, clip, alignment, players)
    read = None if text == "none" else text_players(model, inputs, unit=text)
    if heard is not None and read is not None:
        return join_players(heard, read, inputs)
    chosen = read if heard is None else heard
    if chosen is None:
        raise UsageError("neither the recording nor the text has players: choose players of one of them, or of both")
    return chosen


def _heard(
    model: Model, inputs: ModelInputs | None, clip: Clip, alignment: Alignment | None, players: str
) -> Players | None:
    unit, _, length_s = players.partition(":")
    if length_s and unit != "windows":
        raise UsageError(f"the players are {players!r}: only windows have a length, such as windows:0.5")
    if unit == "energy":
        return energy_players(clip)
    if unit == "native":
        assert inputs is not None
        return native_players(model, inputs)
    if unit == "windows":
        return window_players(clip, _seconds(length_s)) if length_s else window_players(clip)
    if unit == "none":
        return None
    assert alignment is not None
    cut = {"words": word_players, "speech": spoken_players, "phrases": phrase_players}[unit]
    return cut(alignment, clip)


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise UsageError(f"windows of {text!r} s: expected a number, such as windows:0.5") from error
