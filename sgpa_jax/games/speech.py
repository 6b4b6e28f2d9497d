"""The game of a spoken question: what every coalition of a prompt's players does to a response's log-probability.

Every coalition, the empty and the full one too, goes through one engine, which the absence decides: what changes the
sound is rendered and heard (`waveform.py`), what changes the decoder's input alone shares one encoding (`trie.py`).
Players that are text are absent from the decoder's input, in either engine.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from sgpa_jax.errors import UsageError, unknown_name
from sgpa_jax.games.game import Game
from sgpa_jax.games.hearing import HEARD_ABSENCES
from sgpa_jax.games.passage import TOKEN_ABSENCES, Passage
from sgpa_jax.games.readout import Readout
from sgpa_jax.games.tokens import speech_passage
from sgpa_jax.games.trie import evaluate_coalitions
from sgpa_jax.games.waveform import WaveformEngine
from sgpa_jax.games.waveform_windows import WindowsEngine
from sgpa_jax.models import Model, ModelInputs, gathered
from sgpa_jax.players import Players

ABSENCES = (*HEARD_ABSENCES, *TOKEN_ABSENCES)
"""The ways in which a player can be absent: from what is heard, or from the decoder's input."""

VALUES = ("logprob", "mean_logprob")

COALITIONS_AT_ONCE, TOKENS_AT_ONCE = 4096, 2**20
"""Coalitions planned as one trie, and tokens of all of them: more share little more, and a plan takes host memory."""


class HeardGame(Game):
    """The game of a response's log-probability where players are absent from what is heard.

    Attributes:
        engine: what evaluates its coalitions; `heard_together.py` lets it do so beside other games'.
        value: one of `VALUES`.
    """

    def __init__(self, engine: WaveformEngine, value: str, fn: Callable[[Any], Any], **options: Any) -> None:
        super().__init__(fn, engine.n_players, **options)
        self.engine, self.value = engine, value


class EmbeddedGame(Game):
    """The game of a response's log-probability where players are absent from the decoder's input.

    Attributes:
        model: the audio language model.
        passage: its tokens and their players; `tries_together.py` plans it beside other games'.
        value: one of `VALUES`.
    """

    def __init__(self, model: Model, passage: Passage, value: str, fn: Callable[[Any], Any], **options: Any) -> None:
        super().__init__(fn, passage.n_players, **options)
        self.model, self.passage, self.value = model, passage, value


