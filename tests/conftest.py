"""What every test runs under: strict JAX, eight host devices, and no network."""

import os

os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8".strip()
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["HF_HUB_OFFLINE"] = "1"

import functools
import gc
import ipaddress
import json
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import settings

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

_CONNECTS = {name: getattr(socket.socket, name) for name in ("connect", "connect_ex")}

# No timed assertions, hypothesis's own included: a busy machine is no bug.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def _is_local(family: int, address: Any) -> bool:
    if family not in (socket.AF_INET, socket.AF_INET6):
        return True
    try:
        return ipaddress.ip_address(address[0]).is_loopback
    except ValueError:
        return address[0] == "localhost"


def _guarded(name: str) -> Any:
    def connect(self: socket.socket, address: Any) -> Any:
        if not _is_local(self.family, address):
            raise OSError(f"tests may not use the network: refused to connect to {address}")
        return _CONNECTS[name](self, address)

    return connect


# Patched here and not in a fixture: imports and fixtures of any scope are refused as well.
for _name in _CONNECTS:
    setattr(socket.socket, _name, _guarded(_name))


@pytest.fixture(scope="module", autouse=True)
def room_for_programs() -> Iterator[None]:
    """Forget compiled programs before there are too many: they map memory, and Linux stops at 65,530 maps a process."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and len(maps.read_bytes().splitlines()) > 25_000:
        jax.clear_caches()
        gc.collect()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's Chromium, driven through a pipe by the `playwright` package; skips where either is missing."""
    playwright = pytest.importorskip("playwright.sync_api", reason="the playwright package is not installed")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed")
    flags = [
        "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", "--autoplay-policy=no-user-gesture-required",
    ]  # fmt: skip
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=flags)
        yield browser
        browser.close()


@pytest.fixture
def key() -> jax.Array:
    """A typed key, the same in every test."""
    return jax.random.key(0)


