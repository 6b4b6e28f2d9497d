"""A model of fewer layers: what the first ones alone would say, their stream read by the head (the "logit lens")."""

from dataclasses import replace
from typing import Any

from flax import nnx

from sgpa_jax.errors import UsageError
from sgpa_jax.models.audio_lm import AudioLM
from sgpa_jax.models.model import Model
from sgpa_jax.models.qwen2 import Qwen2Config


def first_layers(model: Model, n_layers: int) -> Model:
    """Return a model with the first `n_layers` of the decoder's layers; its weights are those of the model.

    Raises:
        UsageError: the decoder has not more layers than that, or the number is below one.
    """
    decoder = model.config.decoder
    if not 0 < n_layers < decoder.n_layers:
        raise UsageError(
            f"the first {n_layers} of {decoder.n_layers} layers of {model.name}: expected 1 to {decoder.n_layers - 1}"
        )
    if isinstance(decoder, Qwen2Config):
        fewer = replace(decoder, n_layers=n_layers)
    else:
        fewer = replace(decoder, attends=decoder.attends[:n_layers])
    network: AudioLM = nnx.merge(model.graphdef, model.state)
    cut: Any = network.decoder
    cut.layers = nnx.List(list(cut.layers)[:n_layers])
    graphdef, state = nnx.split(network)
    return replace(model, config=replace(model.config, decoder=fewer), graphdef=graphdef, state=state)
