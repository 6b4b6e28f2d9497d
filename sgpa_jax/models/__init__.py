"""Networks in Flax NNX, their front ends, tokenizers and loading."""

from sgpa_jax.models.audio_lm import AudioLM
from sgpa_jax.models.config import MelConfig
from sgpa_jax.models.emissions import Emissions
from sgpa_jax.models.load import load_aligner, load_model
from sgpa_jax.models.model import Model, ModelInputs, Response, World, place_audio

__all__ = [
    "AudioLM",
    "Emissions",
    "MelConfig",
    "Model",
    "ModelInputs",
    "Response",
    "World",
    "load_aligner",
    "load_model",
    "place_audio",
]
