"""Checkpoints as (path, array) pairs: strict readers of Hugging Face folders, and the small models that ship."""

from sgpa_checkpoints.folder import FormatError, read_json, read_tensors
from sgpa_checkpoints.qwen2_audio import QWEN2_AUDIO, normal_qwen2_audio_name
from sgpa_checkpoints.rules import Conv, Rule, Same, Transpose, convert, export
from sgpa_checkpoints.shipped import folder_digest, manifest, shipped_folder, shipped_names

__all__ = [
    "QWEN2_AUDIO",
    "Conv",
    "FormatError",
    "Rule",
    "Same",
    "Transpose",
    "convert",
    "export",
    "folder_digest",
    "manifest",
    "normal_qwen2_audio_name",
    "read_json",
    "read_tensors",
    "shipped_folder",
    "shipped_names",
]
