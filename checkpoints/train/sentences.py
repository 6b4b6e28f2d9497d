"""Open-vocabulary English sentences for the aligner to learn from: training data only, never shipped.

Two Debian packages give natural English: `fortunes` (quotations, jokes, definitions) and `bible-kjv` (the King James
Bible, public domain). They are cut at punctuation into runs of 4 to 12 words that the pronouncing dictionary knows. A
third of the sentences are instead strings of dictionary words, drawn by a flattened frequency, so that the vocabulary
is wide and no word can be guessed from its neighbours.
"""

import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

FORTUNES = Path("/usr/share/games/fortunes")
MIN_WORDS, MAX_WORDS = 4, 12
# fortune files that are hardly English prose
_SKIPPED = {"art", "ascii-art", "debian", "perl", "translate-me", "songs-poems", "knghtbrd"}
_WORD = re.compile(r"[a-z]+(?:'[a-z]+)?$")


class Sentences:
    """An endless, seeded source of lower-case sentences whose words are all in `lexicon`."""

    def __init__(self, lexicon: Mapping[str, object]) -> None:
        """Read the sources; raises FileNotFoundError naming the Debian package that is missing."""
        self.sources = [_runs(_fortunes(), lexicon), _runs(_bible(), lexicon)]
        counts = Counter(word for source in self.sources for run in source for word in run)
        self.words = sorted(word for word in lexicon if _WORD.match(word) and (len(word) > 1 or word in "ai"))
        # Square roots flatten Zipf's law; the constant lets words that no text holds occur.
        weights = np.array([0.1 + np.sqrt(counts[word]) for word in self.words])
        self.cumulative = np.cumsum(weights / weights.sum())

    def draw(self, rng: np.random.Generator) -> str:
        """Return one sentence: 40 % fortunes, 27 % bible, 33 % unrelated words."""
        kind = rng.choice(3, p=(0.4, 0.27, 0.33))
        if kind < 2:
            source = self.sources[kind]
            return " ".join(source[rng.integers(len(source))])
        positions = np.searchsorted(self.cumulative, rng.random(int(rng.integers(MIN_WORDS, MAX_WORDS - 1))))
        return " ".join(self.words[min(position, len(self.words) - 1)] for position in positions)


def _fortunes() -> str:
    if not FORTUNES.is_dir():
        raise FileNotFoundError(f"no {FORTUNES}: install the Debian package `fortunes`")
    files = sorted(path for path in FORTUNES.iterdir() if not path.suffix and path.name not in _SKIPPED)
    return "\n".join(path.read_text("utf-8", errors="replace").replace("\n%\n", ".\n") for path in files)


def _bible() -> str:
    program = shutil.which("bible")
    if program is None:
        raise FileNotFoundError("no program `bible`: install the Debian packages `bible-kjv` and `bible-kjv-text`")
    shown = subprocess.run([program, "gen1:1-rev22:21"], capture_output=True, text=True, check=True)
    return shown.stdout


def _runs(text: str, lexicon: Mapping[str, object]) -> list[tuple[str, ...]]:
    """Cut at punctuation; cut long clauses into pieces; keep the distinct ones that hold known words only."""
    kept: dict[tuple[str, ...], None] = {}
    for clause in re.split(r"[^\w\s'-]+|--+|\n\s*\n|\d+", text.lower()):
        words = tuple(word.strip("'") for word in re.split(r"[\s-]+", clause) if word.strip("'"))
        for piece in _pieces(words):
            if all(word in lexicon and _WORD.match(word) for word in piece):
                kept[piece] = None
    return list(kept)


def _pieces(words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    n_pieces = -(-len(words) // MAX_WORDS)
    for bounds in np.array_split(np.arange(len(words)), n_pieces) if n_pieces else ():
        if len(bounds) >= MIN_WORDS:
            yield words[bounds[0] : bounds[-1] + 1]
