"""Disks that are full and folders that are read-only: one sentence, and nothing half written is left."""

import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import sgpa_jax
from sgpa_jax.audio import Clip, write_wav
from sgpa_jax.batch.outcome import Outcome
from sgpa_jax.batch.tables import write_part
from sgpa_jax.cli import app
from sgpa_jax.errors import SgpaError, UsageError
from sgpa_jax.models.convert import convert_model
from sgpa_jax.sae import Paths, Recipe, SAEConfig, TrainConfig, load_sae, open_store, train

RECIPE = Recipe(SAEConfig(width=8, n_latents=512, k=2), TrainConfig(n_steps=2, batch=40, learning_rate=1e-3))
ROOM_BYTES = 2**13


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own with hardly any room."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={2**18}", "none", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        free = os.statvfs(folder)
        (folder / "filler").write_bytes(b"x" * (free.f_bavail * free.f_frsize - ROOM_BYTES))
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture(params=["disk", "limit"])
def full(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, Callable[[], AbstractContextManager]]]:
    """A folder, and what makes large files impossible in it: a full disk, or a limit on the size of a file."""
    if request.param == "disk":
        yield request.getfixturevalue("small_disk"), nullcontext
        return

    @contextmanager
    def limited() -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM_BYTES, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    (tmp_path / "filler").touch()
    yield tmp_path, limited


@pytest.fixture
def read_only(small_disk: Path) -> Path:
    """A disk that cannot be written to, whoever asks."""
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    return small_disk


def refused(*arguments: object) -> None:
    """Check that a command says in one sentence that it cannot write."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="sgpa")
    assert result.exit_code == 2, result.exception
    (line,) = (line for line in result.stderr.splitlines() if not line.startswith("note: "))
    assert line.startswith("sgpa: cannot write")


def left(folder: Path) -> list[str]:
    """Files in a folder but for the one that fills it."""
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in found if name != "filler")


@pytest.fixture
def wav(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second of noise, on another disk."""
    path = tmp_path_factory.mktemp("recordings") / "noise.wav"
    write_wav(path, Clip(np.random.default_rng(0).uniform(-0.1, 0.1, 16_000).astype(np.float32), 16_000))
    return path


@pytest.fixture
def aligned(monkeypatch: pytest.MonkeyPatch, explain: Any, wav: Path) -> None:
    """Stands in for what takes long: an alignment and an explanation that are there already."""
    from sgpa_jax.align import Alignment, Word

    words = tuple(Word("lamp" * 50, 0.001 * n, 0.001 * n + 0.001) for n in range(500))
    alignment = Alignment(words, 1.0, "lamp", "given", "", "given", "given")
    monkeypatch.setattr(sgpa_jax, "align", lambda *_, **__: alignment, raising=False)
    monkeypatch.setattr(sgpa_jax, "explain", lambda *_, **__: explain(), raising=False)


def test_align_and_explain(full: Any, aligned: None, wav: Path):
    folder, limit = full
    with limit():
        refused("align", wav, "--transcript", "lamp", "--out", folder / "out" / "words.json")
        refused("explain", wav, "--transcript", "lamp", "--out", folder / "out")
    assert left(folder) == []


def test_convert(full: Any):
    folder, limit = full
    with limit():
        refused("convert", "pocket", folder / "out")
    assert [path.name for path in folder.iterdir()] == ["filler"]


def test_sae_train(full: Any, activations: Path):
    folder, limit = full
    with limit(), pytest.raises(UsageError, match="cannot write"):
        train(open_store(activations), 1, RECIPE, folder / "run", paths=Paths("dense", "lax"))
    assert left(folder / "run") == ["log.jsonl", "run.json"]
    (folder / "filler").unlink()
    assert train(open_store(activations), 1, RECIPE, folder / "run", paths=Paths("dense", "lax")).step == 2
    assert load_sae(folder / "run").step == 2


def test_tables(full: Any, explain: Any):
    folder, limit = full
    noise = "".join(map(chr, np.random.default_rng(0).integers(33, 1000, 20_000)))
    with limit(), pytest.raises(UsageError, match="cannot write"):
        write_part(folder, 0, [Outcome("a", "a.wav", explain(noise), None, None, 0.1)], key="00")
    assert not any(name.startswith("items") or "partial" in name for name in left(folder))


def test_a_disk_that_is_read_only(read_only: Path, aligned: None, wav: Path, activations: Path, explain: Any):
    refused("align", wav, "--transcript", "lamp", "--out", read_only / "words.json")
    refused("explain", wav, "--transcript", "lamp", "--out", read_only / "out")
    with pytest.raises(UsageError, match="cannot write"):
        convert_model("pocket", read_only / "out")
    with pytest.raises(UsageError, match="cannot write"):
        train(open_store(activations), 1, RECIPE, read_only / "run", paths=Paths("dense", "lax"))
    with pytest.raises(SgpaError, match="cannot write"):
        write_part(read_only, 0, [Outcome("a", "a.wav", explain(), None, None, 0.1)], key="00")
    assert left(read_only) == []
