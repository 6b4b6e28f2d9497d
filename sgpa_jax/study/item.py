"""What a study does with one recording and one model: from the model's own answer to a record.

Games share what they evaluate: an exact table of all coalitions answers for the values, for every measure of
faithfulness and for every seed, and answers that were generated once are compared in three ways.
"""

import time
from collections.abc import Callable

import jax
import numpy as np

from sgpa_jax.api import PRESETS, Answer, Asked, Question, game_of, prepared, with_preset
from sgpa_jax.errors import UsageError
from sgpa_jax.estimators import estimate, paper_budget
from sgpa_jax.explain import agreement
from sgpa_jax.games import Game, native_players, response_game, speech_game
from sgpa_jax.models import Model, ModelInputs
from sgpa_jax.players import Players, spoken_players
from sgpa_jax.study.attribute import Explained, explain_game
from sgpa_jax.study.cost import note_cost
from sgpa_jax.study.heard import Heard
from sgpa_jax.study.judge import (
    note_change,
    note_concentration,
    note_evidence,
    note_faithfulness,
    note_profile,
)
from sgpa_jax.study.notes import Notes
from sgpa_jax.study.partitions import AUTHORS, CTC, NATIVE, RANDOM, TRUE, UNIFORM, WORDS, cut, jittered, spans_of
from sgpa_jax.study.records import Record
from sgpa_jax.study.settings import Settings
from sgpa_jax.study.stage3 import ALPHA, MARGIN_S, paper_alignment

ABSENCES = ("silence", "delete", "noise", "embedding", "attention")
JITTERS_MS = (20, 50)
RESPONSE_VALUES = ("response_embedding", "tfidf")
STAGE_3 = ((ALPHA, MARGIN_S), (0.5, MARGIN_S), (0.9, MARGIN_S), (ALPHA, MARGIN_S / 2), (ALPHA, 2 * MARGIN_S))
"""α and δ of the paper's boundary refinement; the first is the authors' choice."""

_JITTER_DRAWS = 2


def study_item(heard: Heard, model: Model, settings: Settings, key: str) -> Record:
    """Return the record of an item under a model.

    Raises:
        SgpaError: the item cannot be explained at all.
    """
    began_s = time.perf_counter()
    item, notes = heard.item, Notes()
    study = _ItemStudy(heard, model, settings, notes)
    study.base()
    if settings.looks_closely(item.id):
        study.closely()
    if settings.weighs_cost(item.id):
        study.cost()
    return Record(
        item=item.id,
        subject=model.name,
        key=key,
        condition=item.condition,
        category=item.category,
        voice=item.voice,
        facts=notes.facts,
        measures=tuple(notes.measures),
        attributions=tuple(notes.attributions),
        curves=notes.curves,
        seconds=round(time.perf_counter() - began_s, 3),
    )


