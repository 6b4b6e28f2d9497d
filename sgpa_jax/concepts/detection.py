"""Whether a name tells, of clips that it was not made from, those where its latent fires from those where it does not.

A judge who knows the name alone scores held-out clips; the detection score is the area under the curve, 1 if every
firing clip comes before every silent one, 0.5 by chance. Axes: `N` clips, `C` concepts.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import jax
import numpy as np
from jaxtyping import Bool, Float
from scipy import stats

from sgpa_jax.concepts.bank import ConceptBank
from sgpa_jax.concepts.clips import ClipScores
from sgpa_jax.concepts.embedders import AudioEmbedder
from sgpa_jax.concepts.words import tokens
from sgpa_jax.errors import UsageError
from sgpa_jax.typing import PRNGKeyArray

_FEWEST = 3

Judge = Callable[[str, Sequence[str]], Float[np.ndarray, " N"]]
"""Called with a name and the ids of clips, returns how well each goes with the name; any scale."""


class CaptionJudge(Protocol):
    """Scores captions by a name (`LanguageModel.judge`)."""

    def judge(self, name: str, captions: Sequence[str]) -> Float[np.ndarray, " N"]:
        """How well each caption goes with the name; any scale."""
        ...


def embedding_judge(embedder: AudioEmbedder, ids: Sequence[str], unit_ne: Float[np.ndarray, "N E"]) -> Judge:
    """Judge by the cosine of the name with the sound, whose embeddings are known."""
    place = {name: n for n, name in enumerate(ids)}

    def judge(name: str, clips: Sequence[str]) -> Float[np.ndarray, " N"]:
        return np.asarray(unit_ne)[[place[clip] for clip in clips]] @ embedder.embed_text([name])[0]

    return judge


def caption_judge(captions: Mapping[str, str], judge: CaptionJudge | None = None) -> Judge:
    """Judge by the clips' captions: as `judge` does, or by the share of the name's words that they have."""

    def told(name: str, clips: Sequence[str]) -> Float[np.ndarray, " N"]:
        texts = [captions[clip] for clip in clips]
        if judge is not None:
            return judge.judge(name, texts)
        words = set(tokens(name))
        return np.array([len(words & set(tokens(text))) / max(len(words), 1) for text in texts])

    return told


def detect(bank: ConceptBank, scores: ClipScores, judge: Judge, *, n_clips: int = 20, key: PRNGKeyArray) -> ConceptBank:
    """The bank with every name's detection score, on clips that are none of its concept's own.

    Args:
        bank: with names; a concept without one gets none.
        scores: of clips, of the bank's latents in the bank's order; better of other clips than those of the bank.
        judge: who scores clips by a name.
        n_clips: how many of a side to draw: firing ones by their score's rank, so that both strong and weak ones are
            among them, and silent ones at random. A concept with fewer than three on a side gets no score.
        key: for the draws.

    Raises:
        UsageError: the scores are of other latents.
    """
    if scores.latents != bank.latents:
        raise UsageError("the scores are of other latents than the bank's concepts; score those of `bank.latents`")
    score_nm, found = scores.score_nm, []
    for place, concept in enumerate(bank.concepts):
        own = {clip.id for clip in (*concept.top, *concept.bottom)}
        free_n = np.array([name not in own for name in scores.ids])
        fires_n = score_nm[:, place] > 0
        draw = np.random.default_rng(np.asarray(jax.random.key_data(jax.random.fold_in(key, concept.latent))))
        firing, silent = np.flatnonzero(free_n & fires_n), np.flatnonzero(free_n & ~fires_n)
        if concept.name is None or min(len(firing), len(silent)) < _FEWEST:
            found.append(None)
            continue
        firing = firing[np.argsort(-score_nm[firing, place], kind="stable")]
        firing = firing[np.linspace(0, len(firing) - 1, min(n_clips, len(firing))).round().astype(int)]
        silent = draw.choice(silent, min(n_clips, len(silent)), replace=False)
        chosen = np.concatenate([firing, silent])
        told_n = judge(concept.name, [scores.ids[n] for n in chosen])
        found.append(area_under_curve(told_n, np.arange(len(chosen)) < len(firing)))
    known = [value for value in found if value is not None]
    return bank.with_columns(detection=found).with_facts(
        detection=float(np.mean(known)) if known else None, n_detection=len(known)
    )


def area_under_curve(score_n: Float[np.ndarray, " N"], true_n: Bool[np.ndarray, " N"]) -> float:
    """Chance that a true one scores above a false one, ties counted half; not a number where either is missing."""
    n_true, n_false = int(true_n.sum()), int((~true_n).sum())
    if min(n_true, n_false) == 0:
        return float("nan")
    ranks_n = stats.rankdata(score_n)
    return float((ranks_n[true_n].sum() - n_true * (n_true + 1) / 2) / (n_true * n_false))
