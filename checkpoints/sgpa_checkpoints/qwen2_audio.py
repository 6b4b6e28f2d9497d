"""Tensor names of Qwen2-Audio checkpoints (transformers `Qwen2AudioForConditionalGeneration`) and our paths for them.

The hub's layout is the table's; the layouts that transformers 5 keeps in memory, or wrote in some versions, differ by
prefixes alone and are brought to it by `normal_qwen2_audio_name`.
"""

import re

from sgpa_checkpoints.rules import Rule
from sgpa_checkpoints.transforms import Conv, Transpose


def normal_qwen2_audio_name(name: str) -> str:
    """Return the hub's name for a tensor of any Qwen2-Audio layout."""
    name = re.sub(r"^model\.(?=audio_tower\.|multi_modal_projector\.|language_model\.)", "", name)
    name = re.sub(r"^(language_model\.)?lm_head\.", "language_model.lm_head.", name)
    return re.sub(r"^language_model\.(model\.){0,2}(?=embed_tokens|layers|norm)", "language_model.model.", name)


def _linear(source: str, target: str, *, bias: bool = True) -> list[Rule]:
    kernel = Rule(f"{source}.weight", f"{target}.kernel", Transpose)
    return [kernel, Rule(f"{source}.bias", f"{target}.bias")] if bias else [kernel]


def _norm(source: str, target: str) -> list[Rule]:
    return [Rule(f"{source}.weight", f"{target}.scale"), Rule(f"{source}.bias", f"{target}.bias")]


def _convolution(source: str, target: str) -> list[Rule]:
    return [Rule(f"{source}.weight", f"{target}.kernel", Conv), Rule(f"{source}.bias", f"{target}.bias")]


_TOWER, _TEXT = "audio_tower.layers.{i}", "language_model.model.layers.{i}"
_ENCODER, _DECODER = "encoder.layers.{i}", "decoder.layers.{i}"

QWEN2_AUDIO: tuple[Rule, ...] = (
    *_convolution("audio_tower.conv1", "encoder.conv1"),
    *_convolution("audio_tower.conv2", "encoder.conv2"),
    Rule("audio_tower.embed_positions.weight", "encoder.positions"),
    *_norm(f"{_TOWER}.self_attn_layer_norm", f"{_ENCODER}.attention_norm"),
    *_linear(f"{_TOWER}.self_attn.q_proj", f"{_ENCODER}.query"),
    *_linear(f"{_TOWER}.self_attn.k_proj", f"{_ENCODER}.key", bias=False),
    *_linear(f"{_TOWER}.self_attn.v_proj", f"{_ENCODER}.value"),
    *_linear(f"{_TOWER}.self_attn.out_proj", f"{_ENCODER}.out"),
    *_norm(f"{_TOWER}.final_layer_norm", f"{_ENCODER}.ffn_norm"),
    *_linear(f"{_TOWER}.fc1", f"{_ENCODER}.up"),
    *_linear(f"{_TOWER}.fc2", f"{_ENCODER}.down"),
    *_norm("audio_tower.layer_norm", "encoder.norm"),
    *_linear("multi_modal_projector.linear", "projector.first"),
    Rule("language_model.model.embed_tokens.weight", "decoder.embedding.table"),
    Rule(f"{_TEXT}.input_layernorm.weight", f"{_DECODER}.attention_norm.scale"),
    *_linear(f"{_TEXT}.self_attn.q_proj", f"{_DECODER}.query"),
    *_linear(f"{_TEXT}.self_attn.k_proj", f"{_DECODER}.key"),
    *_linear(f"{_TEXT}.self_attn.v_proj", f"{_DECODER}.value"),
    *_linear(f"{_TEXT}.self_attn.o_proj", f"{_DECODER}.out", bias=False),
    Rule(f"{_TEXT}.post_attention_layernorm.weight", f"{_DECODER}.ffn_norm.scale"),
    *_linear(f"{_TEXT}.mlp.gate_proj", f"{_DECODER}.gate", bias=False),
    *_linear(f"{_TEXT}.mlp.up_proj", f"{_DECODER}.up", bias=False),
    *_linear(f"{_TEXT}.mlp.down_proj", f"{_DECODER}.down", bias=False),
    Rule("language_model.model.norm.weight", "decoder.norm.scale"),
    Rule("language_model.lm_head.weight", "decoder.head.table"),
)
