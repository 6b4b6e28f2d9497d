"""A wav2vec2 checkpoint as an acoustic model: its network, what it does to a waveform first, and its vocabulary.

Which languages it aligns is decided by the letters of its `vocab.json`. Upstream: transformers `Wav2Vec2CTCTokenizer`
and `Wav2Vec2FeatureExtractor` (5.23).
"""

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import sgpa_checkpoints
from flax import nnx
from jaxtyping import Array, Float, Int

from sgpa_jax.audio import SAMPLES_STEP_S, Clip, round_up
from sgpa_jax.errors import AudioError, CheckpointError
from sgpa_jax.models.config import only
from sgpa_jax.models.emissions import Emissions
from sgpa_jax.models.fill import fill, shape_rngs
from sgpa_jax.models.wav2vec2 import Wav2Vec2, Wav2Vec2Config, normalised

WORD_BREAK = "|"
"""What we call the label between words, whatever a vocabulary calls it."""


class Wav2Vec2Aligner:
    """The network on the device, as an acoustic model for `sgpa_jax.align`: characters, one distribution every 20 ms.

    A frame is taken to last one stride around the middle of what its convolutions hear (25 ms): frame 0 begins 2.5 ms
    into the clip.
    """

    lexicon = None
    transcribes = True

    def __init__(
        self,
        graphdef: nnx.GraphDef,
        state: nnx.State,
        config: Wav2Vec2Config,
        *,
        labels: tuple[str, ...],
        rate_hz: int,
        normalise: bool,
        dtype: str,
        name: str,
        digest: str,
    ) -> None:
        """Hold a network whose parameters are set; `normalise` brings every clip to mean 0 and deviation 1 first."""
        self.config = config
        self.labels = labels
        self.rate_hz = rate_hz
        self.normalise = normalise
        self.dtype = dtype
        self.name = name
        self.digest = digest
        self._graph, self._state = graphdef, state

    @classmethod
    def from_folder(cls, folder: Path, *, name: str, dtype: str = "float32") -> "Wav2Vec2Aligner":
        """Read `config.json`, the weights, `vocab.json`, `tokenizer_config.json` if there, and the preprocessor's file.

        Raises:
            CheckpointError: a file is missing or contradicts another, or a setting is not implemented.
            sgpa_checkpoints.FormatError: a file is damaged, or the tensors are not the configuration's.
        """
        fields = sgpa_checkpoints.read_json(folder / "config.json")
        config = Wav2Vec2Config.from_hf(fields)
        labels = _labels(folder, config)
        preprocessor = _preprocessor(folder)
        only(preprocessor, "preprocessor.feature_size", "feature_size", (1,), default=1)
        graphdef, state = fill(
            lambda: Wav2Vec2(config, rngs=shape_rngs()),
            folder,
            sgpa_checkpoints.WAV2VEC2,
            normalise=sgpa_checkpoints.normal_wav2vec2_name,
            dtype=dtype,
        )
        digest = sgpa_checkpoints.folder_digest(folder)
        return cls(
            graphdef,
            state,
            config,
            labels=labels,
            rate_hz=preprocessor.get("sampling_rate", 16000),
            normalise=preprocessor.get("do_normalize", True),
            dtype=dtype,
            name=name,
            digest=digest if dtype == "float32" else f"{digest}-{dtype}",
        )

    def emissions(self, clips: Sequence[Clip]) -> list[dict[str, Emissions]]:
        """Return, per clip, log-probabilities of the vocabulary under "character".

        Raises:
            AudioError: a clip is too short to make a frame.
        """
        return [{"character": self._emissions(clip.at_rate(self.rate_hz))} for clip in clips]

    def _emissions(self, clip: Clip) -> Emissions:
        n_samples, config = len(clip.wave_s), self.config
        if n_samples < config.field_samples:
            raise AudioError(
                f"the recording lasts {clip.duration_s * 1000:.1f} ms: the aligner {self.name} expects at least "
                f"{config.field_samples / self.rate_hz * 1000:.0f} ms; check that it is whole"
            )
        padded = np.zeros(round_up(n_samples, round(SAMPLES_STEP_S * self.rate_hz)), np.float32)
        padded[:n_samples] = clip.wave_s
        n_samples_b = np.array([n_samples], np.int32)
        log_probs_btv = _log_probs(self._graph, self._state, padded[None, :], n_samples_b, self.normalise, self.dtype)
        return Emissions(
            np.asarray(log_probs_btv)[0, : config.n_frames(n_samples)],
            config.stride_samples / self.rate_hz,
            (config.field_samples - config.stride_samples) / 2 / self.rate_hz,
            self.labels,
            config.blank,
        )


