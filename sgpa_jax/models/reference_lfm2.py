"""What the reference makes of a prompt for LFM2-Audio: liquid-audio's model where it is installed, else its parts.

Upstream: liquid-audio's `LFM2AudioModel`, `LFM2AudioProcessor` and `ChatState` (1.3.0), which want Python 3.12. Without
them the same tensors fill transformers' `ParakeetEncoder` (without input scaling) and `Lfm2Model`, which are the same
networks under other names, and what stands between them is put together here.
"""

import importlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import sgpa_checkpoints

from sgpa_jax.models.audio_lm import NO_CLIP
from sgpa_jax.models.inputs import ModelInputs
from sgpa_jax.models.reference import Point, Reference, Request, as_array, libraries, residuals, tapped, told

_PARAKEET = {
    "pre_encode.conv.": "subsampling.layers.",
    "pre_encode.out": "subsampling.linear",
    "linear_q": "q_proj",
    "linear_k": "k_proj",
    "linear_v": "v_proj",
    "linear_out": "o_proj",
    "linear_pos": "relative_k_proj",
    "pos_bias_": "bias_",
    "conv.batch_norm.": "conv.norm.",
}
"""Parts of names in LFM2-Audio's encoder and in transformers' `ParakeetEncoder`."""


@dataclass(frozen=True)
class _Parts:
    """The networks, however they came; `encode` takes mel frames [1, F, M] and gives the encoder's [1, G, D]."""

    label: str
    mel_bfm: Any
    encode: Callable[[Any], Any]
    stem: Any
    layers: Sequence[Any]
    adapter: Any
    decoder: Any
    ids: tuple[int, ...] | None = None
    frame: Callable[[Any], Any] | None = None
    notes: tuple[str, ...] = ()


def run_lfm2_audio(
    folder: Path, inputs: ModelInputs, request: Request, *, dtype: str, end_ids: Sequence[int], n_new: int
) -> Reference:
    """Run the reference's networks on a prompt of one clip and let them answer greedily in text.

    Raises:
        CheckpointError: the libraries cannot read the folder.
        UsageError: torch is missing.
    """
    torch, _ = libraries()
    config = sgpa_checkpoints.read_json(folder / "config.json")
    speaks = "depthformer" in config
    whole = speaks and importlib.util.find_spec("liquid_audio") is not None
    parts = (_liquid_audio if whole else _transformers)(folder, config, inputs, request, dtype)
    points = [
        Point("encoder.inputs", parts.stem),
        *residuals("encoder", parts.layers)[1:],
        Point("projector", parts.adapter),
        *residuals("decoder", parts.decoder.layers),
        Point("decoder.norm", parts.decoder.embedding_norm),
    ]
    is_audio = torch.tensor(inputs.clip_t != NO_CLIP)
    with torch.no_grad():
        with tapped(points) as stages:
            x = parts.decoder.embed_tokens(torch.tensor(inputs.ids_t[None].astype(np.int64)))
            x[0, is_audio] = parts.adapter(parts.encode(parts.mel_bfm.to(x.dtype)))[0]
            hidden = parts.decoder(inputs_embeds=x, use_cache=False).last_hidden_state
        logits = hidden @ parts.decoder.embed_tokens.weight.T
        codes = None if parts.frame is None else tuple(parts.frame(hidden[0, -1]).tolist())
        answer, answer_logits = _answer(parts.decoder, x, end_ids, n_new, torch)
    return Reference(
        parts.label,
        {"features": as_array(parts.mel_bfm), **stages, "logits": as_array(logits)},
        answer,
        answer_logits,
        parts.ids,
        codes,
        parts.notes,
    )


def _answer(decoder: Any, x: Any, end_ids: Sequence[int], n_new: int, torch: Any) -> tuple[tuple[int, ...], np.ndarray]:
    ids, logits, cache = [], [], None
    while len(ids) < n_new and not (ids and ids[-1] in end_ids):
        made = decoder(inputs_embeds=x, past_key_values=cache, use_cache=True)
        cache = made.past_key_values
        logits.append(made.last_hidden_state[:, -1] @ decoder.embed_tokens.weight.T)
        ids.append(int(logits[-1].argmax()))
        x = decoder.embed_tokens(torch.tensor([ids[-1:]]))
    return tuple(ids), as_array(torch.cat(logits))[0]