def speech_game(
    model: Model,
    inputs: ModelInputs,
    players: Players,
    *,
    absence: str = "silence",
    text_absence: str = "attention",
    value: str = "logprob",
    baseline: str = "mean",
    readout: Readout | None = None,
    microbatch: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Game:
    """Build the game whose first output is the response's log-probability and whose others are its tokens'.

    With a readout it is the game of what that reads instead: hidden states or latents, K of them.

    Coalitions that differ in players alone whose absence nobody notices are one coalition, evaluated once.

    Args:
        model: the audio language model.
        inputs: prompt, clip and response as `Model.prepare` laid them out.
        players: spans of the clip, at the clip's own rate, and text of the prompt (`text_players`); either may be none.
        absence: of players that are heard, one of `ABSENCES`; `mel_delete` with an LFM2-Audio alone.
        text_absence: of players that are text: hidden (`attention`), taken out of the prompt (`drop`, or `drop_keep`,
            where the others keep their positions), or a neutral token in their place (`replace`).
        value: `logprob` sums over the response's tokens, `mean_logprob` averages.
        baseline: what the absence `embedding` puts in a player's place: `mean`, `zero` or `silence`.
        readout: what is read inside of the decoder; `value` is of no use then. Under an absence of what is heard, its
            audio positions are all that are heard, not the players' alone.
        microbatch: coalitions evaluated at once, a multiple of the axis `data` of the model's mesh; None: as many as
            the devices are quickest with.
        progress: called with (coalitions evaluated, coalitions to evaluate) after every microbatch.

    Returns:
        A `Game` of `len(players)` players and 1 + R outputs for R response tokens, or a readout's K.

    Raises:
        UsageError: an unknown name, an absence that the model does not offer, a conversation of more than one
            recording, or a readout of a layer that is not there, or of a recording in windows of which each is heard
            by itself.
        PlayerError: two players share the only position that the decoder could give either, or a player's text is not
            in the prompt.
    """
    if absence not in ABSENCES:
        raise unknown_name("absence", absence, ABSENCES)
    if value not in VALUES:
        raise unknown_name("value", value, VALUES)
    if readout is not None:
        readout.check(model.decoder)
    if engine_of(absence, players) == "trie":
        passage = speech_passage(model, inputs, players, absence=absence, baseline=baseline, text_absence=text_absence)

        def read(masks_cp: Bool[np.ndarray, "C P"]) -> Float[np.ndarray, "C R"]:
            return evaluate_coalitions(model.decoder, passage, masks_cp, readout=readout, mesh=model.mesh)

        options: dict[str, Any] = {"microbatch": microbatch or coalitions_in_a_plan(passage)}
        game: Callable[..., Game] = functools.partial(EmbeddedGame, model, passage, value)
    else:
        if readout is not None and inputs.starts_s:
            raise UsageError(
                f"nothing but the response is read of a recording in windows, or among others, under the absence "
                f"{absence!r}: choose one of {', '.join(TOKEN_ABSENCES)}"
            )
        engine = waveform_engine(model, inputs, players, absence=absence, text_absence=text_absence)

        def read(masks_cp: Bool[np.ndarray, "C P"]) -> Float[np.ndarray, "C R"]:
            return np.asarray(gathered(engine.log_probs(np.asarray(gathered(masks_cp)), readout=readout)))

        options = {
            "microbatch": microbatch or engine.microbatch(readout=readout),
            "mesh": model.mesh,
            "length": engine.length,
            "matters_p": engine.is_audible_p,
        }
        game = functools.partial(HeardGame, engine, value)

    def evaluate(masks_cp: Bool[np.ndarray, "C P"]) -> Float[np.ndarray, "C K"]:
        return read(masks_cp) if readout is not None else with_total(read(masks_cp), value)

    if readout is None:
        names = ("response", *model.response(inputs.ids_t[inputs.response_start :].tolist()).pieces)
    else:
        names = tuple(map(str, range(readout.n_values(model.config.decoder.width))))
    options |= {"outputs": names, "jit": False, "progress": progress}
    return game(evaluate, **options) if readout is None else Game(evaluate, len(players), **options)


def coalitions_in_a_plan(passage: Passage) -> int:
    """Return how many coalitions of a passage are planned as one trie."""
    return max(1, min(COALITIONS_AT_ONCE, TOKENS_AT_ONCE // len(passage.owner_t)))


def with_total(token_cr: Float[np.ndarray, "C R"], value: str) -> Float[np.ndarray, "C K"]:
    """Put what the whole response is worth, one of `VALUES`, before the log-probabilities of its tokens."""
    total_c = token_cr.sum(axis=1) if value == "logprob" else token_cr.mean(axis=1)
    return np.concatenate([total_c[:, None], token_cr], axis=1)


def waveform_engine(
    model: Model, inputs: ModelInputs, players: Players, *, absence: str, text_absence: str = "attention"
) -> WaveformEngine:
    """Build the engine of what is heard, in one piece or in windows; see `WaveformEngine`."""
    engine = WindowsEngine if inputs.starts_s else WaveformEngine
    return engine(model, inputs, players, absence=absence, text_absence=text_absence)


def engine_of(absence: str, players: Players | None = None) -> str:
    """Name the engine that evaluates coalitions under an absence: where nobody is heard, the `trie` under any."""
    return "trie" if absence in TOKEN_ABSENCES or (players is not None and not players.heard) else "waveform"
