"""Damaged folders of activations, autoencoders and concepts: read, or refused in one sentence."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from sgpa_jax.concepts import ConceptBank
from sgpa_jax.concepts.bank import Concept, Representative
from sgpa_jax.sae import (
    Paths,
    Recipe,
    SAEConfig,
    TrainConfig,
    export_sae,
    import_sae,
    load_sae,
    open_store,
    train,
)  # fmt: skip


@pytest.fixture(scope="module")
def run(activations: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps."""
    sae = SAEConfig(width=8, n_latents=16, k=2)
    recipe = Recipe(sae, TrainConfig(n_steps=2, batch=40, learning_rate=1e-3))
    folder = tmp_path_factory.mktemp("run")
    train(open_store(activations), 1, recipe, folder, paths=Paths("dense", "lax"))
    return folder


@pytest.mark.parametrize("file", ["harvest.json", "index.jsonl", "shard-00001.safetensors"])
def test_activations(campaign: Any, activations: Path, file: str):
    shutil.copytree(activations, campaign.folder, dirs_exist_ok=True)

    def read(path: Path) -> None:
        store = open_store(path.parent)
        for shard in range(len(store.rows_in_shard)):
            store.rows(shard, 1)

    campaign(file, (activations / file).read_bytes(), read, structured=file.startswith(("h", "i")), file=file)


@pytest.mark.parametrize("layout", ["saelens", "sparsify"])
def test_autoencoders_of_other_libraries(campaign: Any, run: Path, layout: str):
    export_sae(load_sae(run).folded, campaign.folder, layout)
    weights = next(path.name for path in campaign.folder.glob("*.safetensors"))
    for file in ("cfg.json", weights):
        whole = (campaign.folder / file).read_bytes()
        campaign(
            f"{layout} {file}",
            whole,
            lambda path: import_sae(path.parent),
            structured=file == "cfg.json",
            file=file,
            cases=campaign.cases // 2,
        )


def test_runs(campaign: Any, run: Path):
    shutil.copytree(run, campaign.folder, dirs_exist_ok=True)
    campaign(
        "run.json",
        (run / "run.json").read_bytes(),
        lambda path: load_sae(path.parent),
        structured=True,
        file="run.json",
        cases=campaign.cases // 8,
    )


def test_checkpoints_of_runs(campaign: Any, run: Path):
    shutil.copytree(run, campaign.folder, dirs_exist_ok=True)
    files = [path for path in sorted((run / "checkpoints").rglob("*")) if path.is_file()]
    for path in files:
        file = path.relative_to(run).as_posix()
        # Orbax names files by random numbers, which must not decide the damage.
        name, cases = re.sub("[0-9a-f]{32}", "", file), max(8, campaign.cases // len(files))
        campaign(name, path.read_bytes(), lambda _: load_sae(campaign.folder), file=file, cases=cases)


def test_banks(campaign: Any):
    clips = (Representative("a", Path("a.wav"), 1.0, 0.5),)
    concepts = tuple(Concept(latent, "bell", 0.5, 0.1, 3, top=clips, bottom=clips) for latent in (3, 5))
    ConceptBank({"name": "toy"}, {"digest": "00"}, concepts, {"clips": 3}).save(campaign.folder)
    for path in sorted(campaign.folder.iterdir()):
        campaign(path.suffix, path.read_bytes(), _bank, structured=path.suffix == ".json", file=path.name)


def _imported(path: Path) -> Any:
    return import_sae(path.parent)


def _bank(path: Path) -> Any:
    return ConceptBank.load(path.parent)