def _labels(folder: Path, config: Wav2Vec2Config) -> tuple[str, ...]:
    """Name the network's outputs; those that the vocabulary lacks are never spelled."""
    path = folder / "vocab.json"
    if not path.is_file():
        raise CheckpointError(
            f"{folder} holds no vocab.json, which names the characters that its network scores: fetch it, or give a "
            "wav2vec2 that was fine-tuned to transcribe"
        )
    vocabulary = sgpa_checkpoints.read_json(path)
    labels = {i: f"<{i}>" for i in range(config.n_labels)}
    for label, i in vocabulary.items():
        if type(i) is not int or labels.get(i) != f"<{i}>":
            raise CheckpointError(
                f"{path} numbers {label!r} {json.dumps(i)[:40]}, but every label was expected to have a number of its "
                f"own below {config.n_labels}, the vocab_size of config.json; fetch both files of one version"
            )
        labels[i] = label
    path = folder / "tokenizer_config.json"
    settings = sgpa_checkpoints.read_json(path) if path.is_file() else {}
    padding = _token(settings.get("pad_token"))
    if vocabulary.get(padding, config.blank) != config.blank:
        raise CheckpointError(
            f"{path} pads with {padding!r}, number {vocabulary[padding]}, but the CTC blank is pad_token_id "
            f"{config.blank} in config.json; fetch both files of one version"
        )
    word_break = _token(settings.get("word_delimiter_token", WORD_BREAK))
    if word_break in vocabulary:
        # A bar that means something else than the end of a word must not be taken for it.
        labels = {i: f"<{i}>" if label == WORD_BREAK else label for i, label in labels.items()}
        labels[vocabulary[word_break]] = WORD_BREAK
    return tuple(labels.values())


def _token(value: Any) -> str:
    """A special token of `tokenizer_config.json`, a string or an object that holds it; empty where there is none."""
    return (value.get("content") if isinstance(value, Mapping) else value) or ""


def _preprocessor(folder: Path) -> Mapping[str, Any]:
    """What is done to a waveform: a file of its own, or a section of the processor's in newer folders."""
    own, processor = folder / "preprocessor_config.json", folder / "processor_config.json"
    if own.is_file():
        return sgpa_checkpoints.read_json(own)
    section = sgpa_checkpoints.read_json(processor).get("feature_extractor") if processor.is_file() else None
    if not isinstance(section, Mapping):
        raise CheckpointError(
            f"{folder} holds no preprocessor_config.json, which says whether recordings are normalised; fetch it"
        )
    return section


@functools.partial(jax.jit, static_argnums=(0, 4, 5))
def _log_probs(
    graphdef: nnx.GraphDef,
    state: nnx.State,
    wave_bs: Float[Array, "B S"],
    n_samples_b: Int[Array, " B"],
    normalise: bool,
    dtype: str,
) -> Float[Array, "B T V"]:
    # Compiled once for all aligners of one architecture: loading another one costs nothing.
    network = nnx.merge(graphdef, state)
    wave_bs = normalised(wave_bs, n_samples_b) if normalise else wave_bs
    return jax.nn.log_softmax(network(wave_bs.astype(jnp.dtype(dtype)), n_samples_b))
