"""Comparison with the reference implementation: it agrees on every family, and a fault is named where it is."""

import shutil
import sys
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file
from train.pocket_export import export_folder
from train.recipe import RECIPES

from sgpa_jax.audio import Clip
from sgpa_jax.errors import AudioError, CheckpointError, UsageError
from sgpa_jax.models import AudioLM, fill, verify, verify_model

pytestmark = pytest.mark.filterwarnings("ignore")  # transformers' own

RATE_HZ = 16000
FAULTS = [
    ("flamingo", "encoder.layers.1.up.bias", "encoder.layers.1"),
    ("flamingo", "projector.second.kernel", "projector"),
    ("voxtral", "decoder.layers.1.down.kernel", "decoder.layers.1"),
    ("voxtral", "decoder.head.table", "logits"),
    ("lfm2", "encoder.layers.1.conv.norm.variance", "encoder.layers.1"),
    ("lfm2", "decoder.layers.2.conv.kernel", "decoder.layers.2"),
    ("wav2vec2", "convolutions.3.norm.bias", "convolutions.3"),
    ("wav2vec2", "layers.0.ffn_norm.scale", "encoder.layers.0"),
]
"""Families, parameters of ours, and the stages that they belong to."""
FAMILIES = sorted({name for name, _, _ in FAULTS})


def _lfm2(folder):
    """The pocket model of that family, untrained, every number random."""
    recipe = RECIPES["pocket-lfm2"]
    config = recipe.config
    recipe = replace(
        recipe,
        config=replace(
            config,
            encoder=replace(config.encoder, n_layers=2),
            decoder=replace(config.decoder, attends=(False, True, False)),
        ),
    )
    params = nnx.state(AudioLM(recipe.config, rngs=nnx.Rngs(0)))
    rng = np.random.default_rng(0)
    for path, leaf in nnx.to_flat_state(params):
        noise = jnp.asarray(rng.normal(size=leaf.shape), jnp.float32)
        leaf.set_value(leaf[...] + 0.1 * (jnp.abs(noise) if path[-1] == "variance" else noise))
    export_folder(folder, recipe, params)


@pytest.fixture(scope="module")
def folders(tmp_path_factory, flamingo, voxtral, wav2vec2):
    lfm2 = tmp_path_factory.mktemp("lfm2")
    _lfm2(lfm2)
    return {"flamingo": flamingo.folder, "voxtral": voxtral.folder, "lfm2": lfm2, "wav2vec2": wav2vec2}


@pytest.fixture(scope="module")
def clips():
    """Recordings whose buckets are what the reference pads them to, so that each layer is compiled once."""
    rng = np.random.default_rng(0)
    noise = {n: Clip((0.1 * rng.standard_normal(n)).astype(np.float32), RATE_HZ) for n in (24000, 31000)}
    return {"flamingo": noise[31000], "voxtral": noise[31000], "lfm2": noise[24000], "wav2vec2": noise[24000]}


@pytest.fixture(scope="module", autouse=True)
def quickly():
    """Compile without most optimisations: here compiling costs ten times as much as running."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(verify, "_ANSWER_TOKENS", 8)


@pytest.fixture
def fault(monkeypatch):
    """Change one parameter on its way into our network."""
    stream = fill.stream

    def damage(target):
        def streamed(*args):
            for path, array in stream(*args):
                yield (
                    path,
                    array + 0.05 * jax.random.normal(jax.random.key(0), array.shape) if path == target else array,
                )

        monkeypatch.setattr(fill, "stream", streamed)

    return damage


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_agrees_with_its_reference(name, folders, clips):
    found = verify_model(folders[name], clips[name])
    assert found.first_divergence is None, found.first_divergence
    names = [stage.name for stage in found.stages]
    assert len(names) == len(set(names))
    assert {"features", "encoder.inputs", "encoder.layers.1", "logits", "answer"} <= set(names)
    assert ("prompt" in names) == (name == "flamingo"), found.notes
    assert (found.emissions is None) == (name != "wav2vec2")
    assert max(stage.carried or 0 for stage in found.stages) < 1e-3
    assert min(stage.scale for stage in found.stages) > 0


@pytest.mark.parametrize("name, path, stage", FAULTS)
def test_a_fault_is_named_where_it_is(name, path, stage, folders, clips, fault):
    fault(path)
    found = verify_model(folders[name], clips[name])
    assert found.first_divergence is not None
    assert found.first_divergence.name == stage
    # The stages behind it are fed with the reference's, so that they agree.
    assert {other.name for other in found.stages if not other.within} <= {stage, "logits", "answer"}


def test_bfloat16_has_its_own_tolerance(folders, clips):
    found = verify_model(folders["wav2vec2"], clips["wav2vec2"], dtype="bfloat16")
    assert found.first_divergence is None, found.first_divergence
    assert max(stage.error for stage in found.stages) > 1e-3


def test_a_prompt_that_is_laid_out_otherwise_is_named(folders, clips, tmp_path):
    folder = shutil.copytree(folders["flamingo"], tmp_path / "other")
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text().replace("helpful", "helpless"))
    worst = verify_model(folder, clips["flamingo"]).first_divergence
    assert worst is not None and worst.name == "prompt"


def test_what_cannot_be_compared_is_refused_in_a_sentence(folders, clips, tmp_path, monkeypatch):
    with pytest.raises(AudioError, match="2 s at most"):
        verify_model(folders["flamingo"], Clip(np.full(3 * RATE_HZ, 0.01, np.float32), RATE_HZ))
    with pytest.raises(UsageError, match="float64"):
        verify_model(folders["flamingo"], clips["flamingo"], dtype="float64")
    with pytest.raises(CheckpointError, match=r"config\.json"):
        verify_model(tmp_path, clips["flamingo"])
    folder = shutil.copytree(folders["voxtral"], tmp_path / "damaged")
    tensors = load_file(folder / "model.safetensors")
    tensors.pop(next(iter(tensors)))
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match="does not fit"):
        verify_model(folder, clips["flamingo"])
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UsageError, match="pip install torch"):
        verify_model(folders["flamingo"], clips["flamingo"])
