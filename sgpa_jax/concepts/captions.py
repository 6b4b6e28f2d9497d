"""An embedder that is fitted to captioned clips in closed form, and needs nothing else.

Two linear towers, from a description of the spectrum and from the words of a caption, that regularised canonical
correlation analysis finds (Hotelling 1936; the ridge is Vinod's, 1976). Axes: `N` clips or texts, `E` width of the
embedding, `A` features of sounds, `W` words.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float

from sgpa_jax.audio import Clip
from sgpa_jax.concepts.embedders import unit_rows
from sgpa_jax.concepts.spectrum import spectral_statistics
from sgpa_jax.concepts.words import ngrams
from sgpa_jax.errors import UsageError
from sgpa_jax.files import atomic_write

EMBEDDER = "embedder.safetensors"
_SCHEMA = "sgpa-jax/embedder/1"
_ARRAYS = ("audio_mean_a", "audio_ae", "text_mean_w", "text_we")


@dataclass(frozen=True, eq=False)
class CaptionEmbedder:
    """Two linear towers into one space, found from captioned clips.

    Attributes:
        name: what it is, for the record.
        words: the word n-grams that it knows.
        audio_mean_a, audio_ae: of the tower for sounds: what is taken off the features, and the map.
        text_mean_w, text_we: of the tower for texts.
        features: what describes a clip's sound.
    """

    name: str
    words: tuple[str, ...] = field(repr=False)
    audio_mean_a: Float[np.ndarray, " A"] = field(repr=False)
    audio_ae: Float[np.ndarray, "A E"] = field(repr=False)
    text_mean_w: Float[np.ndarray, " W"] = field(repr=False)
    text_we: Float[np.ndarray, "W E"] = field(repr=False)
    features: Callable[[Clip], Float[np.ndarray, " A"]] = field(default=spectral_statistics, repr=False)

    @classmethod
    def fit(
        cls,
        clips: Iterable[Clip],
        captions: Sequence[str],
        *,
        width: int = 64,
        ridge: float = 0.3,
        least_often: int = 3,
        features: Callable[[Clip], Float[np.ndarray, " A"]] = spectral_statistics,
    ) -> "CaptionEmbedder":
        """Find the towers.

        Args:
            clips: one at a time is in memory.
            captions: of each.
            width: dimensions of the space, at most.
            ridge: added to both covariances, as a share of their mean variance (features are standardised).
            least_often: n-grams in fewer captions are left out.
            features: what describes a clip's sound; an embedder that is to be saved keeps to the default.

        Raises:
            UsageError: clips and captions are not equally many, or no n-gram is in so many captions, but not in all.
        """
        audio_na = np.array([features(clip) for clip in clips], np.float64)
        if len(audio_na) != len(captions):
            raise UsageError(f"{len(audio_na)} clips and {len(captions)} captions: give one caption for each clip")
        bags = [set(ngrams(caption)) for caption in captions]
        often = Counter(word for bag in bags for word in bag)
        words = tuple(sorted(word for word, n in often.items() if least_often <= n < len(captions)))
        if not words:
            raise UsageError(
                f"no word is in {least_often} of {len(captions)} captions or more but not in all; give more of them"
            )
        text_nw = np.array([[word in bag for word in words] for bag in bags], np.float64)
        (audio_mean_a, audio_scale_a, audio_na), (text_mean_w, text_scale_w, text_nw) = map(
            _standardised, (audio_na, text_nw)
        )
        audio_aa, text_ww = (_inverse_root(part, ridge) for part in (audio_na, text_nw))
        agreement_aw = audio_aa @ (audio_na.T @ text_nw / len(audio_na)) @ text_ww
        left, strength, right = np.linalg.svd(agreement_aw, full_matrices=False)
        kept = slice(min(width, len(strength)))
        # Directions count by how well the two towers agree along them.
        weight_e = np.sqrt(strength[kept])
        audio_ae = (audio_aa @ left[:, kept]) * weight_e / audio_scale_a[:, None]
        text_we = (text_ww @ right[kept].T) * weight_e / text_scale_w[:, None]
        return cls(f"captions of {len(captions)} clips", words, audio_mean_a, audio_ae, text_mean_w, text_we, features)

    def embed_audio(self, clips: Sequence[Clip]) -> Float[np.ndarray, "N E"]:
        """Unit vectors of clips."""
        audio_na = np.array([self.features(clip) for clip in clips], np.float64)
        return unit_rows((audio_na - self.audio_mean_a) @ self.audio_ae)

    def embed_text(self, texts: Sequence[str]) -> Float[np.ndarray, "N E"]:
        """Unit vectors of texts; zeros for those without a word that it knows."""
        place = {word: n for n, word in enumerate(self.words)}
        text_nw = np.zeros((len(texts), len(self.words)))
        for n, text in enumerate(texts):
            text_nw[n, [place[word] for word in set(ngrams(text)) if word in place]] = 1
        known_n1 = text_nw.any(axis=1, keepdims=True)
        return unit_rows(np.where(known_n1, (text_nw - self.text_mean_w) @ self.text_we, 0.0))

    def save(self, folder: str | Path) -> None:
        """Write the embedder to a folder.

        Raises:
            UsageError: it describes sounds in a way of its own, or the folder cannot be written to.
        """
        from safetensors.numpy import save

        if self.features is not spectral_statistics:
            raise UsageError("only an embedder on spectral_statistics can be saved; keep the others in memory")
        arrays = {name: np.ascontiguousarray(getattr(self, name)) for name in _ARRAYS}
        told = {"schema": _SCHEMA, "name": self.name, "words": json.dumps(self.words)}
        atomic_write(Path(folder) / EMBEDDER, save(arrays, metadata=told))

    @classmethod
    def load(cls, folder: str | Path) -> "CaptionEmbedder":
        """Read an embedder from a folder.

        Raises:
            UsageError: there is none, or a damaged one.
        """
        from safetensors import SafetensorError, safe_open

        path = Path(folder) / EMBEDDER
        if not path.is_file():
            raise UsageError(f"{folder} holds no {EMBEDDER}; fit an embedder to captioned clips and save it there")
        try:
            with safe_open(path, framework="numpy") as file:
                told = file.metadata()
                if told["schema"] != _SCHEMA:
                    raise UsageError(f"{path} is of schema {told['schema']!r}, but this version reads {_SCHEMA}")
                arrays = {name: file.get_tensor(name) for name in _ARRAYS}
            return cls(told["name"], tuple(json.loads(told["words"])), **arrays)
        except (OSError, SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise UsageError(f"{path} is damaged ({error}); fit the embedder again") from error


def _standardised(
    x_na: Float[np.ndarray, "N A"],
) -> tuple[Float[np.ndarray, " A"], Float[np.ndarray, " A"], Float[np.ndarray, "N A"]]:
    mean_a, scale_a = x_na.mean(axis=0), x_na.std(axis=0)
    scale_a = np.where(scale_a > 1e-9, scale_a, 1.0)
    return mean_a, scale_a, (x_na - mean_a) / scale_a


def _inverse_root(x_na: Float[np.ndarray, "N A"], ridge: float) -> Float[np.ndarray, "A A"]:
    """Inverse square root of the covariance with a ridge."""
    covariance_aa = x_na.T @ x_na / len(x_na)
    size_a, axes_aa = np.linalg.eigh(covariance_aa)
    size_a = np.maximum(size_a, 0) + ridge * max(float(np.trace(covariance_aa)) / len(covariance_aa), 1e-9)
    return (axes_aa / np.sqrt(size_a)) @ axes_aa.T
