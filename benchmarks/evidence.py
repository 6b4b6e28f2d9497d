"""How often does the word that must decide the answer rank first?

Commands of the *pocket* model's world are synthesised with voices and slot combinations that it never heard, asked a
question whose evidence is known, and explained. Methods: `exact_true` and `loo_true` (exact Shapley values and
leave-one-out over the synthesiser's own word spans), `exact_sgpa` (exact Shapley values over the words that SGPA
aligned and the sounds that it found). A binding question ("the lamp is red and the fan is green; colour of the fan?")
needs two words, whose values tie: a hit there is both on top. Rates are given over all utterances, explaining
whatever the model answers, and over correctly answered ones.
"""

from collections import defaultdict
from dataclasses import dataclass, field

import jax
import numpy as np
from _harness import parser, report
from train import world
from train.commands import Example, make_examples
from train.sentences import Sentences
from train.speech import HELD_OUT_VOICES, RATE_HZ

from sgpa_jax.align import align
from sgpa_jax.audio import Clip
from sgpa_jax.errors import SgpaError
from sgpa_jax.estimators import estimate
from sgpa_jax.explain import evidence_hit
from sgpa_jax.games import speech_game
from sgpa_jax.models import Model, load_aligner, load_model
from sgpa_jax.players import Player, Players, word_players

METHODS = ("exact_true", "exact_sgpa", "loo_true")
CATEGORIES = ("plain", "negation", "correction", "binding", "sound")
LARGEST_GAME = 2**12


@dataclass
class Tally:
    """Hits of one method in one category."""

    hits: list[bool] = field(default_factory=list)
    right: list[bool] = field(default_factory=list)

    def row(self, method: str, category: str) -> dict[str, object]:
        """One line of the table."""
        hits, right = np.array(self.hits), np.array(self.right)
        return {
            "method": method,
            "category": category,
            "n": len(hits),
            "answer_accuracy": float(right.mean()),
            "hit_rate": float(hits.mean()),
            "n_correct": int(right.sum()),
            "hit_rate_correct": float(hits[right].mean()) if right.any() else float("nan"),
        }


def main() -> None:
    """Draw utterances until every category has `--n`, explain each, print the table."""
    options = parser(__doc__)
    options.add_argument("--n", type=int, default=100, help="utterances a category")
    options.add_argument("--categories", nargs="+", default=CATEGORIES, choices=CATEGORIES, help="(default: all)")
    options.add_argument("--model", default="pocket", help="a shipped name or a folder")
    arguments = options.parse_args()
    wanted = min(arguments.n, 4) if arguments.quick else arguments.n
    model, aligner = load_model(arguments.model), load_aligner("pocket")
    sentences = Sentences(aligner.lexicon or {})
    tallies: dict[tuple[str, str], Tally] = defaultdict(Tally)
    failed, number = 0, 0
    done = dict.fromkeys(arguments.categories, 0)
    while any(number_done < wanted for number_done in done.values()):
        for example in make_examples(number, split="test", seed=100_000 + arguments.seed, sentences=sentences):
            drawn = _question(example, np.random.default_rng([arguments.seed, number]), done, wanted)
            if drawn is None:
                continue
            category, question, answer = drawn
            clip = Clip(example.utterance.wave_s, RATE_HZ)
            given = model.generate(model.prepare(clip, question.text), max_new_tokens=6).text
            right = given == " ".join(answer)
            try:
                alignment = align(clip, " ".join(word.label for word in example.utterance.words), model=aligner)
                sgpa_players = word_players(alignment, clip)
            except SgpaError:
                failed += 1
                sgpa_players = None
            spoken = true_players(example, clip)
            if len(spoken) > 12 or (sgpa_players is not None and 2 ** len(sgpa_players) > LARGEST_GAME):
                continue
            done[category] += 1
            for method in METHODS:
                players = sgpa_players if method == "exact_sgpa" else spoken
                hit = players is not None and _hit(model, clip, players, example, question, given, method)
                for group in (category, "all"):
                    tallies[method, group].hits.append(hit)
                    tallies[method, group].right.append(right)
        number += 1
    rows = [tallies[method, group].row(method, group) for method in METHODS for group in (*done, "all")]
    report(
        "evidence", rows, arguments, notes={"alignments_failed": failed, "model": model.name, "digest": model.digest}
    )


def _question(
    example: Example, rng: np.random.Generator, done: dict[str, int], wanted: int
) -> tuple[str, world.Question, tuple[str, ...]] | None:
    """Draw a question of a category that still wants utterances."""
    if example.command is None or example.voice is None:
        return None
    if (example.voice.engine, example.voice.name) not in {(voice.engine, voice.name) for voice in HELD_OUT_VOICES}:
        return None
    category = "sound" if example.command.sound else example.command.category
    fitting = [
        (question, answer)
        for question, answer in zip(example.questions, example.answers, strict=True)
        if question.category == category and question.evidence
    ]
    if done.get(category, wanted) >= wanted or not fitting:
        return None
    return category, *fitting[rng.integers(len(fitting))]


def true_players(example: Example, clip: Clip) -> Players:
    """Words and sounds at the times at which the synthesiser made them."""
    words = [Player(word.label, "word", word.start_s, word.end_s) for word in example.utterance.words]
    sounds = [Player("sound", "sound", sound.start_s, sound.end_s) for sound in example.utterance.sounds]
    ordered = sorted(words + sounds, key=lambda player: player.span_s)
    return Players(tuple(ordered), len(clip.wave_s), clip.rate_hz)


def _hit(
    model: Model, clip: Clip, players: Players, example: Example, question: world.Question, given: str, method: str
) -> bool:
    """Whether the evidence, and nothing else, has the largest values."""
    needed = {i for words in question.evidence for i in words}
    words = [p for p, player in enumerate(players) if player.kind == "word"]
    evidence = {words[i] for i in needed if i != world.SOUND_EVIDENCE}
    if world.SOUND_EVIDENCE in needed:
        found = _sound_player(players, example)
        if found is None:
            return False
        evidence.add(found)
    inputs = model.prepare(clip, question.text, response=given or world.UNKNOWN)
    game = speech_game(model, inputs, players)
    if method == "loo_true":
        masks = np.concatenate([np.ones((1, len(players)), bool), ~np.eye(len(players), dtype=bool)])
        outcome = game.values(masks)[:, 0]
        values = outcome[0] - outcome[1:]
    else:
        values = estimate(game, "exact", budget=2 ** len(players), key=jax.random.key(0)).values_pk[:, 0]
    return evidence_hit(values, evidence)


def _sound_player(players: Players, example: Example) -> int | None:
    """The sound player that overlaps the true sound most."""
    true = example.utterance.sounds[0]
    overlaps = [
        (min(player.span_s[1], true.end_s) - max(player.span_s[0], true.start_s), p)
        for p, player in enumerate(players)
        if player.kind == "sound"
    ]
    overlap, best = max(overlaps, default=(0.0, -1))
    return best if overlap > 0 else None


if __name__ == "__main__":
    main()
