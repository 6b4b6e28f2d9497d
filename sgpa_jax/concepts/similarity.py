"""How alike names are: those that were found and those that people gave, or those of disjoint clips of one concept.

Cosines of text embeddings (CLAP's in AR&D's table), and BERTScore's F1 (Zhang et al., arXiv 1904.09675), without
rescaling and without idf weights: tokens of either text are matched to the nearest of the other by cosine, of hidden
states after one layer of a text encoder. Axes: `N` pairs of texts, `T` tokens, `E` width.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from sgpa_jax.concepts.embedders import AudioEmbedder
from sgpa_jax.concepts.hugging_face import loaded


def name_similarity(embedder: AudioEmbedder, found: Sequence[str], given: Sequence[str]) -> Float[np.ndarray, " N"]:
    """Cosine of each pair of names."""
    return (embedder.embed_text(found) * embedder.embed_text(given)).sum(axis=1)


def name_consistency(embedder: AudioEmbedder, names: Sequence[str]) -> float:
    """Mean cosine of all pairs of names that one concept got from disjoint clips; not a number for fewer than two."""
    unit_ne = embedder.embed_text(names)
    upper = np.triu_indices(len(names), 1)
    return float((unit_ne @ unit_ne.T)[upper].mean()) if len(names) > 1 else float("nan")


class BertScore:
    """BERTScore by a text encoder of transformers, in torch."""

    def __init__(self, name: str, model: Any, tokenizer: Any, layer: int):
        """Compare hidden states after `layer` layers."""
        self.name, self._model, self._tokenizer, self._layer = f"{name}, layer {layer}", model, tokenizer, layer

    @classmethod
    def load(cls, name_or_folder: str | Path = "FacebookAI/roberta-large", *, layer: int = 17) -> "BertScore":
        """Load a folder or a hub id; the defaults are those of the published score for English.

        Raises:
            CheckpointError: torch is not installed, or there is no such complete checkpoint.
        """
        return cls(*loaded(name_or_folder, "AutoModel", "AutoTokenizer"), layer)

    def f1(self, found: Sequence[str], given: Sequence[str]) -> Float[np.ndarray, " N"]:
        """F1 of each pair of texts."""
        return np.array([self._pair(*pair) for pair in zip(found, given, strict=True)])

    def _pair(self, found: str, given: str) -> float:
        cosine_tt = self._states(found) @ self._states(given).T
        precision, recall = float(cosine_tt.max(axis=1).mean()), float(cosine_tt.max(axis=0).mean())
        return 2 * precision * recall / (precision + recall) if precision + recall else 0.0

    def _states(self, text: str) -> Float[np.ndarray, "T E"]:
        """Unit hidden states of a text's tokens, the marks at its ends among them, as upstream has it."""
        out = self._model(**self._tokenizer(text, return_tensors="pt"), output_hidden_states=True)
        states_te = out.hidden_states[self._layer][0].float().numpy()
        return states_te / np.linalg.norm(states_te, axis=1, keepdims=True)
