"""Networks in Flax NNX, their front ends, tokenizers and loading."""

from sgpa_jax.models.answering import PROBE_TOKENS, Response, World
from sgpa_jax.models.audio_lm import NO_CLIP, AudioLM, AudioLMConfig, Layout, Placed
from sgpa_jax.models.comparison import Stage
from sgpa_jax.models.convert import convert_model
from sgpa_jax.models.decoder import Decoder, Layer, decoder_of, fold_layers, layer_at
from sgpa_jax.models.emissions import Emissions
from sgpa_jax.models.inputs import (
    ModelInputs,
    explained_in,
    first_response_tokens,
    layout_row,
    only_clip,
    starts_of,
    with_response,
    without_response,
    without_spoken_turn,
)
from sgpa_jax.models.layers import attention
from sgpa_jax.models.load import load_model
from sgpa_jax.models.load_aligner import load_aligner
from sgpa_jax.models.model import Model
from sgpa_jax.models.orbax_cache import write_arrays
from sgpa_jax.models.order import Order, TokenOrder, causal_order, rows_at
from sgpa_jax.models.sampling import Sampling
from sgpa_jax.models.shallow import first_layers
from sgpa_jax.models.sharding import gathered, mesh_shape, parse_mesh
from sgpa_jax.models.speech import Speech
from sgpa_jax.models.stacked_encoder import StackedEncoder
from sgpa_jax.models.survey import Survey, survey_model
from sgpa_jax.models.verify import Verification, verify_model

__all__ = [
    "NO_CLIP",
    "PROBE_TOKENS",
    "AudioLM",
    "AudioLMConfig",
    "Decoder",
    "Emissions",
    "Layer",
    "Layout",
    "Model",
    "ModelInputs",
    "Order",
    "Placed",
    "Response",
    "Sampling",
    "Speech",
    "StackedEncoder",
    "Stage",
    "Survey",
    "TokenOrder",
    "Verification",
    "World",
    "attention",
    "causal_order",
    "convert_model",
    "decoder_of",
    "explained_in",
    "first_layers",
    "first_response_tokens",
    "fold_layers",
    "gathered",
    "layer_at",
    "layout_row",
    "load_aligner",
    "load_model",
    "mesh_shape",
    "only_clip",
    "parse_mesh",
    "rows_at",
    "starts_of",
    "survey_model",
    "verify_model",
    "with_response",
    "without_response",
    "without_spoken_turn",
    "write_arrays",
]
