"""Loading audio language models: a shipped name, a local folder or a hub id to a network on its devices."""

from pathlib import Path

import sgpa_checkpoints
from jax.sharding import Mesh

from sgpa_jax.errors import CheckpointError, unknown_name
from sgpa_jax.models.answering import World
from sgpa_jax.models.chat import TOKENIZER_FILES, chat_format
from sgpa_jax.models.families import family_of
from sgpa_jax.models.fill import DTYPES, fill
from sgpa_jax.models.hub import SHIPPED_MODELS, resolve
from sgpa_jax.models.model import Model


def load_model(
    name_or_folder: str | Path = "pocket",
    *,
    revision: str | None = None,
    dtype: str | None = None,
    mesh: Mesh | None = None,
) -> Model:
    """Load an audio language model of one of the families in `families.py`.

    Args:
        name_or_folder: the name of a shipped model, a folder with `config.json`, safetensors weights and (to read and
            write text) `tokenizer.json`, or a hub id, `organisation/name` or `organisation/name@revision`.
        revision: the hub's branch, tag or commit.
        dtype: `float32` or `bfloat16`, of the weights and of what is computed with them; the default is float32 for
            the shipped models and bfloat16 for all others. Softmax, norms, rotary angles and features are float32.
        mesh: devices to spread the weights over along its axis `model`, and coalitions along its axis `data`.

    Raises:
        CheckpointError: the folder is incomplete, damaged or of another architecture.
        UsageError: neither a shipped name nor a folder nor a hub id, or an unknown dtype.
    """
    name, folder = resolve(name_or_folder, "model", SHIPPED_MODELS, revision=revision)
    if dtype is None:
        dtype = "float32" if str(name_or_folder) in SHIPPED_MODELS else "bfloat16"
    if dtype not in DTYPES:
        raise unknown_name("dtype", dtype, DTYPES)
    try:
        config_json = sgpa_checkpoints.read_json(folder / "config.json")
        preprocessor = sgpa_checkpoints.read_optional_json(folder / "preprocessor_config.json")
        family = family_of(config_json)
        config = family.read_config(config_json, preprocessor)
        graphdef, state = fill(
            lambda: family.build(config), folder, family.rules, normalise=family.normalise, dtype=dtype, mesh=mesh
        )
        world = sgpa_checkpoints.read_optional_json(folder / "world.json")
        digest = sgpa_checkpoints.folder_digest(folder)
    except sgpa_checkpoints.FormatError as error:
        raise CheckpointError(str(error)) from error
    has_tokenizer = any((folder / name).is_file() for name in TOKENIZER_FILES)
    chat = chat_format(family.name, folder) if has_tokenizer else None
    return Model(name, digest, dtype, config, chat, None if world is None else World(**world), graphdef, state, mesh)
