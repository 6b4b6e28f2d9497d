"""What a decoder is given for coalitions that it is to answer: the prompts of a batch, whatever the absence.

Absences of the waveform are rendered and heard (`prompts_heard.py`), those of the decoder's input share one encoding
(`prompts_embedded.py`); text may be absent under either.
"""

from dataclasses import replace

from sgpa_jax.errors import UsageError, unknown_name
from sgpa_jax.games.hearing import HEARD_ABSENCES, hearing_of
from sgpa_jax.games.passage import TOKEN_ABSENCES
from sgpa_jax.games.prompts_embedded import EmbeddedPrompts
from sgpa_jax.games.prompts_heard import HeardPrompts
from sgpa_jax.games.tokens import absences_of
from sgpa_jax.models import Model, ModelInputs
from sgpa_jax.players import Players


def prompts_of(
    model: Model, inputs: ModelInputs, players: Players, *, absence: str, baseline: str, text_absence: str
) -> HeardPrompts | EmbeddedPrompts:
    """Return what maps coalitions of the players of the prompt in `inputs` to prompts, without a response.

    It maps bool[C, P] to a `Placed` and the `Order` of its tokens (None: as they stand), and tells `n_shared`, how many
    tokens stand before all that depends on the coalition, `length`, by which coalitions are best sorted (None: all are
    alike), and `matters_p`, whose presence changes anything (None: everybody's).

    Prompts of one `kind` share batches that `together` places; `shared` are tokens that stand before the audio and all
    that depends on the coalition, `n_tokens` tells the tokens of coalitions, and `table` is what their rows pick from.

    Raises:
        UsageError: an unknown name, or an absence that the model does not offer.
        PlayerError: as `speech_passage`.
    """
    if absence not in (*HEARD_ABSENCES, *TOKEN_ABSENCES):
        raise unknown_name("absence", absence, (*HEARD_ABSENCES, *TOKEN_ABSENCES))
    absences_of(players, absence, text_absence)
    if absence in HEARD_ABSENCES and players.heard:
        if inputs.starts_s:
            raise UsageError(
                f"answers to a recording in windows, or among others, are not compared under the absence {absence!r}: "
                f"choose one of {', '.join(TOKEN_ABSENCES)}, or explain the log-probability"
            )
        heard = replace(players, players=tuple(players[index] for index in players.heard))
        return HeardPrompts(model, inputs, players, hearing_of(model, inputs.clips[0], heard, absence), text_absence)
    return EmbeddedPrompts(model, inputs, players, absence, baseline, text_absence)
