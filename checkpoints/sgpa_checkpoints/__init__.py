"""Checkpoints as (path, array) pairs: strict readers of Hugging Face folders, and the small models that ship."""

from sgpa_checkpoints.audio_flamingo3 import AUDIO_FLAMINGO3
from sgpa_checkpoints.fastconformer import FASTCONFORMER
from sgpa_checkpoints.folder import (
    INDEX,
    check_shards,
    read_headers,
    read_json,
    read_optional_json,
    read_tensors,
    shard_names,
)
from sgpa_checkpoints.headers import FormatError, TensorHeader, read_header
from sgpa_checkpoints.lfm2_audio import LFM2_AUDIO
from sgpa_checkpoints.qwen2_audio import QWEN2_AUDIO, normal_qwen2_audio_name
from sgpa_checkpoints.rules import AnyRule, Fold, Ignore, Rule, Split, Tied, check, convert, export, misfit
from sgpa_checkpoints.shipped import folder_digest, manifest, shipped_folder, shipped_names
from sgpa_checkpoints.transforms import Axes, Conv, Conv2d, Depthwise, Depthwise2d, Same, Transform, Transpose
from sgpa_checkpoints.wav2vec2 import WAV2VEC2, normal_wav2vec2_name

__all__ = [
    "AUDIO_FLAMINGO3",
    "FASTCONFORMER",
    "INDEX",
    "LFM2_AUDIO",
    "QWEN2_AUDIO",
    "WAV2VEC2",
    "AnyRule",
    "Axes",
    "Conv",
    "Conv2d",
    "Depthwise",
    "Depthwise2d",
    "Fold",
    "FormatError",
    "Ignore",
    "Rule",
    "Same",
    "Split",
    "TensorHeader",
    "Tied",
    "Transform",
    "Transpose",
    "check",
    "check_shards",
    "convert",
    "export",
    "folder_digest",
    "manifest",
    "misfit",
    "normal_qwen2_audio_name",
    "normal_wav2vec2_name",
    "read_header",
    "read_headers",
    "read_json",
    "read_optional_json",
    "read_tensors",
    "shard_names",
    "shipped_folder",
    "shipped_names",
]
