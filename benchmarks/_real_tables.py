"""Tables of what all coalitions of the words of an utterance are worth to the *pocket* model.

Commands are joined until they have as many words as wanted, said by voices that the model never heard, and asked about.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float
from train import world
from train.speech import HELD_OUT_VOICES, RATE_HZ, Utterance, draw_voice, synthesise

from sgpa_jax.audio import Clip
from sgpa_jax.games import speech_game
from sgpa_jax.models import Model, load_model
from sgpa_jax.players import Player, Players, all_coalitions


def speech_tables(
    n_players: int, n_utterances: int, seed: int, *, absence: str, folder: Path | None
) -> Iterator[Float[np.ndarray, " N"]]:
    """Yield the log-probability of the model's own answer for all coalitions of an utterance, float64[2^P] each.

    Args:
        n_players: P words each.
        n_utterances: how many.
        seed: decides what is said, by whom, and what is asked.
        absence: what an absent word is.
        folder: keeps the tables and is asked first; None: nothing is kept.
    """
    model: Model | None = None
    for number in range(n_utterances):
        path = None if folder is None else folder / f"{absence}-{n_players}-{seed}-{number}.npy"
        if path is not None and path.exists():
            yield np.load(path)
            continue
        model = model or load_model("pocket")
        table_n = _table(model, n_players, np.random.default_rng([seed, n_players, number]), absence)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, table_n)
        yield table_n


def _table(model: Model, n_players: int, rng: np.random.Generator, absence: str) -> Float[np.ndarray, " N"]:
    utterance, question = _utterance(n_players, rng)
    clip = Clip(utterance.wave_s, RATE_HZ)
    words = tuple(Player(word.label, "word", word.start_s, word.end_s) for word in utterance.words)
    players = Players(words, len(clip.wave_s), clip.rate_hz)
    response = model.generate(model.prepare(clip, question), max_new_tokens=6).text
    game = speech_game(model, model.prepare(clip, question, response=response), players, absence=absence)
    return game.values(all_coalitions(n_players))[:, 0].astype(np.float64)


def _utterance(n_words: int, rng: np.random.Generator) -> tuple[Utterance, str]:
    """Say commands of so many words together, and ask about the first."""
    while True:
        first = world.sample_command(rng, "test", sound=False)
        words = list(first.words)
        while len(words) < n_words:
            words += ["and", *world.sample_command(rng, "test", sound=False).words]
        asked = [question for question in world.questions(rng, first) if question.evidence]
        if len(words) != n_words or not asked:
            continue
        said = synthesise(" ".join(words), draw_voice(rng, HELD_OUT_VOICES))
        if said is not None and len(said.words) == n_words:
            return said, asked[rng.integers(len(asked))].text
