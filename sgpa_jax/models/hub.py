"""From what a user names to a folder on this machine: a shipped model, a local folder, or a repository on the hub.

A shipped name wins over a folder, and a folder over the hub. From the hub come only the files that are read here:
JSON, chat templates, vocabularies and `model*.safetensors`; code and pickles are never fetched.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import sgpa_checkpoints
from sgpa_checkpoints import TensorHeader

from sgpa_jax.errors import CheckpointError, UsageError, unknown_name

SHIPPED_MODELS = {"pocket": "pocket", "pocket-lfm2": "pocket_lfm2", "pocket-sounds": "pocket_sounds"}
"""Names of the audio language models that ship, and their folders."""

_HUB_ID = re.compile(r"(?P<name>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>[\w./-]+))?")
_WANTED = ("*.json", "*.jinja", "*.txt", "model*.safetensors")
# Parts of an LFM2-Audio repository that turn codes into sound, which nothing here does.
_UNWANTED = ("*/*",)


class Description(NamedTuple):
    """What is known of a checkpoint without its values; `headers` holds dtype and shape of each tensor by name."""

    name: str
    config: dict[str, Any]
    preprocessor: dict[str, Any] | None
    headers: dict[str, TensorHeader]


def resolve(
    name_or_folder: str | Path, kind: str, shipped: Mapping[str, str], *, revision: str | None = None
) -> tuple[str, Path]:
    """Return the name to record (a hub id with its commit) and the folder to read, fetched from the hub if need be.

    Args:
        name_or_folder: a shipped name, a folder, or a hub id `organisation/name` or `organisation/name@revision`.
        kind: what is looked for, as errors call it.
        shipped: shipped name → shipped folder.
        revision: a branch, tag or commit of the hub.

    Raises:
        CheckpointError: the hub has no such repository, wants a licence to be accepted, or cannot be reached.
        UsageError: neither a shipped name nor a folder nor a hub id; or a revision of what has none.
    """
    place = _place(name_or_folder, kind, shipped, revision)
    if not isinstance(place, _Repository):
        return place
    import huggingface_hub

    with _told(place):
        folder = huggingface_hub.snapshot_download(
            place.name, revision=place.revision, allow_patterns=list(_WANTED), ignore_patterns=list(_UNWANTED)
        )
    # A snapshot's folder is called after its commit.
    return f"{place.name}@{Path(folder).name}", Path(folder)


def describe(
    name_or_folder: str | Path, kind: str, shipped: Mapping[str, str], *, revision: str | None = None
) -> Description:
    """Return configuration and headers of a checkpoint; of the hub's only those bytes are fetched.

    Arguments and errors are those of `resolve`.

    Raises:
        sgpa_checkpoints.FormatError: a file is missing or damaged.
    """
    place = _place(name_or_folder, kind, shipped, revision)
    if isinstance(place, _Repository):
        return _describe_repository(place)
    name, folder = place
    return Description(
        name,
        sgpa_checkpoints.read_json(folder / "config.json"),
        sgpa_checkpoints.read_optional_json(folder / "preprocessor_config.json"),
        {name: tensor for header in sgpa_checkpoints.read_headers(folder).values() for name, tensor in header.items()},
    )


class _Repository(NamedTuple):
    name: str
    revision: str | None


def _place(
    name_or_folder: str | Path, kind: str, shipped: Mapping[str, str], revision: str | None
) -> tuple[str, Path] | _Repository:
    given = str(name_or_folder)
    folder = sgpa_checkpoints.shipped_folder(shipped[given]) if given in shipped else Path(name_or_folder)
    if given and folder.is_dir():
        if revision is not None:
            raise UsageError(f"{given} is on this machine and has no revision {revision!r}; leave the revision out")
        return (given if given in shipped else folder.resolve().name), folder
    match = _HUB_ID.fullmatch(given)
    if match is None:
        raise unknown_name(f"{kind} (no such folder, and no hub id organisation/name)", given, shipped)
    if revision is not None and match["revision"] not in (None, revision):
        raise UsageError(f"{given} names one revision and {revision!r} is another; give one of them")
    return _Repository(match["name"], revision or match["revision"])


def _describe_repository(place: _Repository) -> Description:
    import huggingface_hub

    files = huggingface_hub.HfFileSystem()
    with _told(place):
        info = huggingface_hub.HfApi().model_info(place.name, revision=place.revision, files_metadata=True)
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}

    def local(name: str) -> Path:
        with _told(place):
            return Path(huggingface_hub.hf_hub_download(place.name, name, revision=info.sha))

    def header(name: str) -> dict[str, TensorHeader]:
        path = f"{place.name}@{info.sha}/{name}"

        def read(start: int, end: int) -> bytes:
            # Without a cache it asks for these bytes alone, and not for megabytes behind them.
            with _told(place), files.open(path, "rb", cache_type="none") as file:
                file.seek(start)
                data = file.read(end - start)
            assert isinstance(data, bytes)
            return data

        return sgpa_checkpoints.read_header(f"{place.name}/{name}", sizes[name], read)

    config = sgpa_checkpoints.read_json(local("config.json"))
    preprocessor = "preprocessor_config.json"
    if "model.safetensors" in sizes:
        shards = ["model.safetensors"]
    elif sgpa_checkpoints.INDEX in sizes:
        index = sgpa_checkpoints.read_json(local(sgpa_checkpoints.INDEX))
        shards = sgpa_checkpoints.shard_names(index, f"{place.name}/{sgpa_checkpoints.INDEX}")
        if missing := [name for name in shards if name not in sizes]:
            raise sgpa_checkpoints.FormatError(f"{place.name} lists shards that are not there: {', '.join(missing)}")
    else:
        raise sgpa_checkpoints.FormatError(f"{place.name} holds no model.safetensors; choose a repository with one")
    headers = {name: header(name) for name in shards}
    sgpa_checkpoints.check_shards(headers)
    return Description(
        f"{place.name}@{info.sha}",
        config,
        sgpa_checkpoints.read_json(local(preprocessor)) if preprocessor in sizes else None,
        {name: tensor for header in headers.values() for name, tensor in header.items()},
    )


@contextmanager
def _told(place: _Repository) -> Iterator[None]:
    """Tell in one sentence what the hub objects to."""
    from huggingface_hub import errors

    label = place.name if place.revision is None else f"{place.name}@{place.revision}"
    # Its HTTP library has changed before, so what that raises is taken from where the hub's own errors have it.
    unreachable = (errors.OfflineModeIsEnabled, OSError, errors.HTTPError)  # pyright: ignore[reportPrivateImportUsage]
    try:
        yield
    except errors.GatedRepoError as error:
        raise CheckpointError(
            f"{label} wants its licence to be accepted: do so at https://huggingface.co/{place.name}, then set HF_TOKEN"
        ) from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError) as error:
        raise CheckpointError(
            f"the hub has no {label} that this machine may read, and there is no such folder; check the name, or set "
            "HF_TOKEN for a private one"
        ) from error
    except errors.RemoteEntryNotFoundError as error:
        raise CheckpointError(f"{label} lacks a file that is needed ({_first_line(error)})") from error
    except unreachable as error:
        raise CheckpointError(
            f"{label} is no folder, and the hub cannot be reached for it ({_first_line(error)}); fetch it with "
            "`hf download` where there is a network, or give a folder"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
