"""transformers' short convolution of LFM2, made to read given rows instead of the neighbours when told which.

It takes the place of the fallback that transformers uses without its CUDA kernels, on the same weights, and is no
slower; transformers' own zeroes masked rows, which has no equivalent once absent tokens are left out.
"""

from typing import Any

import torch
from transformers.models.lfm2.modeling_lfm2 import Lfm2ShortConv


class TapConv(Lfm2ShortConv):
    """Weights and names of the convolution that it replaces."""

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, hidden_states: torch.Tensor, attention_mask: Any = None, before: Any = None, **_: Any
    ) -> torch.Tensor:
        """Convolve `hidden_states` [B, T, D]; `before` [B, T, K] are indices into T, -1 for zeros."""
        if attention_mask is not None:
            hidden_states = hidden_states * attention_mask[:, :, None]
        gate, out_gate, content = self.in_proj(hidden_states).chunk(3, dim=-1)
        return self.out_proj(out_gate * _convolved(gate * content, self.conv.weight[:, 0].T, before))


def with_taps(network: Any) -> Any:
    """Replace every convolution of an LFM2 by this one, in place."""
    for layer in network.model.layers:
        if isinstance(getattr(layer, "conv", None), Lfm2ShortConv):
            layer.conv.__class__ = TapConv
    return network


def _convolved(inputs_btd: torch.Tensor, weight_kd: torch.Tensor, before_btk: torch.Tensor | None) -> torch.Tensor:
    """Depthwise causal convolution, its last tap for the token itself."""
    mixed = inputs_btd * weight_kd[-1]
    for k in range(1, len(weight_kd)):
        if before_btk is None:
            mixed[:, k:] += inputs_btd[:, :-k] * weight_kd[-1 - k]
        else:
            index = before_btk[:, :, k - 1, None]
            earlier = inputs_btd.gather(1, index.clamp(min=0).expand(-1, -1, inputs_btd.shape[2]))
            mixed += earlier * (index >= 0) * weight_kd[-1 - k]
    return mixed
