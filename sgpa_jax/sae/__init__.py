"""Sparse autoencoders on a decoder's residual stream: activations harvested, trained on, measured and exported."""

from sgpa_jax.sae.config import (
    KINDS,
    NORMALISATIONS,
    PRESETS,
    Recipe,
    SAEConfig,
    TrainConfig,
    ard_paper,
    recipe_of,
    recommended,
)
from sgpa_jax.sae.corpus import Recording, read_manifest
from sgpa_jax.sae.decode import decode, decode_sparse, reconstruct
from sgpa_jax.sae.encode import encode, encode_sparse
from sgpa_jax.sae.export import LAYOUTS, export_sae, import_sae
from sgpa_jax.sae.harvest import PROMPT, HarvestConfig, audio_residuals, harvest
from sgpa_jax.sae.losses import Paths
from sgpa_jax.sae.metrics import Metrics, dead_frac, measure
from sgpa_jax.sae.normalise import Normalisation, fit_normalisation, fold
from sgpa_jax.sae.paths import choose_paths
from sgpa_jax.sae.planted import Planted, Recovery, planted, recovery
from sgpa_jax.sae.run import TrainedSAE, load_sae, train
from sgpa_jax.sae.sharding import batch_sharding, state_sharding
from sgpa_jax.sae.shuffle import ShuffledRows
from sgpa_jax.sae.splice import Spliced, splice
from sgpa_jax.sae.state import SAEState, init_sae
from sgpa_jax.sae.store import ActivationStore, open_store
from sgpa_jax.sae.train import Stats, TrainState, start_training, train_step

__all__ = [
    "KINDS",
    "LAYOUTS",
    "NORMALISATIONS",
    "PRESETS",
    "PROMPT",
    "ActivationStore",
    "HarvestConfig",
    "Metrics",
    "Normalisation",
    "Paths",
    "Planted",
    "Recipe",
    "Recording",
    "Recovery",
    "SAEConfig",
    "SAEState",
    "ShuffledRows",
    "Spliced",
    "Stats",
    "TrainConfig",
    "TrainState",
    "TrainedSAE",
    "ard_paper",
    "audio_residuals",
    "batch_sharding",
    "choose_paths",
    "dead_frac",
    "decode",
    "decode_sparse",
    "encode",
    "encode_sparse",
    "export_sae",
    "fit_normalisation",
    "fold",
    "harvest",
    "import_sae",
    "init_sae",
    "load_sae",
    "measure",
    "open_store",
    "planted",
    "read_manifest",
    "recipe_of",
    "recommended",
    "reconstruct",
    "recovery",
    "splice",
    "start_training",
    "state_sharding",
    "train",
    "train_step",
]
