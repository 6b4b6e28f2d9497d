"""What the reference implementation makes of a prompt, stage by stage, as numpy arrays that outlive its network.

transformers' networks for Qwen2-Audio, Audio Flamingo 3, Voxtral and wav2vec2; those of LFM2-Audio are in
`reference_lfm2.py`. Its modules are tapped by hooks, because `output_hidden_states` leaves some states out and norms
the last. Nothing else in this package touches torch, and it is looked for only when a comparison is asked for.
"""

import importlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sgpa_jax.errors import CheckpointError, UsageError
from sgpa_jax.models.inputs import ModelInputs

_NETWORKS = {
    "qwen2_audio": "Qwen2AudioForConditionalGeneration",
    "audioflamingo3": "AudioFlamingo3ForConditionalGeneration",
    "voxtral": "VoxtralForConditionalGeneration",
}
_MASKS = {"qwen2_audio": "feature_attention_mask", "audioflamingo3": "input_features_mask"}


class Request(NamedTuple):
    """What the model is asked about a clip: the text beside it, and a system turn if not the format's own."""

    text: str
    system: str | None = None


class Reference(NamedTuple):
    """What a reference implementation made of a prompt.

    Attributes:
        label: name and version of what was run.
        stages: what each stage gave, float32[1, T, D], by the stage's name, in order.
        answer: token ids of its greedy answer, end marks included.
        answer_logits_nv: the logits that each of them was chosen by.
        ids: token ids of its own prompt, audio at its placeholder or 0; None where it could not be asked.
        codes: the codes of a frame of audio at the prompt's end, if it has such an output.
        notes: what was not compared, in sentences.
    """

    label: str
    stages: dict[str, np.ndarray]
    answer: tuple[int, ...] = ()
    answer_logits_nv: np.ndarray | None = None
    ids: tuple[int, ...] | None = None
    codes: tuple[int, ...] | None = None
    notes: tuple[str, ...] = ()


def libraries() -> tuple[Any, Any]:
    """Return torch and transformers, set to be quiet.

    Raises:
        UsageError: torch is not installed, or it is too old for transformers.
    """
    # Not by a statement: nothing else here depends on torch, and it is no dependency of the package.
    try:
        torch = importlib.import_module("torch")
    except ImportError as error:
        raise UsageError(
            "the reference implementation runs on PyTorch, which is not installed: pip install torch"
        ) from error
    transformers = importlib.import_module("transformers")
    if not transformers.utils.is_torch_available():
        raise UsageError(
            f"transformers {transformers.__version__} finds PyTorch {torch.__version__} too old: pip install -U torch"
        )
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    return torch, transformers


def run_audio_lm(
    family: str,
    folder: Path,
    inputs: ModelInputs,
    request: Request,
    *,
    dtype: str,
    end_ids: Sequence[int],
    n_new: int,
) -> Reference:
    """Run transformers' network of a family on a prompt of one clip and let it answer greedily.

    Raises:
        CheckpointError: transformers cannot read the folder.
        UsageError: torch is missing.
    """
    torch, transformers = libraries()
    (clip,) = inputs.clips
    with told(f"transformers {transformers.__version__}", folder):
        network = getattr(transformers, _NETWORKS[family]).from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
        extractor = transformers.WhisperFeatureExtractor.from_pretrained(folder)
    heard = extractor(
        clip.wave_s, sampling_rate=clip.rate_hz, return_tensors="pt", padding="max_length", return_attention_mask=True
    )
    ids = torch.tensor(inputs.ids_t[None].astype(np.int64))
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    given["input_features"] = heard["input_features"].to(network.dtype)
    if family in _MASKS:
        given[_MASKS[family]] = heard["attention_mask"]
    body = network.model
    points = [
        *residuals("encoder", body.audio_tower.layers),
        Point("encoder.pool", body.multi_modal_projector, gives=False),
        Point("projector", body.multi_modal_projector),
        *residuals("decoder", body.language_model.layers),
        Point("decoder.norm", body.language_model.norm),
    ]
    with torch.no_grad():
        with tapped(points) as stages:
            logits = network(**given).logits
        # The checkpoint's own way to answer may draw, or discourage repetitions.
        network.generation_config = transformers.GenerationConfig(
            max_new_tokens=n_new, do_sample=False, eos_token_id=list(end_ids), pad_token_id=0
        )
        answer = network.generate(**given, return_dict_in_generate=True, output_logits=True)
    features = as_array(heard["input_features"]).swapaxes(1, 2)
    own_ids, notes = _prompt_ids(family, folder, inputs, request, transformers)
    return Reference(
        f"transformers {transformers.__version__}",
        {"features": features, **stages, "logits": as_array(logits)},
        tuple(answer.sequences[0, ids.shape[1] :].tolist()),
        as_array(torch.cat(answer.logits))[0],
        own_ids,
        notes=notes,
    )


