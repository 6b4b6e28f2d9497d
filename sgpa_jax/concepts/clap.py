"""CLAP (LAION; arXiv 2211.06687) as an embedder, through transformers and torch, which must be installed for it.

Axes: `N` clips or texts, `E` width of the embedding.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from sgpa_jax.audio import Clip
from sgpa_jax.concepts.embedders import unit_rows
from sgpa_jax.concepts.hugging_face import loaded

_SHORTEST_WINDOW_S = 1.0


@dataclass(frozen=True, eq=False)
class ClapEmbedder:
    """CLAP through transformers; nothing in it is drawn.

    A clip longer than the model's window is the mean of its windows' embeddings, where upstream crops at random; a
    shorter one is repeated, as upstream does. Text longer than the model reads is cut.
    """

    name: str
    _model: Any = field(repr=False)
    _processor: Any = field(repr=False)

    @classmethod
    def load(cls, name_or_folder: str | Path = "laion/clap-htsat-unfused") -> "ClapEmbedder":
        """Load a folder or a hub id, `organisation/name` or `organisation/name@revision`, with safetensors weights.

        Raises:
            CheckpointError: torch is not installed, or there is no such complete checkpoint.
        """
        return cls(*loaded(name_or_folder, "ClapModel", "ClapProcessor"))

    def embed_audio(self, clips: Sequence[Clip]) -> Float[np.ndarray, "N E"]:
        """Unit vectors of clips.

        Raises:
            AudioError: a clip cannot be resampled.
        """
        extractor = self._processor.feature_extractor
        windows, owner_w = [], []
        for n, clip in enumerate(clips):
            wave_s = clip.at_rate(extractor.sampling_rate).wave_s
            cuts = _windows(len(wave_s), extractor.nb_max_samples, int(_SHORTEST_WINDOW_S * extractor.sampling_rate))
            windows += [wave_s[first:last] for first, last in cuts]
            owner_w += [n] * len(cuts)
        features = extractor(windows, sampling_rate=extractor.sampling_rate, return_tensors="pt")["input_features"]
        # Upstream marks a clip as long at random where none is; none is here.
        longer = features.new_zeros((len(windows), 1)).bool()
        out = self._model.get_audio_features(input_features=features, is_longer=longer)
        sum_ne = np.zeros((len(clips), out.pooler_output.shape[-1]), np.float32)
        np.add.at(sum_ne, owner_w, out.pooler_output.float().numpy())
        return unit_rows(sum_ne)

    def embed_text(self, texts: Sequence[str]) -> Float[np.ndarray, "N E"]:
        """Unit vectors of texts."""
        tokens = self._processor.tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
        out = self._model.get_text_features(tokens["input_ids"], attention_mask=tokens["attention_mask"])
        return unit_rows(out.pooler_output.float().numpy())


def _windows(n_samples: int, most: int, least: int) -> list[tuple[int, int]]:
    """Equal windows of at most `most` samples; a rest shorter than `least` is left out."""
    cuts = [(first, min(first + most, n_samples)) for first in range(0, n_samples, most)]
    return [cut for n, cut in enumerate(cuts) if n == 0 or cut[1] - cut[0] >= least]
