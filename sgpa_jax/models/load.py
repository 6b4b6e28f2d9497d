"""Loading models: a shipped name or a local folder to networks on the device, with their tokenizer and front end."""

from pathlib import Path

import jax.numpy as jnp
import sgpa_checkpoints
from flax import nnx

from sgpa_jax.errors import CheckpointError, unknown_name
from sgpa_jax.models.aligner import PocketAligner
from sgpa_jax.models.audio_lm import AudioLM
from sgpa_jax.models.chat import ChatFormat
from sgpa_jax.models.config import AudioLMConfig, MelConfig
from sgpa_jax.models.model import Model, World

_MODELS = {"pocket": "pocket"}
_ALIGNERS = {"pocket": "pocket_aligner"}


def load_model(name_or_folder: str | Path = "pocket") -> Model:
    """Load an audio language model of the Qwen2-Audio architecture, in float32.

    Args:
        name_or_folder: the name of a shipped model, or a folder with `config.json`, safetensors weights,
            `tokenizer.json`, `preprocessor_config.json` and `generation_config.json`.

    Raises:
        CheckpointError: the folder is incomplete, damaged or of another architecture.
        UsageError: neither a shipped name nor a folder.
    """
    name, folder = _folder(name_or_folder, "model", _MODELS)
    try:
        config = AudioLMConfig.from_hf(sgpa_checkpoints.read_json(folder / "config.json"))
        mel = MelConfig.from_hf(sgpa_checkpoints.read_json(folder / "preprocessor_config.json"))
        graphdef, state = _fill(config, folder)
        world_path = folder / "world.json"
        world = World(**sgpa_checkpoints.read_json(world_path)) if world_path.is_file() else None
        digest = sgpa_checkpoints.folder_digest(folder)
    except sgpa_checkpoints.FormatError as error:
        raise CheckpointError(str(error)) from error
    chat = ChatFormat.from_folder(folder)
    if chat.audio_id != config.audio_token_id:
        raise CheckpointError(
            f"{folder}: audio is token {config.audio_token_id} in config.json, but {chat.audio_id} in tokenizer.json; "
            "fetch both files of one version"
        )
    return Model(name, digest, "float32", config, mel, chat, world, graphdef, state)


def load_aligner(name_or_folder: str | Path = "pocket") -> PocketAligner:
    """Load the acoustic model that alignment needs: the shipped one by name, or a folder in its format.

    Raises:
        CheckpointError: the folder is incomplete or damaged.
        UsageError: neither a shipped name nor a folder.
    """
    name, folder = _folder(name_or_folder, "aligner", _ALIGNERS)
    try:
        return PocketAligner.from_folder(folder, name=name)
    except sgpa_checkpoints.FormatError as error:
        raise CheckpointError(str(error)) from error


def _folder(name_or_folder: str | Path, kind: str, shipped: dict[str, str]) -> tuple[str, Path]:
    """Return the name to record and the folder to read; a shipped name wins over a folder of the same name."""
    if str(name_or_folder) in shipped:
        return str(name_or_folder), sgpa_checkpoints.shipped_folder(shipped[str(name_or_folder)])
    folder = Path(name_or_folder)
    if not folder.is_dir():
        raise unknown_name(f"{kind} (and no such folder)", str(name_or_folder), shipped)
    return folder.resolve().name, folder


def _fill(config: AudioLMConfig, folder: Path) -> tuple[nnx.GraphDef, nnx.State]:
    """Build the network's tree without computing anything, and fill it tensor by tensor."""
    graphdef, abstract = nnx.split(nnx.eval_shape(lambda: AudioLM(config, rngs=nnx.Rngs(0))))
    leaves = {".".join(map(str, path)): leaf for path, leaf in nnx.to_flat_state(abstract)}
    shapes = {path: tuple(leaf.get_value().shape) for path, leaf in leaves.items()}
    for path, array in sgpa_checkpoints.convert(
        sgpa_checkpoints.read_tensors(folder),
        sgpa_checkpoints.QWEN2_AUDIO,
        shapes,
        normalise=sgpa_checkpoints.normal_qwen2_audio_name,
    ):
        leaves[path].set_value(jnp.asarray(array, jnp.float32))
    return graphdef, abstract