def run_wav2vec2(folder: Path, wave_s: np.ndarray, *, rate_hz: int, dtype: str) -> Reference:
    """Run transformers' wav2vec2 on a waveform; its answer is the likeliest label of each frame.

    Raises:
        CheckpointError: transformers cannot read the folder.
        UsageError: torch is missing.
    """
    torch, transformers = libraries()
    with told(f"transformers {transformers.__version__}", folder):
        network = transformers.Wav2Vec2ForCTC.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
        extractor = transformers.Wav2Vec2FeatureExtractor.from_pretrained(folder)
    wave = extractor(wave_s, sampling_rate=rate_hz, return_tensors="pt")["input_values"]
    body = network.wav2vec2
    points = [
        *(Point(f"convolutions.{i}", layer) for i, layer in enumerate(body.feature_extractor.conv_layers)),
        Point("projection", body.feature_projection),
        *residuals("encoder", body.encoder.layers),
    ]
    with torch.no_grad(), tapped(points) as stages:
        logits = network(wave.to(network.dtype)).logits.float()
    stages = {
        name: array.swapaxes(1, 2) if name.startswith("convolutions") else array for name, array in stages.items()
    }
    log_probs = as_array(logits.log_softmax(dim=-1))
    return Reference(
        f"transformers {transformers.__version__}",
        {"features": as_array(wave)[0][:, :, None], **stages, "logits": log_probs},
        tuple(log_probs[0].argmax(-1).tolist()),
        log_probs[0],
    )


class Point(NamedTuple):
    """Where to tap: what a module gives, or what it is given first."""

    name: str
    module: Any
    gives: bool = True


@contextmanager
def tapped(points: Sequence[Point]) -> Iterator[dict[str, np.ndarray]]:
    """Keep what passes at the points while the context is open, each under its name, in the order of passing."""
    seen: dict[str, np.ndarray] = {}

    def keep_given(name: str) -> Any:
        def hook(_module: Any, args: tuple[Any, ...], options: Mapping[str, Any]) -> None:
            seen[name] = as_array(args[0] if args else options["hidden_states"])

        return hook

    def keep(name: str) -> Any:
        def hook(_module: Any, _args: tuple[Any, ...], output: Any) -> None:
            seen[name] = as_array(output[0] if isinstance(output, tuple) else output)

        return hook

    hooks = [
        point.module.register_forward_hook(keep(point.name))
        if point.gives
        else point.module.register_forward_pre_hook(keep_given(point.name), with_kwargs=True)
        for point in points
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def residuals(part: str, layers: Sequence[Any]) -> list[Point]:
    """Tap what goes into the first of some layers, and the residual stream after each."""
    points = [Point(f"{part}.layers.{i}", layer) for i, layer in enumerate(layers)]
    return [Point(f"{part}.inputs", layers[0], gives=False), *points]


def as_array(tensor: Any) -> np.ndarray:
    """Copy a tensor of torch as float32 with a batch axis."""
    array = np.array(tensor.detach().float().cpu().numpy())
    return array[None] if array.ndim == 2 else array


@contextmanager
def told(library: str, folder: Path) -> Iterator[None]:
    """Tell in one sentence why a library cannot read a folder."""
    try:
        yield
    except Exception as error:  # whatever stands in the way, it is of the library's making
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise CheckpointError(
            f"{library} cannot read {folder} ({reason}); fetch the complete checkpoint, or compare with another version"
        ) from error


def _prompt_ids(
    family: str, folder: Path, inputs: ModelInputs, request: Request, transformers: Any
) -> tuple[tuple[int, ...] | None, tuple[str, ...]]:
    """Ask the checkpoint's own processor for the prompt's ids; or tell why it cannot be asked."""
    skipped = "the token ids of the prompt were not compared"
    if family == "voxtral":
        return None, (f"{skipped}: mistral-common lays out Voxtral's, and it is not asked",)
    content = [{"type": "audio", "audio_url": "clip"}, {"type": "text", "text": request.text}]
    turns = [] if request.system is None else [{"role": "system", "content": request.system}]
    try:
        with told("transformers' processor", folder):
            processor = transformers.AutoProcessor.from_pretrained(folder)
            text = processor.apply_chat_template(
                [*turns, {"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
            )
            made = processor(text=[text], audio=[inputs.clips[0].wave_s], return_tensors="pt")
    except CheckpointError as error:
        return None, (f"{skipped}: {str(error).partition(';')[0]}",)
    return tuple(made["input_ids"][0].tolist()), ()