class _ItemStudy:
    """One item and one model, with what they have in common: the question, the answer, and the words as players."""

    def __init__(self, heard: Heard, model: Model, settings: Settings, notes: Notes) -> None:
        self.heard, self.model, self.settings, self.notes = heard, model, settings, notes
        self.item, self.clip = heard.item, heard.clip
        self.draw = settings.draw(self.item.id)
        self._games: dict[str, Explained] = {}
        self.words = self._cut(WORDS, 0)
        self.prompt = self.item.prompt or (model.world.prompt if model.world is not None else "")
        self.asked = model.prepare(self.clip, self.prompt)
        self.spoken = self._response_game(self.words, "response_embedding", "silence")
        said = self.spoken.evaluate(np.ones((1, len(self.words)), bool))[0]
        if not said.text.strip():
            raise UsageError(f"the model {model.name} answered nothing, so that there is nothing to explain")
        self.inputs: ModelInputs = model.prepare(self.clip, self.prompt, response=said.text)
        self._note_facts(said.text)

    def base(self) -> None:
        """What every item gets."""
        notes = self.notes
        words, hidden = self._of_words("silence"), self._of_words("attention")
        self._note(words)
        self._note(hidden)
        with notes.attempt(TRUE):
            self._note_moved(words, self._explained(TRUE, self._cut(TRUE, 0), "silence"))
        compared = [self._compared(name) for name in RESPONSE_VALUES]
        for found in compared:
            self._note(found)
            notes.add("values", "worth anything", np.ptp(found.values_p) > 0, players=WORDS, value=found.name)
            note_change(notes, words.values_p, found.values_p, players=WORDS, setting=f"value {found.name}")
        judges = {hidden.name: hidden.game, compared[0].name: compared[0].game}
        if words.is_exact:
            judges |= {words.name: words.game}
        for judged_by, judge in judges.items():
            for found in (words, *compared):
                if judged_by != found.name or found is words:
                    note_faithfulness(notes, found, judge, judged_by, self.settings.draws, self.draw)

    def closely(self) -> None:
        """What the share of items gets that the study looks at closely."""
        notes = self.notes
        words = self._of_words("silence")
        for name in (RANDOM, UNIFORM, AUTHORS, CTC):
            with notes.attempt(name):
                found = self._explained(name, self._cut(name, len(self.words)), "silence")
                if name in (RANDOM, UNIFORM):
                    self._note(found)
                else:
                    self._note_moved(words, found)
        with notes.attempt(NATIVE):
            positions = native_players(self.model, self.inputs)
            # The one estimator that needs no program for each number of players.
            self._note(self._explained(NATIVE, positions, "attention", estimator="permutation"))
        for absence in ABSENCES[1:]:
            with notes.attempt(f"absence {absence}"):
                found = self._of_words(absence)
                note_change(notes, words.values_p, found.values_p, players=WORDS, setting=f"absence {absence}")
                note_evidence(notes, found, self.item, "close")
        note_evidence(notes, words, self.item, "close")
        for jitter_ms in JITTERS_MS:
            for number in range(_JITTER_DRAWS):
                moved = jittered(self.words, jitter_ms / 1000, np.random.default_rng([self.draw, jitter_ms, number]))
                found = self._explained(WORDS, moved, "silence")
                note_change(
                    notes, words.values_p, found.values_p, players=WORDS, setting=f"jitter {jitter_ms} {number}"
                )
                note_evidence(notes, found, self.item, f"jitter {jitter_ms} {number}")
        with notes.attempt("α and δ"):
            self._note_stage3()
        if words.is_exact:
            self._note_seeds(words)
        for preset in PRESETS:
            with notes.attempt(f"preset {preset}"):
                self._note(self._by_preset(preset))

    def cost(self) -> None:
        """What the paper's estimator costs for words and for native tokens."""
        with self.notes.attempt("cost"):
            positions = native_players(self.model, self.inputs)
            note_cost(self.notes, {WORDS: self._hidden(self.words), NATIVE: self._hidden(positions)}, self.draw)

    def _hidden(self, players: Players) -> Callable[[], Game]:
        return lambda: speech_game(self.model, self.inputs, players, absence="attention")

    def _note_facts(self, answer: str) -> None:
        item = self.item
        right = None if item.response is None else answer.strip().lower() == item.response.strip().lower()
        self.notes.facts |= {
            "answer": answer,
            "right": right,
            "n_players": len(self.words),
            "n_evidence": len(item.evidence),
            "duration_s": round(self.clip.duration_s, 4),
            "looked at closely": self.settings.looks_closely(item.id),
        }

    def _note(self, explained: Explained) -> None:
        notes = self.notes
        notes.attributions.append(explained.told())
        note_concentration(notes, explained)
        note_profile(notes, explained, self.clip.duration_s)
        note_evidence(notes, explained, self.item)

    def _note_moved(self, words: Explained, moved: Explained) -> None:
        """Note the same players with other edges, and what the edges alone change."""
        self._note(moved)
        if [player.kind for player in words.players] == [player.kind for player in moved.players]:
            note_change(self.notes, words.values_p, moved.values_p, players=WORDS, setting=f"edges {moved.cut}")

    def _note_stage3(self) -> None:
        """Note what the parameters of the paper's stage 3 change, beginning with the authors' choice."""
        usual = None
        for alpha, margin_s in STAGE_3:
            placed = paper_alignment(self.heard.ctc, self.clip, alpha=alpha, margin_s=margin_s)
            players = spoken_players(placed, self.clip)
            if usual is None:
                usual = self._explained(WORDS, players, "silence")
                continue
            moved_s = np.abs(np.subtract(spans_of(players), spans_of(usual.players)))
            # Edges that did not move need no other game.
            found = self._explained(WORDS, players, "silence") if moved_s.any() else usual
            setting = f"α {alpha:g}" if margin_s == MARGIN_S else f"δ {1000 * margin_s:g} ms"
            note_change(self.notes, usual.values_p, found.values_p, players=WORDS, setting=setting)
            moved_ms = 1000 * moved_s.mean()
            self.notes.add("sensitivity", "edges moved, ms", moved_ms, players=WORDS, setting=setting)

    def _note_seeds(self, words: Explained) -> None:
        """Estimates of the same game from the paper's budget, by other draws: the table answers for all of them."""
        n_players = len(words.players)
        runs = [
            estimate(words.game, "neyman", budget=paper_budget(n_players), key=jax.random.key(self.draw + number))
            for number in range(self.settings.seeds)
        ]
        values_rp = np.stack([run.values_pk[:, 0] for run in runs])
        together = agreement(values_rp)
        self.notes.add("stability", "Spearman's ρ of seeds", np.nanmean(together.pairs("spearman")))
        self.notes.add("stability", "top 3 of seeds", together.pairs("overlap").mean())
        first_r = values_rp.argmax(axis=1)
        self.notes.add("stability", "first player as exact", (first_r == words.values_p.argmax()).mean())
        error = np.abs(values_rp - words.values_p[None]).mean() / np.abs(words.values_p).mean()
        self.notes.add("stability", "relative error", error)

    def _of_words(self, absence: str) -> Explained:
        """The words' game of an absence, evaluated once."""
        if absence not in self._games:
            self._games[absence] = self._explained(WORDS, self.words, absence)
        return self._games[absence]

    def _explained(self, name: str, players: Players, absence: str, *, estimator: str = "auto") -> Explained:
        game = speech_game(self.model, self.inputs, players, absence=absence)
        is_cheap = name == WORDS and absence == "attention"
        return explain_game(
            game, players, cut=name, value="logprob", absence=absence, estimator=estimator,
            budget=self.settings.hidden_budget if is_cheap else self.settings.budget, seed=self.draw,
        )  # fmt: skip

    def _by_preset(self, preset: str) -> Explained:
        """Explain the words as `sgpa explain --preset` does."""
        asked = Asked(preset=preset, **with_preset(preset, {}))
        cut, placed = (AUTHORS, self.heard.authors) if asked.rules == "authors" else (WORDS, self.heard.sgpa)
        question = Question(self.clip, self.prompt, alignment=placed)
        one = prepared(self.model, question, self.asked, placed, asked)
        game = game_of(self.model, one, Answer(self.asked, "", None), asked)
        return explain_game(
            game, one.players, cut=cut, value=f"preset {preset}", absence=asked.absence, estimator=one.estimator,
            budget=one.budget, seed=self.draw,
        )  # fmt: skip

    def _compared(self, value: str) -> Explained:
        """Explain what the model says, compared in one of several ways: answers are generated for the first."""
        game = self.spoken
        if value != "response_embedding":
            game = self._response_game(self.words, value, "silence")
            game.remember(*self.spoken.known())
        return explain_game(
            game, self.words, cut=WORDS, value=value, absence="silence", budget=self.settings.response_budget,
            seed=self.draw,
        )  # fmt: skip

    def _response_game(self, players: Players, score: str, absence: str) -> Game:
        return response_game(
            self.model, self.asked, players, score=score, absence=absence, max_new_tokens=self.settings.max_new_tokens
        )

    def _cut(self, name: str, n_players: int) -> Players:
        return cut(self.heard, name, n_players=n_players, rng=np.random.default_rng(self.draw))
