"""Damaged weights, configurations, tokenizers and archives: read, or refused in one sentence, and never unpickled."""

import random
import re
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sgpa_checkpoints
from safetensors.numpy import save

from sgpa_jax.archive.coalitions import SCHEMA, read_file, read_sample
from sgpa_jax.errors import CheckpointError
from sgpa_jax.models import orbax_cache
from sgpa_jax.models.chat import chat_format
from sgpa_jax.models.fill import target
from sgpa_jax.models.survey import architecture_of

TENSORS = {
    "a.weight": np.arange(12, dtype=np.float32).reshape(3, 4),
    "b": np.zeros(3, np.int8),
    "c": np.ones((), np.float16),
}


@pytest.fixture
def headers(campaign: Any) -> Callable[[bytes, random.Random], bytes]:
    """Damage to a safetensors file: half of the time to the JSON of its header, with a length that fits it."""

    def damage(data: bytes, rng: random.Random) -> bytes:
        if rng.random() < 0.5:
            return campaign.bytes(data, rng)
        (length,) = struct.unpack("<Q", data[:8])
        header = campaign.json(data[8 : 8 + length], rng)
        return struct.pack("<Q", len(header)) + header + data[8 + length :]

    return damage


def test_model_weights(campaign: Any, headers: Any):
    def read(path: Path) -> None:
        try:
            for _, array in sgpa_checkpoints.read_tensors(path.parent):
                array.astype(np.float32, copy=True)
        except sgpa_checkpoints.FormatError as error:
            raise CheckpointError(str(error)) from error

    campaign("safetensors", save(TENSORS), read, damage=headers, file="model.safetensors")


def test_coalitions(campaign: Any, headers: Any):
    masks_cp, values_ck = np.eye(4, dtype=bool), np.ones((4, 2))
    arrays = {"coalitions": np.packbits(masks_cp, axis=1), "outputs": np.ones((4, 2), np.float32)}
    sample = {"sample": np.packbits(masks_cp, axis=1), "values": values_ck}
    whole = save(arrays | sample, {"schema": SCHEMA, "key": "00", "players": "4"})

    def read(path: Path) -> None:
        read_file(path)
        read_sample(path, "00")

    campaign("coalitions", whole, read, damage=headers, file="coalitions.safetensors")


@pytest.mark.parametrize("family", ["qwen2_audio", "lfm2_audio", "voxtral", "wav2vec2"])
def test_configurations(campaign: Any, tiny_folder: Callable[[str], Path], family: str):
    folder = tiny_folder(family)
    preprocessor = sgpa_checkpoints.read_optional_json(folder / "preprocessor_config.json")

    def read(path: Path) -> None:
        try:
            architecture_of(sgpa_checkpoints.read_json(path), preprocessor)
        except sgpa_checkpoints.FormatError as error:
            raise CheckpointError(str(error)) from error

    campaign(f"{family}-config", (folder / "config.json").read_bytes(), read, structured=True, file="config.json")


@pytest.mark.parametrize("family", ["qwen2_audio", "voxtral"])
def test_tokenizers(campaign: Any, tiny_folder: Callable[[str], Path], family: str):
    folder = tiny_folder(family)
    for name in ("config.json", "generation_config.json"):
        shutil.copy(folder / name, campaign.folder)

    def read(path: Path) -> None:
        chat = chat_format(family, path.parent)
        chat.text(chat.response_ids("the lamp is red"))

    whole = (folder / "tokenizer.json").read_bytes()
    campaign(f"{family}-tokenizer", whole, read, structured=True, file="tokenizer.json")


@pytest.mark.parametrize("family", ["qwen2_audio", "lfm2_audio"])
def test_networks_of_damaged_configurations(campaign: Any, tiny_folder: Callable[[str], Path], family: str):
    """Those that can be read are built as well, for their shapes, and do not fit the weights or do."""
    folder = tiny_folder(family)
    preprocessor = sgpa_checkpoints.read_optional_json(folder / "preprocessor_config.json")
    headers = next(iter(sgpa_checkpoints.read_headers(folder).values()))

    def read(path: Path) -> None:
        network = architecture_of(sgpa_checkpoints.read_json(path), preprocessor)
        shapes = {name: slot.shape for name, slot in target(network.build).slots.items()}
        if problems := sgpa_checkpoints.check(headers, network.rules, shapes, normalise=network.normalise):
            raise CheckpointError(problems[0])

    whole, cases = (folder / "config.json").read_bytes(), max(8, campaign.cases // 200)
    campaign(f"{family}-network", whole, read, damage=_numbers, file="config.json", cases=cases)


def _numbers(data: bytes, rng: random.Random) -> bytes:
    """A configuration with another whole number in one place, which may well be one."""
    found = list(re.finditer(rb"(?<=: )\d+(?=[,}])", data))
    match = rng.choice(found)
    number = rng.choice((1, 2, 3, 5, 7, 16, 17, 32, 4096, 2**22))
    return data[: match.start()] + str(number).encode() + data[match.end() :]


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A converted folder whose source is gone, and what reads its parameters."""
    folder = tmp_path_factory.mktemp("converted")
    source = folder / "source"
    source.mkdir()
    (source / "model.safetensors").write_bytes(save({"a": np.ones((4, 4), np.float32)}))
    rules = (sgpa_checkpoints.Rule("a", "a"),)
    orbax_cache.save(folder, source, {"a": jnp.ones((4, 4))}, rules, "float32")
    shutil.rmtree(source)
    slots = {"a": jax.ShapeDtypeStruct((4, 4), jnp.float32)}

    def read(path: Path) -> None:
        try:
            orbax_cache.restore(path, slots, rules, "float32")
        except (orbax_cache.StaleError, sgpa_checkpoints.FormatError) as error:
            raise CheckpointError(str(error)) from error

    return folder, read


def test_stamps_of_converted_folders(campaign: Any, converted: Any):
    folder, read = converted
    shutil.copytree(folder, campaign.folder, dirs_exist_ok=True)
    whole = (folder / "converted.json").read_bytes()
    cases = campaign.cases // 4  # a stamp that says the same as before is followed by Orbax, which takes its time
    campaign(
        "converted.json", whole, lambda path: read(path.parent), structured=True, file="converted.json", cases=cases
    )


def test_parameters_of_converted_folders(campaign: Any, converted: Any):
    folder, read = converted
    shutil.copytree(folder, campaign.folder, dirs_exist_ok=True)
    files = [path for path in sorted((folder / "parameters").rglob("*")) if path.is_file()]
    for path in files:
        file = path.relative_to(folder).as_posix()
        name, cases = re.sub("[0-9a-f]{32}", "", file), max(8, campaign.cases // len(files))
        campaign(name, path.read_bytes(), lambda _: read(campaign.folder), file=file, cases=cases)
