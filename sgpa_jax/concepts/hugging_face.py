"""Models of transformers for which we have no network of our own: embedders, captioners and judges of concepts.

They run in torch, an optional dependency, and are loaded from safetensors alone; no code of a repository is run.
"""

import importlib.util
from pathlib import Path
from typing import Any

from sgpa_jax.errors import CheckpointError


def loaded(
    name_or_folder: str | Path, model_class: str, reader_class: str, *, dtype: str = "float32"
) -> tuple[str, Any, Any]:
    """Load a model, ready to be asked, and what prepares its inputs, by the names of their classes in transformers.

    The first of what is returned is the name to record: of a hub id, with the commit that both are of.

    Args:
        name_or_folder: a folder, or a hub id `organisation/name` or `organisation/name@revision`.
        model_class, reader_class: of the model, and of its processor or tokenizer.
        dtype: of the weights.

    Raises:
        CheckpointError: torch is not installed, or there is no such complete checkpoint.
    """
    if importlib.util.find_spec("torch") is None:
        raise CheckpointError(
            f"{name_or_folder} runs in torch, which is not installed: pip install torch, or use what needs none"
        )
    import transformers

    name, revision = str(name_or_folder), None
    if not Path(name).is_dir() and "@" in name:
        name, revision = name.rsplit("@", 1)
    try:
        model = getattr(transformers, model_class).from_pretrained(
            name, revision=revision, use_safetensors=True, dtype=dtype
        )
        # A branch may move on between two downloads, and after them.
        commit = getattr(model.config, "_commit_hash", None)
        reader = getattr(transformers, reader_class).from_pretrained(name, revision=commit or revision)
    except (OSError, ValueError, KeyError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise CheckpointError(
            f"{name_or_folder} cannot be loaded as a {model_class} ({reason}); give the folder or the hub id of one"
        ) from error
    told = str(name_or_folder) if commit is None else f"{name}@{commit}"
    return told, model.eval().requires_grad_(False), reader
