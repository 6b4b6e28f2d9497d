"""Tensor names of wav2vec2 CTC checkpoints (transformers `Wav2Vec2ForCTC`) and our paths for them.

The table has the names that transformers writes today. Older files name the parts of the positional convolution's
weight norm differently, and some lack the prefix `wav2vec2.`; `normal_wav2vec2_name` brings both to the table's names.
"""

import re
from dataclasses import dataclass

import numpy as np

from sgpa_checkpoints.rules import AnyRule, Fold, Ignore, Rule
from sgpa_checkpoints.transforms import Conv, Same, Transform, Transpose


def normal_wav2vec2_name(name: str) -> str:
    """Return today's name for a tensor of any wav2vec2 layout."""
    if not name.startswith(("wav2vec2.", "lm_head.")):
        name = f"wav2vec2.{name}"
    name = re.sub(r"(?<=pos_conv_embed\.conv\.)weight_g$", "parametrizations.weight.original0", name)
    return re.sub(r"(?<=pos_conv_embed\.conv\.)weight_v$", "parametrizations.weight.original1", name)


@dataclass(frozen=True)
class TapNorm:
    """torch's weight norm of a convolution over time, a norm for each tap: g (1, 1, taps), v (out, in, taps).

    The kernel is g v / ‖v‖ in float32, as (taps, in, out); back, v is the kernel and g its norm.
    """

    def forward(self, *arrays: np.ndarray) -> np.ndarray:
        """Return the kernel."""
        norm, direction = (array.astype(np.float32) for array in arrays)
        if direction.ndim != 3 or norm.shape != (1, 1, direction.shape[2]):
            raise ValueError(f"a norm for each of the taps of three axes was expected, not {norm.shape}")
        return Conv.forward(norm * direction / _norm_of(direction))

    def inverse(self, array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return norm and direction."""
        direction = Conv.inverse(array)
        return _norm_of(direction), direction


def _norm_of(direction: np.ndarray) -> np.ndarray:
    squares = np.square(direction, dtype=np.float32).sum(axis=(0, 1), keepdims=True, dtype=np.float64)
    return np.sqrt(squares).astype(np.float32)


def _pair(source: str, target: str, weight: str, transform: Transform = Same) -> list[AnyRule]:
    return [Rule(f"{source}.weight", f"{target}.{weight}", transform), Rule(f"{source}.bias", f"{target}.bias")]


_CONV, _LAYER = "wav2vec2.feature_extractor.conv_layers.{i}", "wav2vec2.encoder.layers.{i}"
_POSITIONS = "wav2vec2.encoder.pos_conv_embed.conv"

WAV2VEC2: tuple[AnyRule, ...] = (
    *_pair(f"{_CONV}.conv", "convolutions.{i}", "kernel", Conv),
    *_pair(f"{_CONV}.layer_norm", "convolutions.{i}.norm", "scale"),
    *_pair("wav2vec2.feature_projection.layer_norm", "feature_norm", "scale"),
    *_pair("wav2vec2.feature_projection.projection", "projection", "kernel", Transpose),
    Fold(
        (f"{_POSITIONS}.parametrizations.weight.original0", f"{_POSITIONS}.parametrizations.weight.original1"),
        "positions.kernel",
        TapNorm(),
    ),
    Rule(f"{_POSITIONS}.bias", "positions.bias"),
    *_pair("wav2vec2.encoder.layer_norm", "norm", "scale"),
    *_pair(f"{_LAYER}.attention.q_proj", "layers.{i}.query", "kernel", Transpose),
    *_pair(f"{_LAYER}.attention.k_proj", "layers.{i}.key", "kernel", Transpose),
    *_pair(f"{_LAYER}.attention.v_proj", "layers.{i}.value", "kernel", Transpose),
    *_pair(f"{_LAYER}.attention.out_proj", "layers.{i}.out", "kernel", Transpose),
    *_pair(f"{_LAYER}.layer_norm", "layers.{i}.attention_norm", "scale"),
    *_pair(f"{_LAYER}.feed_forward.intermediate_dense", "layers.{i}.up", "kernel", Transpose),
    *_pair(f"{_LAYER}.feed_forward.output_dense", "layers.{i}.down", "kernel", Transpose),
    *_pair(f"{_LAYER}.final_layer_norm", "layers.{i}.ffn_norm", "scale"),
    *_pair("lm_head", "head", "kernel", Transpose),
    Ignore("wav2vec2.masked_spec_embed", "stands in for masked frames in training"),
)
