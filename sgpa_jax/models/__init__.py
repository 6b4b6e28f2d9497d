"""Networks in Flax NNX, their front ends, tokenizers and loading."""

from sgpa_jax.models.audio_lm import AudioLM, Layout, Placed
from sgpa_jax.models.comparison import Stage
from sgpa_jax.models.convert import convert_model
from sgpa_jax.models.emissions import Emissions
from sgpa_jax.models.inputs import ModelInputs, layout_row, with_response
from sgpa_jax.models.load import load_model
from sgpa_jax.models.load_aligner import load_aligner
from sgpa_jax.models.model import Model, Response, World
from sgpa_jax.models.sampling import Sampling
from sgpa_jax.models.sharding import parse_mesh
from sgpa_jax.models.speech import Speech
from sgpa_jax.models.survey import Survey, survey_model
from sgpa_jax.models.verify import Verification, verify_model

__all__ = [
    "AudioLM",
    "Emissions",
    "Layout",
    "Model",
    "ModelInputs",
    "Placed",
    "Response",
    "Sampling",
    "Speech",
    "Stage",
    "Survey",
    "Verification",
    "World",
    "convert_model",
    "layout_row",
    "load_aligner",
    "load_model",
    "parse_mesh",
    "survey_model",
    "verify_model",
    "with_response",
]
