"""What does bfloat16 do to Shapley values?

Commands of the *pocket* models' world, said by voices that they never heard, are explained in float32 and in bfloat16:
the same response, that of the float32 model, and the same players. Columns: the medians and the worst of the rank
correlation (Spearman) of the values, and of the largest difference of a value as a share of v(N) − v(∅); seconds of an
explanation in either.
"""

import statistics
import time

import jax
import numpy as np
from _harness import parser, report
from evidence import LARGEST_GAME, true_players
from scipy.stats import spearmanr
from train.commands import make_examples
from train.sentences import Sentences
from train.speech import HELD_OUT_VOICES, RATE_HZ

from sgpa_jax.audio import Clip
from sgpa_jax.estimators import estimate
from sgpa_jax.games import speech_game
from sgpa_jax.models import Model, load_aligner, load_model
from sgpa_jax.players import Players

MODELS = ("pocket", "pocket-lfm2")


def main() -> None:
    """Explain `--n` utterances with both models in both precisions."""
    options = parser(__doc__)
    options.add_argument("--n", type=int, default=100, help="utterances")
    options.add_argument("--absence", default="silence")
    arguments = options.parse_args()
    n = min(arguments.n, 3) if arguments.quick else arguments.n
    utterances = _utterances(n, arguments.seed)
    rows = []
    for name in MODELS:
        wide, narrow = (load_model(name, dtype=dtype) for dtype in ("float32", "bfloat16"))
        ranks, shares, seconds = [], [], {wide.dtype: [], narrow.dtype: []}
        for clip, players, question in utterances:
            response = wide.generate(wide.prepare(clip, question), max_new_tokens=6).text
            found = {}
            for model in (wide, narrow):
                began_s = time.process_time()
                found[model.dtype] = _values(model, clip, players, question, response, arguments.absence)
                seconds[model.dtype].append(time.process_time() - began_s)
            (exact_p, worth), (rounded_p, _) = found["float32"], found["bfloat16"]
            ranks.append(float(spearmanr(exact_p, rounded_p)[0]))  # pyright: ignore[reportArgumentType]
            shares.append(float(np.abs(exact_p - rounded_p).max() / abs(worth)))
        rows.append(
            {
                "case": f"{name}, {arguments.absence}",
                "n": len(utterances),
                "spearman_median": statistics.median(ranks),
                "spearman_mean": statistics.fmean(ranks),
                "spearman_worst": min(ranks),
                "largest_share_median": statistics.median(shares),
                "largest_share_95th": float(np.quantile(shares, 0.95)),
                "largest_share_worst": max(shares),
                "float32_cpu_s": statistics.median(seconds["float32"]),
                "bfloat16_cpu_s": statistics.median(seconds["bfloat16"]),
            }
        )
    report("precision", rows, arguments)


def _values(
    model: Model, clip: Clip, players: Players, question: str, response: str, absence: str
) -> tuple[np.ndarray, float]:
    """Exact values of the players for the whole response, and what there was to share out."""
    game = speech_game(model, model.prepare(clip, question, response=response), players, absence=absence)
    result = estimate(game, "exact", budget=2 ** len(players), key=jax.random.key(0))
    return result.values_pk[:, 0], float(result.full_value_k[0] - result.empty_value_k[0])


def _utterances(n: int, seed: int) -> list[tuple[Clip, Players, str]]:
    sentences = Sentences(load_aligner("pocket").lexicon or {})
    held_out = {(voice.engine, voice.name) for voice in HELD_OUT_VOICES}
    found: list[tuple[Clip, Players, str]] = []
    number = 0
    while len(found) < n:
        for example in make_examples(number, split="test", seed=200_000 + seed, sentences=sentences):
            voice = example.voice
            if example.command is None or voice is None or (voice.engine, voice.name) not in held_out:
                continue
            asked = [question for question in example.questions if question.evidence]
            clip = Clip(example.utterance.wave_s, RATE_HZ)
            players = true_players(example, clip)
            if asked and 2 ** len(players) <= LARGEST_GAME and len(found) < n:
                found.append((clip, players, asked[0].text))
        number += 1
    return found


if __name__ == "__main__":
    main()
