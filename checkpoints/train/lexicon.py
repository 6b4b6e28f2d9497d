"""Make the aligner's lexicon from the CMU Pronouncing Dictionary: `python checkpoints/train/lexicon.py DICT OUT.gz`.

DICT is `cmudict-en-us.dict` of the pocketsphinx wheel (BSD; the licence ships beside the lexicon). Words are lower-case
letters and apostrophes, phones lower-case without stress, alternatives keep the dictionary's order.
"""

import gzip
import re
import sys
from pathlib import Path

from sgpa_jax.files import atomic_write


def lexicon_bytes(dictionary: str) -> bytes:
    """Return the gzipped lexicon, lines `word<TAB>p h o n e s|o th er`, for the dictionary's text."""
    spoken: dict[str, dict[str, None]] = {}
    for line in dictionary.splitlines():
        name, phones = line.split(maxsplit=1)
        word = re.sub(r"\(\d+\)$", "", name).lower()
        if re.fullmatch(r"[a-z']+", word):
            spoken.setdefault(word, {})[re.sub(r"\d", "", phones).lower()] = None
    lines = (f"{word}\t{'|'.join(alternatives)}\n" for word, alternatives in sorted(spoken.items()))
    return gzip.compress("".join(lines).encode(), 9, mtime=0)


if __name__ == "__main__":
    atomic_write(sys.argv[2], lexicon_bytes(Path(sys.argv[1]).read_text("utf-8")))
