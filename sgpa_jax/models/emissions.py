"""What an acoustic model hears, frame by frame: the input of forced alignment."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True, eq=False)
class Emissions:
    """Log-probabilities float32[T, V] of `labels` in frames of `frame_s` seconds, the first beginning at `offset_s`.

    `blank` is the index of the CTC blank; None when every frame is labelled by itself (phones).
    """

    log_probs_tv: Float[np.ndarray, "T V"]
    frame_s: float
    offset_s: float
    labels: tuple[str, ...]
    blank: int | None
