"""SAELens's TopK autoencoder with given weights: a peer of `sae.py`, where it is installed.

`sparse` takes its COO activations, which `torch.sparse.mm` decodes, else they are scattered into an array of B × M. A
step is its trainer's: `training_forward_pass`, gradients clipped at 1, Adam; decoder rows are free there, as latents
count times the norm of theirs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig  # pyright: ignore[reportMissingImports]
from sae_lens.saes.sae import TrainStepInput  # pyright: ignore[reportMissingImports]


@dataclass(frozen=True)
class SAELensSettings:
    """Which of its ways to take."""

    sparse: bool
    threads: int

    def __str__(self) -> str:
        return f"{'sparse' if self.sparse else 'dense'}, {self.threads} threads"


def saelens_call(
    case: str,
    weights: dict[str, np.ndarray],
    k: int,
    x: torch.Tensor,
    learning_rate: float,
    settings: SAELensSettings,
) -> Callable[[], Any]:
    """Return what is to be timed: `encode` and `decode` return latents and reconstructions, `train` the step's loss."""
    n_latents, width = weights["w_dec_md"].shape
    sae = TopKTrainingSAE(
        TopKTrainingSAEConfig(d_in=width, d_sae=n_latents, k=k, use_sparse_activations=settings.sparse)
    )
    given = {
        "W_enc": weights["w_enc_md"].T.copy(), "b_enc": weights["b_enc_m"],
        "W_dec": weights["w_dec_md"], "b_dec": weights["b_dec_d"],
    }  # fmt: skip
    with torch.no_grad():
        for name, array in given.items():
            getattr(sae, name).copy_(torch.tensor(array))
        z = sae.encode(x)
    adam = torch.optim.Adam(sae.parameters(), lr=learning_rate, fused=True)

    def step() -> float:
        loss = sae.training_forward_pass(TrainStepInput(x, {}, None, 0, False)).loss
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(sae.parameters(), 1.0)
        adam.step()
        return loss.item()

    def call() -> Any:
        torch.set_num_threads(settings.threads)
        if case == "train":
            return step()
        with torch.no_grad():
            return sae.encode(x) if case == "encode" else sae.decode(z)

    return call


def as_array(returned: Any) -> np.ndarray:
    """What a call returned, as one dense array."""
    if not isinstance(returned, torch.Tensor):
        return np.asarray(returned)
    return (returned.to_dense() if returned.is_sparse else returned).numpy()
