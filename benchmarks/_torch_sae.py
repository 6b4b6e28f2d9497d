"""A TopK autoencoder in plain torch, the way each step is fastest on a CPU: the peer of `sae.py`.

`dense` decodes latents scattered into an array of B × M; `bag` decodes by `embedding_bag`, which gathers rows and sums
them. Selection is `torch.topk`, unsorted; Adam is the fused one or the one over lists, whichever the caller asks for.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional


@dataclass(frozen=True)
class TorchSettings:
    """Which of torch's ways to take."""

    decode: str
    threads: int
    fused: bool = True

    def __str__(self) -> str:
        return f"{self.decode}, {self.threads} threads, {'fused' if self.fused else 'foreach'} Adam"


class TorchSAE:
    """Weights of an autoencoder and what is timed of it."""

    def __init__(self, weights: dict[str, np.ndarray], k: int, settings: TorchSettings, learning_rate: float):
        names = ("w_enc_md", "b_enc_m", "w_dec_md", "b_dec_d")
        self.w_enc, self.b_enc, self.w_dec, self.b_dec = self.parameters = [
            torch.nn.Parameter(torch.tensor(weights[name])) for name in names
        ]
        self.k, self.decode_by = k, settings.decode
        fused = settings.fused
        self.adam = torch.optim.Adam(self.parameters, lr=learning_rate, fused=fused, foreach=not fused)

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The k latents of every row and which they are."""
        values, index = torch.topk(functional.linear(x - self.b_dec, self.w_enc, self.b_enc), self.k, sorted=False)
        return torch.relu(values), index

    def decode(self, z: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """Reconstruction."""
        if self.decode_by == "bag":
            return functional.embedding_bag(index, self.w_dec, per_sample_weights=z, mode="sum") + self.b_dec
        dense = torch.zeros(len(z), len(self.w_dec)).scatter(1, index, z)
        return dense @ self.w_dec + self.b_dec

    def step(self, x: torch.Tensor) -> float:
        """One step as `train_step` takes it: squared error, unit rows, gradients across them, Adam."""
        loss = (x - self.decode(*self.encode(x))).square().sum(dim=1).mean()
        self.adam.zero_grad(set_to_none=True)
        loss.backward()
        with torch.no_grad():
            slope = self.w_dec.grad
            assert slope is not None
            slope -= (slope * self.w_dec).sum(dim=1, keepdim=True) * self.w_dec
            self.adam.step()
            self.w_dec /= torch.linalg.vector_norm(self.w_dec, dim=1, keepdim=True).clamp_min(1e-12)
        return loss.item()