_TEXT = {
    "vocab_size": 320, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 48, "rms_norm_eps": 1e-5,
}  # fmt: skip
_AUDIO = {
    "num_mel_bins": 16, "d_model": 32, "encoder_layers": 1, "encoder_attention_heads": 4, "encoder_ffn_dim": 48,
    "max_source_positions": 200,
}  # fmt: skip
_WHISPER = {"feature_size": 16, "chunk_length": 4, "sampling_rate": 16000, "n_fft": 400, "hop_length": 160}
_LFM2 = {
    "codebooks": 2, "interleaved_n_text": 2, "interleaved_n_audio": 3,
    "preprocessor": {"sample_rate": 16000, "normalize": "per_feature", "window_size": 0.025, "window_stride": 0.01,
                     "window": "hann", "features": 16, "n_fft": 512, "log": True, "frame_splicing": 1,
                     "dither": 1e-5, "pad_to": 0, "pad_value": 0.0},
    "encoder": {"feat_in": 16, "feat_out": -1, "n_layers": 1, "d_model": 32, "subsampling": "dw_striding",
                "subsampling_factor": 8, "subsampling_conv_channels": 8, "ff_expansion_factor": 2,
                "self_attention_model": "rel_pos", "n_heads": 4, "att_context_size": [-1, -1], "xscaling": False,
                "untie_biases": True, "conv_kernel_size": 9, "conv_norm_type": "batch_norm"},
    "lfm": {"model_type": "lfm2", "hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 320,
            "num_attention_heads": 4, "num_key_value_heads": 2, "full_attn_idxs": [1], "block_ff_dim": 72,
            "block_multiple_of": 8, "rope_theta": 1000000.0, "conv_L_cache": 3},
    "depthformer": {"layers": 1, "dim": 64, "tie": True},
}  # fmt: skip
_WAV2VEC2 = {
    "model_type": "wav2vec2", "architectures": ["Wav2Vec2ForCTC"], "vocab_size": 32, "pad_token_id": 0,
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24, "conv_dim": [8] * 7,
    "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2, "feat_extract_norm": "layer", "conv_bias": True,
    "do_stable_layer_norm": True,
}  # fmt: skip
_CONFIGS = {
    "lfm2_audio": _LFM2,
    "qwen2_audio": {"model_type": "qwen2_audio", "audio_config": _AUDIO, "audio_token_index": 3,
                    "text_config": {"model_type": "qwen2", **_TEXT}},
    "voxtral": {"model_type": "voxtral", "audio_config": _AUDIO, "audio_token_id": 4,
                "text_config": {"model_type": "llama", "head_dim": 8, "rope_theta": 1e6, **_TEXT}},
    "wav2vec2": _WAV2VEC2,
}  # fmt: skip
_MARKERS = {
    "lfm2_audio": ("<|pad|>", "<|startoftext|>", "<|im_end|>", "<|im_start|>", "<|audio_start|>", "<|text_end|>"),
    "qwen2_audio": ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"),
    "voxtral": ("<unk>", "<s>", "</s>", "[INST]", "[AUDIO]", "[/INST]", "[BEGIN_AUDIO]"),
}
_END = 2
"""Id of the mark that ends an answer in each of them."""


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A folder as the hub has them, of random weights, by `model_type`; written when first asked for, to be left so.

    Families of audio language models have a byte-level tokenizer; the sizes divide by eight where weights may be cut.
    """

    @functools.cache
    def write(model_type: str) -> Path:
        folder, config = tmp_path_factory.mktemp(model_type), _CONFIGS[model_type]
        files: dict[str, Any] = {"config.json": config}
        if model_type == "wav2vec2":
            letters = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ETAOINSHRDLUMWCFGYPBVK'XJQZ"]
            files["vocab.json"] = {letter: i for i, letter in enumerate(letters)}
            files["tokenizer_config.json"] = {"word_delimiter_token": "|", "pad_token": "<pad>"}
            files["preprocessor_config.json"] = {"do_normalize": True, "feature_size": 1, "sampling_rate": 16000}
        else:
            _write_tokenizer(folder / "tokenizer.json", _MARKERS[model_type])
            files["tokenizer_config.json"] = {"tokenizer_class": "PreTrainedTokenizerFast"}
            files["generation_config.json"] = {"eos_token_id": _END}
            if model_type != "lfm2_audio":
                files["preprocessor_config.json"] = _WHISPER
        for name, content in files.items():
            (folder / name).write_text(json.dumps(content))
        _write_weights(folder, config, files.get("preprocessor_config.json"))
        return folder

    return write


def _write_tokenizer(path: Path, markers: tuple[str, ...]) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=list(markers), initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator(["which colour is the lamp? the lamp is red. user assistant system"] * 4, trainer)
    tokenizer.save(str(path))


def _write_weights(folder: Path, config: dict[str, Any], preprocessor: dict[str, Any] | None) -> None:
    """Every parameter random, of a size that keeps what the layers make near one."""
    import sgpa_checkpoints
    from safetensors.numpy import save_file

    from sgpa_jax.models.fill import target
    from sgpa_jax.models.survey import architecture_of

    rng, network, parameters = np.random.default_rng(0), architecture_of(config, preprocessor), {}
    for path, slot in target(network.build).slots.items():
        fan = slot.shape[-1] if path.endswith("table") else np.prod(slot.shape[:-1])
        spread = 0.2 if len(slot.shape) == 1 else fan**-0.5
        middle = 1 if path.endswith((".scale", ".variance")) else 0
        parameters[path] = (middle + spread * rng.uniform(-1.7, 1.7, slot.shape)).astype(np.float32)
    tensors = sgpa_checkpoints.export(parameters, network.rules)
    for name in [name for name in tensors if name.startswith("depth_embeddings.") and ".embedding." in name]:
        tensors[name.replace(".embedding.", ".to_logits.")] = tensors[name].copy()
    # Random weights may hear the blank alone: let letters be what is heard.
    if "lm_head.bias" in tensors:
        tensors["lm_head.bias"][:5] = -5.0
    save_file(tensors, folder / "model.safetensors")
