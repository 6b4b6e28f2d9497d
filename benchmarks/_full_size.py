"""Models of the full sizes with random weights drawn where they stay, and torch's decoders of the same weights.

The configurations are those of Qwen2-Audio-7B and of LFM2-Audio-1.5B without its audio output; `tiny` ones have the
same kinds of layers and run anywhere.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from loading import LFM2_AUDIO

from sgpa_jax.audio import Clip
from sgpa_jax.models import Decoder, Model, ModelInputs, with_response
from sgpa_jax.models.families import family_of
from sgpa_jax.models.fill import target
from sgpa_jax.players import Player, Players

MODELS = ("qwen2-audio-7b", "lfm2-audio-1.5b")
_QWEN2_AUDIO = {
    "model_type": "qwen2_audio",
    "audio_token_index": 151646,
    "audio_config": {
        "num_mel_bins": 128, "d_model": 1280, "encoder_layers": 32, "encoder_attention_heads": 20,
        "encoder_ffn_dim": 5120, "max_source_positions": 1500,
    },
    "text_config": {
        "model_type": "qwen2", "vocab_size": 156032, "hidden_size": 4096, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 32, "intermediate_size": 11008, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "tie_word_embeddings": False,
    },
}  # fmt: skip
_TINY: Mapping[str, Mapping[str, Any]] = {
    "audio_config": {"d_model": 32, "encoder_layers": 1, "encoder_attention_heads": 4, "encoder_ffn_dim": 48},
    "text_config": {
        "vocab_size": 200, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": 48,
    },
    "encoder": {"n_layers": 1, "d_model": 32, "n_heads": 4, "subsampling_conv_channels": 8},
    "lfm": {
        "vocab_size": 200, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "full_attn_idxs": [1], "block_ff_dim": 72, "block_multiple_of": 8,
    },
}  # fmt: skip


def config_of(name: str, *, tiny: bool) -> dict[str, Any]:
    """Return what the `config.json` of a model says."""
    config = _QWEN2_AUDIO if name == MODELS[0] else {k: v for k, v in LFM2_AUDIO.items() if k != "depthformer"}
    if not tiny:
        return config
    config = {key: {**value, **_TINY[key]} if key in _TINY else value for key, value in config.items()}
    return config | {"audio_token_index": 3} if name == MODELS[0] else config


def random_model(name: str, *, tiny: bool, seed: int) -> Model:
    """Return a model whose weights are drawn on the first device: bfloat16, or float32 if it is tiny."""
    config = config_of(name, tiny=tiny)
    family = family_of(config)
    audio_lm, dtype = family.read_config(config, None), "float32" if tiny else "bfloat16"
    graphdef, state, slots = target(lambda: family.build(audio_lm), dtype=dtype)
    leaves = {".".join(map(str, path)): leaf for path, leaf in nnx.to_flat_state(state)}
    keys = jax.random.split(jax.random.key(seed), len(slots))
    for key, (path, slot) in zip(keys, slots.items(), strict=True):
        leaves[path].set_value(_drawn(path, slot, key))
    return Model(name, "random", dtype, audio_lm, None, None, graphdef, state)


def recording(model: Model, n_words: int, n_response: int, seed: int) -> tuple[ModelInputs, Players]:
    """Return a recording of words of 0.4 s in a prompt of made-up ids, a response behind it, and the words."""
    rng, rate_hz = np.random.default_rng(seed), model.rate_hz
    clip = Clip((0.1 * rng.standard_normal(round(0.4 * n_words * rate_hz))).astype(np.float32), rate_hz)
    words = tuple(Player(f"word {i}", "word", 0.4 * i, 0.4 * (i + 1)) for i in range(n_words))
    n_audio, token = model.config.n_audio(len(clip.wave_s)), model.config.audio_token_id or 0
    is_audio = np.zeros(30 + n_audio + 20, bool)
    is_audio[30 : 30 + n_audio] = True
    ids = np.where(is_audio, token, rng.integers(10, 190, len(is_audio)))
    inputs = model.prepare_ids(ids, [clip], is_audio_t=is_audio)
    return with_response(inputs, rng.integers(10, 190, n_response).tolist()), Players(words, len(clip.wave_s), rate_hz)


def torch_decoder(model: Model, device: str) -> Any:
    """Return transformers' decoder with our decoder's weights, handed over on the device."""
    import torch
    import transformers
    from _torch_conv import with_taps

    config, decoder = model.config.decoder, model.decoder
    common = {
        "vocab_size": config.vocab_size, "hidden_size": config.width, "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads, "num_key_value_heads": config.n_kv_heads,
        "intermediate_size": config.ffn_width, "bos_token_id": None, "eos_token_id": None, "pad_token_id": None,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
    }  # fmt: skip
    if model.name == MODELS[0]:
        theirs = transformers.Qwen2Config(**common, rms_norm_eps=config.norm_eps, tie_word_embeddings=False)
        kind = transformers.Qwen2ForCausalLM
    else:
        kinds = ["full_attention" if attends else "conv" for attends in config.attends]  # pyright: ignore
        theirs = transformers.Lfm2Config(
            **common, norm_eps=config.norm_eps, layer_types=kinds, block_auto_adjust_ff_dim=False,
            conv_L_cache=config.n_taps,  # pyright: ignore
        )  # fmt: skip
        kind = transformers.Lfm2ForCausalLM
    dtype = getattr(torch, model.dtype)
    with torch.device(device):
        network = kind._from_config(theirs, dtype=dtype).eval().requires_grad_(False)
    slots, names = dict(network.named_parameters()), _QWEN2_NAMES if model.name == MODELS[0] else _LFM2_NAMES
    for layer, leaves in enumerate(_layers(decoder)):
        for theirs_name, ours in names.items():
            parts = [_torch(leaves[part], dtype) for part in ours if part in leaves]
            if parts:
                value = torch.cat([part.T if part.ndim == 2 else part for part in parts])
                slot = slots[f"model.layers.{layer}.{theirs_name}"]
                slot.copy_(value.reshape(slot.shape))
    norm = "model.norm.weight" if "model.norm.weight" in slots else "model.embedding_norm.weight"
    slots[norm].copy_(_torch(jax.tree.leaves(decoder.norm_params)[0], dtype))
    network.lm_head.weight.copy_(_torch(decoder.table_vd, dtype))
    return network if model.name == MODELS[0] else with_taps(network)


_FFN = {"mlp.gate_proj": "gate", "mlp.up_proj": "up", "mlp.down_proj": "down"}
_QWEN2_NAMES = {
    "input_layernorm.weight": ("attention_norm.scale",),
    "post_attention_layernorm.weight": ("ffn_norm.scale",),
    **{f"self_attn.{p}_proj.weight": (f"{n}.kernel",) for p, n in (("q", "query"), ("k", "key"), ("v", "value"))},
    **{f"self_attn.{p}_proj.bias": (f"{n}.bias",) for p, n in (("q", "query"), ("k", "key"), ("v", "value"))},
    "self_attn.o_proj.weight": ("out.kernel",),
    **{f"{theirs}.weight": (f"{ours}.kernel",) for theirs, ours in _FFN.items()},
}
_LFM2_NAMES = {
    "operator_norm.weight": ("operator_norm.scale",),
    "ffn_norm.weight": ("ffn_norm.scale",),
    **{
        f"self_attn.{p}_proj.weight": (f"attention.{n}.kernel",)
        for p, n in (("q", "query"), ("k", "key"), ("v", "value"), ("out", "out"))
    },
    "self_attn.q_layernorm.weight": ("attention.query_norm.scale",),
    "self_attn.k_layernorm.weight": ("attention.key_norm.scale",),
    "conv.in_proj.weight": ("conv.input_gate.kernel", "conv.output_gate.kernel", "conv.content.kernel"),
    "conv.conv.weight": ("conv.kernel",),
    "conv.out_proj.weight": ("conv.out.kernel",),
    "feed_forward.w1.weight": ("gate.kernel",),
    "feed_forward.w3.weight": ("up.kernel",),
    "feed_forward.w2.weight": ("down.kernel",),
}


def _layers(decoder: Decoder) -> list[dict[str, jax.Array]]:
    """Every layer's parameters by their paths."""
    layers = []
    for params in decoder.params:
        stacks = {".".join(map(str, path)): leaf[...] for path, leaf in nnx.to_flat_state(params)}
        n_layers = len(next(iter(stacks.values())))
        layers += [{path: stack[i] for path, stack in stacks.items()} for i in range(n_layers)]
    return layers


def _torch(array: jax.Array, dtype: Any) -> Any:
    import torch

    return torch.from_dlpack(array).to(dtype)


def _drawn(path: str, slot: jax.ShapeDtypeStruct, key: jax.Array) -> jax.Array:
    """Draw one parameter; norms keep what they norm, and variances are one."""
    if len(slot.shape) == 1:
        return jnp.full(slot.shape, 1.0 if path.endswith((".scale", ".variance")) else 0.0, slot.dtype)
    spread = 0.1 if path.endswith("table") else float(np.prod(slot.shape[:-1])) ** -0.5
    return _normal(key, jnp.asarray(spread, slot.dtype), shape=slot.shape, dtype=slot.dtype)


@partial(jax.jit, static_argnames=("shape", "dtype"))
def _normal(key: jax.Array, spread: jax.Array, *, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    return spread * jax.random.normal(key, shape, dtype)
