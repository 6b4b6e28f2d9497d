"""From the captions of a concept's clips to its name.

AR&D (arXiv 2602.22253) captions the most representative clips with an audio language model and has a language model
say what the captions share. Here both are protocols; a namer also sees captions of the least representative clips, and
may abstain. Captions may as well be known: then they are a mapping from clips to texts, and no captioner is asked.
"""

import collections
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy import stats

from sgpa_jax.audio import Clip, read_clip
from sgpa_jax.concepts.bank import ConceptBank
from sgpa_jax.concepts.embedders import AudioEmbedder
from sgpa_jax.concepts.words import ngrams
from sgpa_jax.errors import UsageError


@dataclass(frozen=True)
class ConceptName:
    """What a namer says: a name, or None if it abstains, and how sure it is, from 0 to 1."""

    name: str | None
    confidence: float


class Captioner(Protocol):
    """Says in words what is heard."""

    @property
    def name(self) -> str:
        """What it is, for the record."""
        ...

    def caption(self, clip: Clip) -> str:
        """One caption of one clip."""
        ...


class Namer(Protocol):
    """Says what captions share."""

    @property
    def name(self) -> str:
        """What it is, for the record."""
        ...

    def name_concept(self, captions: Sequence[str], others: Sequence[str] = ()) -> ConceptName:
        """A short name of what is in the captions of a concept's clips, and not in those of the others."""
        ...


class ZeroShotCaptioner:
    """An embedder's word for a clip: those of a vocabulary that lie nearest to its sound."""

    def __init__(self, embedder: AudioEmbedder, vocabulary: Sequence[str], *, n_words: int = 3):
        """Take the `n_words` nearest of the vocabulary, nearest first."""
        if not 1 <= n_words <= len(vocabulary):
            raise UsageError(f"a vocabulary of {len(vocabulary)} gives no {n_words} words; give more of them")
        self.name = f"zero-shot, {len(vocabulary)} words, {embedder.name}"
        self._embedder, self._vocabulary, self._n_words = embedder, tuple(vocabulary), n_words
        self._text_ne = embedder.embed_text(self._vocabulary)

    def caption(self, clip: Clip) -> str:
        """The nearest words with commas between them."""
        cosine_n = self._text_ne @ self._embedder.embed_audio([clip])[0]
        return ", ".join(self._vocabulary[n] for n in np.argsort(-cosine_n, kind="stable")[: self._n_words])


class ConsensusNamer:
    """The words that a concept's captions have more often than chance allows, with the corpus's captions as chance.

    Every run of one to three words is held against a draw without replacement from the corpus (hypergeometric tail,
    Bonferroni over the candidates); the least likely wins, the longest of those that are in the same captions. It
    abstains where even that is likelier than `level`. No language model, nothing drawn.
    """

    def __init__(self, corpus: Sequence[str], *, level: float = 0.05):
        """Count the words of the corpus's captions, one for each clip, the concepts' own among them."""
        if not corpus:
            raise UsageError("a consensus is held against the corpus's captions, but there are none; give them")
        self.name, self._level, self._n = f"consensus, {len(corpus)} captions", level, len(corpus)
        self._often = collections.Counter(word for caption in corpus for word in set(ngrams(caption)))

    def name_concept(self, captions: Sequence[str], others: Sequence[str] = ()) -> ConceptName:
        """The words that are over-represented most; confidence is 1 minus their corrected chance."""
        here, there = (
            collections.Counter(w for text in texts for w in set(ngrams(text))) for texts in (captions, others)
        )
        candidates = [word for word, n in here.items() if n * max(len(others), 1) > there[word] * len(captions)]
        if not candidates:
            return ConceptName(None, 0.0)

        def chance(word: str) -> float:
            often = max(self._often[word], here[word])
            return float(stats.hypergeom.logsf(here[word] - 1, max(self._n, often), often, len(captions)))

        # Among words of the same captions the longer run says more; then by the alphabet, so that nothing is drawn.
        winner = min(candidates, key=lambda word: (round(chance(word), 9), -len(word.split()), word))
        corrected = min(1.0, math.exp(min(0.0, chance(winner) + math.log(len(candidates)))))
        return ConceptName(winner if corrected <= self._level else None, 1 - corrected)


def caption_clips(captioner: Captioner, bank: ConceptBank, *, known: Mapping[str, str] | None = None) -> dict[str, str]:
    """Captions of all clips of a bank's concepts by their ids, every clip heard once; known ones are kept.

    Raises:
        UsageError: a clip has no file.
    """
    captions = dict(known or {})
    for concept in bank.concepts:
        for clip in (*concept.top, *concept.bottom):
            if clip.id in captions:
                continue
            if clip.path is None:
                raise UsageError(f"the clip {clip.id} has no file to be heard from; rank clips with their recordings")
            captions[clip.id] = captioner.caption(read_clip(clip.path))
    return captions


def name_concepts(bank: ConceptBank, namer: Namer, captions: Mapping[str, str]) -> ConceptBank:
    """The bank with names, from the captions of each concept's clips by their ids.

    Raises:
        UsageError: a clip has no caption.
    """
    names, texts = [], []
    for concept in bank.concepts:
        missing = [clip.id for clip in (*concept.top, *concept.bottom) if clip.id not in captions]
        if missing:
            raise UsageError(f"the clip {missing[0]} has no caption; caption all clips of the concepts")
        texts.append(tuple(captions[clip.id] for clip in concept.top))
        names.append(namer.name_concept(texts[-1], [captions[clip.id] for clip in concept.bottom]))
    named = bank.with_columns(
        name=[name.name for name in names], confidence=[name.confidence for name in names], captions=texts
    )
    n_named = sum(name.name is not None for name in names)
    return named.with_facts(namer=namer.name, named_frac=n_named / max(len(names), 1))
