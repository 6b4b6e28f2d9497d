"""Tensor names of LFM2-Audio checkpoints (liquid-audio `LFM2AudioModel`) and our paths for them.

The decoder's are those of transformers' `Lfm2Model` behind `lfm.`.
"""

from sgpa_checkpoints.fastconformer import FASTCONFORMER
from sgpa_checkpoints.rules import AnyRule, Ignore, Rule, Split, Tied
from sgpa_checkpoints.transforms import Depthwise, Transpose


def _linear(source: str, target: str, *, bias: bool = False) -> list[AnyRule]:
    kernel = Rule(f"{source}.weight", f"{target}.kernel", Transpose)
    return [kernel, Rule(f"{source}.bias", f"{target}.bias")] if bias else [kernel]


def _norm(source: str, target: str) -> Rule:
    return Rule(f"{source}.weight", f"{target}.scale")


def _joined(source: str, target: str, parts: tuple[str, ...]) -> Split:
    return Split(f"{source}.weight", tuple(f"{target}.{part}.kernel" for part in parts), Transpose)


def _feed_forward(source: str, target: str) -> list[AnyRule]:
    names = (("w1", "gate"), ("w3", "up"), ("w2", "down"))
    return [rule for theirs, ours in names for rule in _linear(f"{source}.feed_forward.{theirs}", f"{target}.{ours}")]


_TEXT, _DECODER = "lfm.layers.{i}", "decoder.layers.{i}"
_DEPTH, _DEPTHFORMER = "depthformer.layers.{i}", "audio_out.depthformer.layers.{i}"
_CODES, _CODEBOOK = "depth_embeddings.{i}", "audio_out.codebooks.{i}"
_UNUSED = "liquid-audio reads frames through the depthformer, never through this head"

LFM2_AUDIO: tuple[AnyRule, ...] = (
    *FASTCONFORMER,
    _norm("audio_adapter.model.0", "projector.norm"),
    Rule("audio_adapter.model.0.bias", "projector.norm.bias"),
    *_linear("audio_adapter.model.1", "projector.first", bias=True),
    *_linear("audio_adapter.model.3", "projector.second", bias=True),
    Rule("lfm.embed_tokens.weight", "decoder.embedding.table"),
    _norm(f"{_TEXT}.operator_norm", f"{_DECODER}.operator_norm"),
    *_linear(f"{_TEXT}.self_attn.q_proj", f"{_DECODER}.attention.query"),
    *_linear(f"{_TEXT}.self_attn.k_proj", f"{_DECODER}.attention.key"),
    *_linear(f"{_TEXT}.self_attn.v_proj", f"{_DECODER}.attention.value"),
    _norm(f"{_TEXT}.self_attn.q_layernorm", f"{_DECODER}.attention.query_norm"),
    _norm(f"{_TEXT}.self_attn.k_layernorm", f"{_DECODER}.attention.key_norm"),
    *_linear(f"{_TEXT}.self_attn.out_proj", f"{_DECODER}.attention.out"),
    _joined(f"{_TEXT}.conv.in_proj", f"{_DECODER}.conv", ("input_gate", "output_gate", "content")),
    Rule(f"{_TEXT}.conv.conv.weight", f"{_DECODER}.conv.kernel", Depthwise),
    *_linear(f"{_TEXT}.conv.out_proj", f"{_DECODER}.conv.out"),
    _norm(f"{_TEXT}.ffn_norm", f"{_DECODER}.ffn_norm"),
    *_feed_forward(_TEXT, _DECODER),
    _norm("lfm.embedding_norm", "decoder.norm"),
    Rule("audio_embedding.embedding.weight", "audio_out.codes.table"),
    Ignore("audio_embedding.embedding_norm.weight", _UNUSED),
    Ignore("audio_embedding.to_logits.weight", _UNUSED),
    *_linear("depth_linear", "audio_out.depth_input", bias=True),
    _norm(f"{_DEPTH}.operator_norm", f"{_DEPTHFORMER}.operator_norm"),
    _joined(f"{_DEPTH}.operator.qkv_proj", _DEPTHFORMER, ("query", "key", "value")),
    _norm(f"{_DEPTH}.operator.bounded_attention.q_layernorm", f"{_DEPTHFORMER}.query_norm"),
    _norm(f"{_DEPTH}.operator.bounded_attention.k_layernorm", f"{_DEPTHFORMER}.key_norm"),
    *_linear(f"{_DEPTH}.operator.out_proj", f"{_DEPTHFORMER}.out"),
    _norm(f"{_DEPTH}.ffn_norm", f"{_DEPTHFORMER}.ffn_norm"),
    *_feed_forward(_DEPTH, _DEPTHFORMER),
    Rule(f"{_CODES}.embedding.weight", f"{_CODEBOOK}.embedding.table"),
    Tied(f"{_CODES}.to_logits.weight", f"{_CODES}.embedding.weight"),
    _norm(f"{_CODES}.embedding_norm", f"{_CODEBOOK}.norm"),
    Ignore("codebook_offsets", "it follows from the number of codebooks"),
    Ignore("audio_loss_weights", "only training needs it"),
)
