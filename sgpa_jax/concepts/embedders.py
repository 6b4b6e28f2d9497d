"""Sounds and texts as unit vectors in one space: what judges whether clips, names and labels belong together.

`ClapEmbedder` (`clap.py`) is CLAP, `CaptionEmbedder` (`captions.py`) is fitted to captioned clips. Axes: `N` clips or
texts, `E` width of the embedding.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import Float

from sgpa_jax.audio import Clip, read_clip


class AudioEmbedder(Protocol):
    """Embeds sounds and texts so that the cosine says how well they go together."""

    @property
    def name(self) -> str:
        """What it is, for the record."""
        ...

    def embed_audio(self, clips: Sequence[Clip]) -> Float[np.ndarray, "N E"]:
        """Unit vectors of clips."""
        ...

    def embed_text(self, texts: Sequence[str]) -> Float[np.ndarray, "N E"]:
        """Unit vectors of texts; zeros for a text of which nothing is known."""
        ...


def embed_files(
    embedder: AudioEmbedder,
    paths: Iterable[Path],
    *,
    batch: int = 16,
    progress: Callable[[int, int], None] | None = None,
) -> Float[np.ndarray, "N E"]:
    """Embeddings of recordings, a batch in memory at a time; `progress` is told how many of how many are done.

    Raises:
        AudioError: a file cannot be read.
    """
    paths, found = list(paths), []
    for first in range(0, len(paths), batch):
        found.append(embedder.embed_audio([read_clip(path) for path in paths[first : first + batch]]))
        if progress is not None:
            progress(min(first + batch, len(paths)), len(paths))
    return np.concatenate(found)


def unit_rows(rows_ne: Float[np.ndarray, "N E"]) -> Float[np.ndarray, "N E"]:
    """Rows at norm one, float32; a row of zeros stays."""
    length_n1 = np.linalg.norm(rows_ne, axis=1, keepdims=True)
    return (rows_ne / np.maximum(length_n1, 1e-12)).astype(np.float32)
