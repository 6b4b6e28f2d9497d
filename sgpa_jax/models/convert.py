"""Converting a checkpoint once: a folder whose parameters need no more reordering, loaded like any other.

The folder is made under another name beside its own, and renamed once it is whole: stopped at any moment, there is
either no conversion or a whole one, and the next attempt clears away what the last one left.
"""

import shutil
from pathlib import Path

import sgpa_checkpoints

from sgpa_jax.errors import CheckpointError, UsageError
from sgpa_jax.files import PARTIAL, remove_folder
from sgpa_jax.models import orbax_cache
from sgpa_jax.models.fill import stream, target
from sgpa_jax.models.hub import SHIPPED_MODELS, resolve
from sgpa_jax.models.survey import architecture_of

_KEPT = {".json", ".jinja", ".txt"}


def convert_model(
    name_or_folder: str | Path, out: str | Path, *, revision: str | None = None, dtype: str | None = None
) -> Path:
    """Write a folder with the small files of a checkpoint and its parameters as Orbax keeps them; return it.

    Args:
        name_or_folder: a folder or a hub id of an audio language model or a wav2vec2.
        out: the folder to write: a new one, or an older conversion, which is replaced.
        revision: the hub's branch, tag or commit.
        dtype: of the parameters with two axes and more, `bfloat16` or `float32`; the default is what loading takes.

    Raises:
        CheckpointError: the checkpoint is incomplete, damaged or of another architecture.
        UsageError: `out` holds something else or cannot be written to, or an unknown name or dtype.
    """
    _, source = resolve(name_or_folder, "model", SHIPPED_MODELS, revision=revision)
    out = Path(out)
    if out.exists() and not orbax_cache.is_converted(out):
        raise UsageError(f"{out} exists and is no converted checkpoint; give a folder that is not there yet")
    if orbax_cache.is_converted(source):
        raise UsageError(f"{source} is converted already; give the folder that it was converted from")
    try:
        network = architecture_of(
            sgpa_checkpoints.read_json(source / "config.json"),
            sgpa_checkpoints.read_optional_json(source / "preprocessor_config.json"),
        )
        dtype = dtype or network.dtype
        slots = target(network.build, dtype=dtype).slots
        parameters = dict(stream(source, slots, network.rules, network.normalise))
        fresh, old = (out.absolute().with_name(f".{out.name[:100]}{mark}{PARTIAL}") for mark in ("", ".old"))
        try:
            out.absolute().parent.mkdir(parents=True, exist_ok=True)
            for path in (fresh, old):
                remove_folder(path)
            fresh.mkdir()
            for path in source.iterdir():
                if path.is_file() and path.suffix in _KEPT and path.name != sgpa_checkpoints.INDEX:
                    shutil.copyfile(path, fresh / path.name)
            orbax_cache.save(fresh, source, parameters, network.rules, dtype)
            if out.exists():
                out.rename(old)
            fresh.rename(out)
            shutil.rmtree(old, ignore_errors=True)
        except OSError as error:
            raise UsageError(f"cannot write {out}: {error.strerror}; choose a folder that can be written to") from error
        finally:
            remove_folder(fresh)
    except sgpa_checkpoints.FormatError as error:
        raise CheckpointError(str(error)) from error
    return out
