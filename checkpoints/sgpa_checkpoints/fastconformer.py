"""Tensor names of a NeMo FastConformer as LFM2-Audio checkpoints hold it, and our paths for them."""

from sgpa_checkpoints.rules import AnyRule, Ignore, Rule, Split
from sgpa_checkpoints.transforms import Axes, Conv2d, Depthwise, Depthwise2d, Same, Transform, Transpose

# Convolutions of a single tap, which are linear layers to us.
_POINTWISE, _POINTWISE_2D = Axes("oi1", "io"), Axes("oi11", "io")


def _layer(source: str, target: str, transform: Transform = Transpose) -> list[AnyRule]:
    return [Rule(f"{source}.weight", f"{target}.kernel", transform), Rule(f"{source}.bias", f"{target}.bias")]


def _norm(source: str, target: str) -> list[AnyRule]:
    return [Rule(f"{source}.weight", f"{target}.scale"), Rule(f"{source}.bias", f"{target}.bias")]


_STEM, _THEIRS = "conformer.pre_encode", "conformer.layers.{i}"
_SUBSAMPLING, _OURS = "encoder.subsampling", "encoder.layers.{i}"

FASTCONFORMER: tuple[AnyRule, ...] = (
    *_layer(f"{_STEM}.conv.0", f"{_SUBSAMPLING}.conv1", Conv2d),
    *_layer(f"{_STEM}.conv.2", f"{_SUBSAMPLING}.conv2", Depthwise2d),
    *_layer(f"{_STEM}.conv.3", f"{_SUBSAMPLING}.mix2", _POINTWISE_2D),
    *_layer(f"{_STEM}.conv.5", f"{_SUBSAMPLING}.conv3", Depthwise2d),
    *_layer(f"{_STEM}.conv.6", f"{_SUBSAMPLING}.mix3", _POINTWISE_2D),
    *_layer(f"{_STEM}.out", f"{_SUBSAMPLING}.out"),
    *_norm(f"{_THEIRS}.norm_feed_forward1", f"{_OURS}.ffn1_norm"),
    *_layer(f"{_THEIRS}.feed_forward1.linear1", f"{_OURS}.ffn1.up"),
    *_layer(f"{_THEIRS}.feed_forward1.linear2", f"{_OURS}.ffn1.down"),
    *_norm(f"{_THEIRS}.norm_self_att", f"{_OURS}.attention_norm"),
    *_layer(f"{_THEIRS}.self_attn.linear_q", f"{_OURS}.attention.query"),
    *_layer(f"{_THEIRS}.self_attn.linear_k", f"{_OURS}.attention.key"),
    *_layer(f"{_THEIRS}.self_attn.linear_v", f"{_OURS}.attention.value"),
    *_layer(f"{_THEIRS}.self_attn.linear_out", f"{_OURS}.attention.out"),
    Rule(f"{_THEIRS}.self_attn.linear_pos.weight", f"{_OURS}.attention.relative.kernel", Transpose),
    Rule(f"{_THEIRS}.self_attn.pos_bias_u", f"{_OURS}.attention.content_bias"),
    Rule(f"{_THEIRS}.self_attn.pos_bias_v", f"{_OURS}.attention.position_bias"),
    *_norm(f"{_THEIRS}.norm_conv", f"{_OURS}.conv_norm"),
    *(
        Split(
            f"{_THEIRS}.conv.pointwise_conv1.{kind}", (f"{_OURS}.conv.value.{ours}", f"{_OURS}.conv.gate.{ours}"), how
        )
        for kind, ours, how in (("weight", "kernel", _POINTWISE), ("bias", "bias", Same))
    ),
    *_layer(f"{_THEIRS}.conv.depthwise_conv", f"{_OURS}.conv.depthwise", Depthwise),
    *_norm(f"{_THEIRS}.conv.batch_norm", f"{_OURS}.conv.norm"),
    Rule(f"{_THEIRS}.conv.batch_norm.running_mean", f"{_OURS}.conv.norm.mean"),
    Rule(f"{_THEIRS}.conv.batch_norm.running_var", f"{_OURS}.conv.norm.variance"),
    Ignore(f"{_THEIRS}.conv.batch_norm.num_batches_tracked", "it counts training steps"),
    *_layer(f"{_THEIRS}.conv.pointwise_conv2", f"{_OURS}.conv.out", _POINTWISE),
    *_norm(f"{_THEIRS}.norm_feed_forward2", f"{_OURS}.ffn2_norm"),
    *_layer(f"{_THEIRS}.feed_forward2.linear1", f"{_OURS}.ffn2.up"),
    *_layer(f"{_THEIRS}.feed_forward2.linear2", f"{_OURS}.ffn2.down"),
    *_norm(f"{_THEIRS}.norm_out", f"{_OURS}.norm"),
)