def _transformers(folder: Path, config: Mapping[str, Any], inputs: ModelInputs, request: Request, dtype: str) -> _Parts:
    torch, transformers = libraries()
    mel, theirs = config["preprocessor"], config["encoder"]
    n_channels = theirs.get("subsampling_conv_channels", -1)
    with told(f"transformers {transformers.__version__}", folder):
        extractor = transformers.ParakeetFeatureExtractor(
            feature_size=mel["features"],
            sampling_rate=mel["sample_rate"],
            n_fft=mel["n_fft"],
            win_length=int(mel["window_size"] * mel["sample_rate"]),
            hop_length=int(mel["window_stride"] * mel["sample_rate"]),
        )
        encoder = transformers.ParakeetEncoder(
            transformers.ParakeetEncoderConfig(
                hidden_size=theirs["d_model"],
                num_hidden_layers=theirs["n_layers"],
                num_attention_heads=theirs.get("n_heads", 4),
                intermediate_size=theirs["d_model"] * theirs.get("ff_expansion_factor", 4),
                conv_kernel_size=theirs.get("conv_kernel_size", 31),
                subsampling_conv_channels=theirs["d_model"] if n_channels == -1 else n_channels,
                num_mel_bins=theirs["feat_in"],
                scale_input=False,
            )
        )
        decoder = transformers.Lfm2Model(transformers.Lfm2Config(**config["lfm"]))
        n_in, width = theirs["d_model"], config["lfm"]["hidden_size"]
        adapter = torch.nn.Sequential(
            torch.nn.LayerNorm(n_in), torch.nn.Linear(n_in, width), torch.nn.GELU(), torch.nn.Linear(width, width)
        )
        networks = {"conformer.": encoder, "audio_adapter.model.": adapter, "lfm.": decoder}
        for prefix, network in networks.items():
            network.to(getattr(torch, dtype)).eval()
            _fill(network, prefix, folder)
    (clip,) = inputs.clips
    notes = ["the token ids of the prompt were not compared: only liquid-audio lays them out"]
    if "depthformer" in config:
        notes.append(
            "the depthformer and its audio codes were not compared: liquid-audio, which has them, is not installed"
        )
    return _Parts(
        f"transformers {transformers.__version__} (its networks in place of liquid-audio's)",
        extractor(clip.wave_s, sampling_rate=clip.rate_hz, return_tensors="pt")["input_features"],
        lambda mel_bfm: encoder(mel_bfm).last_hidden_state,
        encoder.subsampling,
        encoder.layers,
        adapter,
        decoder,
        notes=tuple(notes),
    )


def _fill(network: Any, prefix: str, folder: Path) -> None:
    """Copy the tensors behind a prefix to a network, one at a time."""
    slots = dict(network.state_dict())
    optional = {name for name in slots if name.endswith("num_batches_tracked")}
    for name, tensor in _tensors(folder, prefix):
        if prefix == "conformer.":
            for ours, theirs in _PARAKEET.items():
                name = name.replace(ours, theirs)
        slots.pop(name).copy_(tensor)
    if missing := slots.keys() - optional:
        raise ValueError(f"no tensor fills {', '.join(sorted(missing))}")


def _tensors(folder: Path, prefix: str) -> Iterator[tuple[str, Any]]:
    safetensors = importlib.import_module("safetensors")
    for shard in sgpa_checkpoints.read_headers(folder):
        with safetensors.safe_open(shard, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - it is no mapping
                if name.startswith(prefix):
                    yield name.removeprefix(prefix), file.get_tensor(name)


def _liquid_audio(folder: Path, config: Mapping[str, Any], inputs: ModelInputs, request: Request, dtype: str) -> _Parts:
    torch, _ = libraries()
    label = f"liquid-audio {version('liquid-audio')}"
    with told(label, folder):
        liquid_audio = importlib.import_module("liquid_audio")
        processor = liquid_audio.LFM2AudioProcessor.from_pretrained(folder, device="cpu").eval()
        network = liquid_audio.LFM2AudioModel.from_pretrained(folder, dtype=getattr(torch, dtype), device="cpu").eval()
    (clip,) = inputs.clips
    chat = liquid_audio.ChatState(processor, codebooks=config["codebooks"], dtype=getattr(torch, dtype))
    if request.system is not None:
        chat.new_turn("system")
        chat.add_text(request.system)
        chat.end_turn()
    chat.new_turn("user")
    chat.add_audio(torch.tensor(clip.wave_s)[None], clip.rate_hz)
    if request.text:
        chat.add_text(request.text)
    chat.end_turn()
    chat.new_turn("assistant")
    is_text = chat.modality_flag[0] == liquid_audio.LFMModality.TEXT
    ids = torch.zeros_like(chat.modality_flag[0])
    ids[is_text] = chat.text[0]

    def encode(mel_bfm: Any) -> Any:
        return network.conformer(mel_bfm.mT, torch.tensor([mel_bfm.shape[1]]))[0].mT

    return _Parts(
        label,
        chat.audio_in.T[None],
        encode,
        network.conformer.pre_encode,
        network.conformer.layers,
        network.audio_adapter,
        network.lfm,
        tuple(ids.tolist()),
        network._sample_audio_frame,
    )
