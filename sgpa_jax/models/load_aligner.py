"""Loading acoustic models: a shipped name, a local folder or a hub id to what alignment hears with."""

from pathlib import Path

import sgpa_checkpoints

from sgpa_jax.errors import CheckpointError, UsageError, unknown_name
from sgpa_jax.models.aligner import PocketAligner
from sgpa_jax.models.fill import DTYPES
from sgpa_jax.models.hub import resolve
from sgpa_jax.models.wav2vec2_aligner import Wav2Vec2Aligner

_SHIPPED = {"pocket": "pocket_aligner"}


def load_aligner(name_or_folder: str | Path = "pocket", *, dtype: str | None = None) -> PocketAligner | Wav2Vec2Aligner:
    """Load the acoustic model that alignment needs.

    Args:
        name_or_folder: the name of a shipped one, or a folder or a hub id (`organisation/name`, perhaps `@revision`) of
            a wav2vec2 that was fine-tuned for CTC, with its `vocab.json`; its letters decide what it can align.
        dtype: `float32` (also the default) or `bfloat16`, of the weights and of what is computed with them. The pocket
            aligner knows float32 alone.

    Raises:
        CheckpointError: the folder is incomplete, damaged or of another architecture.
        UsageError: neither a shipped name nor a folder nor a hub id, or a dtype that is not offered.
    """
    if dtype not in (None, *DTYPES):
        raise unknown_name("dtype", dtype, DTYPES)
    name, folder = resolve(name_or_folder, "aligner", _SHIPPED)
    try:
        config = sgpa_checkpoints.read_json(folder / "config.json")
        if config.get("architecture") == "pocket_aligner":
            if dtype not in (None, "float32"):
                raise UsageError(f"the aligner {name} was asked for in {dtype}, but it computes in float32 alone")
            return PocketAligner.from_folder(folder, name=name)
        if config.get("model_type") == "wav2vec2":
            return Wav2Vec2Aligner.from_folder(folder, name=name, dtype=dtype or "float32")
    except sgpa_checkpoints.FormatError as error:
        raise CheckpointError(str(error)) from error
    raise CheckpointError(
        f"{folder / 'config.json'} describes model_type {config.get('model_type')!r}, but an aligner is a 'wav2vec2' "
        "fine-tuned for CTC; give the folder of one, or the name 'pocket'"
    )
